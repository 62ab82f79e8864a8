"""Tests of `nightly.html`: changes first, every line below, fit for a phone without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from android_harness.history.records import Filter, Gap
from android_harness.history.store import History
from exporter.nightly import night_page, night_views
from exporter.nightly.night_views import NightView
from exporter.nightly.records import Change
from tests import browser
from tests.browser import Page
from tests.nightly import sample


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with sample.memory(tmp_path_factory.mktemp("season")) as history:
        yield history


@pytest.fixture(scope="module")
def lines(memory: History) -> tuple[NightView, ...]:
    return night_views.night_views(sample.config(Path("nowhere")), memory, sample.result())


@pytest.fixture(scope="module")
def html(memory: History, lines: tuple[NightView, ...]) -> str:
    return night_page.render_night_page(sample.result(), lines, memory.gaps(Filter(host="farm-a")))


@pytest.fixture(scope="module")
def shown(html: str) -> Page:
    return Page(html)


def test_every_tag_is_closed_and_nothing_is_loaded(html: str, shown: Page) -> None:
    """The page is well-formed, plots included, and loads no script, style, image or font."""
    assert (shown.open, shown.wrong) == ([], [])
    assert [target for target in shown.loads if not target.startswith("#")] == []
    assert not {"script", "link", "img", "iframe", "object", "embed"} & shown.tags
    assert not re.search(r"@import|(?<!\.)url\((?!#)", html)


def test_what_changed_comes_first(shown: Page) -> None:
    """The worst changes come first with their reasons, before any line's nights."""
    first = shown.text.partition("mobilenet_v2 for snapdragon865")[0]
    words = (
        "Slower or worse: 1",
        "12.1% above the usual",
        "it went away during launch 3",
        "unknown key licens",
        "failed, passed before. It reaches 15.1 dB",
        "torch 2.12.0 to 2.13.0",
    )
    places = [first.index(word) for word in words]
    assert places == sorted(places)


def test_every_line_has_its_nights_and_launches(html: str, shown: Page, lines: tuple[NightView, ...]) -> None:
    """Every line has two plots, with figures and reasons in words."""
    assert len(lines) == len(sample.LINES)
    assert html.count("<svg") == 2 * len(lines)
    for row in sample.result().rows:
        assert row.words in shown.text


def test_a_step_is_told_with_its_causes(shown: Page) -> None:
    """A step names its night, both levels, its size, and what else changed."""
    assert re.search(
        r"23 Jan 2026: 11\.\d to 13\.\d ms, 1[23]\.\d% slower\. onnxruntime went from", shown.text
    )


def test_gaps_are_listed(shown: Page) -> None:
    """Gaps are listed with their reasons."""
    assert shown.text.count("adb sees no phone.") == len(sample.GAP_NIGHTS)


def test_a_line_that_was_not_measured_tonight_says_so(memory: History) -> None:
    """A line that was not measured tonight still shows its past."""
    tonight = replace(sample.result(), night="another", rows=())
    html = night_page.render_night_page(
        tonight, night_views.night_views(sample.config(Path("x")), memory, tonight), ()
    )
    assert Page(html).text.count("not measured tonight Last measured 09 Feb 2026.") == len(sample.LINES)


def test_a_night_without_anything_can_be_drawn() -> None:
    """A first night without a phone gives a page."""
    night = replace(sample.result(), rows=(), changes=(), before="")
    text = Page(night_page.render_night_page(night, (), ())).text
    assert "Not measured on a phone Nothing was measured: nothing to say." in text
    assert "this is the first night" in text


def test_text_from_outside_is_escaped(lines: tuple[NightView, ...]) -> None:
    """Names, messages and devices cannot become markup, in the page or in the plots."""
    evil = "<script>alert(1)</script>$x_1$"
    last = replace(lines[0].last, serial=evil, device_model=evil, runtime=evil)
    line = replace(lines[0], last=last)
    night = replace(
        sample.result(),
        rows=(sample.row("failed", evil, model=evil, artifact=evil, serial=evil),),
        changes=(Change(evil, evil, evil, evil, worse=True),),
        notes=(evil,),
        tools={evil: evil},
    )
    gap = Gap("k", evil, evil, last.started_at, evil, evil, evil, evil)
    html = night_page.render_night_page(night, (line,), (gap,))
    assert "<script" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 400])
def test_chromium_shows_it(html: str, lines: tuple[NightView, ...], tmp_path: Path, width: int) -> None:
    """Every plot is visible, nothing scrolls sideways, and no error or request occurs."""
    file = tmp_path / "nightly.html"
    file.write_text(html, encoding="utf-8")
    seen = browser.look(browser.find(), file, width, tmp_path)
    assert (seen.scroll_width, seen.plots) == (width, 2 * len(lines))
    assert (seen.console, seen.requests) == ([], [])
    assert seen.text.index("What changed") < seen.text.index("Nights")
