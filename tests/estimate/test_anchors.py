"""Tests of learning from a phone's measurements."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.estimate import anchors
from exporter.estimate.anchors import Anchor
from exporter.records import DeviceLatency, EstimatedLatency

ESTIMATE = EstimatedLatency(4, 10.0, 5.0, 20.0, 0.9, "counts")
ANCHOR = Anchor("SM8250", "phone", "onnxruntime", "int8", 4, "0" * 64, 1.2)
MEASURED = DeviceLatency(
    "measured",
    {"serial": "phone", "soc": "SM8250", "threads": 4},
    12.0,
    13.0,
    (12.5, 13.5),
    10,
    1000,
    (),
    0.0,
    "pass",
)


def corrected_by(count: int, ratio: float, estimate: EstimatedLatency = ESTIMATE) -> EstimatedLatency:
    measured = [replace(ANCHOR, ratio=ratio, serial=str(index)) for index in range(count)]
    return anchors.anchor_estimate(estimate, measured, "SM8250", "onnxruntime", "int8")


def test_a_clear_anchor_takes_away_most_of_the_miss() -> None:
    """A phone that is five times as slow is no chance: one measurement leaves less than half of it."""
    corrected = corrected_by(1, 5.0)
    assert 50 / 5**0.5 < corrected.p50_ms < 50
    assert corrected.p50_ms == pytest.approx(ESTIMATE.p50_ms * corrected.anchor)
    assert corrected.evidence == "estimated"
    assert "1 measurement of your own phone of 5.00 times the estimate" in corrected.notes[-1]


def test_an_anchor_within_chance_changes_little() -> None:
    """One network that is 10 % off tells little of the others, whose own misses are as large."""
    assert 10 < corrected_by(1, 1.1).p50_ms < 10.5
    assert corrected_by(1, 1.0).p50_ms == pytest.approx(10)


def test_a_measured_artifact_has_its_own_latency() -> None:
    """Its estimate misses by what was measured, with no share for chance; a second phone widens it."""

    def of_own(*ratios: float) -> EstimatedLatency:
        measured = [replace(ANCHOR, ratio=ratio, serial=str(ratio)) for ratio in ratios]
        others = [replace(ANCHOR, ratio=9.0, artifact_sha256="1" * 64)] * 5
        chip = ("SM8250", "onnxruntime", "int8")
        return anchors.anchor_estimate(ESTIMATE, [*measured, *others], *chip, ANCHOR.artifact_sha256)

    one, two = of_own(1.2), of_own(1.0, 1.5)
    assert one.p50_ms == pytest.approx(12.0)
    assert (one.low_ms, one.high_ms) == pytest.approx((12.0 / 1.08, 12.0 * 1.08))
    assert "your own phone measured this artifact" in one.notes[-1]
    assert one.evidence == "estimated"
    assert two.low_ms <= 10.0
    assert two.high_ms >= 15.0


def test_more_anchors_weigh_more() -> None:
    """A hundred that agree are right."""
    found = [corrected_by(count, 1.3).p50_ms for count in (1, 5, 100)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(13, rel=0.05)


def test_anchors_narrow_only_what_all_estimates_share() -> None:
    """The networks' own misses stay in the interval, whatever was measured."""
    for shared in (1.0, 1.3, 1.9):
        estimate = replace(ESTIMATE, shared=shared)
        few, many = (corrected_by(count, 1.2, estimate) for count in (1, 1000))
        factors = [item.high_ms / item.p50_ms for item in (estimate, few, many)]
        assert factors[0] > factors[1] > factors[2] > 1
        left = math.log(2) ** 2 - math.log(max(shared, anchors.PHONES_DIFFER)) ** 2
        assert math.log(factors[2]) == pytest.approx(left**0.5, rel=0.01)


@pytest.mark.parametrize(
    "other", [{"soc": "SM8350"}, {"runtime": "executorch"}, {"precision": "fp32"}, {"threads": 1}], ids=str
)
def test_an_anchor_of_something_else_changes_nothing(other: dict[str, object]) -> None:
    """Chip, runtime, precision and threads must be the same."""
    anchor = replace(ANCHOR, **other)  # type: ignore[arg-type]
    assert anchors.anchor_estimate(ESTIMATE, [anchor], "SM8250", "onnxruntime", "int8") == ESTIMATE


@pytest.mark.parametrize(
    "change",
    [
        {"evidence": "simulated"},
        {"evidence": "host"},
        {"problem": "other outputs"},
        {"flags": ("throttled: 2.0 GHz",)},
        {"device": {"serial": "phone", "threads": 2}},
    ],
    ids=str,
)
def test_only_a_real_stable_run_is_learned_from(change: dict[str, object]) -> None:
    """Simulated devices, wrong outputs and throttled runs teach nothing."""
    latency = replace(MEASURED, **change)  # type: ignore[arg-type]
    assert anchors.ratio_of_anchor(latency, [ESTIMATE]) is None


def test_a_ratio_is_of_the_estimate_without_anchors() -> None:
    """Learning twice from one phone changes nothing: corrections do not multiply."""
    corrected = anchors.anchor_estimate(ESTIMATE, [ANCHOR], "SM8250", "onnxruntime", "int8")
    for estimate in (ESTIMATE, corrected):
        learned = anchors.ratio_of_anchor(MEASURED, [estimate])
        assert learned is not None
        assert learned[0] == 4
        assert learned[1] == pytest.approx(1.2)


def test_a_newer_anchor_replaces_the_older(tmp_path: Path) -> None:
    """One phone's measurement of one artifact is kept once."""
    path = tmp_path / "state" / "anchors.json"
    newer = replace(ANCHOR, ratio=1.1)
    other = replace(ANCHOR, serial="second")
    anchors.keep_anchors([ANCHOR], path)
    anchors.keep_anchors([newer, other], path)
    assert anchors.read_anchors(path) == (newer, other)


@pytest.mark.parametrize("text", ["", "{", '[{"soc": 1}]', "[1]"])
def test_a_damaged_file_teaches_nothing(tmp_path: Path, text: str) -> None:
    """Estimates go on without corrections."""
    path = tmp_path / "anchors.json"
    path.write_text(text)
    assert anchors.read_anchors(path) == ()


def test_a_small_cores_estimate_neither_learns_nor_is_corrected() -> None:
    """A bench measures on the fastest cores."""
    small = replace(ESTIMATE, core="Cortex-A55")
    assert anchors.ratio_of_anchor(MEASURED, [small]) is None
    assert anchors.anchor_estimate(small, [ANCHOR], "SM8250", "onnxruntime", "int8") == small
