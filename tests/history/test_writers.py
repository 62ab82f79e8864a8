"""Several hosts open a new history and write at once: nothing is lost or stored twice."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from multiprocessing.synchronize import Barrier

from android_harness import history
from android_harness.history.records import Filter
from tests.history.stored import night, samples

SAMPLES = replace(samples(), launches=samples().launches[:1])
WRITERS = 4
SESSIONS = 12
PROCESSES = multiprocessing.get_context("fork")
"""Their imports are already done, and no open connection is shared."""


def write(name: str, location: str, together: Barrier) -> None:
    together.wait(60)
    with history.open_history(location) as memory:
        for number in range(SESSIONS):
            memory.add(night(number, key=f"{name}-{number}", host=name), SAMPLES)
            memory.add(night(number, key=f"common-{number}"), SAMPLES)


def test_writers_at_once_lose_nothing(location: str) -> None:
    """The writers migrate a new database at once, and write their own and shared sessions at once."""
    together = PROCESSES.Barrier(WRITERS)
    writers = [
        PROCESSES.Process(target=write, args=(f"host-{number}", location, together))
        for number in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    with history.open_history(location) as memory:
        for number in range(WRITERS):
            assert len(memory.sessions(Filter(host=f"host-{number}"))) == SESSIONS
        keys = sorted(session.key for session in memory.iterate())
        assert keys == sorted(set(keys))
        assert sum(key.startswith("common-") for key in keys) == SESSIONS
        assert all(memory.samples(key) == SAMPLES for key in keys)


def test_a_reader_sees_whole_sessions(location: str) -> None:
    """A listing does not wait for a writer, and every session in it has its samples."""
    with history.open_history(location) as writer, history.open_history(location) as reader:
        writer.add(night(0), samples())
        with writer.database.writing() as connection:
            assert reader.samples("key-0") == samples()
            assert connection.in_transaction()
            assert len(reader.sessions()) == 1
