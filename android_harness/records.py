"""The frozen records of the harness, in the order in which they are made.

DeviceEntry -> Identity, State -> Gate -> BenchTask -> Launch -> Session (-> Latency, in `latencies`)

This module imports neither a framework nor `exporter`. Units are in the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Sample: TypeAlias = "tuple[Array, ...]"
"""The arguments of one call: an array per input, in the model's order."""

T = TypeVar("T")

HOST = "host"
"""The serial of this machine, which is not a phone."""
Backend = Literal["executorch", "onnxruntime", "torchscript", "vulkan"]
Build = Literal["android-arm64", "linux-arm64", "host"]
Provenance = Literal["measured", "simulated", "host"]
Verdict = Literal["pass", "fail", "inconclusive", "not_measured"]


@dataclass(frozen=True)
class Completed:
    """The result of a command that ended on a device."""

    exit_code: int
    stdout: str
    stderr: str


class Device(Protocol):
    """A device that can be measured: a phone over adb, or this machine.

    Every method keeps its deadline, and raises `DeviceError` (`Disconnected` if the connection was lost).
    """

    @property
    def serial(self) -> str:
        """The serial in adb; "host" for this machine."""

    @property
    def root(self) -> str:
        """The harness' own folder on the device."""

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        """Run one program. Its arguments arrive unchanged, whatever characters they contain."""

    def push(self, source: Path, target: str) -> None:
        """Copy a file to the device and check its size there."""

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from the device."""

    def reconnect(self, timeout_s: float = 60.0) -> None:
        """Wait until the device answers again."""


@dataclass(frozen=True)
class DeviceEntry:
    """A device as adb lists it. It is usable only in the state "device"."""

    serial: str
    state: str


@dataclass(frozen=True)
class Cluster:
    """Cores that share a clock (a cpufreq policy)."""

    cores: tuple[int, ...]
    max_khz: int
    policy: str
    """The policy's folder on the device."""


@dataclass(frozen=True)
class Identity:
    """The identity of a device. An empty text means unknown."""

    serial: str
    manufacturer: str
    model: str
    soc: str
    """"SM8250", or empty if the sources disagree or do not name it."""
    chip: str
    """"snapdragon865", "snapdragon865+" or "snapdragon870", as the clocks imply; else empty."""
    soc_reasons: tuple[str, ...]
    """What each source says about the SoC."""
    android: str
    sdk: int | None
    fingerprint: str
    abi: str
    machine: str
    """`uname -m`."""
    kernel: str
    parts: tuple[tuple[str, str], ...]
    """(implementer, part) of every core, from /proc/cpuinfo: ("0x51", "0x805")."""
    clusters: tuple[Cluster, ...]
    """Slowest first."""
    doubts: tuple[str, ...]
    """Reasons to doubt that this is a real Android phone; empty for a real one."""
    parked: tuple[int, ...] = ()
    """Cores that were switched off when the device was identified; `parts` and `clusters` lack them."""
    thermal_zones: tuple[tuple[str, str], ...] = ()
    """(name, path of the file with its temperature in thousandths of a degree)."""


@dataclass(frozen=True)
class Moment:
    """The part of a device's state that may explain a change of its latencies. None: unknown."""

    battery_percent: int | None = None
    battery_celsius: float | None = None
    plugged: str = "unknown"
    """"ac", "usb", "wireless", "none" or "unknown"."""
    thermal_status: int | None = None
    celsius: Mapping[str, float] = field(default_factory=dict)
    """Thermal zone name -> temperature; implausible readings are left out."""
    power_saver: bool | None = None
    load1: float | None = None
    scaling_max_khz: tuple[int, ...] = ()
    """One value for each of `Identity.clusters`; empty if unreadable."""
    governors: tuple[str, ...] = ()


@dataclass(frozen=True)
class State(Moment):
    """The complete state of a device at one moment, as the readiness checks need it. None: unknown."""

    thermal_overridden: bool | None = None
    boot_completed: bool | None = None
    awake: bool | None = None
    """Whether the screen is on: a sleeping phone turns cores off."""
    free_bytes: int | None = None
    available_memory_bytes: int | None = None


@dataclass(frozen=True)
class Gate:
    """A condition that must be met before a device is measured."""

    name: str
    ok: bool
    seen: str
    expected: str
    fix: str
    """What the user can do about it."""
    passing: bool = True
    """Whether waiting may help (heat, load); False if only the user can help."""


@dataclass(frozen=True)
class DeviceReport:
    """A row of `export-mobile devices`."""

    entry: DeviceEntry
    identity: Identity | None
    state: State | None
    gates: tuple[Gate, ...]

    @property
    def ready(self) -> bool:
        return self.identity is not None and all(gate.ok for gate in self.gates)


@dataclass(frozen=True, eq=False)
class BenchTask:
    """One artifact to measure, with real inputs."""

    name: str
    path: Path
    sha256: str
    backend: Backend
    samples: tuple[Sample, ...]
    """The inputs. Each is run once for its outputs; the timed calls cycle through them."""
    keeps_state: bool = False
    """Whether a call changes buffers for the next one: the outputs are those of a newly loaded model."""
    edges: tuple[Sample, ...] = ()
    """More inputs, which are not timed: a process of its own runs them once, after the launches."""


@dataclass(frozen=True)
class BenchConfig:
    """How to measure. The defaults follow docs/explanation/measurement-protocol.md, section 4.4."""

    budget_ms: float = 15.0
    launches: int = 5
    """Processes per artifact. They are the sampling unit, not the calls."""
    min_iterations: int = 50
    """Minimum number of timed calls per launch."""
    min_seconds: float = 2.0
    """Minimum timed seconds per launch."""
    max_seconds: float = 24.0
    """Maximum timed seconds per launch."""
    threads: int = 4
    """0 leaves their number to the runtime."""
    affinity: str = ""
    """Hexadecimal mask of the cores to use ("f0": the big cores of an 865); empty: the system decides."""
    memory_budget_bytes: int | None = None
    """Limit of the runner's peak memory; None for none."""
    load_budget_ms: float | None = None
    """Limit of the median load time; None for none."""
    first_budget_ms: float | None = None
    """Limit of the median first call; None for none."""
    app_like: bool = False
    """Measure as an app runs: the runtime chooses its threads, any core, and brightness stays as it is."""
    profile: bool = False
    """Time each operator after the launches, in a process of its own."""
    trace: bool = False
    """Record a Perfetto trace of each launch, and keep it where the launch fails. It slows calls down."""
    wait_s: float = 300.0
    """Longest wait for gates that may pass by themselves."""


class Clock(NamedTuple):
    """The sysfs files that the runner read between two chunks of calls."""

    at_ns: int
    """Time since the first timed call."""
    texts: Mapping[str, str]
    """Path of a file -> its text."""


@dataclass(frozen=True)
class LaunchSamples:
    """The raw samples of one process of the runner."""

    index: int
    load_ns: int
    first_ns: int
    warmup_calls: int
    warm: bool
    """Whether the warm-up settled before its deadline."""
    peak_bytes: int | None
    durations_ns: tuple[int, ...]
    offsets_ns: tuple[int, ...]
    """Start of each timed call, relative to the first."""
    clocks: tuple[Clock, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Launch(LaunchSamples):
    """One process of the runner: load, first call, warm-up, timed calls, outputs."""

    cores_allowed: str
    outputs: tuple[Sample, ...]
    """The model's outputs for each of `BenchTask.samples`."""
    runtime: str
    """"onnxruntime 1.32.0"."""
    runner: Mapping[str, str]
    """The runner's version, build and platform, as it reports them."""
    machine: str = ""
    """`uname -m` as the runner saw it."""
    repeatable: bool = True
    """Whether the first sample gave the same outputs, to the bit, each time that the launch computed it."""
    parts: tuple[tuple[str, str], ...] = ()
    """(implementer, part) of every core, as the runner read /proc/cpuinfo."""


@dataclass(frozen=True)
class OperatorTime:
    """The time of one operator in a call, as its runtime's profiler gives it."""

    name: str
    kind: str
    ms: float


@dataclass(frozen=True, eq=False)
class Session:
    """The raw evidence of one device about one artifact, before any judgement."""

    task: BenchTask
    identity: Identity
    before: State
    after: State
    launches: tuple[Launch, ...]
    canary_ns: tuple[tuple[int, ...], ...]
    """Durations of the canary: a tuple before the first launch, and one after each launch."""
    started_at: str
    """UTC, ISO 8601."""
    config: BenchConfig = BenchConfig()
    """The configuration that the launches are judged by."""
    saved: Path | None = None
    """The folder of this machine that holds the launches until the session is stored; None if none does."""
    operators: tuple[OperatorTime, ...] = ()
    """A profile after the launches; empty without one."""
    edge_outputs: tuple[Sample, ...] = ()
    """The model's outputs for each of `BenchTask.edges`; empty where they were not computed."""
    edge_failure: str = ""
    """Why they were not computed; empty if they were, or if the session is cut off."""
    cut_off: str = ""
    """Why launches or the state after them are missing; empty if the session is complete."""


def base_part_of_record(record: object, base: type[T]) -> T:
    """Return the fields of a record that its base class declares, as an instance of that class."""
    return base(**{entry.name: getattr(record, entry.name) for entry in fields(cast("type[Any]", base))})
