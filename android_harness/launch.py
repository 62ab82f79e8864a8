"""One process of the runner on a device: started, watched, killed when it must be, and its result fetched."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from android_harness import parse, results
from android_harness.errors import DeviceError, Disconnected
from android_harness.protocol import NANOSECONDS, Job, Result, Timed
from android_harness.push import DeviceFiles, run_checked
from android_harness.records import Backend, BenchConfig, BenchTask, Completed, Device, Launch, Sample

T = TypeVar("T")
MAX_REPEATS = 2
LOAD_S = 60.0
"""Allowed for loading, the first call, warm-up and the outputs, beside the timed part."""
CANARY_CALLS = 30
CANARY_S = 60.0
KILLED = 137
START = """
echo $$ > "$1" && LD_LIBRARY_PATH="$2" && export LD_LIBRARY_PATH && shift 2 && exec "$@"
"""
KILL = """
pid=$(cat "$1" 2>/dev/null) || exit 0
case $pid in ''|*[!0-9]*|0|1) exit 0;; esac
grep -qF -- "$2" "/proc/$pid/cmdline" 2>/dev/null && kill -9 "$pid"
rm -f "$1"
"""
"""A process by its id, and only while it is still ours: after a restart another may have the number."""


class DeviceLost(Disconnected):
    """The device did not come back: nothing else needs to be tried on it."""


@dataclass(frozen=True)
class PreparedDevice:
    """A prepared device."""

    device: Device
    place: DeviceFiles
    config: BenchConfig
    watch: tuple[str, ...]
    folder: Path
    """Ours, here, for files on their way."""


def repeated(device: Device, action: Callable[[], T]) -> T:
    """Do it, and again after each lost connection, twice at most. For what may be done twice.

    Raises:
        DeviceLost: The device did not come back.
        DeviceError: Of the action; or the connection does not stay.
    """
    for _ in range(MAX_REPEATS):
        try:
            return action()
        except Disconnected:
            _wait_for(device)
            with contextlib.suppress(Disconnected):  # lost again: the action will find out
                kill_runner(device)
    return action()


def _wait_for(device: Device) -> None:
    try:
        device.reconnect()
    except Disconnected as error:
        raise DeviceLost(error.message, error.hint) from error


def cores(device: Device) -> int:
    """How many cores programs may use there; 0 where it does not say.

    Raises:
        DeviceError: The device does not answer.
    """
    return parse.integer(device.run("nproc").stdout.strip()) or 0


def run_launch(remote: PreparedDevice, task: BenchTask, index: int) -> Launch:
    """Run one process and bring its result back; only a launch that was cut off is repeated.

    Raises:
        DeviceError: The runner failed, says which way; what it answered is not to be believed; or the
            connection was lost for the third time.
    """
    base = f"{remote.device.root}/jobs/{secrets.token_hex(8)}"  # new: an old result cannot be taken for this
    try:
        result, elapsed_ns = repeated(remote.device, lambda: _run(remote, task, base))
        outputs = repeated(remote.device, lambda: _fetch_outputs(remote, task, result, base))
    finally:
        with contextlib.suppress(DeviceError):
            remote.device.run("rm", "-rf", base)
    results.check_times(result, elapsed_ns)
    return results.to_launch(result, index, outputs)


def _run(remote: PreparedDevice, task: BenchTask, base: str) -> tuple[Result, int]:
    device = remote.device
    if device.run("test", "-e", f"{base}/result.json").exit_code == 0:  # it ended while we were away
        return results.read_result(_fetch(remote, f"{base}/result.json"), task), int(
            (remote.config.max_seconds + LOAD_S) * NANOSECONDS
        )
    run_checked(device, "rm", "-rf", base)
    run_checked(device, "mkdir", "-p", f"{base}/outputs")
    _send(remote, _job(remote, task, base).model_dump_json(), f"{base}/job.json")
    program = remote.place.programs[task.backend]
    began = time.monotonic_ns()
    ended = _start(device, remote.config.max_seconds + LOAD_S, program, "run", f"{base}/job.json")
    elapsed_ns = time.monotonic_ns() - began
    if ended.exit_code:
        _explain(remote, task, ended, f"{base}/result.json")
    return results.read_result(_fetch(remote, f"{base}/result.json"), task), elapsed_ns


def _job(remote: PreparedDevice, task: BenchTask, base: str) -> Job:
    config = remote.config
    return Job(
        backend=task.backend,
        model=remote.place.models[task.sha256],
        sha256=task.sha256,
        threads=config.threads,
        affinity=config.affinity,
        samples=remote.place.samples[task.name],
        timed=Timed(
            min_calls=config.min_iterations,
            min_ns=int(config.min_seconds * NANOSECONDS),
            max_ns=int(config.max_seconds * NANOSECONDS),
        ),
        watch=remote.watch,
        outputs=f"{base}/outputs",
        result=f"{base}/result.json",
    )


def _start(device: Device, timeout_s: float, program: str, *arguments: str) -> Completed:
    folder = program.rpartition("/")[0]
    try:
        return device.run(
            "sh", "-c", START, "sh", _pidfile(device), folder, program, *arguments, timeout_s=timeout_s
        )
    except BaseException as error:  # Ctrl-C too
        if not isinstance(error, Disconnected):  # then only once the device is back
            with contextlib.suppress(DeviceError):
                kill_runner(device)
        raise


def kill_runner(device: Device) -> None:
    """End the runner that was started last, if it still runs.

    Raises:
        DeviceError: The device does not answer.
    """
    device.run("sh", "-c", KILL, "sh", _pidfile(device), f"{device.root}/programs/")


def _pidfile(device: Device) -> str:
    return f"{device.root}/runner.pid"


def _explain(remote: PreparedDevice, task: BenchTask, ended: Completed, result: str) -> NoReturn:
    """Say why the runner ended badly: in its own words where it left any."""
    if ended.exit_code == KILLED:
        raise DeviceError(
            f"{task.name}: the runner was killed (exit code {KILLED}), out of memory?",
            "Close apps or restart the device; see `adb logcat -d | grep lowmemorykiller`.",
        )
    with contextlib.suppress(results.NoResult):
        failure = results.read_failure(_fetch(remote, result))
        raise DeviceError(f"{task.name}: {failure.kind}: {results.plain(failure.reason)}")
    said = results.plain(ended.stderr.strip().rpartition("\n")[2]) or "it says nothing"
    raise DeviceError(f"{task.name}: the runner ended with exit code {ended.exit_code}: {said}")


def _send(remote: PreparedDevice, text: str, target: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=remote.folder, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        remote.device.push(Path(file.name), target)


def _fetch(remote: PreparedDevice, source: str) -> bytes:
    """A JSON file of the runner's.

    Raises:
        results.NoResult: There is none, or one too large to be true.
    """
    (size,) = _sizes(remote.device, source)
    if size > results.MAX_RESULT_BYTES:
        raise results.NoResult(f"The runner's result has {size} bytes: more than it can need.")
    return _pulled(remote, source)


def _pulled(remote: PreparedDevice, source: str) -> bytes:
    with _temporary(remote.folder) as target:
        remote.device.pull(source, target)
        return target.read_bytes()


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    path = folder / secrets.token_hex(8)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _sizes(device: Device, *paths: str) -> list[int]:
    ended = device.run("stat", "-c", "%s", *paths)
    sizes = [parse.integer(line) for line in ended.stdout.splitlines()]
    known = [size for size in sizes if size is not None]
    if ended.exit_code or len(known) != len(paths):
        raise results.NoResult("The runner left no result.")
    return known


def _fetch_outputs(remote: PreparedDevice, task: BenchTask, result: Result, base: str) -> tuple[Sample, ...]:
    results.check_outputs(result, task, f"{base}/outputs")
    tensors = [tensor for sample in result.outputs for tensor in sample]
    sizes = dict(zip(tensors, _sizes(remote.device, *(t.file for t in tensors)), strict=True))
    for tensor, size in sizes.items():
        if size != results.expected_bytes(tensor):
            raise DeviceError(f"{task.name}: {tensor.file} has {size} bytes, which its shape contradicts.")
    return tuple(
        tuple(results.to_array(tensor, _pulled(remote, tensor.file)) for tensor in sample)
        for sample in result.outputs
    )


def run_canary(remote: PreparedDevice, backend: Backend) -> tuple[int, ...]:
    """Run the pinned computation in a process of its own.

    Raises:
        DeviceError: It failed, or its answer is not to be believed.
    """
    device = remote.device
    path = f"{device.root}/jobs/canary-{secrets.token_hex(8)}.json"
    affinity = (remote.config.affinity,) if remote.config.affinity else ()
    run_checked(device, "mkdir", "-p", f"{device.root}/jobs")
    ended = _start(
        device, CANARY_S, remote.place.programs[backend], "canary", str(CANARY_CALLS), path, *affinity
    )
    if ended.exit_code:
        said = results.plain(ended.stderr.strip()) or "no reason given"
        raise DeviceError(f"{device.serial}: the runner's canary failed ({ended.exit_code}): {said}")
    durations = results.read_canary(_fetch(remote, path), CANARY_CALLS)
    device.run("rm", "-f", path)
    return durations
