"""Tests of `android_harness.saved_launches`: a killed measurement goes on where it stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from android_harness import identity, one_device, saved_launches
from android_harness.host import HostDevice
from android_harness.one_device import Failed
from android_harness.push import Program
from android_harness.records import BenchConfig, Completed, Launch, Session
from tests.harness import sessions

PLAN = BenchConfig(launches=3, min_iterations=50, min_seconds=0.0, max_seconds=2.0)


class Mortal(HostDevice):
    """A device whose bench is killed (kill -9) when it runs the given program for the nth time."""

    def __init__(self, word: str = "", at: int = 0) -> None:
        super().__init__()
        self.word, self.left = word, at

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        if self.word in argv and self.word:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().run(*argv, timeout_s=timeout_s)


def measured(
    folder: Path, device: HostDevice, plan: BenchConfig = PLAN, modes: Sequence[str] = ("fine", "sleep 0")
) -> tuple[tuple[Session | Failed, ...], list[str]]:
    """Measure with saved launches; return the results and the steps that the observer saw."""
    steps: list[str] = []
    results = one_device.bench_one_device(
        device,
        identity.read_identity(device),
        lambda backend: Program(sessions.stand_in(folder)),
        [sessions.task(folder, mode) for mode in modes],
        plan,
        lambda serial, step: steps.append(step),
        saved=folder / "saved",
    )
    return results, [step for step in steps if ": launch " in step]


def killed(folder: Path, word: str, at: int) -> None:
    """Run a bench in a child that is killed as `Mortal` says."""
    child = os.fork()
    if not child:
        measured(folder, Mortal(word, at))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize("word", ["run", "canary"])
@pytest.mark.parametrize("at", [1, 4])
def test_every_finished_launch_is_kept(word: str, at: int, tmp_path: Path) -> None:
    """The second start runs what is missing, in interleaved rounds, and nothing twice."""
    killed(tmp_path, word, at)
    results, launches = measured(tmp_path, HostDevice())
    assert len(launches) == 6 - at  # the first canary runs before the first launch
    for session in results:
        assert isinstance(session, Session)
        assert [launch.index for launch in session.launches] == [0, 1, 2]
        assert len(session.canary_ns) == 4
        assert not session.cut_off
        for given, came in zip(session.task.samples, session.launches[0].outputs, strict=True):
            np.testing.assert_array_equal(given[0], came[0])


def test_a_run_killed_before_its_results_were_stored_repeats_none(tmp_path: Path) -> None:
    """All launches are there: the next start only reads the device's state."""
    first, _ = measured(tmp_path, HostDevice())
    second, launches = measured(tmp_path, HostDevice())
    assert launches == []
    for before, after in zip(first, second, strict=True):
        assert isinstance(before, Session)
        assert isinstance(after, Session)
        for one, two in zip(before.launches, after.launches, strict=True):
            for entry in fields(Launch):
                if entry.name != "outputs":
                    assert getattr(one, entry.name) == getattr(two, entry.name)


def test_a_stored_session_is_measured_anew(tmp_path: Path) -> None:
    """Saved launches are only for sessions that were never stored."""
    first, _ = measured(tmp_path, HostDevice())
    for session in first:
        assert isinstance(session, Session)
        saved_launches.discard_saved_launches(session)
    assert len(measured(tmp_path, HostDevice())[1]) == 6


@pytest.mark.parametrize(
    "change",
    [{"threads": 1}, {"affinity": "1"}, {"min_seconds": 0.01}],
)
def test_another_configuration_continues_nothing(change: dict[str, object], tmp_path: Path) -> None:
    """Launches of one session are all measured in the same way."""
    killed(tmp_path, "run", 3)
    plan = replace(PLAN, **change)  # type: ignore[arg-type]
    assert len(measured(tmp_path, HostDevice(), plan)[1]) == 2 * plan.launches


def test_an_old_run_is_not_continued(tmp_path: Path) -> None:
    """After six hours the phone is another one: it is measured anew."""
    killed(tmp_path, "run", 3)
    old = time.time() - saved_launches.MAX_AGE_S - 1
    for path in (tmp_path / "saved").rglob("*"):
        os.utime(path, (old, old))
    assert len(measured(tmp_path, HostDevice())[1]) == 6


@pytest.mark.parametrize(
    ("name", "content"),
    [("0.json", b"{"), ("0.json", b"[]"), ("0.npz", b"PK\x03\x04"), ("state.json", b"[1]")],
)
def test_damaged_launches_are_measured_again(name: str, content: bytes, tmp_path: Path) -> None:
    """What cannot be read counts for nothing, and stops nothing."""
    killed(tmp_path, "run", 3)
    for path in (tmp_path / "saved").rglob(name):
        path.write_bytes(content)
    assert len(measured(tmp_path, HostDevice())[1]) == 6


def test_a_full_disk_here_does_not_stop_the_measurement(tmp_path: Path) -> None:
    """The session needs no room for saved launches: it is complete all the same."""
    (tmp_path / "saved").write_text("a file in place of the folder")
    results, _ = measured(tmp_path, HostDevice())
    assert all(isinstance(result, Session) for result in results)


def test_launches_that_are_too_old_are_deleted_when_others_begin(tmp_path: Path) -> None:
    """Every run that is killed would leave its launches behind for ever."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    before = time.time() - saved_launches.MAX_AGE_S - 1
    os.utime(old, (before, before))
    saved_launches.begin_saved_launches(tmp_path / "run", sessions.state(), "2026-01-01T00:00:00+00:00")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "run"]
