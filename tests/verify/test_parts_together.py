"""Parts are judged together by what they compute, in the measure of their kind."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.records import Limits, Precision
from exporter.verify.parts_together import judge_outputs_of_parts_together, judge_tokens_of_parts_together

EXPECTED = np.random.default_rng(0).normal(size=(8, 1, 40))


@pytest.mark.parametrize(
    ("precision", "noise", "status"),
    [
        ("fp32", 1e-6, "passed"),
        ("fp32", 1e-3, "failed"),
        ("fp16", 1e-3, "passed"),
        ("fp16", 1e-1, "failed"),
        ("int8", 5e-2, "passed"),
        ("int8", 5e-1, "failed"),
    ],
)
def test_outputs_may_differ_as_far_as_their_precision_allows(
    precision: Precision, noise: float, status: str
) -> None:
    """What float32 must not lose, int8 may."""
    actual = EXPECTED + noise * np.random.default_rng(1).normal(size=EXPECTED.shape)
    verdict = judge_outputs_of_parts_together("v", precision, "logits", EXPECTED, actual, Limits())
    assert verdict.status == status
    assert (verdict.reason is None) == (status == "passed")


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (EXPECTED, EXPECTED[:, :, :-1]),
        (EXPECTED, np.where(EXPECTED > 2, np.nan, EXPECTED)),
        (np.ones((8, 1, 40)), np.ones((8, 1, 40))),
    ],
    ids=["another shape", "not finite", "the same for every sample"],
)
def test_what_proves_nothing_fails(expected: np.ndarray, actual: np.ndarray) -> None:
    """Another shape, NaN and outputs that do not depend on the input never pass."""
    assert (
        judge_outputs_of_parts_together("v", "fp32", "logits", expected, actual, Limits()).status == "failed"
    )


def test_one_other_token_fails() -> None:
    """Texts pass when every token is equal; the verdict says after how many another one came."""
    texts = [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert judge_tokens_of_parts_together("v", texts, texts).status == "passed"
    verdict = judge_tokens_of_parts_together("v", texts, [[1, 2, 3, 4], [5, 6, 9, 8]])
    assert (verdict.status, verdict.reason) == ("failed", "After 2 tokens it writes another one.")
    assert judge_tokens_of_parts_together("v", texts, [[1, 2, 3], [5, 6, 7, 8]]).status == "failed"
