"""What comes back from a runner: hostile until it is checked here."""

from __future__ import annotations

import math
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from android_harness.errors import DeviceError
from android_harness.protocol import Canary, Failure, Result, Tensor
from android_harness.records import Array, BenchTask, Clock, Launch, Sample

M = TypeVar("M", bound=BaseModel)
MAX_RESULT_BYTES = 256 << 20
MAX_OUTPUT_BYTES = 1 << 30
CLOCK_TOLERANCE = 1.02
"""Two machines' clocks, and the time a command needs to come back."""
SLACK_NS = 50_000_000


class NoResult(DeviceError):  # noqa: N818 - named for what is the matter
    """The runner left nothing that can be read."""


def plain(text: str) -> str:
    """A device's words for a message: printable, one line, not long."""
    return "".join(c if c.isprintable() else " " for c in text)[:500].strip()


def _parsed(raw: bytes, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = plain(".".join(str(part) for part in first["loc"]))
        raise NoResult(f"The runner's answer is not one: {where}: {plain(first['msg'])}") from None


def read_failure(raw: bytes) -> Failure:
    """Why a runner says it failed.

    Raises:
        NoResult: It does not say.
    """
    found = _parsed(raw, Result).failure
    if found is None:
        raise NoResult("The runner failed and says that it did not.")
    return found


def read_result(raw: bytes, task: BenchTask) -> Result:
    """A finished launch's result, with times that can be true.

    Raises:
        DeviceError: It contradicts itself or its job.
    """
    found = _parsed(raw, Result)
    if found.failure:
        raise DeviceError(f"{task.name}: {found.failure.kind}: {plain(found.failure.reason)}")
    problem = _problem(found, task)
    if problem:
        raise DeviceError(f"{task.name}: the runner's result cannot be true: {problem}.")
    return found


def _problem(found: Result, task: BenchTask) -> str:
    durations, offsets = found.durations_ns, found.offsets_ns
    checks = (
        (not durations, "no call was timed"),
        (len(durations) != len(offsets), f"{len(durations)} durations, {len(offsets)} starts"),
        (bool(offsets) and offsets[0] != 0, "the first call does not start at 0"),
        (any(value == 0 for value in durations) or not found.first_ns, "a call took no time"),
        (_overlap(found), "calls begin before the one before them ended"),
        (task.backend not in found.runner.backends, f"a runner without {task.backend}"),
        (not found.runtime, "it names no runtime"),
    )
    return next((problem for wrong, problem in checks if wrong), "")


def _overlap(found: Result) -> bool:
    ends = (start + length for start, length in zip(found.offsets_ns, found.durations_ns, strict=False))
    return any(begin < end for begin, end in zip(found.offsets_ns[1:], ends, strict=False))


def check_times(found: Result, elapsed_ns: int) -> None:
    """Hold what the runner timed to the time its command took here.

    Raises:
        DeviceError: More passed there than here.
    """
    claimed = found.load_ns + found.first_ns + found.offsets_ns[-1] + found.durations_ns[-1]
    if claimed > elapsed_ns * CLOCK_TOLERANCE + SLACK_NS:
        raise DeviceError(
            f"The runner claims {claimed / 1e9:.2f} s, but its command took {elapsed_ns / 1e9:.2f} s."
        )


def check_outputs(found: Result, task: BenchTask, folder: str) -> None:
    """Outputs are as many as the samples, of sane size, in files that the runner may name.

    Raises:
        DeviceError: They are not.
    """
    if len(found.outputs) != len(task.samples) or not all(found.outputs):
        raise DeviceError(
            f"{task.name}: {len(found.outputs)} answers came back for {len(task.samples)} samples."
        )
    for index, sample in enumerate(found.outputs):
        for place, tensor in enumerate(sample):
            if tensor.file != f"{folder}/{index}-{place}.bin":
                raise DeviceError(
                    f"{task.name}: the runner names a file not its own: {plain(tensor.file)!r}."
                )
    if sum(expected_bytes(tensor) for sample in found.outputs for tensor in sample) > MAX_OUTPUT_BYTES:
        raise DeviceError(f"{task.name}: the outputs are larger than {MAX_OUTPUT_BYTES >> 20} MB.")


def expected_bytes(tensor: Tensor) -> int:
    import numpy as np

    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize


def to_array(tensor: Tensor, raw: bytes) -> Array:
    """An output's values.

    Raises:
        DeviceError: The file is not of the size its shape has.
    """
    import numpy as np

    if len(raw) != expected_bytes(tensor):
        raise DeviceError(f"{plain(tensor.file)} came with {len(raw)} bytes, which its shape contradicts.")
    return np.frombuffer(raw, dtype=np.dtype(tensor.dtype).newbyteorder("<")).reshape(tensor.shape)


def read_canary(raw: bytes, calls: int) -> tuple[int, ...]:
    """The pinned computation's durations in ns.

    Raises:
        DeviceError: Not as many as asked for, or one took no time.
    """
    durations = _parsed(raw, Canary).durations_ns
    if len(durations) != calls or not all(durations):
        raise DeviceError(f"The runner's canary has {len(durations)} durations for {calls} calls.")
    return durations


def to_launch(found: Result, index: int, outputs: tuple[Sample, ...]) -> Launch:
    """A checked result as the record of a launch."""
    runner = found.runner
    return Launch(
        index=index,
        load_ns=found.load_ns,
        first_ns=found.first_ns,
        warmup_calls=found.warmup_calls,
        warm=found.warm,
        durations_ns=found.durations_ns,
        offsets_ns=found.offsets_ns,
        clocks=tuple(Clock(moment.at_ns, moment.texts) for moment in found.clocks),
        peak_bytes=found.peak_bytes,
        cores_allowed=found.cores_allowed,
        outputs=outputs,
        runtime=found.runtime,
        runner={
            "version": runner.version,
            "os": runner.os,
            "arch": runner.arch,
            "android_api": str(runner.android_api),
            "compiler": runner.compiler,
        },
        machine=found.machine,
        parts=found.parts,
    )
