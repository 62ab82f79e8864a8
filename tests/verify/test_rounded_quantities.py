"""Pictures of bytes and positions in pixels are judged as quantities, choices by equality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import Does, image
from exporter.capture.rounded_outputs import outputs_of_rounded_quantities
from exporter.records import Array
from exporter.verify.reference_io import ReferenceIO
from tests import proof
from tests.variants import FP16, FP32, INT8
from tests.verify.observed import judged, made_references

Forward = Callable[[Tensor, Tensor], Tensor]
QUANTITIES: dict[str, Forward] = {
    "a picture": lambda y, x: (y.sigmoid() * 255).round().clamp(0, 255).to(torch.uint8),
    "cut off": lambda y, x: (y * 255).clamp(0, 255).byte(),
    "clamped as integers": lambda y, x: (y * 255).int().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1),
    "positions": lambda y, x: (y.mean((2, 3)) * 100).long(),
    "the largest": lambda y, x: (y * 255).byte().amax(1),
    "a picture where a mask is": lambda y, x: (torch.where(x > 0.5, y, x) * 255).to(torch.uint8),
}
CHOICES: dict[str, Forward] = {
    "class numbers": lambda y, x: y.argmax(1),
    "class numbers as grey": lambda y, x: y.argmax(1).to(torch.uint8) * 40,
    "a mask": lambda y, x: (y > 0).to(torch.uint8) * 255,
    "a mask by way of floats": lambda y, x: ((y > 0).float() * 255).to(torch.uint8),
    "a count": lambda y, x: (y > 0).float().sum((1, 2, 3)).long(),
    "indices of a top-k": lambda y, x: y.flatten(1).topk(3, 1).indices,
    "an order": lambda y, x: torch.sort(y.flatten(1), 1)[1].int(),
    "class numbers by way of floats": lambda y, x: (y.argmax(1).float() * 2).int(),
    "the place of a maximum": lambda y, x: y.max(1)[1],
}


def net(forward: Forward) -> nn.Module:
    torch.manual_seed(0)
    return Does(lambda net, x: forward(net.conv(x), x), conv=nn.Conv2d(3, 3, 3, padding=1)).eval()


@pytest.mark.parametrize("name", [*QUANTITIES, *CHOICES])
def test_the_graph_tells_quantities_from_choices(name: str) -> None:
    """What is converted from floats that depend on an input is a quantity; a comparison chooses."""
    program = torch.export.export(net((QUANTITIES | CHOICES)[name]), (torch.rand(1, 3, 8, 8),))
    assert outputs_of_rounded_quantities(program) == (name in QUANTITIES,)


def test_an_input_that_is_handed_on_is_no_rounded_quantity() -> None:
    """Bytes that were never floats stay equal; those that were computed in floats are rounded."""
    both = Does(lambda net, x: (255 - x, (x.float() * 0.5).round().to(torch.uint8)))
    program = torch.export.export(both.eval(), (torch.zeros(1, 3, 8, 8, dtype=torch.uint8),))
    assert outputs_of_rounded_quantities(program) == (False, True)
    assert outputs_of_rounded_quantities(None) == ()


RANDOM = np.random.default_rng(2)
PICTURES = RANDOM.integers(0, 256, (16, 1, 3, 8, 8)).astype(np.uint8)


def pictures(reference: Array = PICTURES, unstable: Array | None = None) -> ReferenceIO:
    errors = np.zeros(reference.shape, bool) if unstable is None else unstable
    return replace(made_references(reference, eager_errors=[errors], names=["picture"]), rounded=(True,))


def shifted(where: Array, levels: int = 1) -> Array:
    """Move pixels away from the nearer end of the range."""
    return np.where(where, np.where(PICTURES > 127, PICTURES - levels, PICTURES + levels), PICTURES).astype(
        np.uint8
    )


def test_float32_may_be_off_by_a_level_where_rounding_decides() -> None:
    """A tie falls to either side; pixels that no rounding changes may not."""
    ties = RANDOM.uniform(size=PICTURES.shape) < 0.3
    assert judged(FP32, pictures(unstable=ties), shifted(ties)).reason is None
    reason = str(judged(FP32, pictures(), shifted(ties)).reason)
    assert "output picture differs by a level in" in reason
    assert "that rounding does not decide" in reason


def test_two_levels_are_too_many_for_float32() -> None:
    """No tie explains them, in a single pixel that rounding decides either."""
    ties = np.zeros(PICTURES.shape, bool)
    ties[3, 0, 1, 2, 2] = True
    reason = str(judged(FP32, pictures(unstable=ties), shifted(ties, 2)).reason)
    assert "output picture differs by up to 2 levels" in reason


def test_integers_with_wider_levels_are_judged_by_their_levels() -> None:
    """A posterised picture has levels of 8: one level is 8."""
    posterised = (PICTURES // 8 * 8).astype(np.uint8)
    ties = RANDOM.uniform(size=PICTURES.shape) < 0.2
    moved = np.where(ties & (posterised < 248), posterised + 8, posterised).astype(np.uint8)
    assert judged(FP32, pictures(posterised, ties), moved).reason is None


@pytest.mark.parametrize("variant", [FP16, INT8])
def test_narrow_artifacts_are_judged_in_decibels(variant: object) -> None:
    """A level here and there is within the precision; a picture that is 10 % darker is not."""
    ties = RANDOM.uniform(size=PICTURES.shape) < 0.5
    near = judged(variant, pictures(), shifted(ties))  # type: ignore[arg-type]
    assert near.reason is None
    assert near.comparison is not None
    assert near.comparison.sqnr_db > 45
    other = RANDOM.integers(0, 256, PICTURES.shape).astype(np.uint8)
    assert "dB" in str(judged(variant, pictures(), other).reason)  # type: ignore[arg-type]


def test_a_class_that_is_rounded_to_is_compared_by_equality() -> None:
    """Zero and one are an answer, though the graph rounds to it."""
    answers = RANDOM.integers(0, 2, (32, 1, 20)).astype(np.int64)
    references = replace(pictures(answers), output_names=("answer",))
    wrong = np.where(RANDOM.uniform(size=answers.shape) < 0.1, 1 - answers, answers)
    assert "differs in" in str(judged(FP32, references, wrong).reason)
    assert "is right in" in str(judged(INT8, references, wrong).reason)


ROWS = [(image(1, 3, 16, 16)(np.random.default_rng(i)),) for i in range(24)]


@pytest.mark.parametrize("name", ["a picture", "cut off", "a picture where a mask is"])
@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-fp16", "onnx-int8"])
def test_a_right_picture_passes(name: str, variant: str, tmp_path: Path) -> None:
    """In each precision; in int8 its own noise decides."""
    captured = proof.capture(net(QUANTITIES[name]), ROWS[:12], tmp_path)
    made = proof.quantize(captured, ROWS[12:], tmp_path) if "int8" in variant else captured
    verdict = proof.prove(made, variant, tmp_path, None if made is captured else 81)
    assert verdict.reason is None, verdict
    assert verdict.task is not None
    assert verdict.task.name == "PSNR"
