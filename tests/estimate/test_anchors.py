"""Tests of learning from a phone's measurements."""

from __future__ import annotations

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


def test_an_anchor_corrects_the_estimate_and_narrows_it() -> None:
    """One anchor moves the median to the phone's, halves the miss, and is noted."""
    corrected = anchors.anchor_estimate(ESTIMATE, [ANCHOR], "SM8250", "onnxruntime", "int8")
    assert corrected.p50_ms == pytest.approx(12)
    assert corrected.high_ms / corrected.p50_ms == pytest.approx(2**0.5)
    assert corrected.low_ms < corrected.p50_ms
    assert corrected.evidence == "estimated"
    assert "1 measurements of your own phone" in corrected.notes[-1]


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
