"""Read a page as it is written and as Chromium shows it, from outside, as pages have no script."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HEIGHT = 3000
LOOK = """<!doctype html><body style="margin:0"><iframe id="page" src="{uri}"
style="border:0;width:{width}px;height:{height}px"></iframe><pre id="seen"></pre><script>
document.getElementById("page").onload = () => {{
  const view = document.getElementById("page").contentWindow, root = view.document.documentElement;
  const boxes = [...view.document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
  document.getElementById("seen").textContent = JSON.stringify({{
    scroll_width: root.scrollWidth, width: root.clientWidth,
    plots: boxes.filter(box => box.width > 100 && box.height > 60).length,
    requests: view.performance.getEntriesByType("resource").map(entry => entry.name),
    text: view.document.body.innerText }});
}};
</script></body>"""
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """A page's unclosed tags, attributes that could load something, and visible text."""

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


@dataclass(frozen=True)
class Looked:
    """What a browser reports of a page at one width."""

    width: int
    scroll_width: int
    """The width of the content; more than `width` where the page scrolls sideways."""
    plots: int
    """The number of plots drawn at a readable size."""
    requests: list[str]
    """The requests of the page beyond itself."""
    text: str
    console: list[str]
    """The messages on the browser's console."""


def find() -> str:
    """Return Chromium's path; skip the test without one."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    return CHROMIUM


def run(browser: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run Chromium without a window, a network, or the user's files."""
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", *options]
    environment = {**os.environ, "HOME": str(folder)}
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=120, env=environment, errors="replace"
    )


def shoot(browser: str, page: Path, width: int, dark: bool, to: Path) -> Image.Image:
    """Take a screenshot; the page is in a frame because Chromium's window has at least 500 px."""
    frame = to.with_suffix(".html")
    style = f"border:0;width:{width}px;height:{HEIGHT}px"
    frame.write_text(f'<body style="margin:0"><iframe src="{page.as_uri()}" style="{style}"></iframe>')
    run(
        browser,
        to.parent,
        f"--window-size={max(width, 500)},{HEIGHT}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--screenshot={to}",
        frame.as_uri(),
    )
    with Image.open(to) as image:
        return image.convert("RGB").crop((0, 0, width, HEIGHT))


def look(browser: str, page: Path, width: int, folder: Path) -> Looked:
    """Open a page at a width, and report what it shows."""
    frame = folder / f"look-{width}.html"
    frame.write_text(LOOK.format(uri=page.as_uri(), width=width, height=HEIGHT))
    done = run(
        browser,
        folder,
        "--allow-file-access-from-files",  # the frame looks into the page
        "--enable-logging=stderr",
        "--virtual-time-budget=10000",
        "--dump-dom",
        frame.as_uri(),
    )
    seen = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
    assert seen, f"{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Looked(**json.loads(html.unescape(seen[1])), console=console)
