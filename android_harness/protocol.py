"""The messages between harness and runner: one JSON file in each direction, validated by its reader.

Both refuse an unknown `protocol`. Paths are paths on the device.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL = 1
NANOSECONDS = 10**9
MAX_CALLS = 10_000_000
MAX_TENSORS = 4096
MAX_OPERATORS = 20_000
PROFILED_CALLS = 20
"""Calls of `runner profile`: kProfiledCalls in main.cc."""

Count = Annotated[int, Field(ge=0)]
Nanoseconds = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=4096)]
Dtype = Literal["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
ErrorKind = Literal["protocol", "usage", "model", "hash", "input", "memory", "run", "io", "unsupported"]


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Tensor(Message):
    """A file of contiguous little-endian values."""

    file: Text
    dtype: Dtype
    shape: Annotated[tuple[Count, ...], Field(max_length=16)]


class Warmup(Message):
    """AndroidX Benchmark's rule: warm-up ends when a fast and a slow moving average of durations agree."""

    min_calls: Count = 30
    min_ns: Nanoseconds = NANOSECONDS // 4
    settled_calls: Count = 40
    """Number of consecutive calls for which the averages must be within `tolerance` of each other."""
    tolerance: Annotated[float, Field(gt=0)] = 0.04
    fast: float = 0.1
    slow: float = 0.005
    max_ns: Nanoseconds = 8 * NANOSECONDS


class Timed(Message):
    """The timed calls continue until both minima are met, and stop at the maximum."""

    min_calls: Count
    min_ns: Nanoseconds
    max_ns: Nanoseconds
    chunk_ns: Nanoseconds = NANOSECONDS // 4
    """`watch` is read between chunks of this length, never inside one."""


class Job(Message):
    """The job of `runner run JOB.json`."""

    protocol: int = PROTOCOL
    backend: Literal["executorch", "onnxruntime", "torchscript", "vulkan"]
    model: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    threads: Annotated[int, Field(ge=0, le=64)]
    """0 leaves their number to the runtime."""
    affinity: Annotated[str, Field(pattern=r"^[0-9a-f]{0,16}$")] = ""
    samples: tuple[tuple[Tensor, ...], ...]
    warmup: Warmup = Warmup()
    timed: Timed
    watch: tuple[Text, ...] = ()
    """Files that hold clocks and temperatures."""
    fresh: bool = False
    """Load the model once more for its outputs: the timed calls change what it keeps from call to call."""
    outputs: Text
    """An existing folder for the outputs."""
    result: Text


class Runner(Message):
    """The runner's description of itself, fixed when it was compiled."""

    version: Text
    os: Literal["android", "linux"]
    arch: Text
    """Architecture of the machine code: "aarch64" or "x86_64"."""
    android_api: Count
    """0 if the runner was not built for Android."""
    compiler: Text
    backends: tuple[Text, ...]


class Moment(Message):
    at_ns: Nanoseconds
    """Time since the first timed call began."""
    texts: dict[str, Text]
    """Path -> text; unreadable files are left out."""


class Failure(Message):
    kind: ErrorKind
    reason: Text


class Operator(Message):
    """An operator as the runtime names it, and its executions in a profile."""

    name: Text
    kind: Text
    durations_ns: Annotated[tuple[Nanoseconds, ...], Field(max_length=MAX_TENSORS)]


class Result(Message):
    """The result of a job, renamed into place when complete. It holds either a `failure` or figures."""

    protocol: Literal[1]
    runner: Runner
    machine: Text
    """`uname -m` as the runner sees it."""
    parts: Annotated[tuple[tuple[Text, Text], ...], Field(max_length=1024)]
    """(implementer, part) of each core in /proc/cpuinfo; empty if it lists none."""
    failure: Failure | None = None
    runtime: Text = ""
    load_ns: Nanoseconds = 0
    first_ns: Nanoseconds = 0
    warmup_calls: Count = 0
    warm: bool = False
    durations_ns: Annotated[tuple[Nanoseconds, ...], Field(max_length=MAX_CALLS)] = ()
    offsets_ns: Annotated[tuple[Nanoseconds, ...], Field(max_length=MAX_CALLS)] = ()
    clocks: tuple[Moment, ...] = ()
    peak_bytes: Count | None = None
    cores_allowed: Text = ""
    outputs: Annotated[tuple[tuple[Tensor, ...], ...], Field(max_length=MAX_TENSORS)] = ()
    operators: Annotated[tuple[Operator, ...], Field(max_length=MAX_OPERATORS)] = ()
    """Only `runner profile JOB.json` returns them."""


class Canary(Message):
    """The result of `runner canary CALLS RESULT [AFFINITY]`, a fixed computation."""

    protocol: Literal[1]
    runner: Runner
    durations_ns: tuple[Nanoseconds, ...]
