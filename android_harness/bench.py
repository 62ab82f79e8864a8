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
from android_harness.launching import Gone, Remote, cores, launch, read_canary, repeated
from android_harness.placing import Program, place, programs_needed
from android_harness.records import Backend, Device, Identity, Launch, Plan, Session, State, Work

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
    """A work of which there is no session."""

    work: Work
    reason: HarnessError


@dataclass(eq=False)
class _Course:
    """What is known of one work so far."""

    work: Work
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
    works: Sequence[Work],
    plan: Plan,
    observer: Observer,
    measured: Measured = lambda session: None,
) -> tuple[Session | Failed, ...]:
    """Measure each work on a device that is ready: `plan.launches` processes each, in alternating order.

    A launch that the transport cuts off is repeated, twice at most; one that ended never is, and is kept if
    there are two of them. What goes wrong with one work fails that work only; a device that does not come
    back ends all.

    Args:
        device: Where to.
        identity: `identity.identify(device)`.
        programs: The runner for a backend.
        works: What to measure.
        plan: How much of it; its threads are no more than the device's cores in the sessions' plan.
        observer: Told what begins now.
        measured: Given each session that is complete as soon as it is, while others' launches are still to
            come. What it raises ends all.

    Returns:
        A session or a failure for each work, in their order; the sessions that were handed on, too.

    Raises:
        DeviceError: The device could not be prepared at all.
        SetupError: Of `programs`.
    """
    if not works:
        return ()
    observer(device.serial, "copying what is not there yet")
    with tempfile.TemporaryDirectory() as folder:
        plan = replace(
            plan, threads=min(plan.threads, repeated(device, lambda: cores(device)) or plan.threads)
        )
        needed = programs_needed(works, programs)
        where = repeated(device, lambda: place(device, works, needed, Path(folder)))
        remote = Remote(device, where, plan, identities.watch_paths(identity), Path(folder))
        courses = [_Course(work) for work in works]
        _run_all(remote, identity, courses, observer, measured)
    return tuple(_finished(course, identity, plan) for course in courses)


def _run_all(
    remote: Remote,
    identity: Identity,
    courses: Sequence[_Course],
    observer: Observer,
    measured: Measured,
) -> None:
    serial = remote.device.serial
    backend = courses[0].work.backend  # one program's canary for all: another compiler is another computation
    canary = _canary(remote, backend)
    for index, course in _order(courses, remote.plan.launches):
        if course.failure:
            continue
        observer(serial, f"{course.work.name}: launch {index + 1} of {remote.plan.launches}")
        try:
            _step(remote, identity, course, index, canary)
        except Gone as error:
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
            measured(_session(course, course.before, identity, remote.plan))


def _order(courses: Sequence[_Course], launches: int) -> Iterator[tuple[int, _Course]]:
    """ABC, CBA, ABC: no work always runs in the warmth of the same other."""
    for index in range(launches):
        for course in courses if index % 2 == 0 else reversed(courses):
            yield index, course


def _step(remote: Remote, identity: Identity, course: _Course, index: int, canary: tuple[int, ...]) -> None:
    device = remote.device
    if index == 0:
        course.before = repeated(device, lambda: identities.read_state(device, identity))
        course.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        course.canary.append(canary)
    course.launches.append(launch(remote, course.work, index))
    if index + 1 == remote.plan.launches:
        course.after = repeated(device, lambda: identities.read_state(device, identity))


def _canary(remote: Remote, backend: Backend) -> tuple[int, ...]:
    """Its durations; none where it failed: that becomes a flag, finished launches are no worse for it."""
    try:
        return repeated(remote.device, lambda: read_canary(remote, backend))
    except DeviceError:
        return ()


def _finished(course: _Course, identity: Identity, plan: Plan) -> Session | Failed:
    if course.before is None or (course.failure and not _worth_keeping(course, plan)):
        return Failed(course.work, _reason(course, plan))
    return _session(course, course.before, identity, plan)


def _session(course: _Course, before: State, identity: Identity, plan: Plan) -> Session:
    return Session(
        work=course.work,
        identity=identity,
        before=before,
        after=course.after or UNKNOWN,
        launches=tuple(course.launches),
        canary_ns=tuple(course.canary),
        started_at=course.started_at,
        plan=plan,
        cut_off=course.failure.message if course.failure else "",
    )


def _worth_keeping(course: _Course, plan: Plan) -> bool:
    """Finished launches are true whatever became of the connection; a runner that failed disproves them."""
    complete = len(course.launches) == plan.launches  # only the state after them is missing
    return len(course.launches) >= MIN_KEPT and (complete or isinstance(course.failure, Disconnected))


def _reason(course: _Course, plan: Plan) -> HarnessError:
    failure = course.failure or DeviceError(f"{course.work.name} was not measured.")
    if not isinstance(failure, Disconnected) or not course.launches:
        return failure
    done = f"{len(course.launches)} of {plan.launches} launches of {course.work.name} had ended"
    return Disconnected(f"{failure.message} {done}: too few to keep.", failure.hint)
