"""How many calibration samples are enough: the counts that are tried, and what the curve says."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.capture import captured_program
from exporter.capture.float64_reference import run_float64_reference
from exporter.data import Data
from exporter.pipeline.calibration_sweep import measure_calibration_sweep
from exporter.records import CurvePoint
from exporter.report import manifest
from exporter.report.html import render_html
from exporter.report.manifest import restore
from exporter.verify import reference_io, sweep_decision
from tests import nets
from tests.report import sample
from tests.report.test_terminal import joined


def points(*decibels: float) -> tuple[CurvePoint, ...]:
    """Make the points of 1, 2, 4, … samples."""
    return tuple(CurvePoint(2**power, db, 0.9) for power, db in enumerate(decibels))


def test_counts_double_up_to_all() -> None:
    """The counts are powers of two, and all samples are the last."""
    assert [sweep_decision.sweep_decision_counts(n) for n in (0, 1, 8, 11)] == [
        (),
        (1,),
        (1, 2, 4, 8),
        (1, 2, 4, 8, 11),
    ]


def test_enough_is_the_fewest_near_the_best() -> None:
    """Within 0.5 dB of the best number, wherever that lies; told once when it is the best itself."""
    assert sweep_decision.enough_by_sweep_decision(points(10, 15.6, 16, 15.9)).count == 2
    assert sweep_decision.sweep_decision_sentence(points(10, 15.6, 16, 15.9)) == (
        "2 calibration sample(s) are enough: int8 reaches 15.6 dB with them, at most 16.0 dB with 4."
    )
    assert sweep_decision.sweep_decision_sentence(points(10, 16)).endswith(
        "enough: int8 reaches 16.0 dB with them."
    )


def test_a_curve_that_still_rises_is_warned_about() -> None:
    """A curve rises if it gains more than 0.5 dB at its end; a plateau and a fall do not."""
    assert sweep_decision.sweep_decision_warning(points(10, 12, 14)).startswith("int8 still gains")
    assert [
        sweep_decision.sweep_decision_warning(p)
        for p in (points(10, 14, 14.4), points(10, 14, 12), points(9))
    ] == [""] * 3


def test_the_curve_is_measured_on_verification_samples(tmp_path: Path) -> None:
    """int8 of the small network with 1, 2 and 3 samples; one black sample is worth nothing."""
    net = nets.captured("cnn")
    black = (nets.samples("cnn", 0, 1)[0][0] * 0,)
    data = Data((black, *nets.samples("cnn", 0, 2)), nets.samples("cnn", 1400, 8), "arrays")
    captured_program.save_captured_program(net, tmp_path)
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(data))
    reference, _ = run_float64_reference(net, data.verification, {"zeros": black})
    reference_io.save_reference_io(reference, tmp_path / "verification.npz")
    first, second, third = measure_calibration_sweep(tmp_path, tmp_path / "verification.npz")
    assert [p.count for p in (first, second, third)] == [1, 2, 3]
    assert first.sqnr_db < 5 < 10 < min(second.sqnr_db, third.sqnr_db)
    assert third.agreement is not None


def test_the_report_shows_the_curve(tmp_path: Path) -> None:
    """A plot, its sentence on the page and in the terminal; and all of it again from the manifest."""
    report = replace(sample.report(), calibration_sweep=points(10, 15.6, 16, 15.9))
    page = render_html(report, {})
    assert page.count("<svg") == render_html(sample.report(), {}).count("<svg") + 1
    assert "2 calibration sample(s) are enough" in page
    assert "2 calibration sample(s) are enough" in joined(report)
    (tmp_path / "manifest.json").write_text(manifest.dump_manifest(report))
    assert (
        restore.restore_report(manifest.load_manifest(tmp_path / "manifest.json")).calibration_sweep
        == report.calibration_sweep
    )


def test_a_count_that_gives_nothing_finite_is_null() -> None:
    """JSON has no infinity."""
    broken = (CurvePoint(1, float("-inf"), None), CurvePoint(2, 10.0, 0.9))
    written = json.loads(manifest.dump_manifest(replace(sample.report(), calibration_sweep=broken)))
    assert written["calibration_sweep"][0] == {"count": 1, "sqnr_db": None, "top1_agreement": None}
    assert "<svg" in render_html(replace(sample.report(), calibration_sweep=broken), {})


@pytest.mark.parametrize("count", [0, -1])
def test_no_count_below_one(count: int, tmp_path: Path) -> None:
    """A manifest may come from anyone."""
    written = json.loads(manifest.dump_manifest(replace(sample.report(), calibration_sweep=points(1, 2))))
    written["calibration_sweep"][0]["count"] = count
    (tmp_path / "manifest.json").write_text(json.dumps(written))
    with pytest.raises(Exception, match=r"calibration_sweep\[0\]\.count"):
        manifest.load_manifest(tmp_path / "manifest.json")
