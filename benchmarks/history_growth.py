"""How fast a history of 100,000 sessions answers what lists and the judge ask, with and without its indexes.

    python benchmarks/history_growth.py [--sessions 100000] [--repeats 5]

Fills a new history (100 lines of a thousand nights, samples left out: no listing reads them) in SQLite, and
in a temporary PostgreSQL server where that is installed; asks each question several times through the public
API, drops the indexes, and asks again. Times are the median, and the slowest in brackets, without the first.
Ends with an error where an answer took more than 100 ms with the indexes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from sqlalchemy import insert, text

from android_harness import history
from android_harness.history import rows
from android_harness.history.records import Filter, StoredSession
from android_harness.history.store import History
from android_harness.history.tables import INDEXES, SessionRow
from tests.history import postgres
from tests.history.stored import FIRST_NIGHT, night

MODELS, ARTIFACTS, DEVICES = 5, 5, 4
LIMIT_MS = 100.0
BATCH = 2000


def sessions(count: int) -> Iterator[StoredSession]:
    """All lines of a night, then the next night; an update of Android every 200 nights."""
    lines = MODELS * ARTIFACTS * DEVICES
    for number in range(count):
        day, line = divmod(number, lines)
        yield night(
            day,
            key=f"key-{number}",
            model=f"model-{line % MODELS}",
            artifact=f"artifact-{line // MODELS % ARTIFACTS}",
            serial=f"serial-{line // (MODELS * ARTIFACTS)}",
            fingerprint=f"build-{day // 200}",
            started_at=FIRST_NIGHT + timedelta(days=day, seconds=30 * line),
            flags=("trend: up",) if number % 7 == 0 else (),
        )


def fill(memory: History, count: int) -> StoredSession:
    """The rows as `add` makes them, many a transaction; the last session."""
    batch: list[dict[str, object]] = []
    with memory.database.writing() as connection:
        for session in sessions(count):
            batch.append(rows.columns(session))
            if len(batch) == BATCH:
                connection.execute(insert(SessionRow), batch)
                batch.clear()
        if batch:
            connection.execute(insert(SessionRow), batch)
        connection.execute(text("ANALYZE"))
    return session


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
        "judge: last 365 of a line": lambda: memory.series(last.line, newest=365),
    }


def timed(question: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        assert question()
        taken.append(1e3 * (time.perf_counter() - start))
    return taken[1:]


def drop_indexes(memory: History) -> None:
    with memory.database.writing() as connection:
        for name in INDEXES:
            connection.execute(text(f"DROP INDEX {name}"))
        connection.execute(text("ANALYZE"))


def measure(name: str, location: str, count: int, repeats: int) -> bool:
    """Print a table; whether every answer took less than 100 ms with the indexes."""
    with history.open_history(location) as memory:
        start = time.perf_counter()
        last = fill(memory, count)
        print(f"\n{name}: {count} sessions, filled in {time.perf_counter() - start:.0f} s")
        asked = questions(memory, last)
        quick = {what: timed(question, repeats) for what, question in asked.items()}
        drop_indexes(memory)
        print(f"{'':28}{'with indexes':>20}{'without':>20}  ms")
        for what, question in asked.items():
            slow = timed(question, repeats)
            cells = (f"{statistics.median(one):.1f} ({max(one):.1f})" for one in (quick[what], slow))
            print(f"{what:28}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    return all(statistics.median(taken) < LIMIT_MS for taken in quick.values())


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
