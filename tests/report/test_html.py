from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.report.html import render
from tests import browser
from tests.browser import Page
from tests.report import sample


@pytest.fixture(scope="module")
def html() -> str:
    return render(sample.report(), sample.outputs())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_is_the_same_twice(html: str) -> None:
    """Two runs with equal results give equal bytes."""
    assert render(sample.report(), sample.outputs()) == html


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
    told = [*report.notes, *report.warnings, *report.tools, *report.tools.values(), *report.stage_seconds]
    told += [
        *report.not_offered.values(),
        report.source_sha256,
        "3,504,872",
        "602 MFLOPs",
        "x float32 [1, 3, 224, 224]",
    ]
    assert [fact for fact in told if fact not in page.text] == []


def test_three_plots_are_drawn(html: str) -> None:
    """Trade-off, latency and outputs; without data there are none."""
    assert html.count("<svg") == 3
    bare = tuple(replace(a, latency=None, verdict=None) for a in sample.artifacts())
    assert "<svg" not in render(replace(sample.report(), artifacts=bare), {})


def test_nothing_to_ship_is_the_headline() -> None:
    """Without a choice there are no figures to mistake for one, and no code."""
    page = Page(render(sample.nothing_passed(), {}))
    assert "Nothing to ship No artifact passed." in page.text
    assert "Kotlin" not in page.text
    assert (page.open, page.wrong) == ([], [])


def test_a_report_without_artifacts_can_be_drawn() -> None:
    """All formats narrowed away is still a page."""
    empty = replace(sample.nothing_passed(), artifacts=(), not_offered={}, notes=(), warnings=(), tools={})
    assert Page(render(empty, {})).wrong == []


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
    )
    html = render(report, {"reference": np.arange(9.0), evil: np.arange(9.0)})
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
