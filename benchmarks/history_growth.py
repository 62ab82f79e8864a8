"""How fast a history of 100,000 sessions answers what lists and the judge ask, with and without its indexes.

    python -m benchmarks.history_growth [--sessions 100000] [--repeats 5]

Fills a new history (100 lines of a thousand nights, samples left out: no listing reads them) in SQLite, and
in a temporary PostgreSQL server where that is installed; asks each question several times through the public
API, drops the indexes, and asks again. Milliseconds: the median, the slowest in brackets, and processor time
of this process, which a busy machine does not lengthen as much (PostgreSQL's own is not in it).
Ends with an error where an answer took more than 100 ms with the indexes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text

from android_harness import history
from android_harness.history import table_rows
from android_harness.history.records import Filter, StoredSession
from android_harness.history.store import History
from android_harness.history.tables import INDEXES, SESSIONS
from android_harness.regressions import changes
from tests.history import postgres
from tests.history.stored import FIRST_NIGHT, night

MODELS, ARTIFACTS, DEVICES = 5, 5, 4
LIMIT_MS = 100.0
BATCH = 2000


LINES = MODELS * ARTIFACTS * DEVICES
UPDATE = 200
"""The number of nights between updates of Android."""


def session(number: int) -> StoredSession:
    """Return session `number`: all lines of a night come before the next night."""
    day, line = divmod(number, LINES)
    return night(
        day,
        key=f"key-{number}",
        model=f"model-{line % MODELS}",
        artifact=f"artifact-{line // MODELS % ARTIFACTS}",
        serial=f"serial-{line // (MODELS * ARTIFACTS)}",
        fingerprint=f"build-{day // UPDATE}",
        started_at=FIRST_NIGHT + timedelta(days=day, seconds=30 * line),
    )


def columns(count: int) -> Iterator[dict[str, Any]]:
    """Build columns like `add`; most of a row is copied from its line's last update, for speed."""
    common: dict[int, dict[str, Any]] = {}
    for number in range(count):
        day, line = divmod(number, LINES)
        if day % UPDATE == 0:
            common[line] = table_rows.table_row_columns(session(number))
        unstable = number % 7 == 0
        yield common[line] | {
            "key": f"key-{number}",
            "run": f"night-{day}",
            "started_at": FIRST_NIGHT + timedelta(days=day, seconds=30 * line),
            "flags": ["trend: up"] if unstable else [],
            "stable": not unstable,
            "p50_ms": p50_ms(day),
        }


def p50_ms(day: int) -> float:
    """Return a p50 that is a tenth slower after every other update, with one percent of noise."""
    return 8.0 * (1.1 if day // UPDATE % 2 else 1.0) * (1 + 0.01 * math.sin(1e4 * day))


def fill(memory: History, count: int) -> StoredSession:
    """Insert many rows per statement; return the last session."""
    every = columns(count)
    with memory.database.writing() as connection:
        while batch := list(islice(every, BATCH)):
            connection.execute(insert(SESSIONS), batch)
        connection.execute(text("ANALYZE"))
    return session(count - 1)


def questions(memory: History, last: StoredSession) -> dict[str, Callable[[], object]]:
    since = last.started_at - timedelta(days=30)
    return {
        "list: the last 30": lambda: memory.sessions(Filter(newest=30)),
        "list: of a model": lambda: memory.sessions(Filter(model=last.model, newest=30)),
        "list: of a device": lambda: memory.sessions(Filter(device=last.serial, newest=30)),
        "list: of an artifact": lambda: memory.sessions(Filter(artifact=last.artifact, newest=30)),
        "list: of a night": lambda: memory.sessions(Filter(run=last.run, newest=30)),
        "list: model, device, since": lambda: memory.sessions(
            Filter(model=last.model, device=last.serial, since=since, newest=30)
        ),
        "show: by its key": lambda: memory.get(last.key),
        "judge: the baseline": lambda: memory.baseline(last),
        "judge: quality before": lambda: memory.earlier(last),
        "page: a year of a line": lambda: memory.trend(last.series_key, newest=365),
        "page: and its change-points": lambda: changes.changes_of_series(
            memory.trend(last.series_key, newest=365), memory.get_all
        ),
    }


def timed(question: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Return (median, slowest, processor's median) in milliseconds."""
    taken, used = [], []
    for _ in range(repeats + 1):
        start, before = time.perf_counter(), time.process_time()
        assert question()
        taken.append(1e3 * (time.perf_counter() - start))
        used.append(1e3 * (time.process_time() - before))
    return statistics.median(taken[1:]), max(taken[1:]), statistics.median(used[1:])


def drop_indexes(memory: History) -> None:
    with memory.database.writing() as connection:
        for name in INDEXES:
            connection.execute(text(f"DROP INDEX {name}"))
        connection.execute(text("ANALYZE"))


def measure(name: str, location: str, count: int, repeats: int) -> bool:
    """Print a table; return whether every answer took less than 100 ms with the indexes."""
    with history.open_history(location) as memory:
        start = time.perf_counter()
        last = fill(memory, count)
        print(f"\n{name}: {count} sessions, filled in {time.perf_counter() - start:.0f} s")
        asked = questions(memory, last)
        quick = {title: timed(question, repeats) for title, question in asked.items()}
        drop_indexes(memory)
        print(f"{'':28}{'with indexes':>24}{'without':>24}")
        for title, question in asked.items():
            both = (quick[title], timed(question, repeats))
            cells = (f"{middle:.1f} ({worst:.1f}), {cpu:.1f}" for middle, worst, cpu in both)
            print(f"{title:28}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
    return all(middle < LIMIT_MS for middle, _, _ in quick.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "history.sqlite")
        held = [measure("SQLite", place, options.sessions, options.repeats)]
    if reason := postgres.why_not():
        print(f"\nPostgreSQL: {reason}")
    else:
        with postgres.running() as server:
            held.append(measure("PostgreSQL", server.new_location(), options.sessions, options.repeats))
    if not all(held):
        raise SystemExit(f"An answer took more than {LIMIT_MS:.0f} ms.")


if __name__ == "__main__":
    main()
