"""`--search`: mixed artifacts that are real, verified, timed by whoever measures, and the best is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter import Report, export, searching
from exporter.errors import UsageError
from exporter.records import Latency, Variant
from exporter.report import manifest
from tests.exports import checkpoint, options

pytestmark = pytest.mark.slow
FORMATS = ("executorch-xnnpack-int8", "onnx-int8", "executorch-xnnpack-mixed", "onnx-mixed")


def searched(out: Path, **more: object) -> tuple[Report, list[str]]:
    """A search on the small CNN, and the names of the artifacts that the measurer was given."""
    timed: list[str] = []

    def measure(path: Path, variant: Variant) -> Latency:
        assert path.stat().st_size > 0
        timed.append(variant.name)
        return Latency(len(timed), len(timed), 20, 1)

    given: dict[str, Any] = {**options("cnn"), "formats": FORMATS, "cache": False, "search": True, **more}
    return export(checkpoint("cnn"), "snapdragon865", measure=measure, out=out, **given), timed


def test_the_first_candidate_that_is_good_enough_is_emitted(tmp_path: Path) -> None:
    """In both formats, passed and judged by the measurer given; a worse one before it is on record."""
    report, timed = searched(tmp_path / "out", min_sqnr_db=33.0)
    mixed = {a.variant.name: a for a in report.artifacts if a.variant.precision == "mixed"}
    assert {name: a.status for name, a in mixed.items()} == dict.fromkeys(FORMATS[2:], "passed")
    assert all((tmp_path / "out" / str(a.file)).is_file() for a in mixed.values())
    chosen = [point for point in report.mixed_points if point.chosen]
    assert {point.variant for point in chosen} == set(FORMATS[2:])
    assert all(point.passed and point.sqnr_db >= 33.0 for point in chosen)
    assert [p.kept for p in report.mixed_points if p.variant == "onnx-int8"] == [()]
    assert timed == [p.variant for p in report.mixed_points if p.kept]
    latency = mixed["onnx-mixed"].latency
    assert latency is not None
    assert latency.p50_ms == next(p.p50_ms for p in chosen if p.variant == "onnx-mixed")
    assert manifest.load(tmp_path / "out" / "manifest.json").selected == report.selected


def test_out_of_reach_keeps_the_best_and_says_so(tmp_path: Path) -> None:
    """No candidate is a thousand decibels good; the best is emitted with a warning."""
    report, _ = searched(tmp_path / "out", min_sqnr_db=1000.0, formats=FORMATS[1::2])
    tried = [point for point in report.mixed_points if point.kept]
    assert [p.sqnr_db for p in tried if p.chosen] == [max(p.sqnr_db for p in tried)]
    assert any("did not reach 1000 dB" in warning for warning in report.warnings)


def test_ctrl_c_keeps_the_best_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the second candidate, the first one is emitted, and the export ends as usual."""
    begin = searching._candidate

    def interrupted(*arguments: object) -> searching.Candidate:
        if arguments[4] == 1:
            raise KeyboardInterrupt
        return begin(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(searching, "_candidate", interrupted)
    report, _ = searched(tmp_path / "out", min_sqnr_db=1000.0, formats=FORMATS[1::2])
    assert len([p for p in report.mixed_points if p.kept]) == 1
    assert (tmp_path / "out" / "onnx-mixed.onnx").is_file()


def test_no_time_no_candidate(tmp_path: Path) -> None:
    """A limit of nothing starts none, and nothing called mixed is in OUT."""
    report, timed = searched(tmp_path / "out", time_limit_s=0.0, formats=FORMATS[1::2])
    assert timed == []
    assert not list((tmp_path / "out").glob("*mixed*"))
    assert any("found no mixed artifact" in warning for warning in report.warnings)


def test_mixed_without_a_search_is_refused(tmp_path: Path) -> None:
    """There is no mixed artifact but what a search finds."""
    with pytest.raises(UsageError, match="--search"):
        searched(tmp_path / "out", search=False, precisions=("mixed",), formats=())
