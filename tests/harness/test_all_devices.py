"""`android_harness.all_devices` measures on several devices at once; here they are stand-ins."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from android_harness import all_devices, parse, raw_samples
from android_harness.errors import DeviceError, HistoryError
from android_harness.host import HostDevice
from android_harness.push import Program
from android_harness.records import BenchConfig, Completed, Session
from tests.harness import sessions

PLAN = BenchConfig(launches=2, min_seconds=0.0, max_seconds=30.0, wait_s=0.0)


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the load of this machine, which other tests cause."""
    monkeypatch.setattr(parse, "parse_load1", lambda text: 0.5)


class Named(HostDevice):
    """This machine under another name; its settings cannot be changed."""

    def __init__(self, serial: str, broken: bool = False) -> None:
        super().__init__()
        self.serial = serial
        self.broken = broken

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        if self.broken:
            raise DeviceError("it burns")
        return super().run(*argv, timeout_s=timeout_s)


def benched(
    folder: Path,
    modes: str | Sequence[str],
    *devices: HostDevice,
    measured: Callable[[str, Session], None] | None = None,
    finished: Callable[[all_devices.Outcome], None] | None = None,
) -> dict[str, all_devices.Outcome]:
    program = Program(sessions.stand_in(folder))
    return dict(
        all_devices.bench_all_devices(
            devices,
            [sessions.task(folder, mode) for mode in ([modes] if isinstance(modes, str) else modes)],
            PLAN,
            soc=None,
            observer=lambda serial, step: None,
            programs=lambda device, identity: lambda backend: program,
            measured=measured,
            finished=finished,
        )
    )


def test_one_broken_device_stops_no_other(tmp_path: Path) -> None:
    """A failure of one device becomes its outcome; the others finish."""
    outcomes = benched(tmp_path, "fine", Named("a"), Named("b", broken=True), Named("c"))
    assert str(outcomes["b"].error) == "it burns"
    for serial in "ac":
        assert outcomes[serial].error is None
        assert isinstance(outcomes[serial].results[0], Session)


class Meeting(Named):
    """A device that runs a job only when every other device has one to run."""

    def __init__(self, serial: str, everyone: threading.Barrier) -> None:
        super().__init__(serial)
        self.everyone = everyone

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        if "run" in argv:
            self.everyone.wait(60)
        return super().run(*argv, timeout_s=timeout_s)


def test_devices_work_at_the_same_time(tmp_path: Path) -> None:
    """No launch waits for another device to finish; `benchmarks/devices_at_once.py` measures the gain."""
    everyone = threading.Barrier(3)
    outcomes = benched(tmp_path, "fine", *(Meeting(name, everyone) for name in "abc"))
    assert all(isinstance(outcome.results[0], Session) for outcome in outcomes.values())


def test_ctrl_c_kills_the_runners_and_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that hangs does not delay Ctrl-C, and no signal is lost."""
    devices = [Named("a"), Named("b")]
    before = signal.getsignal(signal.SIGINT)
    waited = all_devices._all_devices_done
    began = time.monotonic()

    def interrupted(futures: Sequence[Future[all_devices.Outcome]]) -> bool:
        if all(list(Path(device.root).glob("programs/*/log")) for device in devices):
            monkeypatch.setattr(all_devices, "_all_devices_done", waited)
            with contextlib.suppress(KeyboardInterrupt):  # like Python in a finaliser
                signal.raise_signal(signal.SIGINT)
        return waited(futures)

    monkeypatch.setattr(all_devices, "_all_devices_done", interrupted)
    with pytest.raises(KeyboardInterrupt):
        benched(tmp_path, "hang", *devices)
    assert time.monotonic() - began < 60
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_the_last_round_comes_after_what_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A complete session has been handed on; the other task, which waits for its last launch, is dropped."""
    stored: list[tuple[str, str]] = []
    ended: list[all_devices.Outcome] = []
    sent = threading.Event()
    waited = all_devices._all_devices_done

    def store(serial: str, session: Session) -> None:
        stored.append((serial, session.task.name))
        sent.wait(60)

    def interrupted(futures: Sequence[Future[all_devices.Outcome]]) -> bool:
        if stored and not sent.is_set():
            signal.raise_signal(signal.SIGINT)
            sent.set()
        return waited(futures)

    monkeypatch.setattr(all_devices, "_all_devices_done", interrupted)
    with pytest.raises(KeyboardInterrupt):
        benched(tmp_path, ["sleep 0", "fine"], Named("a"), measured=store, finished=ended.append)
    assert (stored, ended) == ([("a", "fine")], [])


def test_a_session_that_cannot_be_stored_is_not_the_devices_fault(tmp_path: Path) -> None:
    """The caller's own error is raised once the other device has finished."""
    ended: list[str] = []

    def store(serial: str, session: Session) -> None:
        if serial == "a":
            raise HistoryError("The disk is full.")

    with pytest.raises(HistoryError, match="full"):
        benched(
            tmp_path,
            "fine",
            Named("a"),
            Named("b"),
            measured=store,
            finished=lambda outcome: ended.append(outcome.serial),
        )
    assert ended == ["b"]


def test_samples_are_json_lines(tmp_path: Path) -> None:
    """The file has a header and a line with every duration for each launch; no temporary file remains."""
    session = sessions.session()
    raw_samples.write_raw_samples(session, tmp_path / "device" / "a.jsonl")
    header, *rows = map(json.loads, (tmp_path / "device" / "a.jsonl").read_text().splitlines())
    assert header["artifact"] == "model.onnx"
    assert [row["durations_ns"] for row in rows] == [list(launch.durations_ns) for launch in session.launches]
    assert [path.name for path in (tmp_path / "device").iterdir()] == ["a.jsonl"]


def test_brightness_stays_as_the_user_likes_it_for_an_app() -> None:
    """As an app runs, only the screen is kept on; otherwise it is also dimmed."""
    keys = [set(all_devices._settings_for_all_devices(BenchConfig(app_like=like))) for like in (True, False)]
    assert keys[0] == {("global", "stay_on_while_plugged_in")} < keys[1]
