"""What depends on no input is computed once, and constants of channels become part of their layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.quantize import constant_arithmetic, int8_recipe, int8_scheme, matmul_layers

aten = torch.ops.aten


class FrozenNorm(nn.Module):
    """Is torchvision's `FrozenBatchNorm2d`, which detectors' backbones have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.rand(channels) + 0.5)
        self.register_buffer("bias", torch.randn(channels))
        self.register_buffer("mean", torch.randn(channels))
        self.register_buffer("var", torch.exp(torch.randn(channels) * 3))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, var = (b.reshape(1, -1, 1, 1) for b in self.buffers())
        scale = weight * (var + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class Frozen(nn.Module):
    """Has frozen batch norms of various channels, as detectors do, and returns a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = FrozenNorm(8)
        self.last = nn.Conv2d(8, 4, 3)
        self.other = FrozenNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.last(torch.relu(self.norm(self.first(x)))))  # type: ignore[no-any-return]


class Untrained(Frozen):
    """Has the norms that a network begins with: one number everywhere."""

    def __init__(self) -> None:
        super().__init__()
        for norm in (self.norm, self.other):
            for name, value in (("weight", 1.0), ("bias", 0.0), ("mean", 0.0), ("var", 1.0)):
                norm.get_buffer(name).fill_(value)


class Scaled(nn.Module):
    """Scales a linear layer's channels, adds a table of positions and a mask, both made of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(6)[:, None] / 10000 ** (torch.arange(8) / 8)
        mask = torch.full((6, 6), -math.inf).triu(1)
        y = self.layer(x) * self.scale + torch.sin(places)
        return torch.softmax(y @ y.transpose(1, 2) + mask, -1)


def calls(shape: tuple[int, ...]) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(n).normal(size=shape).astype(np.float32),) for n in range(8)]


@pytest.mark.parametrize(
    ("net", "shape"), [(Frozen, (1, 3, 12, 12)), (Untrained, (1, 3, 12, 12)), (Scaled, (1, 6, 8))]
)
def test_the_same_is_computed(net: type[nn.Module], shape: tuple[int, ...]) -> None:
    """The outputs stay, nothing is computed without an input, and factors of channels are gone."""
    torch.manual_seed(0)
    example = torch.from_numpy(calls(shape)[0][0])
    module = torch.export.export(net().eval(), (example,)).module()
    written = matmul_layers.with_linear_layers(module)
    constant_arithmetic.compute_constants(written)
    torch.testing.assert_close(written(example), module(example), atol=1e-5, rtol=1e-5)

    targets = [node.target for node in written.graph.nodes if node.op == "call_function"]
    assert aten.mul.Tensor not in targets
    assert not {aten.rsqrt.default, aten.sin.default, aten.arange.default} & set(targets)
    names = {str(node.target) for node in written.graph.nodes if node.op == "get_attr"}
    assert set(written.state_dict()) <= names, "what nothing reads would be written into the file"


def test_frozen_norms_cost_int8_nothing() -> None:
    """A network of frozen batch norms reaches in int8 what its layers alone would."""
    torch.manual_seed(0)
    net, rows = Frozen().eval(), calls((1, 3, 12, 12))
    program = torch.export.export(net, (torch.from_numpy(rows[0][0]),))
    quantized = int8_recipe.quantize_by_int8_recipe(program, rows)
    run = int8_recipe.int8_recipe_runner(quantized.module)
    expected = np.stack([net(torch.from_numpy(row)).detach().numpy() for (row,) in rows])
    errors = np.stack([run(row)[0] for row in rows]) - expected
    assert np.square(errors).sum() < 10**-4.5 * np.square(expected).sum()  # 45 dB; step by step 41.6


class Masked(nn.Module):
    """Adds a stored mask to the scores of attention."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.register_buffer("mask", torch.full((6, 6), least).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x) for layer in self.layers)
        attended: Tensor = torch.softmax(query @ key.transpose(1, 2) / 4 + self.mask, -1) @ value
        return attended


@pytest.mark.parametrize("least", [-math.inf, -1e9, torch.finfo(torch.float32).min])
def test_a_mask_leaves_scores_their_steps(least: float) -> None:
    """Static int8 computes scores and a mask's sum in float; infinity made every output NaN."""
    torch.manual_seed(0)
    net, rows = Masked(least).eval(), calls((1, 6, 16))
    program = torch.export.export(net, (torch.from_numpy(rows[0][0]),))
    tensors = [int8_recipe.int8_recipe_tensors(row) for row in rows]
    run = int8_recipe.int8_recipe_runner(int8_recipe.quantize_by_static_int8_recipe(program, tensors).module)
    expected = np.stack([net(torch.from_numpy(row)).detach().numpy() for (row,) in rows])
    errors = np.stack([run(row)[0] for row in rows]) - expected
    assert np.square(errors).sum() < 10**-3 * np.square(expected).sum()


def test_outputs_that_are_no_numbers_win_no_comparison() -> None:
    """A way of int8 whose outputs are NaN reaches minus infinity, not NaN, which compares as anything."""

    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * math.nan

    x = torch.ones(1, 4)
    module = torch.fx.symbolic_trace(Nothing())
    assert int8_scheme.sqnr_of_int8_scheme([(x,)], module, [(x,)]) == -math.inf
