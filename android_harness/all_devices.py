"""Measure on several devices at once, a thread for each. A failure of one does not stop the others."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from android_harness import identity as identities
from android_harness import (
    idle_temperature,
    launch,
    lease,
    one_device,
    parse,
    phone_settings,
    push,
    readiness,
)
from android_harness.errors import DeviceError, HarnessError
from android_harness.one_device import Failed, Measured, Observer, Programs
from android_harness.records import (
    HOST,
    BenchConfig,
    BenchTask,
    Device,
    Gate,
    Identity,
    Session,
    State,
)
from android_harness.runner_programs import runner_programs_for_device

POLL_S = 0.5
WAKE_S = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


Owned: TypeAlias = set[str]
"""The serials of the devices whose runners are this run's, and may be killed by it."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcome of one device."""

    serial: str
    identity: Identity | None = None
    results: tuple[Session | Failed, ...] = ()
    error: Exception | None = None
    """The reason why there are no results."""


class SessionNotStored(Exception):  # noqa: N818 - carries an error past the code that handles the device's errors
    """The caller could not store a session. This is not the device's fault, and it ends the measurement."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class Stopped(Exception):  # noqa: N818 - a request of the user, not an error
    """The process is to end (Ctrl-C, SIGTERM). It unwinds a worker, so that settings are restored."""


def bench_all_devices(
    devices: Sequence[Device],
    tasks: Sequence[BenchTask],
    config: BenchConfig,
    *,
    soc: str | None,
    observer: Observer,
    programs: Callable[[Device, Identity], Programs] | None = None,
    measured: Callable[[str, Session], None] | None = None,
    finished: Callable[[Outcome], None] | None = None,
    saved: Path | None = None,
) -> Mapping[str, Outcome]:
    """Measure the tasks on every device, on all devices at the same time.

    Args:
        devices: The devices, with distinct serials.
        tasks: The tasks to measure.
        config: How to measure them.
        soc: The SoC that devices must have ("SM8250"); None for any.
        observer: Called with (serial, the step that begins), from any thread.
        programs: Returns the runners for a device; None for those of `runner build`.
        measured: Called with (serial, session) as soon as a session is complete, from the device's thread.
            The session is part of the outcome's results as well.
        finished: Called with each device's outcome as soon as it is known, from the device's thread. An
            exception from this or from `measured` ends everything once the other devices have finished.
        saved: The folder that keeps finished launches until their session is stored; None keeps none.

    Returns:
        Serial -> outcome.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C, or the process was asked to end (SIGTERM: CI, `timeout`,
            systemd). The runners were killed and the settings restored.
    """
    stop, owned = threading.Event(), Owned()
    stoppable = _stopping_all_devices(observer, stop)
    with (
        _stop_all_devices_on_signals(stop),
        ThreadPoolExecutor(max(1, len(devices)), thread_name_prefix="device") as pool,
    ):
        futures = {
            device.serial: pool.submit(
                _run_one_of_all_devices,
                finished,
                device,
                tasks,
                config,
                soc,
                stoppable,
                programs or runner_programs_for_device,
                stop,
                _storing_all_devices(measured, device.serial, stop),
                saved,
                owned,
            )
            for device in devices
        }
        pending = list(futures.values())
        # The waits are short because a thread that waits for a lock does not see Ctrl-C.
        while not stop.is_set() and not _all_devices_done(pending):
            pass
        if stop.is_set():
            _kill_until_all_devices_done(devices, pending, owned)
            raise KeyboardInterrupt
    return {serial: future.result() for serial, future in futures.items()}


@contextlib.contextmanager
def _stop_all_devices_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set a flag on Ctrl-C, SIGTERM and SIGHUP: Python drops exceptions while a finaliser runs."""
    # Only the main thread gets signals, and a background job of a shell ignores some.
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS if main}
    changed = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    for number in changed:
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


def _all_devices_done(futures: Sequence[Future[Outcome]]) -> bool:
    return not wait(futures, POLL_S).not_done


def _kill_until_all_devices_done(
    devices: Sequence[Device], futures: Sequence[Future[Outcome]], owned: Owned
) -> None:
    """Kill this run's runners until every worker has seen the stop: a worker may be about to start one."""
    while True:
        for device, future in zip(devices, futures, strict=True):
            if not future.done() and device.serial in owned:
                with contextlib.suppress(HarnessError):
                    launch.kill_launched_runner(device)
        if _all_devices_done(futures):
            return


def _stopping_all_devices(observer: Observer, stop: threading.Event) -> Observer:
    def observe(serial: str, step: str) -> None:
        if stop.is_set():
            raise Stopped
        observer(serial, step)

    return observe


def _storing_all_devices(
    measured: Callable[[str, Session], None] | None, serial: str, stop: threading.Event
) -> Measured:
    def store(session: Session) -> None:
        if stop.is_set():  # the session's last canary may have been killed
            raise Stopped
        try:
            if measured:
                measured(serial, session)
        except Exception as error:
            raise SessionNotStored(error) from error

    return store


def _run_one_of_all_devices(finished: Callable[[Outcome], None] | None, *arguments: Any) -> Outcome:
    outcome = _outcome_of_all_devices(*arguments)
    if finished and not isinstance(outcome.error, Stopped):
        finished(outcome)
    return outcome


def _outcome_of_all_devices(
    device: Device,
    tasks: Sequence[BenchTask],
    config: BenchConfig,
    soc: str | None,
    observer: Observer,
    programs: Callable[[Device, Identity], Programs],
    stop: threading.Event,
    measured: Measured,
    saved: Path | None,
    owned: Owned,
) -> Outcome:
    identity = None
    try:
        observer(device.serial, "identifying the device")
        if device.serial == HOST:  # it has no readiness checks and no settings to change
            owned.add(HOST)
            identity = identities.read_identity(device)
            runners = programs(device, identity)
            results = one_device.bench_one_device(
                device, identity, runners, tasks, config, observer, measured, saved
            )
            return Outcome(HOST, identity, results)
        with _leased_for_all_devices(device, config, observer, stop, owned) as own:
            with contextlib.suppress(DeviceError):
                launch.kill_launched_runner(device)  # that a killed run left
            phone_settings.recover_phone_settings(device)
            push.prune_pushed(device)
            _wake_all_devices(device, observer)
            identity = identities.read_identity(device)
            runners = programs(device, identity)
            renewing = _renewing_for_all_devices(observer, own)
            _wait_until_one_of_all_devices_ready(device, identity, tasks, config, soc, renewing, stop)
            with phone_settings.changed_phone_settings(device, _settings_for_all_devices(config)) as refused:
                for problem in refused:
                    observer(device.serial, f"{problem} The phone is measured all the same.")
                results = one_device.bench_one_device(
                    device, identity, runners, tasks, config, renewing, measured, saved
                )
        return Outcome(device.serial, identity, results)
    except SessionNotStored as refused:
        raise refused.reason from None
    except Exception as error:  # even an unexpected one: the other devices continue
        return Outcome(device.serial, identity, error=error)


def _settings_for_all_devices(config: BenchConfig) -> Mapping[tuple[str, str], str]:
    """Return the settings to change: an app finds the brightness as the user likes it, and a lit screen."""
    return phone_settings.STAY_ON if config.app_like else phone_settings.WANTED


@contextlib.contextmanager
def _leased_for_all_devices(
    device: Device, config: BenchConfig, observer: Observer, stop: threading.Event, owned: Owned
) -> Iterator[lease.Lease]:
    """Hold the phone, so that no other run uses it meanwhile."""

    def notify(holder: str, left_s: float) -> None:
        observer(device.serial, f"waiting at most {left_s:.0f} s for another run: {holder}")

    with lease.held_lease(device, config.wait_s, notify, _pausing_for_all_devices(stop)) as own:
        owned.add(device.serial)
        try:
            yield own
        finally:
            owned.discard(device.serial)


def _wake_all_devices(device: Device, observer: Observer) -> None:
    """Turn a dark screen on before the cores are looked at: in its sleep a phone turns cores off."""
    with contextlib.suppress(DeviceError):
        if parse.parse_awake(device.run("sh", "-c", identities.SCREEN).stdout) is False:
            observer(device.serial, "the screen is dark: waking the phone")
            device.run("input", "keyevent", "KEYCODE_WAKEUP", timeout_s=WAKE_S)


def _renewing_for_all_devices(observer: Observer, own: lease.Lease) -> Observer:
    """Return an observer that also renews the lease, between launches and never during one."""

    def observe(serial: str, step: str) -> None:
        own.renew()
        observer(serial, step)

    return observe


def _pausing_for_all_devices(stop: threading.Event) -> Callable[[float], None]:
    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped

    return pause


def _wait_until_one_of_all_devices_ready(
    device: Device,
    identity: Identity,
    tasks: Sequence[BenchTask],
    config: BenchConfig,
    soc: str | None,
    observer: Observer,
    stop: threading.Event,
) -> None:
    need = sum(task.path.stat().st_size + _input_bytes_for_all_devices(task) for task in tasks)

    baseline = idle_temperature.baseline_of_idle_temperature(device.serial)
    celsius: list[float | None] = []

    def read() -> State:
        state = identities.read_identity_state(device, identity)
        celsius.append(parse.parse_hottest_cpu(state.celsius))
        return state

    def check(state: State) -> tuple[Gate, ...]:
        return readiness.readiness_gates(identity, state, soc=soc, need_bytes=need, baseline_celsius=baseline)

    def notify(unmet: tuple[Gate, ...], left_s: float) -> None:
        names = ", ".join(f"{gate.name} ({gate.seen})" for gate in unmet)
        observer(device.serial, f"waiting at most {left_s:.0f} s more for {names}")

    try:
        readiness.wait_for_readiness(read, check, config.wait_s, notify, _pausing_for_all_devices(stop))
    finally:
        idle_temperature.note_idle_temperature(device.serial, celsius[-1] if celsius else None)


def _input_bytes_for_all_devices(task: BenchTask) -> int:
    return sum(array.nbytes for sample in task.samples for array in sample)
