"""Tests of what estimates may decide, and what they never do."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from exporter.records import Artifact, DeviceLatency, EstimatedLatency, Latency, Variant, Verdict
from exporter.verify import budget, estimate_verdicts, select_artifact
from tests.variants import FP32, INT8

VULKAN = replace(INT8, name="executorch-vulkan-fp16", backend="vulkan", precision="fp16")
RUNNABLE = (VULKAN.name, INT8.name, FP32.name)


def estimate(
    p50_ms: float, factor: float = 1.2, threads: int = 4, basis: Literal["counts", "graph"] = "counts"
) -> EstimatedLatency:
    return EstimatedLatency(threads, p50_ms, p50_ms / factor, p50_ms * factor, 0.9, basis)


def artifact(variant: Variant, host_ms: float, *estimated: EstimatedLatency) -> Artifact:
    latency = Latency(host_ms, host_ms, 20, 2)
    return Artifact(variant, "f", 1, "0" * 64, "passed", None, latency=latency, estimates=estimated)


def measured(p90_ms: float) -> DeviceLatency:
    device = {"serial": "phone", "soc": "SM8250"}
    ends = (p90_ms, p90_ms)
    return DeviceLatency("measured", device, p90_ms, p90_ms, ends, 10, 1000, (), 0.0, "pass", 15.0)


@pytest.mark.parametrize(
    ("p50_ms", "verdict"),
    [(10, "estimated within"), (20, "estimated over"), (14, "uncertain"), (16, "uncertain")],
)
def test_the_words_on_a_budget_are_its_own(p50_ms: float, verdict: str) -> None:
    """The whole interval decides, and no word is that of a measurement."""
    assert estimate_verdicts.estimate_verdict(estimate(p50_ms), 15) == verdict


@pytest.mark.parametrize("p50_ms", [0.001, 14.9, 15.1, 1000])
def test_an_estimate_never_meets_a_budget(p50_ms: float) -> None:
    """An artifact with estimates alone is not measured, however fast it may be."""
    row = artifact(INT8, 0.001, estimate(p50_ms))
    assert budget.budget_verdict(row.device_latencies, 15) == "not_measured"
    assert select_artifact.select_measured_artifact([row], RUNNABLE, False, False) is None


def test_an_estimate_is_no_device_latency() -> None:
    """No field makes one the other: the types share neither evidence nor device."""
    assert "estimated" not in DeviceLatency.__dataclass_fields__["evidence"].type
    assert budget.judge_by_budget(estimate(1), 15) == "not_measured"  # type: ignore[arg-type]


def test_the_estimate_chooses_where_this_host_would_not() -> None:
    """An x86 host prefers the one, the phone's CPU the other."""
    rows = [artifact(FP32, 1, estimate(20)), artifact(INT8, 9, estimate(8), estimate(12, threads=1))]
    choice = select_artifact.select_artifact(rows, RUNNABLE, False, False)
    assert choice.name == INT8.name
    assert "8 ms, 6.67 to 9.6 (estimated), 4 threads" in choice.reason
    assert "overlaps by 0%" in choice.reason
    assert select_artifact.UNMEASURED in choice.reason
    assert "this host" not in choice.reason


def test_a_gpu_artifact_is_not_chosen_by_this_host() -> None:
    """What has no estimate is left out, and the reason counts it."""
    rows = [artifact(VULKAN, 0.1), artifact(INT8, 9, estimate(8))]
    choice = select_artifact.select_artifact(rows, RUNNABLE, False, False)
    assert choice.name == INT8.name
    assert "1 without an estimate was left out" in choice.reason


@pytest.mark.parametrize(
    ("int8", "fp32", "chosen"),
    [
        (estimate(12, 4, basis="graph"), estimate(9, 2, basis="graph"), INT8),
        (estimate(12, 1.5), estimate(9, 2, basis="graph"), INT8),
        (estimate(40, 2, basis="graph"), estimate(9, 2, basis="graph"), FP32),
        (estimate(9.5), estimate(9), FP32),
    ],
    ids=["both from FLOPs", "one from FLOPs", "far apart", "both counted"],
)
def test_the_targets_preference_decides_between_estimates_from_flops(
    int8: EstimatedLatency, fp32: EstimatedLatency, chosen: Variant
) -> None:
    """FLOPs do not tell runtimes apart; counted instructions do, also where intervals overlap."""
    choice = select_artifact.select_artifact(
        [artifact(INT8, 1, int8), artifact(FP32, 1, fp32)], RUNNABLE, False, False
    )
    assert choice.name == chosen.name
    assert ("2 passed artifacts whose estimates cannot be told apart" in choice.reason) == (chosen is INT8)


def test_a_phone_overrules_the_estimate() -> None:
    """Measurements choose as before."""
    rows = [
        replace(artifact(FP32, 1, estimate(20)), device_latencies=(measured(5),)),
        replace(artifact(INT8, 1, estimate(8)), device_latencies=(measured(9),)),
    ]
    choice = select_artifact.select_measured_artifact(rows, RUNNABLE, False, False)
    assert choice
    assert (choice.name, "measured" in choice.reason) == (FP32.name, True)


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [((10, 1.2), (10, 1.2), 1), ((10, 1.1), (20, 1.1), 0), ((10, 2), (10, 1.1), 1)],
)
def test_the_overlap_is_a_share_of_the_narrower_interval(
    first: tuple[float, float], second: tuple[float, float], share: float
) -> None:
    """Equal intervals overlap wholly, distant ones not at all."""
    assert estimate_verdicts.estimate_verdicts_overlap(estimate(*first), estimate(*second)) == pytest.approx(
        share
    )


@pytest.mark.parametrize(
    ("p50_ms", "words"), [(9, "12% more than the estimate"), (7, "12% less"), (20, "outside its interval")]
)
def test_a_measurement_is_compared_with_its_estimate(p50_ms: float, words: str) -> None:
    """The sentence has the difference and whether the interval held it."""
    latency = replace(measured(p50_ms), device={"serial": "phone", "soc": "SM8250", "threads": 4})
    assert words in estimate_verdicts.estimate_verdict_compared(
        latency, [estimate(8, threads=1), estimate(8)]
    )
    assert not estimate_verdicts.estimate_verdict_compared(
        replace(latency, evidence="simulated"), [estimate(8)]
    )
    assert not estimate_verdicts.estimate_verdict_compared(latency, [estimate(8, threads=1)])


@pytest.mark.parametrize(
    ("p50_ms", "factor", "verdict"),
    [
        (10, 1.5, "uncertain"),
        (9.99, 1.5, "estimated within"),
        (22.5, 1.5, "uncertain"),
        (23, 1.5, "estimated over"),
    ],
)
def test_an_interval_that_ends_on_the_budget_is_uncertain(p50_ms: float, factor: float, verdict: str) -> None:
    """An end that equals the budget neither keeps it nor exceeds it."""
    assert estimate_verdicts.estimate_verdict(estimate(p50_ms, factor), 15) == verdict


def test_the_best_estimate_is_that_of_the_faster_number_of_threads() -> None:
    """An artifact without estimates has no best one."""
    row = artifact(INT8, 1, estimate(12, threads=1), estimate(8, threads=4), estimate(9, threads=2))
    best = estimate_verdicts.best_estimate_verdict(row)
    assert best is not None
    assert (best.p50_ms, best.threads) == (8, 4)
    assert estimate_verdicts.best_estimate_verdict(artifact(INT8, 1)) is None


@pytest.mark.parametrize(
    ("ends", "other", "share"),
    [
        ((10, 10), (5, 10), 1),
        ((10, 10), (10, 10), 1),
        ((10, 10), (11, 20), 0),
        ((10, 20), (15, 35), 0.5),
        ((10, 20), (20, 40), 0),
        ((10, 20), (16, 18), 1),
        ((16, 36), (10, 20), 0.4),
    ],
)
def test_the_overlap_of_two_intervals_is_known_by_hand(
    ends: tuple[float, float], other: tuple[float, float], share: float
) -> None:
    """An interval without width overlaps wholly where it lies in the other; the order does not matter."""
    first, second = (replace(estimate(1), low_ms=low, high_ms=high) for low, high in (ends, other))
    assert estimate_verdicts.estimate_verdicts_overlap(first, second) == pytest.approx(share)
    assert estimate_verdicts.estimate_verdicts_overlap(second, first) == pytest.approx(share)


def tie_row(low_ms: float, high_ms: float, variant: Variant = FP32) -> Artifact:
    item = replace(estimate((low_ms + high_ms) / 2, basis="graph"), low_ms=low_ms, high_ms=high_ms)
    return artifact(variant, 1, item)


def test_estimates_tie_from_half_an_interval_on_and_only_by_one_executor() -> None:
    """What the reference interpreter executed, and what has no estimate, ties with nothing else."""
    best = tie_row(10, 20, INT8)
    half, less = tie_row(15, 35), tie_row(15.1, 35)
    verdict = Verdict("passed", None, "", None, executor="reference interpreter")
    interpreted = replace(half, verdict=verdict)
    nothing = artifact(VULKAN, 1)
    assert estimate_verdicts.tied_estimate_verdicts(best, [half, less, interpreted, nothing, best]) == [
        half,
        best,
    ]
    assert estimate_verdicts.tied_estimate_verdicts(nothing, [half, nothing, best]) == [nothing]


def test_a_choice_names_the_next_best_and_counts_what_was_left_out() -> None:
    """The next one is the nearest by its best estimate, not the first in the list."""
    best = artifact(INT8, 1, estimate(10, 2, threads=1))
    slow, next_best = (
        artifact(FP32, 1, estimate(40, 2)),
        artifact(VULKAN, 1, estimate(30, 2), estimate(16, 2)),
    )
    reason = estimate_verdicts.estimate_verdict_choice_reason(best, [best, slow, next_best])
    assert "(10 ms, 5 to 20 (estimated), 1 thread) of 3 passed artifacts" in reason
    assert reason.endswith(f"overlaps by 80% with that of {VULKAN.name} (16 ms)")
    two_without = [best, slow, *[artifact(variant, 1) for variant in (VULKAN, FP32)]]
    assert estimate_verdicts.estimate_verdict_choice_reason(best, two_without).endswith(
        "; 2 without an estimate were left out"
    )
    alone = estimate_verdicts.estimate_verdict_choice_reason(best, [best])
    assert alone.endswith("of 1 passed artifacts that the target runs")


def test_a_tie_says_what_it_is_about() -> None:
    """The reason has the number of artifacts, the estimate, its threads, and the overlap."""
    best = artifact(INT8, 1, estimate(10, 2, threads=1, basis="graph"))
    others = [artifact(FP32, 1, estimate(40, 2)), artifact(VULKAN, 1, estimate(16, 2))]
    reason = estimate_verdicts.estimate_verdict_tie_reason(best, [best, *others])
    assert "of 3 passed artifacts" in reason
    assert "(10 ms, 5 to 20 (estimated from the graph), 1 thread; its interval overlaps by 80%" in reason
    assert reason.endswith(f"with that of {VULKAN.name} (16 ms))")


@pytest.mark.parametrize(
    ("basis", "how"), [("counts", "(estimated)"), ("graph", "(estimated from the graph)")]
)
def test_an_estimate_without_counts_is_flagged_wherever_it_is_printed(basis: str, how: str) -> None:
    """The flag is in the figure's own words, and so in the terminal, the page and the reason of a choice."""
    item = replace(estimate(10, 2), basis=basis)  # type: ignore[arg-type]
    assert estimate_verdicts.estimate_verdict_text(item) == f"10 ms, 5 to 20 {how}"
    best = artifact(INT8, 1, item)
    assert how in estimate_verdicts.estimate_verdict_choice_reason(best, [best])


def test_the_two_largest_shares_bound_an_artifact() -> None:
    """They come in the order of their size, as whole percents."""
    shares = {"loads": 0.3, "threads": 0.146, "arithmetic": 0.554}
    assert (
        estimate_verdicts.estimate_verdict_bound(replace(estimate(1), shares=shares))
        == "arithmetic 55 %, loads 30 %"
    )
    assert estimate_verdicts.estimate_verdict_bound(estimate(1)) == ""


@pytest.mark.parametrize(
    ("p50_ms", "words"),
    [
        (8, "measured 8 ms p50, 0% more than the estimate of 8 ms, 6.67 to 9.6, inside its interval"),
        (6.4, "measured 6.4 ms p50, 20% less than the estimate of 8 ms, 6.67 to 9.6, outside its interval"),
        (9.6, "20% more than the estimate of 8 ms, 6.67 to 9.6, inside its interval"),
        (8 / 1.2, "17% less than the estimate of 8 ms, 6.67 to 9.6, inside its interval"),
    ],
)
def test_a_comparison_gives_both_figures_and_the_interval(p50_ms: float, words: str) -> None:
    """A measurement on the interval's end is inside it."""
    latency = replace(measured(p50_ms), device={"serial": "phone", "soc": "SM8250", "threads": 4})
    both = [estimate(8), estimate(20)]
    assert words in estimate_verdicts.estimate_verdict_compared(latency, both)
    nothing = replace(estimate(8), p50_ms=0.0)
    assert "0% more" in estimate_verdicts.estimate_verdict_compared(latency, [nothing])


def test_a_small_core_neither_chooses_nor_is_compared() -> None:
    """Its estimate informs; a bench pins to the fastest cores, so that nothing else is like it."""
    small = replace(estimate(1, threads=1), core="Cortex-A55")
    fast = estimate(8, threads=1)
    assert estimate_verdicts.best_estimate_verdict(artifact(INT8, 1, small, fast)) is fast
    assert estimate_verdicts.best_estimate_verdict(artifact(INT8, 1, small)) is None
    latency = replace(measured(9), device={"serial": "phone", "soc": "SM8250", "threads": 1})
    assert "estimate of 8 ms" in estimate_verdicts.estimate_verdict_compared(latency, [small, fast])
    assert not estimate_verdicts.estimate_verdict_compared(latency, [small])
