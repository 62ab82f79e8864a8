"""Artifacts measured on one device: everything in place, launches in turn, the raw evidence brought back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from android_harness import identity as identities
from android_harness.errors import DeviceError, Disconnected, HarnessError
from android_harness.launch import DeviceLost, PreparedDevice, cores, repeated, run_canary, run_launch
from android_harness.push import Program, push_files, runners_for
from android_harness.records import Backend, BenchConfig, BenchTask, Device, Identity, Launch, Session, State

Programs: TypeAlias = Callable[[Backend], Program]
Observer: TypeAlias = Callable[[str, str], None]
"""Told (serial, what begins now)."""
Measured: TypeAlias = Callable[[Session], None]
"""Given a session that is complete."""
MIN_KEPT = 2
"""Launches without which there is no interval: fewer are not worth keeping."""
UNKNOWN = State(
    battery_percent=None,
    battery_celsius=None,
    plugged="unknown",
    thermal_status=None,
    thermal_overridden=None,
    celsius={},
    power_saver=None,
    load1=None,
    free_bytes=None,
    available_memory_bytes=None,
    scaling_max_khz=(),
)
"""Of a device that could not be asked any more."""


@dataclass(frozen=True, eq=False)
class Failed:
    """A task of which there is no session."""

    task: BenchTask
    reason: HarnessError


@dataclass(eq=False)
class _TaskProgress:
    """What is known of one task so far."""

    task: BenchTask
    before: State | None = None
    after: State | None = None
    started_at: str = ""
    launches: list[Launch] = field(default_factory=list)
    canary: list[tuple[int, ...]] = field(default_factory=list)
    failure: HarnessError | None = None


def measure(
    device: Device,
    identity: Identity,
    programs: Programs,
    tasks: Sequence[BenchTask],
    config: BenchConfig,
    observer: Observer,
    measured: Measured = lambda session: None,
) -> tuple[Session | Failed, ...]:
    """Measure each task on a device that is ready: `config.launches` processes each, in alternating order.

    A launch that the transport cuts off is repeated, twice at most; one that ended never is, and is kept if
    there are two of them. What goes wrong with one task fails that task only; a device that does not come
    back ends all.

    Args:
        device: Where to.
        identity: `identity.identify(device)`.
        programs: The runner for a backend.
        tasks: What to measure.
        config: How much of it; its threads are no more than the device's cores in the sessions' config.
        observer: Told what begins now.
        measured: Given each session that is complete as soon as it is, while others' launches are still to
            come. What it raises ends all.

    Returns:
        A session or a failure for each task, in their order; the sessions that were handed on, too.

    Raises:
        DeviceError: The device could not be prepared at all.
        SetupError: Of `programs`.
    """
    if not tasks:
        return ()
    observer(device.serial, "copying what is not there yet")
    with tempfile.TemporaryDirectory() as folder:
        config = replace(
            config, threads=min(config.threads, repeated(device, lambda: cores(device)) or config.threads)
        )
        needed = runners_for(tasks, programs)
        where = repeated(device, lambda: push_files(device, tasks, needed, Path(folder)))
        remote = PreparedDevice(device, where, config, identities.watch_paths(identity), Path(folder))
        courses = [_TaskProgress(task) for task in tasks]
        _run_all(remote, identity, courses, observer, measured)
    return tuple(_finished(course, identity, config) for course in courses)


def _run_all(
    remote: PreparedDevice,
    identity: Identity,
    courses: Sequence[_TaskProgress],
    observer: Observer,
    measured: Measured,
) -> None:
    serial = remote.device.serial
    backend = courses[0].task.backend  # one program's canary for all: another compiler is another computation
    canary = _canary(remote, backend)
    for index, course in _order(courses, remote.config.launches):
        if course.failure:
            continue
        observer(serial, f"{course.task.name}: launch {index + 1} of {remote.config.launches}")
        try:
            _step(remote, identity, course, index, canary)
        except DeviceLost as error:
            for one in courses:
                if one.after is None:
                    one.failure = one.failure or error
            return
        except HarnessError as error:
            course.failure = error
            continue
        canary = _canary(remote, backend)
        course.canary.append(canary)
        if course.before is not None and course.after is not None:
            measured(_session(course, course.before, identity, remote.config))


def _order(courses: Sequence[_TaskProgress], launches: int) -> Iterator[tuple[int, _TaskProgress]]:
    """ABC, CBA, ABC: no task always runs in the warmth of the same other."""
    for index in range(launches):
        for course in courses if index % 2 == 0 else reversed(courses):
            yield index, course


def _step(
    remote: PreparedDevice, identity: Identity, course: _TaskProgress, index: int, canary: tuple[int, ...]
) -> None:
    device = remote.device
    if index == 0:
        course.before = repeated(device, lambda: identities.read_state(device, identity))
        course.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        course.canary.append(canary)
    course.launches.append(run_launch(remote, course.task, index))
    if index + 1 == remote.config.launches:
        course.after = repeated(device, lambda: identities.read_state(device, identity))


def _canary(remote: PreparedDevice, backend: Backend) -> tuple[int, ...]:
    """Its durations; none where it failed: that becomes a flag, finished launches are no worse for it."""
    try:
        return repeated(remote.device, lambda: run_canary(remote, backend))
    except DeviceError:
        return ()


def _finished(course: _TaskProgress, identity: Identity, config: BenchConfig) -> Session | Failed:
    if course.before is None or (course.failure and not _worth_keeping(course, config)):
        return Failed(course.task, _reason(course, config))
    return _session(course, course.before, identity, config)


def _session(course: _TaskProgress, before: State, identity: Identity, config: BenchConfig) -> Session:
    return Session(
        task=course.task,
        identity=identity,
        before=before,
        after=course.after or UNKNOWN,
        launches=tuple(course.launches),
        canary_ns=tuple(course.canary),
        started_at=course.started_at,
        config=config,
        cut_off=course.failure.message if course.failure else "",
    )


def _worth_keeping(course: _TaskProgress, config: BenchConfig) -> bool:
    """Finished launches are true whatever became of the connection; a runner that failed disproves them."""
    complete = len(course.launches) == config.launches  # only the state after them is missing
    return len(course.launches) >= MIN_KEPT and (complete or isinstance(course.failure, Disconnected))


def _reason(course: _TaskProgress, config: BenchConfig) -> HarnessError:
    failure = course.failure or DeviceError(f"{course.task.name} was not measured.")
    if not isinstance(failure, Disconnected) or not course.launches:
        return failure
    done = f"{len(course.launches)} of {config.launches} launches of {course.task.name} had ended"
    return Disconnected(f"{failure.message} {done}: too few to keep.", failure.hint)
