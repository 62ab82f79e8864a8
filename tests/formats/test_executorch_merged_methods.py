"""Several `.pte` files become one with a method for each, and what is equal is stored once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporter.errors import LoweringError
from exporter.formats import VARIANTS
from exporter.formats.executorch.executorch_lowering import lower_to_executorch
from exporter.formats.executorch.executorch_runtime import load_in_executorch_runtime
from exporter.formats.executorch.merged_methods import merge_pte_methods
from exporter.formats.executorch.pte import read_pte_program

VARIANT = VARIANTS["executorch-xnnpack-fp32"]


class Net(nn.Module):
    """Has a delegated convolution, and a constant that ExecuTorch's own kernels read."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 64, 3, padding=1)
        self.shift = nn.Parameter(torch.randn(64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.flip(torch.erf(self.body(x).mean((2, 3)) + self.shift), (1,))


class Counts(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.calls: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x + self.calls


def lowered(net: nn.Module, size: int) -> bytes:
    x = torch.ones(1, 3, size, size)
    return bytes(
        lower_to_executorch(torch.export.export(net.eval(), (x,)), "xnnpack", (), f"size {size}").buffer
    )


@functools.cache
def files() -> dict[str, bytes]:
    torch.manual_seed(0)
    net = Net()
    return {f"{size}x{size}": lowered(net, size) for size in (8, 12)}


def test_each_method_computes_what_its_file_does(tmp_path: Path) -> None:
    """Outputs are the same bits, weights are there once, and a method refuses the other's size."""
    merged = tmp_path / "merged.pte"
    merged.write_bytes(merge_pte_methods(files()))
    weights = 4 * (64 * 27 + 64 + 64)
    assert len(merged.read_bytes()) < sum(map(len, files().values())) - 0.9 * weights
    methods = [method.name for method in read_pte_program(merged.read_bytes()).program.execution_plan]
    assert sorted(methods) == ["forward_12x12", "forward_8x8", "metadata_12x12", "metadata_8x8"]
    for name, data in files().items():
        (tmp_path / name).write_bytes(data)
        x = torch.randn(1, 3, *map(int, name.split("x"))).numpy()
        alone, _ = load_in_executorch_runtime(tmp_path / name, VARIANT, 1)
        method, _ = load_in_executorch_runtime(merged, VARIANT, 1, f"forward_{name}")
        assert (alone((x,))[0] == method((x,))[0]).all()
        with pytest.raises(LoweringError, match="resize a static tensor"):
            method((x[:, :, 1:],))


def other_weights() -> dict[str, bytes]:
    """Return a file of another network, under the keys of the first."""
    data = files()["8x8"]
    named = read_pte_program(data).named_data
    assert named is not None
    weights = max(named.buffers, key=len)
    assert data.count(weights) == 1
    return {"a": data, "b": data.replace(weights, weights[::-1])}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: {str(size): lowered(Counts(), size) for size in (4, 6)}, "keeps state"),
        (other_weights, "different weights under the name"),
    ],
)
def test_what_cannot_be_one_file_is_refused(made: Callable[[], dict[str, bytes]], words: str) -> None:
    """State would be each method's own; one name has one weight."""
    with pytest.raises(LoweringError, match=words):
        merge_pte_methods(made())
