"""Every channel of a quantised artifact is compared with that of its own quantised program."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from exporter.records import Array, Verdict
from exporter.verify.reference_io import Lowering
from tests.variants import FP32, INT8
from tests.verify.observed import int8, judged, made_references

RANDOM = np.random.default_rng(7)


def scores(samples: int) -> Array:
    return RANDOM.normal(size=(samples, 1, 10))


def picture(samples: int) -> Array:
    values: Array = RANDOM.normal(size=(samples, 1, 3, 6, 6))
    values[:, :, 2] *= 0.02
    return values


def boxes_and_scores(samples: int) -> Array:
    boxes, rest = RANDOM.uniform(0, 640, (samples, 1, 4, 20)), RANDOM.uniform(0, 1, (samples, 1, 6, 20))
    return np.concatenate([boxes, rest], axis=2)


def spectrum(samples: int) -> Array:
    parts: Array = RANDOM.normal(size=(samples, 1, 8)) + 1j * RANDOM.normal(size=(samples, 1, 8))
    return parts


KINDS: dict[str, Callable[[int], Array]] = {
    "scores": scores,
    "picture": picture,
    "boxes and scores": boxes_and_scores,
    "spectrum": spectrum,
}


def program_of(y: Array) -> Array:
    """A coarse program: an error of a twelfth of each channel's spread, or 21 dB."""
    noise = RANDOM.normal(size=y.shape)
    spread = y.std(axis=tuple(i for i in range(y.ndim) if i != 2), keepdims=True)
    program: Array = y + noise * spread / 12
    return program


def verdict_of(y: Array, program: Array, actual: Array, floor_db: float) -> Verdict:
    references = made_references(y, names=["answer"])
    return judged(INT8, references, actual, program=Lowering((program,), floor_db))


@pytest.mark.parametrize("samples", [8, 16, 64])
@pytest.mark.parametrize("amount", [0.3, -0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_shifted_channel_fails_by_name(kind: str, samples: int, amount: float) -> None:
    """Every other channel equals the program's, and the whole agrees with it."""
    y = KINDS[kind](samples)
    program = program_of(y)
    assert verdict_of(y, program, program, 60.0).status in ("passed", "inconclusive")
    actual = program.copy()
    actual[:, :, 2] += amount * y[:, :, 2].std()
    reason = str(verdict_of(y, program, actual, 60.0).reason)
    assert "its own quantised program" in reason
    assert "fault of the lowering" in reason
    if kind != "spectrum":
        assert "answer[:, 2" in reason or "answer[..., 2]" in reason


@pytest.mark.parametrize("change", [lambda a: a * 0.7, lambda a: -a, lambda a: np.roll(a, 1, axis=0)])
def test_a_channel_that_is_wrong_in_another_way_fails(change: Callable[[Array], Array]) -> None:
    """Scaled, of the wrong sign, or of another sample."""
    y = scores(16)
    program = program_of(y)
    actual = program.copy()
    actual[:, :, 4] = change(actual[:, :, 4])
    assert "its own quantised program" in str(verdict_of(y, program, actual, 60.0).reason)


@pytest.mark.parametrize("floor_db", [25.0, 35.0, 60.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [8, 64])
def test_rounding_ties_are_no_fault(kind: str, samples: int, floor_db: float) -> None:
    """An artifact may differ from its program by what the program's own ties make of it."""
    y = KINDS[kind](samples)
    program = program_of(y)
    spread = y.std(axis=tuple(i for i in range(y.ndim) if i != 2), keepdims=True)
    actual = program + RANDOM.normal(size=y.shape) * spread * 10 ** (-floor_db / 20)
    reason = str(verdict_of(y, program, actual, floor_db).reason)
    assert "own quantised program" not in reason


def test_one_sample_whose_choice_a_tie_turns_is_no_fault() -> None:
    """A tie may put other rows' scores in the places of a top-k, in a few samples."""
    y = boxes_and_scores(64)
    program = program_of(y)
    actual = program.copy()
    actual[5, :, 4:] = np.roll(actual[5, :, 4:], 1, axis=-1)
    assert "own quantised program" not in str(verdict_of(y, program, actual, 60.0).reason)


def test_a_step_of_a_constant_channel_is_no_fault() -> None:
    """A saturated class stands still in the program; one tie moves it by a step."""
    y = scores(32)
    y[:, :, 3] = 2.0 + 1e-9 * y[:, :, 3]
    program = int8(y)
    actual = program.copy()
    actual[4, 0, 3] += 0.02
    assert judged(INT8, made_references(y), actual, program=Lowering((program,), 40.0)).reason is None


def test_an_output_of_constants_has_no_steps() -> None:
    """Priors beside scores are those of the program, whatever int8 rounds elsewhere."""
    y, priors = scores(32), np.broadcast_to(np.arange(12.0).reshape(1, 3, 4), (32, 1, 3, 4)).copy()
    references, program = made_references(y, priors, names=["scores", "priors"]), int8(y)
    given = Lowering((program, priors.astype(np.float32)), 40.0)
    assert judged(INT8, references, program, priors.astype(np.float32), program=given).reason is None
    reason = str(judged(INT8, references, program, priors + 0.01, program=given).reason)
    assert "priors" in reason
    assert "from a constant of its own quantised program" in reason


def test_what_has_no_program_is_not_judged_by_one() -> None:
    """A float artifact has none."""
    y = scores(16)
    assert judged(FP32, made_references(y), y.astype(np.float32)).reason is None
