"""Write a night's page, JUnit and summary into its folder; copies of the newest go next to all nights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import OutputError
from exporter.files import write_text_file
from exporter.nightly import junit, night_page, night_scalars, night_summary, night_views
from exporter.nightly.config import NightConfig
from exporter.nightly.records import Night, NightResult

if TYPE_CHECKING:
    from android_harness.history.store import History

PAGE, JUNIT, SUMMARY = "nightly.html", "junit.xml", "summary.md"
GAPS = 40
"""How many of the newest gaps the page lists."""


def check_night_can_be_written() -> None:
    night_scalars.check_night_scalars_writer()


def write_night(
    config: NightConfig, night: Night, memory: History, result: NightResult, tensorboard: Path | None
) -> None:
    """Write everything; files appear whole.

    Raises:
        OutputError: A folder cannot be written.
    """
    from android_harness.history.records import Filter

    shown = night_views.night_views(config, memory, result)
    gaps = memory.gaps(Filter(host=result.host, newest=GAPS))
    texts = {
        PAGE: night_page.render_night_page(result, shown, gaps),
        JUNIT: junit.render_junit(result),
        SUMMARY: night_summary.markdown_night_summary(result),
    }
    try:
        for name, content in texts.items():
            for folder in (night.folder, config.out):
                write_text_file(folder / name, content)
        if step := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(step).open("a", encoding="utf-8") as file:
                file.write(texts[SUMMARY])
    except OSError as error:
        raise OutputError(f"{config.out} cannot be written: {error.strerror}.", "Check its space.") from None
    if tensorboard:
        sessions = memory.sessions(Filter(run=night.id, host=result.host))
        night_scalars.write_night_scalars(tensorboard, night.id, reversed(sessions))
