"""Several devices at once, a worker thread each: what goes wrong on one is data, and stops no other."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from android_harness import bench, build, launch, readiness, settings
from android_harness import identity as identities
from android_harness.bench import Failed, Measured, Observer, Programs
from android_harness.errors import HarnessError
from android_harness.push import Program
from android_harness.records import (
    HOST,
    BenchConfig,
    BenchTask,
    Build,
    Device,
    Gate,
    Identity,
    Launch,
    Session,
    State,
)

POLL_S = 0.5


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one device."""

    serial: str
    identity: Identity | None = None
    results: tuple[Session | Failed, ...] = ()
    error: Exception | None = None
    """Why there are no results."""


class SessionNotStored(Exception):  # noqa: N818 - carries an error through what takes errors for the device's
    """The caller could not keep a session: no fault of the device, and nothing to go on for."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class Stopped(Exception):  # noqa: N818 - the user's wish, not an error
    """The user stopped everything; unwinds a worker, so that settings are restored."""


def bench_all(
    devices: Sequence[Device],
    tasks: Sequence[BenchTask],
    config: BenchConfig,
    *,
    soc: str | None,
    observer: Observer,
    programs: Callable[[Device, Identity], Programs] | None = None,
    measured: Callable[[str, Session], None] | None = None,
    finished: Callable[[Outcome], None] | None = None,
) -> Mapping[str, Outcome]:
    """Measure the tasks on every device, all devices at the same time.

    Args:
        devices: Each with a serial of its own.
        tasks: What to measure.
        config: How much of it.
        soc: The SoC that devices must have ("SM8250"); None for any.
        observer: Told (serial, what begins now), from any thread.
        programs: The runners for a device; None for those of `runner build`.
        measured: Given (serial, session) as soon as a session is complete, from that device's thread; it
            will be among the outcome's results as well.
        finished: Given each device's outcome as soon as it is there, from that device's thread. What this or
            `measured` raises ends everything, once the other devices are done.

    Returns:
        Serial -> outcome.

    Raises:
        KeyboardInterrupt: After the runners were killed and the settings restored.
    """
    stop = threading.Event()
    told = _stopping(observer, stop)
    with _set_by_ctrl_c(stop), ThreadPoolExecutor(max(1, len(devices)), thread_name_prefix="device") as pool:
        futures = {
            device.serial: pool.submit(
                _handed_on,
                finished,
                device,
                tasks,
                config,
                soc,
                told,
                programs or built,
                stop,
                _keeping(measured, device.serial, stop),
            )
            for device in devices
        }
        pending = list(futures.values())
        # Short waits: Ctrl-C is not seen by a thread that waits for a lock.
        while not stop.is_set() and not _all_done(pending):
            pass
        if stop.is_set():
            _kill_until_done(devices, pending)
            raise KeyboardInterrupt
    return {serial: future.result() for serial, future in futures.items()}


@contextlib.contextmanager
def _set_by_ctrl_c(stop: threading.Event) -> Iterator[None]:
    """A flag, because Python drops the exception where a finaliser happens to run."""
    before = signal.getsignal(signal.SIGINT)
    # Only the main thread is told; a background job of a shell is meant to ignore it.
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, lambda _number, _frame: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def built(device: Device, identity: Identity) -> Programs:
    """The runners that `runner build` made for a device's kind of system.

    Raises:
        SetupError: They were not built.
        DeviceError: The device does not answer.
    """
    target = _target(device, identity)
    return lambda backend: _program(build.find_runner(target, backend))


def _program(binary: Path) -> Program:
    """With the libraries beside it: on the host too it runs from another folder, and needs them there."""
    return Program(binary, tuple(sorted(path for path in binary.parent.glob("*.so*") if path.is_file())))


def _target(device: Device, identity: Identity) -> Build:
    if identity.machine != "aarch64":
        return "host"
    android = device.run("test", "-e", "/system/bin/linker64").exit_code == 0
    return "android-arm64" if android else "linux-arm64"


def _all_done(futures: Sequence[Future[Outcome]]) -> bool:
    return not wait(futures, POLL_S).not_done


def _kill_until_done(devices: Sequence[Device], futures: Sequence[Future[Outcome]]) -> None:
    """A worker may be about to start another runner: kill until every worker has seen the stop."""
    while True:
        for device, future in zip(devices, futures, strict=True):
            if not future.done():
                with contextlib.suppress(HarnessError):
                    launch.kill_runner(device)
        if _all_done(futures):
            return


def _stopping(observer: Observer, stop: threading.Event) -> Observer:
    def told(serial: str, what: str) -> None:
        if stop.is_set():
            raise Stopped
        observer(serial, what)

    return told


def _keeping(measured: Callable[[str, Session], None] | None, serial: str, stop: threading.Event) -> Measured:
    def told(session: Session) -> None:
        if stop.is_set():  # its last canary may have been killed already
            raise Stopped
        try:
            if measured:
                measured(serial, session)
        except Exception as error:
            raise SessionNotStored(error) from error

    return told


def _handed_on(finished: Callable[[Outcome], None] | None, *arguments: Any) -> Outcome:
    outcome = _outcome(*arguments)
    if finished and not isinstance(outcome.error, Stopped):
        finished(outcome)
    return outcome


def _outcome(
    device: Device,
    tasks: Sequence[BenchTask],
    config: BenchConfig,
    soc: str | None,
    observer: Observer,
    programs: Callable[[Device, Identity], Programs],
    stop: threading.Event,
    measured: Measured,
) -> Outcome:
    identity = None
    try:
        observer(device.serial, "asking who it is")
        if device.serial != HOST:
            settings.recover(device)
        identity = identities.identify(device)
        runners = programs(device, identity)
        if device.serial == HOST:  # judged by nobody: nothing to wait for, nothing to change
            results = bench.measure(device, identity, runners, tasks, config, observer, measured)
            return Outcome(HOST, identity, results)
        _wait_until_ready(device, identity, tasks, config, soc, observer, stop)
        with settings.changed(device):
            results = bench.measure(device, identity, runners, tasks, config, observer, measured)
        return Outcome(device.serial, identity, results)
    except SessionNotStored as refused:
        raise refused.reason from None
    except Exception as error:  # whatever it is, the other devices' task goes on
        return Outcome(device.serial, identity, error=error)


def _wait_until_ready(
    device: Device,
    identity: Identity,
    tasks: Sequence[BenchTask],
    config: BenchConfig,
    soc: str | None,
    observer: Observer,
    stop: threading.Event,
) -> None:
    need = sum(task.path.stat().st_size + _input_bytes(task) for task in tasks)

    def judge(state: State) -> tuple[Gate, ...]:
        return readiness.gates(identity, state, soc=soc, need_bytes=need)

    def tell(unmet: tuple[Gate, ...], left_s: float) -> None:
        names = ", ".join(f"{gate.name} ({gate.seen})" for gate in unmet)
        observer(device.serial, f"waiting at most {left_s:.0f} s more for {names}")

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped

    readiness.wait_until_ready(
        lambda: identities.read_state(device, identity), judge, config.wait_s, tell, pause
    )


def _input_bytes(task: BenchTask) -> int:
    return sum(array.nbytes for sample in task.samples for array in sample)


def write_samples(session: Session, path: Path) -> None:
    """Write the raw evidence as JSON lines: a header, then a launch a line; appears whole."""
    config, identity = session.config, session.identity
    header = {
        "artifact": session.task.name,
        "sha256": session.task.sha256,
        "started_at": session.started_at,
        "device": {
            "serial": identity.serial,
            "model": identity.model,
            "soc": identity.soc,
            "chip": identity.chip,
            "fingerprint": identity.fingerprint,
            "doubts": list(identity.doubts),
        },
        "runner": dict(session.launches[0].runner) if session.launches else {},
        "plan": vars(config),
        "canary_ns": list(session.canary_ns[0]) if session.canary_ns else [],
    }
    rows = [header, *(_row(session, place, one) for place, one in enumerate(session.launches))]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.new")
    aside.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    aside.replace(path)


def _row(session: Session, place: int, one: Launch) -> dict[str, object]:
    after = session.canary_ns[place + 1] if place + 1 < len(session.canary_ns) else ()
    return {
        "launch": one.index,
        "load_ns": one.load_ns,
        "first_ns": one.first_ns,
        "warmup_calls": one.warmup_calls,
        "warm": one.warm,
        "peak_bytes": one.peak_bytes,
        "cores_allowed": one.cores_allowed,
        "runtime": one.runtime,
        "durations_ns": list(one.durations_ns),
        "offsets_ns": list(one.offsets_ns),
        "clocks": [{"at_ns": clock.at_ns, "texts": dict(clock.texts)} for clock in one.clocks],
        "canary_ns": list(after),
    }
