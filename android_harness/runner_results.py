"""Check what a runner returns. It is untrusted until it has passed these checks."""

from __future__ import annotations

import math
import stat
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from android_harness.errors import DeviceError
from android_harness.protocol import PROFILED_CALLS, Canary, Failure, Operator, Result, Tensor
from android_harness.records import Array, BenchTask, Clock, Launch, OperatorTime, Sample

M = TypeVar("M", bound=BaseModel)
MAX_RESULT_BYTES = 256 << 20
MAX_OUTPUT_BYTES = 1 << 30
CLOCK_TOLERANCE = 1.02
"""Factor by which the clocks of the two machines may differ."""
SLACK_NS = 50_000_000
"""Time by which a command may seem shorter here than on the device."""


class NoResult(DeviceError):  # noqa: N818 - the name says what is missing
    """The runner left no readable result."""


def plain_runner_result_text(text: str) -> str:
    """Return a device's text for a message: printable, on one line and short."""
    return "".join(c if c.isprintable() else " " for c in text)[:500].strip()


def _parsed_runner_result(raw: bytes, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = plain_runner_result_text(".".join(str(part) for part in first["loc"]))
        raise NoResult(
            f"The runner's result is malformed: {field}: {plain_runner_result_text(first['msg'])}"
        ) from None


def read_failure_runner_result(raw: bytes) -> Failure:
    """Return the failure that a runner reports.

    Raises:
        NoResult: It reports none.
    """
    failure = _parsed_runner_result(raw, Result).failure
    if failure is None:
        raise NoResult("The runner exited with an error but its result reports success.")
    return failure


def read_runner_result(raw: bytes, task: BenchTask) -> Result:
    """Return the result of a finished launch, after checking that its times are possible.

    Raises:
        DeviceError: The result contradicts itself or its task.
    """
    result = read_untimed_runner_result(raw, task)
    problem = _runner_result_problem(result, task)
    if problem:
        raise DeviceError(f"{task.name}: the runner's result is impossible: {problem}.")
    return result


def read_untimed_runner_result(raw: bytes, task: BenchTask) -> Result:
    """Return the result of a runner that computed the outputs alone, or whose times are checked elsewhere.

    Raises:
        DeviceError: The runner failed.
    """
    result = _parsed_runner_result(raw, Result)
    if result.failure:
        raise DeviceError(
            f"{task.name}: {result.failure.kind}: {plain_runner_result_text(result.failure.reason)}"
        )
    return result


def read_profile_runner_result(raw: bytes, task: BenchTask) -> tuple[OperatorTime, ...]:
    """Return the mean time of each operator in a call, without the first call.

    Raises:
        DeviceError: The runner failed, or its times are impossible.
    """
    result = read_untimed_runner_result(raw, task)
    if not result.operators:
        raise DeviceError(f"{task.name}: the runtime's profile is empty.")
    return tuple(_operator_of_runner_result(operator) for operator in result.operators)


def _operator_of_runner_result(operator: Operator) -> OperatorTime:
    """Return an operator's time in a call; one may be executed several times in it."""
    first = len(operator.durations_ns) // PROFILED_CALLS
    ms = sum(operator.durations_ns[first:]) / (PROFILED_CALLS - 1) / 1e6
    return OperatorTime(plain_runner_result_text(operator.name), plain_runner_result_text(operator.kind), ms)


def _runner_result_problem(result: Result, task: BenchTask) -> str:
    durations, offsets = result.durations_ns, result.offsets_ns
    checks = (
        (not durations, "no call was timed"),
        (len(durations) != len(offsets), f"{len(durations)} durations, {len(offsets)} starts"),
        (bool(offsets) and offsets[0] != 0, "the first call does not start at 0"),
        (any(value == 0 for value in durations) or not result.first_ns, "a call took no time"),
        (_do_runner_results_overlap(result), "a call begins before the previous call ended"),
        (task.backend not in result.runner.backends, f"the runner has no backend {task.backend}"),
        (not result.runtime, "it names no runtime"),
    )
    return next((problem for wrong, problem in checks if wrong), "")


def _do_runner_results_overlap(result: Result) -> bool:
    ends = (start + length for start, length in zip(result.offsets_ns, result.durations_ns, strict=False))
    return any(begin < end for begin, end in zip(result.offsets_ns[1:], ends, strict=False))


def check_runner_result_times(result: Result, elapsed_ns: int) -> None:
    """Compare the times that the runner reports with the time that its command took on this machine.

    Raises:
        DeviceError: More time passed there than here.
    """
    claimed = result.load_ns + result.first_ns + result.offsets_ns[-1] + result.durations_ns[-1]
    if claimed > elapsed_ns * CLOCK_TOLERANCE + SLACK_NS:
        raise DeviceError(
            f"The runner claims {claimed / 1e9:.2f} s, but its command took {elapsed_ns / 1e9:.2f} s."
        )


def check_runner_result_outputs(result: Result, task: BenchTask, folder: str, repeats: int = 0) -> None:
    """Check the number of the outputs, their sizes and their file names.

    Args:
        result: The runner's answer.
        task: What it ran.
        folder: The folder of its outputs.
        repeats: How often it computed the first sample once more, after all samples.

    Raises:
        DeviceError: They do not fit the task.
    """
    expected = len(task.samples) + repeats
    if len(result.outputs) != expected or not all(result.outputs):
        raise DeviceError(
            f"{task.name}: the runner returned {len(result.outputs)} outputs for {expected} samples."
        )
    for index, sample in enumerate(result.outputs):
        for position, tensor in enumerate(sample):
            if tensor.file != f"{folder}/{index}-{position}.bin":
                raise DeviceError(
                    f"{task.name}: the runner names a file that is not its own: "
                    f"{plain_runner_result_text(tensor.file)!r}."
                )
    if (
        sum(expected_runner_result_bytes(t) for sample in result.outputs[: len(task.samples)] for t in sample)
        > MAX_OUTPUT_BYTES
    ):
        raise DeviceError(f"{task.name}: the outputs are larger than {MAX_OUTPUT_BYTES >> 20} MB.")


def read_runner_result_outputs(path: Path, task: BenchTask, folder: Path) -> tuple[str, tuple[Sample, ...]]:
    """Return the runtime and the outputs of a runner that ran on this machine for its outputs only.

    Args:
        path: The runner's result.
        task: What it ran.
        folder: The folder of its outputs.

    Raises:
        DeviceError: It failed, or left something else than it says.
    """
    result = read_untimed_runner_result(_read_runner_result_file(path, MAX_RESULT_BYTES), task)
    check_runner_result_outputs(result, task, str(folder))
    return plain_runner_result_text(result.runtime), tuple(
        tuple(
            runner_result_to_array(
                tensor, _read_runner_result_file(Path(tensor.file), expected_runner_result_bytes(tensor))
            )
            for tensor in sample
        )
        for sample in result.outputs
    )


def _read_runner_result_file(path: Path, most: int) -> bytes:
    """Read a plain file of at most a number of bytes: a model may have taken its runner over."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise NoResult(f"{path.name} is no plain file of at most {most} bytes.")
        return path.read_bytes()
    except OSError as error:
        raise NoResult(f"The runner left no {path.name}: {error.strerror}.") from None


def expected_runner_result_bytes(tensor: Tensor) -> int:
    import numpy as np

    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize


def runner_result_to_array(tensor: Tensor, raw: bytes) -> Array:
    """Return the values of an output.

    Raises:
        DeviceError: The file's size does not fit the shape.
    """
    import numpy as np

    if len(raw) != expected_runner_result_bytes(tensor):
        raise DeviceError(
            f"{plain_runner_result_text(tensor.file)} has {len(raw)} bytes, which does not fit its shape."
        )
    return np.frombuffer(raw, dtype=np.dtype(tensor.dtype).newbyteorder("<")).reshape(tensor.shape)


def read_canary_runner_result(raw: bytes, calls: int) -> tuple[int, ...]:
    """Return the durations of the canary in nanoseconds.

    Raises:
        DeviceError: Their number is wrong, or a call took no time.
    """
    durations = _parsed_runner_result(raw, Canary).durations_ns
    if len(durations) != calls or not all(durations):
        raise DeviceError(f"The runner's canary has {len(durations)} durations for {calls} calls.")
    return durations


def runner_result_to_launch(
    result: Result, index: int, outputs: tuple[Sample, ...], repeatable: bool = True
) -> Launch:
    """Make the record of a launch from a checked result."""
    runner = result.runner
    return Launch(
        index=index,
        load_ns=result.load_ns,
        first_ns=result.first_ns,
        warmup_calls=result.warmup_calls,
        warm=result.warm,
        durations_ns=result.durations_ns,
        offsets_ns=result.offsets_ns,
        clocks=tuple(Clock(moment.at_ns, moment.texts) for moment in result.clocks),
        peak_bytes=result.peak_bytes,
        cores_allowed=result.cores_allowed,
        outputs=outputs,
        repeatable=repeatable,
        runtime=result.runtime,
        runner={
            "version": runner.version,
            "os": runner.os,
            "arch": runner.arch,
            "android_api": str(runner.android_api),
            "compiler": runner.compiler,
        },
        machine=result.machine,
        parts=result.parts,
    )
