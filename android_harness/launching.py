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

from android_harness import answers, parse
from android_harness.errors import DeviceError, Disconnected
from android_harness.placing import Place, checked
from android_harness.protocol import NANOSECONDS, Job, Result, Timed
from android_harness.records import Backend, Completed, Device, Launch, Plan, Sample, Work

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


class Gone(Disconnected):
    """The device did not come back: nothing else needs to be tried on it."""


@dataclass(frozen=True)
class Remote:
    """A prepared device."""

    device: Device
    place: Place
    plan: Plan
    watch: tuple[str, ...]
    folder: Path
    """Ours, here, for files on their way."""


def repeated(device: Device, action: Callable[[], T]) -> T:
    """Do it, and again after each lost connection, twice at most. For what may be done twice.

    Raises:
        Gone: The device did not come back.
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
        raise Gone(error.message, error.hint) from error


def cores(device: Device) -> int:
    """How many cores programs may use there; 0 where it does not say.

    Raises:
        DeviceError: The device does not answer.
    """
    return parse.integer(device.run("nproc").stdout.strip()) or 0


def launch(remote: Remote, work: Work, index: int) -> Launch:
    """Run one process and bring its result back; only a launch that was cut off is repeated.

    Raises:
        DeviceError: The runner failed, says which way; what it answered is not to be believed; or the
            connection was lost for the third time.
    """
    base = f"{remote.device.root}/jobs/{secrets.token_hex(8)}"  # new: an old result cannot be taken for this
    try:
        result, elapsed_ns = repeated(remote.device, lambda: _run(remote, work, base))
        outputs = repeated(remote.device, lambda: _fetch_outputs(remote, work, result, base))
    finally:
        with contextlib.suppress(DeviceError):
            remote.device.run("rm", "-rf", base)
    answers.check_times(result, elapsed_ns)
    return answers.launch(result, index, outputs)


def _run(remote: Remote, work: Work, base: str) -> tuple[Result, int]:
    device = remote.device
    if device.run("test", "-e", f"{base}/result.json").exit_code == 0:  # it ended while we were away
        return answers.result(_fetch(remote, f"{base}/result.json"), work), int(
            (remote.plan.max_seconds + LOAD_S) * NANOSECONDS
        )
    checked(device, "rm", "-rf", base)
    checked(device, "mkdir", "-p", f"{base}/outputs")
    _send(remote, _job(remote, work, base).model_dump_json(), f"{base}/job.json")
    program = remote.place.programs[work.backend]
    began = time.monotonic_ns()
    ended = _start(device, remote.plan.max_seconds + LOAD_S, program, "run", f"{base}/job.json")
    elapsed_ns = time.monotonic_ns() - began
    if ended.exit_code:
        _explain(remote, work, ended, f"{base}/result.json")
    return answers.result(_fetch(remote, f"{base}/result.json"), work), elapsed_ns


def _job(remote: Remote, work: Work, base: str) -> Job:
    plan = remote.plan
    return Job(
        backend=work.backend,
        model=remote.place.models[work.sha256],
        sha256=work.sha256,
        threads=plan.threads,
        affinity=plan.affinity,
        samples=remote.place.samples[work.name],
        timed=Timed(
            min_calls=plan.min_iterations,
            min_ns=int(plan.min_seconds * NANOSECONDS),
            max_ns=int(plan.max_seconds * NANOSECONDS),
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


def _explain(remote: Remote, work: Work, ended: Completed, result: str) -> NoReturn:
    """Say why the runner ended badly: in its own words where it left any."""
    if ended.exit_code == KILLED:
        raise DeviceError(
            f"{work.name}: the runner was killed (exit code {KILLED}), out of memory?",
            "Close apps or restart the device; see `adb logcat -d | grep lowmemorykiller`.",
        )
    with contextlib.suppress(answers.NoResult):
        failure = answers.failure(_fetch(remote, result))
        raise DeviceError(f"{work.name}: {failure.kind}: {answers.plain(failure.reason)}")
    said = answers.plain(ended.stderr.strip().rpartition("\n")[2]) or "it says nothing"
    raise DeviceError(f"{work.name}: the runner ended with exit code {ended.exit_code}: {said}")


def _send(remote: Remote, text: str, target: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=remote.folder, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        remote.device.push(Path(file.name), target)


def _fetch(remote: Remote, source: str) -> bytes:
    """A JSON file of the runner's.

    Raises:
        answers.NoResult: There is none, or one too large to be true.
    """
    (size,) = _sizes(remote.device, source)
    if size > answers.MAX_RESULT_BYTES:
        raise answers.NoResult(f"The runner's result has {size} bytes: more than it can need.")
    return _pulled(remote, source)


def _pulled(remote: Remote, source: str) -> bytes:
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
        raise answers.NoResult("The runner left no result.")
    return known


def _fetch_outputs(remote: Remote, work: Work, result: Result, base: str) -> tuple[Sample, ...]:
    answers.check_outputs(result, work, f"{base}/outputs")
    tensors = [tensor for sample in result.outputs for tensor in sample]
    sizes = dict(zip(tensors, _sizes(remote.device, *(t.file for t in tensors)), strict=True))
    for tensor, size in sizes.items():
        if size != answers.expected_bytes(tensor):
            raise DeviceError(f"{work.name}: {tensor.file} has {size} bytes, which its shape contradicts.")
    return tuple(
        tuple(answers.array(tensor, _pulled(remote, tensor.file)) for tensor in sample)
        for sample in result.outputs
    )


def read_canary(remote: Remote, backend: Backend) -> tuple[int, ...]:
    """Run the pinned computation in a process of its own.

    Raises:
        DeviceError: It failed, or its answer is not to be believed.
    """
    device = remote.device
    path = f"{device.root}/jobs/canary-{secrets.token_hex(8)}.json"
    affinity = (remote.plan.affinity,) if remote.plan.affinity else ()
    checked(device, "mkdir", "-p", f"{device.root}/jobs")
    ended = _start(
        device, CANARY_S, remote.place.programs[backend], "canary", str(CANARY_CALLS), path, *affinity
    )
    if ended.exit_code:
        said = answers.plain(ended.stderr.strip()) or "no reason given"
        raise DeviceError(f"{device.serial}: the runner's canary failed ({ended.exit_code}): {said}")
    durations = answers.canary(_fetch(remote, path), CANARY_CALLS)
    device.run("rm", "-f", path)
    return durations
