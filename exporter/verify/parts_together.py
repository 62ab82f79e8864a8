"""Judge the parts of a network that an app runs one after the other, together, against the whole network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exporter.records import Array, Limits, Precision, Status
from exporter.verify.compare_outputs import compare_sqnr_db

FLOAT_MIN_SQNR_DB = 80.0
"""Two files in float32 that compute what the network computes differ by rounding only: 100 dB and more."""


@dataclass(frozen=True)
class TogetherVerdict:
    """What the parts of one variant compute together."""

    name: str
    """The variant, of all parts."""
    status: Status
    measure: str
    """What was compared, and the figure."""
    reason: str | None = None
    latency_ms: float | None = None
    """Sum of the parts' medians on this host; None where one was not timed."""


def judge_outputs_of_parts_together(
    name: str, precision: Precision, what: str, expected: Array, actual: Array, limits: Limits
) -> TogetherVerdict:
    """Compare an output of the whole network, over all samples, with that of the parts."""
    if expected.shape != actual.shape or not np.isfinite(actual).all():
        return TogetherVerdict(
            name, "failed", what, f"{what} is {list(actual.shape)} or not finite, not {list(expected.shape)}."
        )
    if np.ptp(expected, axis=0).max(initial=0) <= 1e-6 * np.abs(expected).max(initial=0):
        return TogetherVerdict(
            name, "failed", what, f"{what} is the same for every sample, and equality would mean nothing."
        )
    sqnr_db = compare_sqnr_db(expected, actual)
    least = {"fp32": FLOAT_MIN_SQNR_DB, "fp16": limits.fp16_min_sqnr_db}.get(
        precision, limits.int8_min_sqnr_db
    )
    measure = f"{what}: {min(sqnr_db, 200):.1f} dB over {len(expected)} samples"
    if sqnr_db >= least:
        return TogetherVerdict(name, "passed", measure)
    return TogetherVerdict(name, "failed", measure, f"{measure}, at least {least:g} dB expected.")


def judge_tokens_of_parts_together(
    name: str, expected: Sequence[Sequence[int]], actual: Sequence[Sequence[int]]
) -> TogetherVerdict:
    """Compare the tokens that the whole network writes, always the likeliest, with those of the parts."""
    equal = [_equal_tokens_of_parts_together(one, other) for one, other in zip(expected, actual, strict=True)]
    least, steps = min(equal), min(map(len, expected))
    measure = f"greedy tokens: {least} of {steps} equal, in the worst of {len(equal)} texts"
    if least >= steps:
        return TogetherVerdict(name, "passed", measure)
    return TogetherVerdict(name, "failed", measure, f"After {least} tokens it writes another one.")


def _equal_tokens_of_parts_together(expected: Sequence[int], actual: Sequence[int]) -> int:
    """Return how many tokens are equal before the first that is not."""
    pairs = zip(expected, actual, strict=False)
    shorter = min(len(expected), len(actual))
    return next((step for step, (one, other) in enumerate(pairs) if one != other), shorter)
