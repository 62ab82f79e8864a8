"""Measure tasks on one device: copy the files, run the launches in turn, and return the raw evidence."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from android_harness import energy, saved_launches, session_limits
from android_harness import identity as identities
from android_harness.errors import DeviceError, Disconnected, HarnessError
from android_harness.launch import (
    DeviceLost,
    cores_for_launch,
    launch_canary,
    launch_on_edges,
    launch_with_profile,
    repeated_for_launch,
    run_launch,
)
from android_harness.launch_files import PreparedDevice
from android_harness.push import Program, push_files, runners_to_push
from android_harness.records import (
    Backend,
    BenchConfig,
    BenchTask,
    Device,
    Identity,
    Launch,
    OperatorTime,
    Sample,
    Session,
    State,
)

Programs: TypeAlias = Callable[[Backend], Program]
Observer: TypeAlias = Callable[[str, str], None]
"""Called with (serial, the step that begins)."""
Measured: TypeAlias = Callable[[Session], None]
"""Called with each complete session."""
MIN_LAUNCHES = 2
"""Launches that an interval needs; a session with fewer is not worth keeping."""


@dataclass(frozen=True, eq=False)
class Failed:
    """A task without a session."""

    task: BenchTask
    reason: HarnessError


@dataclass(eq=False)
class _TaskProgress:
    """What has been measured of one task so far."""

    task: BenchTask
    before: State | None = None
    after: State | None = None
    started_at: str = ""
    launches: list[Launch] = field(default_factory=list)
    canary: list[tuple[int, ...]] = field(default_factory=list)
    operators: tuple[OperatorTime, ...] = ()
    edge_outputs: tuple[Sample, ...] = ()
    edge_failure: str = ""
    failure: HarnessError | None = None
    saved: Path | None = None
    """The folder that keeps the launches; None keeps none."""


def bench_one_device(
    device: Device,
    identity: Identity,
    programs: Programs,
    tasks: Sequence[BenchTask],
    config: BenchConfig,
    observer: Observer,
    measured: Measured = lambda session: None,
    saved: Path | None = None,
) -> tuple[Session | Failed, ...]:
    """Measure each task on a ready device: `config.launches` processes each, in alternating order.

    A launch that the transport interrupts is repeated, at most twice. A launch that ended is never repeated;
    it is kept if its task has at least two of them. A failure of one task does not affect the others, except
    that a device that does not come back ends them all.

    Args:
        device: The device to measure on.
        identity: `identity.read_identity(device)`.
        programs: Returns the runner for a backend.
        tasks: The tasks to measure.
        config: How to measure them; its threads are limited to the device's cores in the sessions.
        observer: Called before each step.
        measured: Called with each session as soon as it is complete, while launches of other tasks are still
            to come. An exception from it ends everything.
        saved: A folder of this machine. Every launch is saved there as soon as it has ended, and launches of
            an interrupted run are continued; None does neither.

    Returns:
        A session or a failure for each task, in the order of the tasks.

    Raises:
        DeviceError: The device could not be prepared.
        SetupError: `programs` raised it.
    """
    if not tasks:
        return ()
    observer(device.serial, "copying missing files")
    with tempfile.TemporaryDirectory() as folder:
        available = repeated_for_launch(device, lambda: cores_for_launch(device))
        config = replace(config, threads=min(config.threads, available or config.threads))
        runners = runners_to_push(tasks, programs)
        files = repeated_for_launch(device, lambda: push_files(device, tasks, runners, Path(folder)))
        prepared = PreparedDevice(
            device,
            files,
            config,
            (*identities.identity_watch_paths(identity), session_limits.SMAPS, *energy.ENERGY_FILES),
            Path(folder),
        )
        progress = [_resume_on_one_device(prepared, identity, task, saved, observer) for task in tasks]
        _run_on_one_device(prepared, identity, progress, observer, measured)
    return tuple(_finish_task_on_one_device(entry, identity, config) for entry in progress)


def _resume_on_one_device(
    prepared: PreparedDevice, identity: Identity, task: BenchTask, saved: Path | None, observer: Observer
) -> _TaskProgress:
    """Return the progress of a task: what an interrupted run had measured, or nothing yet."""
    if saved is None:
        return _TaskProgress(task)
    program = prepared.files.programs[task.backend]
    path = saved_launches.saved_launches_folder(saved, task, identity, prepared.config, program)
    before = saved_launches.load_saved_launches(path)
    if before is None or not before.launches:
        return _TaskProgress(task, saved=path)
    count = f"{len(before.launches)} of {prepared.config.launches} launches"
    observer(prepared.device.serial, f"{task.name}: {count} of an interrupted run are kept")
    return _TaskProgress(
        task,
        before.before,
        started_at=before.started_at,
        launches=list(before.launches),
        canary=list(before.canary_ns),
        saved=path,
    )


def _run_on_one_device(
    prepared: PreparedDevice,
    identity: Identity,
    progress: Sequence[_TaskProgress],
    observer: Observer,
    measured: Measured,
) -> None:
    serial, launches = prepared.device.serial, prepared.config.launches
    backend = progress[0].task.backend  # one runner's canary for all: compilers make different computations
    canary = _run_canary_on_one_device(prepared, backend)
    for entry in progress:
        if entry.launches and len(entry.canary) == len(entry.launches):  # killed before its last canary
            _add_canary_of_one_device(entry, canary)
    for index, entry in _order_launches_on_one_device(progress, launches):
        if entry.failure or index + 1 < len(entry.launches):
            continue
        if index < len(entry.launches):
            _hand_on_from_one_device(prepared, identity, entry, observer, measured)
            continue
        observer(serial, f"{entry.task.name}: launch {index + 1} of {launches}")
        try:
            _launch_on_one_device(prepared, identity, entry, index, canary, observer)
        except DeviceLost as error:
            for other in progress:
                if other.after is None:
                    other.failure = other.failure or error
            return
        except HarnessError as error:
            entry.failure = error
            continue
        canary = _run_canary_on_one_device(prepared, backend)
        _add_canary_of_one_device(entry, canary)
        if entry.before is not None and entry.after is not None:
            measured(_session_of_one_device(entry, entry.before, identity, prepared.config))


def _hand_on_from_one_device(
    prepared: PreparedDevice,
    identity: Identity,
    entry: _TaskProgress,
    observer: Observer,
    measured: Measured,
) -> None:
    """Hand on a session whose launches an interrupted run had all measured; else do nothing."""
    if len(entry.launches) < prepared.config.launches or entry.before is None:
        return
    _end_on_one_device(prepared, identity, entry, observer)
    measured(_session_of_one_device(entry, entry.before, identity, prepared.config))


def _add_canary_of_one_device(entry: _TaskProgress, canary: tuple[int, ...]) -> None:
    if entry.saved:
        saved_launches.save_launch_canary(entry.saved, len(entry.canary), canary)
    entry.canary.append(canary)


def _order_launches_on_one_device(
    progress: Sequence[_TaskProgress], launches: int
) -> Iterator[tuple[int, _TaskProgress]]:
    """Yield ABC, CBA, ABC, …, so that no task always runs on a device that the same other task has heated."""
    for index in range(launches):
        for entry in progress if index % 2 == 0 else reversed(progress):
            yield index, entry


def _launch_on_one_device(
    prepared: PreparedDevice,
    identity: Identity,
    entry: _TaskProgress,
    index: int,
    canary: tuple[int, ...],
    observer: Observer,
) -> None:
    device = prepared.device
    if index == 0:
        entry.before = repeated_for_launch(device, lambda: identities.read_identity_state(device, identity))
        entry.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        if entry.saved:
            saved_launches.begin_saved_launches(entry.saved, entry.before, entry.started_at)
        _add_canary_of_one_device(entry, canary)
    entry.launches.append(run_launch(prepared, entry.task, index))
    if entry.saved:
        saved_launches.save_launch(entry.saved, entry.launches[-1])
    if index + 1 == prepared.config.launches:
        _end_on_one_device(prepared, identity, entry, observer)


def _end_on_one_device(
    prepared: PreparedDevice, identity: Identity, entry: _TaskProgress, observer: Observer
) -> None:
    """Read the state after the last launch; then run the edge inputs, and time the operators if asked to."""
    device = prepared.device
    entry.after = repeated_for_launch(device, lambda: identities.read_identity_state(device, identity))
    if entry.task.edges:
        observer(device.serial, f"{entry.task.name}: running its edge inputs")
        try:
            entry.edge_outputs = repeated_for_launch(device, lambda: launch_on_edges(prepared, entry.task))
        except Disconnected:
            raise
        except DeviceError as error:
            entry.edge_failure = error.message
    if prepared.config.profile:
        observer(device.serial, f"{entry.task.name}: timing its operators")
        try:
            entry.operators = launch_with_profile(prepared, entry.task)
        except DeviceError as error:
            observer(device.serial, f"{entry.task.name}: its operators were not timed: {error.message}")


def _run_canary_on_one_device(prepared: PreparedDevice, backend: Backend) -> tuple[int, ...]:
    """Return the canary's durations; none if it failed, which becomes a flag of the session."""
    try:
        return repeated_for_launch(prepared.device, lambda: launch_canary(prepared, backend))
    except DeviceError:
        return ()


def _finish_task_on_one_device(
    entry: _TaskProgress, identity: Identity, config: BenchConfig
) -> Session | Failed:
    if entry.before is None or (
        entry.failure and not _are_launches_of_one_device_worth_keeping(entry, config)
    ):
        return Failed(entry.task, _error_with_reason_from_one_device(entry, config))
    return _session_of_one_device(entry, entry.before, identity, config)


def _session_of_one_device(
    entry: _TaskProgress, before: State, identity: Identity, config: BenchConfig
) -> Session:
    return Session(
        task=entry.task,
        identity=identity,
        before=before,
        after=entry.after or State(),
        launches=tuple(entry.launches),
        canary_ns=tuple(entry.canary),
        started_at=entry.started_at,
        config=config,
        saved=entry.saved,
        operators=entry.operators,
        edge_outputs=entry.edge_outputs,
        edge_failure=entry.edge_failure,
        cut_off=entry.failure.message if entry.failure else "",
    )


def _are_launches_of_one_device_worth_keeping(entry: _TaskProgress, config: BenchConfig) -> bool:
    """Whether to keep the finished launches: a lost connection does not disprove them, a failure does."""
    complete = len(entry.launches) == config.launches  # only the state afterwards is missing
    return len(entry.launches) >= MIN_LAUNCHES and (complete or isinstance(entry.failure, Disconnected))


def _error_with_reason_from_one_device(entry: _TaskProgress, config: BenchConfig) -> HarnessError:
    failure = entry.failure or DeviceError(f"{entry.task.name} was not measured.")
    if not isinstance(failure, Disconnected) or not entry.launches:
        return failure
    finished = f"{len(entry.launches)} of {config.launches} launches of {entry.task.name} had finished"
    return Disconnected(f"{failure.message} {finished}: too few to keep.", failure.hint)
