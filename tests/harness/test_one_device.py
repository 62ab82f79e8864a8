"""`one_device`, with a small program that implements the runner's protocol, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from android_harness import identity, one_device
from android_harness.errors import DeviceError, Disconnected
from android_harness.host import HostDevice
from android_harness.one_device import Failed
from android_harness.push import Program
from android_harness.records import BenchConfig, Completed, Device, Session
from tests.harness import sessions

PLAN = BenchConfig(launches=2, min_iterations=50, min_seconds=0.0, max_seconds=2.0)


class Breaking(HostDevice):
    """A device that loses the connection, or fails, where the test wants it."""

    def __init__(self, breaks: Callable[[tuple[str, ...]], bool] = lambda argv: False) -> None:
        super().__init__()
        self.breaks = breaks
        self.pushed: list[str] = []
        self.reconnects = 0

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        if self.breaks(argv):
            raise Disconnected("gone")
        return super().run(*argv, timeout_s=timeout_s)

    def push(self, source: Path, target: str) -> None:
        self.pushed.append(target)
        super().push(source, target)

    def reconnect(self, timeout_s: float = 60.0) -> None:
        self.reconnects += 1


def measured(folder: Path, *modes: str, device: Device | None = None) -> tuple[Session | Failed, ...]:
    device = device or HostDevice()
    program = Program(sessions.stand_in(folder))
    tasks = [sessions.task(folder, mode) for mode in modes]
    who = identity.read_identity(device)
    return one_device.bench_one_device(
        device, who, lambda backend: program, tasks, PLAN, lambda serial, step: None
    )


def log(device: HostDevice) -> list[str]:
    (path,) = Path(device.root).glob("programs/*/log")
    return path.read_text().split()


def test_a_task_becomes_a_session(tmp_path: Path) -> None:
    """A session has the launches, their outputs, one canary more than launches, and both states."""
    (session,) = measured(tmp_path, "fine")
    assert isinstance(session, Session)
    assert [launch.index for launch in session.launches] == [0, 1]
    assert len(session.canary_ns) == 3
    for launch in session.launches:
        for given, came in zip(session.task.samples, launch.outputs, strict=True):
            np.testing.assert_array_equal(given[0], came[0])


@pytest.mark.parametrize(("mode", "repeatable"), [("fine", True), ("changing", False)])
def test_one_input_is_computed_several_times(mode: str, repeatable: bool, tmp_path: Path) -> None:
    """A launch whose outputs change by one bit is kept and marked, with the outputs of its samples."""
    (session,) = measured(tmp_path, mode)
    assert isinstance(session, Session)
    assert [launch.repeatable for launch in session.launches] == [repeatable] * 2
    for launch in session.launches:
        assert len(launch.outputs) == len(session.task.samples)
        np.testing.assert_array_equal(session.task.samples[0][0], launch.outputs[0][0])


@pytest.mark.parametrize("breaks", [False, True], ids=["the profiler fails", "the cable is pulled"])
def test_a_profile_that_fails_costs_no_launch(breaks: bool, tmp_path: Path) -> None:
    """All launches are kept, and the reason why operators have no times is told."""
    device = Breaking(lambda argv: breaks and "profile" in argv)
    steps: list[str] = []
    (session,) = one_device.bench_one_device(
        device,
        identity.read_identity(device),
        lambda backend: Program(sessions.stand_in(tmp_path)),
        [sessions.task(tmp_path, "fine")],
        replace(PLAN, profile=True),
        lambda serial, step: steps.append(step),
    )
    assert isinstance(session, Session)
    assert len(session.launches) == PLAN.launches
    assert session.operators == ()
    (told,) = (step for step in steps if "its operators were not timed: " in step)
    assert ("gone" in told) is breaks


def test_launches_alternate(tmp_path: Path) -> None:
    """The order of three tasks is ABC, then CBA."""
    device = HostDevice()
    results = measured(tmp_path, "fine", "sleep 0", "sleep 0.0", device=device)
    hashes = [result.task.sha256 for result in results]
    assert log(device) == [*hashes, *reversed(hashes)]


def test_a_session_is_handed_on_once_it_is_complete(tmp_path: Path) -> None:
    """A session is handed on before the other tasks' last launches; a failed task is not handed on."""
    device = HostDevice()
    handed_on: list[tuple[Session, int]] = []
    results = one_device.bench_one_device(
        device,
        identity.read_identity(device),
        lambda backend: Program(sessions.stand_in(tmp_path)),
        [sessions.task(tmp_path, mode) for mode in ("fine", "crash", "sleep 0")],
        PLAN,
        lambda serial, step: None,
        lambda session: handed_on.append((session, len(log(device)))),
    )
    assert [(session.task.name, launches) for session, launches in handed_on] == [("sleep 0", 4), ("fine", 5)]
    assert [vars(session) for session, _ in handed_on[::-1]] == [
        vars(result) for result in results if isinstance(result, Session)
    ]


def test_nothing_is_pushed_twice(tmp_path: Path) -> None:
    """A second run sends only jobs, unless a file's content on the device has changed."""
    device = Breaking()
    measured(tmp_path, "fine", device=device)
    stored = [path for path in device.pushed if not path.endswith("job.json")]
    assert len(stored) == 4
    device.pushed.clear()
    Path(stored[1]).write_text("rot")
    measured(tmp_path, "fine", device=device)
    assert [path for path in device.pushed if not path.endswith("job.json")] == [stored[1]]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("killed", "probably for lack of memory"),
        ("crash", "exit code 1: it broke"),
        ("bad model", r"model: no  \[31mgraph"),
        ("foreign", "names a file that is not its own: '/etc/passwd'"),
        ("short", "does not fit its shape"),
        ("huge", "outputs are larger"),
        ("overlap", "begins before"),
        ("fewer", "60 durations, 59 starts"),
        ("slow claim", "claims 1000.00 s"),
        ("extra", "result is malformed: extra"),
    ],
)
def test_a_failing_runner_fails_only_its_own_task(tmp_path: Path, mode: str, words: str) -> None:
    """Crashes and impossible results have different messages; the other task is measured."""
    bad, good = measured(tmp_path, mode, "fine")
    assert isinstance(good, Session)
    assert isinstance(bad, Failed)
    assert isinstance(bad.reason, DeviceError)
    with pytest.raises(DeviceError, match=words):
        raise bad.reason


def test_a_runner_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging runner is killed at its deadline, and the other task continues."""
    monkeypatch.setattr("android_harness.launch.LOAD_S", -1.0)
    bad, good = measured(tmp_path, "hang", "fine")
    assert isinstance(bad, Failed)
    assert "did not end within 1 s" in str(bad.reason)
    assert isinstance(good, Session)


class Once:
    """A condition that holds for the first `times` launches of the runner."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, argv: tuple[str, ...]) -> bool:
        hit = "run" in argv and self.left > 0
        self.left -= hit
        return hit


def test_only_an_interrupted_launch_is_repeated(tmp_path: Path) -> None:
    """After two lost connections there are still two launches."""
    device = Breaking(Once(2))
    (session,) = measured(tmp_path, "fine", device=device)
    assert isinstance(session, Session)
    assert device.reconnects == 2
    assert len(log(device)) == 2


def test_a_third_lost_connection_fails_the_task(tmp_path: Path) -> None:
    """The third lost connection fails the task; the other task is measured."""
    bad, good = measured(tmp_path, "fine", "sleep 0", device=Breaking(Once(3)))
    assert isinstance(bad, Failed)
    assert isinstance(bad.reason, Disconnected)
    assert isinstance(good, Session)


class Ended(Breaking):
    """A device that loses the connection after the runner has ended, but before its exit code arrives."""

    lost = False

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        ended = super().run(*argv, timeout_s=timeout_s)
        if "run" in argv and not self.lost:
            self.lost = True
            raise Disconnected("gone")
        return ended


def test_a_finished_launch_is_never_repeated(tmp_path: Path) -> None:
    """The result of a finished launch is fetched once the device is back."""
    device = Ended()
    (session,) = measured(tmp_path, "fine", device=device)
    assert isinstance(session, Session)
    assert len(log(device)) == 2


def test_edge_inputs_run_once_and_are_not_timed(tmp_path: Path) -> None:
    """After the launches a process of its own runs the edge inputs; the launches do not see them."""
    device = HostDevice()
    edges = ((np.full((2, 3), 7, np.float32),), (np.zeros((2, 3), np.float32),))
    tasks = [replace(sessions.task(tmp_path, mode), edges=edges) for mode in ("fine", "short")]
    program = Program(sessions.stand_in(tmp_path))
    fine, _ = one_device.bench_one_device(
        device,
        identity.read_identity(device),
        lambda backend: program,
        tasks,
        PLAN,
        lambda serial, step: None,
    )
    assert isinstance(fine, Session)
    assert [[array.tolist() for array in call] for call in fine.edge_outputs] == [
        [edge[0].tolist()] for edge in edges
    ]
    assert fine.edge_failure == ""
    assert [len(launch.outputs) for launch in fine.launches] == [2, 2]


def test_a_failure_on_edge_inputs_is_the_session_s(tmp_path: Path) -> None:
    """A runner that ends on an edge input leaves its launches, and the reason."""
    broken = sessions.STAND_IN.replace('if mode == "crash"', 'if sys.argv[1] == "outputs"')
    path = sessions.stand_in(tmp_path)
    path.write_text(broken)
    device = HostDevice()
    task = sessions.task(tmp_path, "fine")
    (session,) = one_device.bench_one_device(
        device,
        identity.read_identity(device),
        lambda backend: Program(path),
        [replace(task, edges=task.samples[:1])],
        PLAN,
        lambda serial, step: None,
    )
    assert isinstance(session, Session)
    assert len(session.launches) == 2
    assert session.edge_outputs == ()
    assert "it broke" in session.edge_failure


def test_a_model_with_state_repeats_no_input(tmp_path: Path) -> None:
    """Its second answer to one input is another: that is no fault of the device's."""
    device = HostDevice()
    task = replace(sessions.task(tmp_path, "changing"), keeps_state=True)
    (session,) = one_device.bench_one_device(
        device,
        identity.read_identity(device),
        lambda backend: Program(sessions.stand_in(tmp_path)),
        [task],
        PLAN,
        lambda serial, step: None,
    )
    assert isinstance(session, Session)
    assert all(launch.repeatable and len(launch.outputs) == 2 for launch in session.launches)
