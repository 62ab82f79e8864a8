"""An operator that a converter does not know is named as the model's code calls it, with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture.lowering_errors import lowering_error
from exporter.capture.unknown_operators import missing_kernel_advice
from exporter.formats import FORMATS, VARIANTS
from tests import proof

ROWS = [(np.random.default_rng(i).normal(size=(2, 8)).astype(np.float32),) for i in range(4)]
ADVICE = "write it with operators that it knows, end the network before it, or leave this format out"


class Uses(nn.Module):
    """A layer, and then what a test is about."""

    def __init__(self, then: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.bag = nn.EmbeddingBag(10, 3)
        self.then = then

    def forward(self, x: Tensor) -> Any:
        return self.then(self.layer(x))


def doubled(x: Tensor) -> Tensor:
    from torch._higher_order_ops.map import map as each

    rows: Tensor = each(double, x)
    return rows


def double(row: Tensor, *_: Any) -> Tensor:
    return row * 2


CASES: dict[str, tuple[Callable[[Tensor], Any], str, str]] = {
    "decomposed": (
        lambda x: torch.copysign(x, x * x - 1),
        "onnx-fp32",
        "copysign, which becomes signbit there",
    ),
    "itself": (lambda x: torch.hypot(x, x + 1), "onnx-fp32", "hypot"),
    "another name": (lambda x: torch.special.gammainc(x.abs() + 1, x.abs() + 1), "onnx-fp32", "igamma"),
    "a function of functions": (doubled, "onnx-fp32", "map"),
    "another decomposed": (lambda x: torch.cummax(x, 1).values, "executorch-xnnpack-fp32", "cummax"),
    "of two numbers": (lambda x: torch.ldexp(x, torch.tensor(2)), "executorch-xnnpack-fp32", "ldexp"),
    "of complex numbers": (lambda x: torch.fft.rfft(x).abs(), "executorch-xnnpack-fp32", "abs"),
    "not traced": (doubled, "torchscript-lite-fp32", "map"),
    "not in MIL": (lambda x: torch.nextafter(x, x + 1), "coreml-fp16", "nextafter"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_operator_its_line_and_what_to_do_are_given(name: str, tmp_path: Path) -> None:
    """Not what the converter was left with, in its own words."""
    then, variant, operator = CASES[name]
    captured = proof.capture(Uses(then), ROWS, tmp_path)
    verdict = proof.prove(captured, variant, tmp_path)
    assert verdict.status == "error"
    reason = str(verdict.reason)
    assert f" does not know the operator {operator}: {ADVICE}" in reason
    assert f"(at {__file__}:" in reason


def test_an_operator_that_the_runtime_lacks_is_named_twice(tmp_path: Path) -> None:
    """A note has its line; the reason has the runtime's own words and what to do."""
    torch.manual_seed(0)
    net = Uses(lambda x: x)
    net.then = lambda x: net.bag(x.abs().long().clamp(max=9))
    captured = proof.capture(net, ROWS, tmp_path)
    variant = VARIANTS["executorch-xnnpack-fp32"]
    emission = FORMATS["executorch"].emit(captured, variant, tmp_path)
    (note,) = emission.notes
    assert "has no kernel for embedding_bag (at " in note
    reason = str(proof.judge(captured, emission.path, variant.name).reason)
    assert "kernel 'aten::_embedding_bag.out' not found" in reason
    assert f"The runtime does not know the operator embedding_bag: {ADVICE}" in reason


def test_an_operator_without_a_derivative_is_named(tmp_path: Path) -> None:
    """The int8 recipe asks how much each range costs the outputs, which takes derivatives."""
    captured = proof.capture(Uses(lambda x: torch.unique(x.round())), ROWS, tmp_path)
    with pytest.raises(Exception, match="derivative") as caught:
        proof.quantize(captured, ROWS, tmp_path)
    error = lowering_error(caught.value, captured.program)
    assert error.cause.startswith("The int8 recipe, which needs derivatives, does not know the operator ")
    assert str(error.source).startswith(f"{__file__}:")


def test_other_messages_of_a_runtime_have_no_such_advice() -> None:
    """A missing kernel alone is about an operator."""
    assert missing_kernel_advice("error 0x12: Padding values must be non-negative") == ""
