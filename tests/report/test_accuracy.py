"""Tests of accuracy on labelled samples in the manifest, on the page and in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import VerificationError
from exporter.report import manifest
from exporter.report.html import render_html
from exporter.report.manifest import restore
from tests.report import sample
from tests.report.test_terminal import joined, printed

INT8 = "executorch-xnnpack-int8"


def dumped() -> Any:
    return json.loads(manifest.dump_manifest(sample.labelled()))


def row(content: Any) -> Any:
    return next(a for a in content["artifacts"] if a["name"] == INT8)["accuracy"]


def test_the_manifest_has_counts_shares_and_intervals() -> None:
    """Shares are 0 to 1, losses are points, and float32's figures are included."""
    written = row(dumped())
    assert (written["right"], written["top1"], written["top5"], written["drop_points"]) == (
        179,
        0.895,
        0.975,
        0.5,
    )
    assert written["drop_interval_points"][0] < 0 < written["drop_interval_points"][1]
    assert dumped()["accuracy"]["float32"]["top1"] == 0.9
    assert json.loads(manifest.dump_manifest(sample.report()))["accuracy"] is None


def test_the_report_comes_back(tmp_path: Path) -> None:
    """The page drawn from a manifest shows what the run's own did."""
    (tmp_path / "manifest.json").write_text(manifest.dump_manifest(sample.labelled()))
    back = restore.restore_report(manifest.load_manifest(tmp_path / "manifest.json"))
    assert back.evaluation == sample.labelled().evaluation
    assert [a.accuracy for a in back.artifacts] == [a.accuracy for a in sample.labelled().artifacts]


FAULTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a prettier share": (lambda m: row(m).update(top1=0.99), r"top1 is 0.99, but the counts give 0.895"),
    "a smaller drop": (lambda m: row(m).update(drop_points=0.0), "drop_points is 0.0"),
    "more than there are": (lambda m: row(m).update(right=201), "more than there are samples"),
    "another float32": (lambda m: row(m).update(lost=3, drop_points=1.0), "compared with another float32"),
    "no float32": (lambda m: m.update(accuracy=None), "on other samples than"),
    "a stricter limit": (lambda m: m["accuracy"].update(max_drop_points=0.4), "passed, but lost 0.5 points"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_figures_that_contradict_each_other_are_refused(fault: str, tmp_path: Path) -> None:
    """A manifest cannot claim more accuracy than its counts give."""
    content = dumped()
    change, message = FAULTS[fault]
    change(content)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(VerificationError, match=message):
        manifest.load_manifest(tmp_path / "manifest.json")


def test_the_terminal_has_a_column_only_with_labels() -> None:
    """The table fits 80 columns, and a line describes float32's accuracy."""
    lines = printed(sample.labelled()).splitlines()
    assert next(line for line in lines if line.startswith(INT8)).split()[-1] == "89.5"
    assert max(len(line) for line in lines) <= 80
    assert (
        "Float32 is right about 90.0 % of 200 labelled photos (95 % interval 85.1 to 93.4 %), top-5 98.0 %; "
        "1 point may be lost." in joined(sample.labelled())
    )
    assert "acc." not in printed(sample.report()).splitlines()[1]


def test_the_page_has_a_section_and_a_plot_only_with_labels() -> None:
    """The section has rows for float32 and each evaluated artifact."""
    page = render_html(sample.labelled(), {})
    assert page.count("<h2>Accuracy</h2>") == 1
    assert page.count("<svg") == render_html(sample.report(), {}).count("<svg") + 1
    section = page[page.index("<h2>Accuracy</h2>") :].split("</section>")[0]
    assert [section.count(f">{name}</th>") for name in ("float32", INT8, "onnx-fp32")] == [1, 1, 0]
    assert "folders are named by class number" in section
    assert "Accuracy</h2>" not in render_html(sample.report(), {})
