"""References that prove nothing, and those that only look so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from exporter.records import Array, Variant
from tests.variants import FP16, FP32, INT8
from tests.verify.observed import fp16, int8, judged, made_references

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(16, 1, 10))
PRIORS = np.broadcast_to(RANDOM.uniform(size=(1, 8, 4)), (16, 1, 8, 4)).copy()


@pytest.mark.parametrize("variant", [FP32, FP16, INT8])
def test_a_constant_output_beside_one_that_moves_is_fine(variant: Variant) -> None:
    """Priors do not depend on the input: they are compared as constants."""
    references = made_references(LOGITS, PRIORS, names=["logits", "priors"])
    assert judged(variant, references, LOGITS, PRIORS.astype(np.float32)).reason is None


@pytest.mark.parametrize(("variant", "off"), [(FP32, 1e-3), (FP16, 0.01), (INT8, 0.2)])
def test_a_wrong_constant_fails_by_name(variant: Variant, off: float) -> None:
    """One prior of eight is off by more than the precision rounds."""
    a = PRIORS.copy()
    a[..., 5, :] *= 1 + off
    verdict = judged(variant, made_references(LOGITS, PRIORS, names=["logits", "priors"]), LOGITS, a)
    assert verdict.status == "failed"
    if variant is not FP32:
        assert "priors[:, 5, :] is a constant" in str(verdict.reason)


def test_zeros_are_a_constant_too() -> None:
    """An output that is all zeros (an empty state) has no scale, and equals itself."""
    zeros = np.zeros((16, 1, 4))
    assert judged(FP32, made_references(LOGITS, zeros), LOGITS, zeros).reason is None
    assert judged(FP32, made_references(LOGITS, zeros), LOGITS, zeros + 1e-3).status == "failed"


def small_movement(share: float) -> Array:
    return 50.0 + share * 50 * LOGITS


@pytest.mark.parametrize("share", [1e-4, 1e-3])
def test_a_model_that_hardly_moves_is_judged_by_how_it_moves(share: float) -> None:
    """A trained model may answer nearly the same to all given inputs: equality is measured on what moves."""
    y = small_movement(share)
    assert judged(FP32, made_references(y), y.astype(np.float32)).reason is None
    assert (
        judged(FP16, made_references(y), np.broadcast_to(y.mean(axis=0), y.shape).copy()).status == "failed"
    )


def test_a_tiny_output_beside_a_large_one_is_fine() -> None:
    """A concentration of 1e-9 is no sign of random weights when the rest of the model speaks."""
    tiny = LOGITS * 1e-9
    assert judged(FP32, made_references(LOGITS, tiny), LOGITS, tiny.astype(np.float32)).reason is None
    assert judged(FP32, made_references(LOGITS, tiny), LOGITS, tiny * 1.01).status == "failed"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ((np.zeros((16, 1, 4)),), "hardly depends on its input"),
        ((PRIORS * 1e-9,), "hardly depends on its input"),
        ((PRIORS,), "hardly depends on its input"),
        ((PRIORS, PRIORS * 2), "hardly depends on its input"),
        ((np.zeros((16, 1, 4), np.int64), PRIORS), "hardly depends on its input"),
        ((np.where(LOGITS > 1, complex(0, np.nan), LOGITS + 0j),), "NaN or Inf"),
    ],
)
def test_an_untrained_or_broken_model_passes_nothing(reference: tuple[Array, ...], words: str) -> None:
    """Every comparison with it would hold."""
    assert words in str(judged(FP32, made_references(*reference), *reference).reason)


def test_a_signal_that_faded_before_a_batch_norm_passes_nothing() -> None:
    """The network looks randomly initialised: its outputs are no quantity in small units."""
    references = replace(made_references(LOGITS * 1e-9), untrained_norm="features.3.1")
    reason = str(judged(FP32, references, LOGITS * 1e-9).reason)
    assert "batch norm 'features.3.1'" in reason
    assert "randomly initialised" in reason


@pytest.mark.parametrize("scale", [1e-7, 1e-12, 1e-30])
def test_small_units_are_judged_at_their_own_scale(scale: float) -> None:
    """A current in amperes is as right, and as wrong, as it is in picoamperes."""
    y = LOGITS * scale
    assert judged(FP32, made_references(y), y.astype(np.float32)).reason is None
    assert judged(FP32, made_references(y), y * 1.001).status == "failed"
    assert judged(INT8, made_references(y), int8(y)).reason is None
    assert judged(FP16, made_references(y), fp16(y)).status == "failed"  # float16 cannot hold them


@pytest.mark.parametrize("variant", [FP32, FP16, INT8])
def test_a_model_that_gives_nan_is_named_before_the_artifact_that_repeats_it(variant: Variant) -> None:
    """The artifact is right, but nothing can be compared: the model's own NaN is the reason."""
    y = LOGITS.copy()
    y[3, 0, 2:] = np.nan
    verdict = judged(variant, made_references(y), y.astype(np.float32))
    assert verdict.status == "failed"
    assert str(verdict.reason).startswith("The original model gives NaN or Inf: 8 of 160 values")
