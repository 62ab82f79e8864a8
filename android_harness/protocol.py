"""What the harness and the runner say to each other: one JSON file each way, checked on arrival.

The runner refuses a `protocol` it does not know; so does the harness. Paths are the device's own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL = 1
NANOSECONDS = 10**9
MAX_CALLS = 10_000_000
MAX_TENSORS = 4096

Count = Annotated[int, Field(ge=0)]
Nanoseconds = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=4096)]
Dtype = Literal["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
ErrorKind = Literal["protocol", "usage", "model", "hash", "input", "memory", "run", "io", "unsupported"]


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Tensor(Message):
    """Raw little-endian values, contiguous, in a file of their own."""

    file: Text
    dtype: Dtype
    shape: Annotated[tuple[Count, ...], Field(max_length=16)]


class Warmup(Message):
    """AndroidX Benchmark's rule: done once a fast and a slow moving average of the durations agree."""

    min_calls: Count = 30
    min_ns: Nanoseconds = NANOSECONDS // 4
    settled_calls: Count = 40
    """This many calls in a row with the averages within `tolerance` of each other."""
    tolerance: Annotated[float, Field(gt=0)] = 0.04
    fast: float = 0.1
    slow: float = 0.005
    max_ns: Nanoseconds = 8 * NANOSECONDS


class Timed(Message):
    """Calls go on until both minima are met, and stop at the maximum."""

    min_calls: Count
    min_ns: Nanoseconds
    max_ns: Nanoseconds
    chunk_ns: Nanoseconds = NANOSECONDS // 4
    """`watch` is read between chunks of this length, never inside one."""


class Job(Message):
    """`runner run JOB.json`."""

    protocol: int = PROTOCOL
    backend: Literal["executorch", "onnxruntime", "torchscript"]
    model: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    threads: Annotated[int, Field(ge=1, le=64)]
    affinity: Annotated[str, Field(pattern=r"^[0-9a-f]{0,16}$")] = ""
    samples: tuple[tuple[Tensor, ...], ...]
    warmup: Warmup = Warmup()
    timed: Timed
    watch: tuple[Text, ...] = ()
    """Files whose text tells the clocks and temperatures."""
    outputs: Text
    """An existing folder for the outputs of each sample."""
    result: Text


class Runner(Message):
    """Who ran: compiled in, not asked of the device."""

    version: Text
    os: Literal["android", "linux"]
    arch: Text
    """Of the machine code: "aarch64" or "x86_64"."""
    android_api: Count
    """0 where it was not built for Android."""
    compiler: Text
    backends: tuple[Text, ...]


class Moment(Message):
    at_ns: Nanoseconds
    """Since the first timed call began."""
    texts: dict[str, Text]
    """Path -> text; a file that could not be read is left out."""


class Failure(Message):
    kind: ErrorKind
    reason: Text


class Result(Message):
    """Written aside, synced and renamed; `failure` and the figures exclude each other."""

    protocol: Literal[1]
    runner: Runner
    machine: Text
    """`uname -m` as the runner sees it."""
    parts: Annotated[tuple[tuple[Text, Text], ...], Field(max_length=1024)]
    """(implementer, part) of each core in /proc/cpuinfo; empty where it lists none."""
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


class Canary(Message):
    """`runner canary CALLS RESULT [AFFINITY]`: a pinned computation that only the device's state can slow."""

    protocol: Literal[1]
    runner: Runner
    durations_ns: tuple[Nanoseconds, ...]
