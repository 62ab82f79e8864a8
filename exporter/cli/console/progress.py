"""Show the progress of a run: a live line on a terminal, a plain line per step elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.pipeline.context import Event

STAGES = {
    "plan": "planning",
    "read": "reading the checkpoint",
    "build": "building",
    "verify": "verifying",
    "arm64": "running on emulated Arm",
    "estimate": "estimating the phone's latency",
    "measure": "timing on this host",
    "search": "searching mixed precision",
    "sweep": "measuring int8 against calibration samples",
    "accuracy": "measuring accuracy",
    "report": "writing the report",
    "device": "measuring on devices",
    "night": "nightly",
}


@contextlib.contextmanager
def progress_watcher(quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Return an observer that prints to standard error, or nothing when `quiet`."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _progress_bars() as observer:
            yield observer
    else:
        yield _progress_lines()


@contextlib.contextmanager
def _progress_bars() -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, object] = {}

        def observe(event: Event) -> None:
            if event.stage not in tasks:
                name = STAGES[event.stage]
                tasks[event.stage] = progress.add_task(name, total=None, detail="")
            for stage, task in tasks.items():
                if stage != event.stage:
                    progress.update(task, detail="")  # type: ignore[arg-type]
                    progress.stop_task(task)  # type: ignore[arg-type]
            progress.update(
                tasks[event.stage],  # type: ignore[arg-type]
                completed=event.done,
                total=event.total or None,
                detail=event.detail,
            )

        yield observe


def _progress_lines() -> Callable[[Event], None]:
    started = time.monotonic()
    seen: set[tuple[str, str]] = set()

    def observe(event: Event) -> None:
        if (event.stage, event.detail) in seen:
            return
        seen.add((event.stage, event.detail))
        step = f"{STAGES[event.stage]}: {event.detail}" if event.detail else STAGES[event.stage]
        sys.stderr.write(f"[{time.monotonic() - started:6.1f} s] {step}\n")

    return observe
