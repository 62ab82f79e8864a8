"""Run one process of the runner on a device: start it, fetch its result, kill it at its deadline."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NoReturn, TypeVar

from android_harness import faults, logcat, parse, runner_results, trace
from android_harness.errors import DeviceError, Disconnected
from android_harness.launch_files import (
    PreparedDevice,
    fetch_launch_json,
    fetch_launch_outputs,
    send_launch_job,
)
from android_harness.protocol import NANOSECONDS, Job, Result, Timed
from android_harness.push import run_for_push
from android_harness.records import (
    Backend,
    BenchTask,
    Completed,
    Device,
    Launch,
    OperatorTime,
    Sample,
)

T = TypeVar("T")
MAX_REPEATS = 2
REPEATS = 3
"""How often a launch computes its first sample once more: results that change cannot be verified."""
LOAD_S = 60.0
"""Time for loading, the first call, the warm-up and the outputs, in addition to the timed calls."""
CANARY_CALLS = 30
CANARY_S = 60.0
PROFILE_S = 300.0
START = """
echo $$ > "$1" && LD_LIBRARY_PATH="$2" && export LD_LIBRARY_PATH && shift 2 && exec "$@"
"""
KILL = """
pid=$(cat "$1" 2>/dev/null) || exit 0
case $pid in ''|*[!0-9]*|0|1) exit 0;; esac
grep -qF -- "$2" "/proc/$pid/cmdline" 2>/dev/null && kill -9 "$pid"
rm -f "$1"
"""
"""Kills the process whose id is in the file $1 if it is still a runner: another may have got its id."""


class DeviceLost(Disconnected):
    """The device did not come back, so that nothing else can be done on it."""


def repeated_for_launch(device: Device, action: Callable[[], T]) -> T:
    """Run an idempotent action; after a lost connection reconnect and run it again, at most twice.

    Raises:
        DeviceLost: The device did not come back.
        DeviceError: The action failed, or the connection was lost for the third time.
    """
    for _ in range(MAX_REPEATS):
        try:
            return action()
        except Disconnected:
            _reconnect_for_launch(device)
            with contextlib.suppress(Disconnected):  # lost again: the action will raise it
                kill_launched_runner(device)
    return action()


def _reconnect_for_launch(device: Device) -> None:
    try:
        device.reconnect()
    except Disconnected as error:
        raise DeviceLost(error.message, error.hint) from error


def cores_for_launch(device: Device) -> int:
    """Return the number of cores that programs may use; 0 if unknown.

    Raises:
        DeviceError: The device does not answer.
    """
    return parse.parse_integer(device.run("nproc").stdout.strip()) or 0


def run_launch(prepared: PreparedDevice, task: BenchTask, index: int) -> Launch:
    """Run one process of the runner and fetch its result. Only an interrupted launch is repeated.

    Raises:
        DeviceError: The runner failed, its result is impossible, or the connection was lost for the third
            time.
    """
    # A new name, so that no old result is mistaken for this one.
    base = f"{prepared.device.root}/jobs/{secrets.token_hex(8)}"
    try:
        with (
            _naming_launch(task.name, index + 1),
            trace.traced_launch(prepared.device, task.name, prepared.config.trace),
        ):
            result, elapsed_ns = repeated_for_launch(
                prepared.device, lambda: _run_and_fetch_launch(prepared, task, base)
            )
        outputs, repeatable = repeated_for_launch(
            prepared.device,
            lambda: fetch_launch_outputs(prepared, task, result, base, _launch_repeats(task)),
        )
    finally:
        with contextlib.suppress(DeviceError):
            prepared.device.run("rm", "-rf", base)
    runner_results.check_runner_result_times(result, elapsed_ns)
    return runner_results.runner_result_to_launch(result, index, outputs, repeatable)


@contextlib.contextmanager
def _naming_launch(task: str, number: int) -> Iterator[None]:
    """Name the artifact and the launch in a failure that is not the connection's."""
    try:
        yield
    except Disconnected:
        raise
    except DeviceError as error:
        message = error.message.removeprefix(f"{task}: ")
        raise DeviceError(f"{task}, launch {number}: {message}", error.hint, error.code) from error


def _run_and_fetch_launch(prepared: PreparedDevice, task: BenchTask, base: str) -> tuple[Result, int]:
    device = prepared.device
    if device.run("test", "-e", f"{base}/result.json").exit_code == 0:  # it ended while disconnected
        return runner_results.read_runner_result(
            fetch_launch_json(prepared, f"{base}/result.json"), task
        ), int((prepared.config.max_seconds + LOAD_S) * NANOSECONDS)
    run_for_push(device, "rm", "-rf", base)
    run_for_push(device, "mkdir", "-p", f"{base}/outputs")
    job = _launch_job(prepared, task, base, _launch_repeats(task))
    send_launch_job(prepared, job.model_dump_json(), f"{base}/job.json")
    program = prepared.files.programs[task.backend]
    start_ns = time.monotonic_ns()
    completed = _start_launch(
        device, prepared.config.max_seconds + LOAD_S, program, "run", f"{base}/job.json"
    )
    elapsed_ns = time.monotonic_ns() - start_ns
    if completed.exit_code:
        _explain_failed_launch(prepared, task, completed, f"{base}/result.json")
    return runner_results.read_runner_result(
        fetch_launch_json(prepared, f"{base}/result.json"), task
    ), elapsed_ns


@contextlib.contextmanager
def _launched_once(
    prepared: PreparedDevice, task: BenchTask, mode: str, seconds: float
) -> Iterator[tuple[bytes, str]]:
    """Run the runner once, untimed, in a folder of its own, and yield the result's JSON and the folder."""
    device, base = prepared.device, f"{prepared.device.root}/jobs/{secrets.token_hex(8)}"
    try:
        run_for_push(device, "mkdir", "-p", f"{base}/outputs")
        send_launch_job(prepared, _launch_job(prepared, task, base).model_dump_json(), f"{base}/job.json")
        program = prepared.files.programs[task.backend]
        completed = _start_launch(device, seconds, program, mode, f"{base}/job.json")
        if completed.exit_code:
            _explain_failed_launch(prepared, task, completed, f"{base}/result.json")
        yield fetch_launch_json(prepared, f"{base}/result.json"), base
    finally:
        with contextlib.suppress(DeviceError):
            device.run("rm", "-rf", base)


def launch_with_profile(prepared: PreparedDevice, task: BenchTask) -> tuple[OperatorTime, ...]:
    """Run the runner once with its runtime's profiler, and return the time of each operator in a call.

    Raises:
        DeviceError: It failed, its runtime has no profiler, or its result is impossible.
    """
    with _launched_once(prepared, task, "profile", PROFILE_S) as (result, _):
        return runner_results.read_profile_runner_result(result, task)


def launch_on_edges(prepared: PreparedDevice, task: BenchTask) -> tuple[Sample, ...]:
    """Run the runner once for the outputs of the task's edge inputs alone, and return them.

    Raises:
        DeviceError: It failed, or its result is impossible.
    """
    edges = replace(task, samples=task.edges, edges=())
    inputs = {task.name: prepared.files.samples[task.name][len(task.samples) :]}
    given = replace(prepared, files=replace(prepared.files, samples=inputs))
    with _launched_once(given, edges, "outputs", LOAD_S) as (raw, base):
        result = runner_results.read_untimed_runner_result(raw, edges)
        outputs, _ = fetch_launch_outputs(given, edges, result, base, repeats=0)
        return outputs


def _launch_repeats(task: BenchTask) -> int:
    """Return how often the first sample is computed once more: never where a call changes the next."""
    return 0 if task.keeps_state else REPEATS


def _launch_job(prepared: PreparedDevice, task: BenchTask, base: str, repeats: int = 0) -> Job:
    """Return the job of a launch, which computes its first sample `repeats` times more after all samples."""
    config = prepared.config
    samples = prepared.files.samples[task.name][: len(task.samples)]
    return Job(
        backend=task.backend,
        model=prepared.files.models[task.sha256],
        sha256=task.sha256,
        threads=config.threads,
        affinity=config.affinity,
        samples=(*samples, *samples[:1] * repeats),
        timed=Timed(
            min_calls=config.min_iterations,
            min_ns=int(config.min_seconds * NANOSECONDS),
            max_ns=int(config.max_seconds * NANOSECONDS),
        ),
        watch=prepared.watch,
        fresh=task.keeps_state,
        outputs=f"{base}/outputs",
        result=f"{base}/result.json",
    )


def _start_launch(device: Device, timeout_s: float, program: str, *arguments: str) -> Completed:
    folder = program.rpartition("/")[0]
    try:
        return device.run(
            "sh", "-c", START, "sh", _launch_pidfile(device), folder, program, *arguments, timeout_s=timeout_s
        )
    except BaseException as error:  # also for Ctrl-C
        if not isinstance(error, Disconnected):  # after a lost connection `repeated_for_launch` kills it
            with contextlib.suppress(DeviceError):
                kill_launched_runner(device)
        raise


def kill_launched_runner(device: Device) -> None:
    """Kill the runner that was started last, if it still runs.

    Raises:
        DeviceError: The device does not answer.
    """
    device.run("sh", "-c", KILL, "sh", _launch_pidfile(device), f"{device.root}/programs/")


def _launch_pidfile(device: Device) -> str:
    return f"{device.root}/runner.pid"


def _explain_failed_launch(
    prepared: PreparedDevice, task: BenchTask, completed: Completed, result: str
) -> NoReturn:
    """Raise the reason why the runner failed, in its own words if it left a result."""
    with contextlib.suppress(runner_results.NoResult):
        failure = runner_results.read_failure_runner_result(fetch_launch_json(prepared, result))
        raise DeviceError(
            f"{task.name}: {failure.kind}: {runner_results.plain_runner_result_text(failure.reason)}"
        )
    message = (
        runner_results.plain_runner_result_text(completed.stderr.strip().rpartition("\n")[2])
        or "no error output"
    )
    cause, hint = faults.explain_fault(completed.exit_code, completed.stderr)
    kept = logcat.keep_logcat(prepared.device, task.name)
    raise DeviceError(
        f"{task.name}: the runner {cause} (exit code {completed.exit_code}): {message}"
        if cause
        else f"{task.name}: the runner ended with exit code {completed.exit_code}: {message}",
        f"{hint} {kept}".strip(),
    )


def launch_canary(prepared: PreparedDevice, backend: Backend) -> tuple[int, ...]:
    """Run the canary, a fixed computation in a process of its own, and return its durations.

    Raises:
        DeviceError: It failed, or its result is impossible.
    """
    device = prepared.device
    path = f"{device.root}/jobs/canary-{secrets.token_hex(8)}.json"
    affinity = (prepared.config.affinity,) if prepared.config.affinity else ()
    run_for_push(device, "mkdir", "-p", f"{device.root}/jobs")
    completed = _start_launch(
        device, CANARY_S, prepared.files.programs[backend], "canary", str(CANARY_CALLS), path, *affinity
    )
    if completed.exit_code:
        message = runner_results.plain_runner_result_text(completed.stderr.strip()) or "no error output"
        raise DeviceError(f"{device.serial}: the runner's canary failed ({completed.exit_code}): {message}")
    durations = runner_results.read_canary_runner_result(fetch_launch_json(prepared, path), CANARY_CALLS)
    device.run("rm", "-f", path)
    return durations
