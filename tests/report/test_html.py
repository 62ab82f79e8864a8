from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.report.html import render
from tests.report import sample

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags that don't close, attributes that could load something, and the text that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [v for k, v in attrs if k in {"src", "href", "xlink:href", "srcset", "action"} and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


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


@pytest.fixture
def browser() -> str:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    return CHROMIUM


def shoot(browser: str, page: Path, width: int, dark: bool, to: Path) -> Image.Image:
    """A screenshot; the page in a frame because Chromium's own window is never narrower than 500 px."""
    frame = to.with_suffix(".html")
    style = f"border:0;width:{width}px;height:3000px"
    frame.write_text(f'<body style="margin:0"><iframe src="{page.as_uri()}" style="{style}"></iframe>')
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={to.parent / 'profile'}", f"--window-size={max(width, 500)},3000"]
    command += [
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--screenshot={to}",
        frame.as_uri(),
    ]
    subprocess.run(
        command, check=True, capture_output=True, timeout=120, env={**os.environ, "HOME": str(to.parent)}
    )
    with Image.open(to) as image:
        return image.convert("RGB").crop((0, 0, width, 3000))


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 400])
def test_chromium_draws_the_page(html: str, browser: str, tmp_path: Path, width: int, dark: bool) -> None:
    """At both widths and in both schemes: paper of that scheme, and a margin that nothing runs out of."""
    page = tmp_path / "report.html"
    page.write_text(html, encoding="utf-8")
    pixels = np.asarray(shoot(browser, page, width, dark, tmp_path / "shot.png")).astype(int)
    paper = (22, 24, 27) if dark else (253, 253, 251)
    assert np.all(pixels[:, -6:] == paper)
    assert np.any(np.abs(pixels[:400] - paper).max(axis=2) > 100)
