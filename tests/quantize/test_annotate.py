"""Tests of which operators are quantised: arithmetic on integers is left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.quantize import annotate, int8_recipe
from exporter.quantize.graphs import QUANTIZER_OF, rounded_graph_tensor

Positions = Callable[[Tensor], Tensor]
POSITIONS: dict[str, Positions] = {
    "plus a number": lambda x: torch.arange(x.shape[1]) + 0,
    "times a number": lambda x: torch.arange(x.shape[1]) * 2,
    "plus a tensor": lambda x: torch.arange(x.shape[1]) + torch.ones(1, dtype=torch.long),
    "counted from a mask": lambda x: (x > 0).long().cumsum(1) * (x > 0).long() + 1,
    "reshaped": lambda x: (torch.arange(x.shape[1]) + 3).reshape(1, -1),
    "of the tokens": lambda x: x + 1,
    "behind a maximum": lambda x: torch.relu(x + 1),
}


class Positioned(nn.Module):
    """Embeds tokens and their positions, then mixes them by a linear layer or a convolution."""

    def __init__(self, positions: Positions, linear: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(50, 16), nn.Embedding(60, 16)
        self.mix = nn.Linear(16, 8) if linear else nn.Conv1d(16, 8, 1)
        self.positions, self.linear = positions, linear

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.tokens(x) + self.places(self.positions(x))
        mixed: Tensor = self.mix(embedded if self.linear else embedded.transpose(1, 2))
        return mixed


@pytest.mark.parametrize("linear", [True, False], ids=["linear", "convolution"])
@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
def test_indices_stay_integers(positions: Positions, linear: bool) -> None:
    """A network that computes indices is quantised, and no tensor of integers is."""
    torch.manual_seed(0)
    module = Positioned(positions, linear).eval()
    tokens = [torch.randint(1, 50, (1, 8)) for _ in range(4)]
    program = torch.export.export(module, (tokens[0],))
    quantized = int8_recipe.quantize_by_int8_recipe(program, [(x.numpy(),) for x in tokens])
    dequantized = [n for n in quantized.module.graph.nodes if n.target in QUANTIZER_OF]
    rounded = [rounded_graph_tensor(node) for node in dequantized if rounded_graph_tensor(node) is not None]
    assert rounded
    assert all(tensor.meta["val"].is_floating_point() for tensor in rounded if tensor is not None)
    with torch.no_grad():
        expected = module(tokens[0]).numpy()
    actual = int8_recipe.int8_recipe_runner(quantized.module)((tokens[0].numpy(),))[0]
    assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()


PRECISE: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda x: x * x.sigmoid() + x,
    "concatenation": lambda x: torch.cat([x.sin(), x.cos() * 2], -1)[..., 4:12],
    "average": lambda x: x + torch.cat([x, x * 0.5], -1).mean(-1, keepdim=True),
}


class Precise(nn.Module):
    """Does some of its arithmetic in float64, as tables of positions are computed."""

    def __init__(self, arithmetic: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.arithmetic = nn.Linear(8, 8), arithmetic

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return self.arithmetic(y.double()).float() + y  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", PRECISE)
def test_arithmetic_in_float64_is_left_alone(kind: str) -> None:
    """No 8 bits are made of float64: what is computed in it stays so, and the rest is quantised."""
    torch.manual_seed(0)
    module = Precise(PRECISE[kind]).eval()
    samples = [torch.randn(1, 8) for _ in range(4)]
    program = torch.export.export(module, (samples[0],))
    quantized = int8_recipe.quantize_by_int8_recipe(program, [(x.numpy(),) for x in samples])
    with torch.no_grad():
        expected = module(samples[0]).numpy()
    actual = int8_recipe.int8_recipe_runner(quantized.module)((samples[0].numpy(),))[0]
    assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()


def test_numbers_beside_floats_are_still_quantised() -> None:
    """A number that is added to a float tensor becomes a tensor, as XNNPACK's addition needs two of them."""

    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    program = torch.export.export(Shifted().eval(), (torch.zeros(1, 8),))
    model = annotate.annotating_static_quantizer().transform_for_annotation(program.module())
    add = next(node for node in model.graph.nodes if node.target is torch.ops.aten.add.Tensor)
    assert [argument.op for argument in add.args] == ["placeholder", "get_attr"]
