"""Multiplications by stored matrices are quantised as the linear layers that they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.quantize import int8_recipe, matmul_layers

WIDTH, OUT = 24, 32


class Multiplication(nn.Module):
    """Multiplies by two matrices in one of the ways that people write it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        first = (OUT, WIDTH) if way in ("T", "transpose", "einsum") else (WIDTH, OUT)
        self.way = way
        self.first = nn.Parameter(torch.randn(first) / WIDTH**0.5)
        self.bias = nn.Parameter(torch.randn(OUT))
        self.last = nn.Linear(OUT, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.multiply(x)))  # type: ignore[no-any-return]

    def multiply(self, x: Tensor) -> Tensor:
        if self.way == "addmm":
            return torch.addmm(self.bias, x.view(-1, WIDTH), self.first).view(1, -1, OUT)
        if self.way == "mm":
            return torch.mm(x.view(-1, WIDTH), self.first).view(1, -1, OUT) + self.bias
        if self.way == "T":
            return x @ self.first.T + self.bias
        if self.way == "transpose":
            return torch.matmul(x, self.first.transpose(-1, -2)) + self.bias
        if self.way == "linear":
            return nn.functional.linear(x, self.first.t(), self.bias)
        if self.way == "twice":  # an autoencoder's tied weights: as it is, and turned
            return x @ self.first + ((x @ self.first) @ self.first.T) @ self.first
        return x @ self.first


def samples_of_rows(count: int) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(n).normal(size=(1, 6, WIDTH)).astype(np.float32),) for n in range(count)]


@pytest.mark.parametrize("way", ["addmm", "mm", "T", "transpose", "linear", "matmul"])
def test_a_stored_matrix_is_a_layer_in_int8(way: str) -> None:
    """Each way to multiply by a stored matrix stores it in 8 bits, and computes nearly what it did."""
    torch.manual_seed(0)
    net = Multiplication(way).eval()
    rows = samples_of_rows(8)
    program = torch.export.export(net, (torch.from_numpy(rows[0][0]),))
    quantized = int8_recipe.quantize_by_int8_recipe(program, rows)

    assert int8_recipe.stored_weights_of_int8_recipe(quantized.module) == WIDTH * OUT + 4 * OUT
    run = int8_recipe.int8_recipe_runner(quantized.module)
    expected = np.stack([net(torch.from_numpy(row)).detach().numpy() for (row,) in rows])
    errors = np.stack([run(row)[0] for row in rows]) - expected
    assert np.square(errors).sum() < 0.002 * np.square(expected).sum()
    assert net.first.shape == program.state_dict["first"].shape


@pytest.mark.parametrize("way", ["twice", "matmul", "T"])
def test_linear_layers_compute_the_same(way: str) -> None:
    """The rewritten module computes the float module's outputs."""
    torch.manual_seed(0)
    net = Multiplication(way).eval()
    x = torch.from_numpy(samples_of_rows(1)[0][0])
    module = torch.export.export(net, (x,)).module()
    written = matmul_layers.with_linear_layers(module)
    torch.testing.assert_close(written(x), module(x))


def test_an_addend_that_is_no_bias_stays_a_multiplication() -> None:
    """A matrix that `addmm` adds to each row of its own is not taken for a bias."""

    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Parameter(torch.randn(WIDTH, OUT))
            self.rows = nn.Parameter(torch.randn(6, OUT))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.rows, x[0], self.first)

    x = torch.from_numpy(samples_of_rows(1)[0][0])
    module = torch.export.export(Added().eval(), (x,)).module()
    written = matmul_layers.with_linear_layers(module)
    torch.testing.assert_close(written(x), module(x))
    assert torch.ops.aten.addmm.default in {node.target for node in written.graph.nodes}
