from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.records import MixedPoint, OperatorCost
from exporter.report.html import render_html
from tests import browser
from tests.browser import Page
from tests.report import sample


@pytest.fixture(scope="module")
def html() -> str:
    return render_html(sample.report(), sample.outputs())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_is_the_same_twice(html: str) -> None:
    """Two runs with equal results give equal bytes."""
    assert render_html(sample.report(), sample.outputs()) == html


def test_every_tag_is_closed(page: Page) -> None:
    """The page and the plots inside it are well-formed."""
    assert (page.open, page.wrong) == ([], [])


def test_the_page_loads_nothing(html: str, page: Page) -> None:
    """No script, no style sheet, no image, no font: only references inside the page itself."""
    assert [target for target in page.loads if not target.startswith("#")] == []
    assert not {"script", "link", "img", "iframe", "object", "embed"} & page.tags
    assert not re.search(r"@import|(?<!\.)url\((?!#)", html)


def test_the_first_screen_is_the_verdict(page: Page) -> None:
    """What ships, its size, error and host latency, and that no device has measured it, before the table."""
    verdict = page.text.split("Artifacts")[0]
    for fact in (
        "Ship executorch-xnnpack-int8.pte",
        "Fastest passed artifact",
        "3.71 MB",
        "0.0713",
        "21.4 dB",
        "this host, not a phone",
        "Budget 15.0 ms on snapdragon865: not measured on a device",
    ):
        assert fact in verdict


def test_every_artifact_has_its_status_and_reason(page: Page) -> None:
    """Nothing is left out of the table, whatever became of it."""
    for artifact in sample.artifacts():
        assert artifact.variant.name in page.text
        assert (artifact.reason or "") in page.text


def test_notes_warnings_versions_stages_and_facts_are_all_there(page: Page) -> None:
    """The page holds everything the report holds."""
    report = sample.report()
    expected = [*report.notes, *report.warnings, *report.tools, *report.tools.values(), *report.stage_seconds]
    expected += [
        *report.not_offered.values(),
        report.source_sha256,
        "3,504,872",
        "602 MFLOPs",
        "x float32 [1, 3, 224, 224]",
    ]
    assert [fact for fact in expected if fact not in page.text] == []


def test_five_plots_are_drawn(html: str) -> None:
    """Trade-off, latency, outputs, sensitivity and front; without data there are none."""
    assert html.count("<svg") == 5
    bare = tuple(replace(a, latency=None, verdict=None) for a in sample.artifacts())
    empty = replace(sample.report(), artifacts=bare, operator_costs=(), mixed_points=())
    assert "<svg" not in render_html(empty, {})


def test_every_operator_is_listed_with_its_cost(page: Page) -> None:
    """Layer, kind and decibels, the costliest first; one that costs nothing has infinitely many."""
    section = page.text.split("What int8 costs, operator by operator")[1].split("Mixed precision")[0]
    assert "SQNR, it alone features.18.0 conv2d 26.1 dB features." in section
    assert f"{len(sample.operator_costs()) - 12} more" in section
    assert section.endswith("classifier.1 linear ∞ dB ")
    assert [cost.layer for cost in sample.operator_costs() if cost.layer not in section] == []


def test_every_candidate_of_the_search_is_listed(page: Page) -> None:
    """What it keeps, its figures, whether it passed and whether it was chosen."""
    section = page.text.split("Mixed precision")[1].split("In the app")[0]
    assert "executorch-xnnpack-int8 not met 0 21.4 dB 95.0 % 1.92 ms 3.71 MB" in section
    assert "onnx-mixed chosen met 4 25.6 dB 100 % 2.19 ms 4.62 MB features.18.0, " in section
    assert section.count("-mixed") == 8


def test_what_candidates_lost_on_labelled_samples_is_listed() -> None:
    """Only a labelled search has the column; a missing answer is a dash."""
    first, second, *others = sample.mixed_points()
    labelled = (replace(first, drop=1.25), replace(second, drop=-0.5), *others)
    text = Page(render_html(replace(sample.report(), mixed_points=labelled), {})).text
    assert "21.4 dB 95.0 % 1.25 1.92 ms" in text
    assert "23.1 dB 95.0 % -0.50 2.00 ms" in text
    assert "25.2 dB 100 % – 2.17 ms" in text  # noqa: RUF001
    assert "Top-1 lost" in text
    assert "Top-1 lost" not in Page(render_html(sample.report(), {})).text


@pytest.mark.parametrize(
    ("field", "heading"), [("operator_costs", "What int8 costs"), ("mixed_points", "Mixed precision")]
)
def test_what_was_not_measured_has_no_section(field: str, heading: str) -> None:
    """A page without costs or without a search has no empty sections."""
    without = Page(render_html(replace(sample.report(), **{field: ()}), {}))  # type: ignore[arg-type]
    assert heading not in without.text
    assert (without.open, without.wrong) == ([], [])


def test_nothing_to_ship_is_the_headline() -> None:
    """A page without a choice shows no figures of one, and no code."""
    page = Page(render_html(sample.nothing_passed(), {}))
    assert "Nothing to ship No artifact passed." in page.text
    assert "Kotlin" not in page.text
    assert (page.open, page.wrong) == ([], [])


def test_a_report_without_artifacts_can_be_drawn() -> None:
    """All formats narrowed away is still a page."""
    empty = replace(sample.nothing_passed(), artifacts=(), not_offered={}, notes=(), warnings=(), tools={})
    assert Page(render_html(empty, {})).wrong == []


def test_text_from_outside_is_escaped() -> None:
    """File names, reasons and notes cannot become markup, in the page or in the plots."""
    evil = "<script>alert(1)</script>"
    first = sample.artifacts()[0]
    artifact = replace(
        first, variant=replace(first.variant, name=evil), reason=evil, notes=(evil,), file=evil
    )
    report = replace(
        sample.report(),
        source_file=evil,
        artifacts=(artifact,),
        selected=evil,
        selection_reason=evil,
        notes=(evil,),
        warnings=(evil,),
        tools={evil: evil},
        operator_costs=(OperatorCost(evil, evil, evil, 0.01),),
        mixed_points=(MixedPoint(f"{evil}-mixed", (evil,), 22.0, None, 1.0, 1, True),),
    )
    html = render_html(report, {"reference": np.arange(9.0), evil: np.arange(9.0)})
    assert "<script" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 400])
def test_chromium_draws_the_page(html: str, tmp_path: Path, width: int, dark: bool) -> None:
    """At both widths and in both schemes: paper of that scheme, and a margin that nothing runs out of."""
    page = tmp_path / "report.html"
    page.write_text(html, encoding="utf-8")
    pixels = np.asarray(browser.shoot(browser.find(), page, width, dark, tmp_path / "shot.png")).astype(int)
    paper = (22, 24, 27) if dark else (253, 253, 251)
    assert np.all(pixels[:, -6:] == paper)
    assert np.any(np.abs(pixels[:400] - paper).max(axis=2) > 100)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 400])
def test_chromium_shows_what_quantisation_cost(html: str, tmp_path: Path, width: int) -> None:
    """Both plots at a size that can be read, both tables, and nothing to scroll sideways to."""
    page = tmp_path / "report.html"
    page.write_text(html, encoding="utf-8")
    seen = browser.look(browser.find(), page, width, tmp_path)
    assert (seen.plots, seen.scroll_width, seen.requests) == (5, seen.width, [])
    assert "features.18.0" in seen.text
    assert "onnx-mixed" in seen.text
