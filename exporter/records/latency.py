"""How long calls take: on this host, on devices and under emulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len

from exporter.records.values import Count, Milliseconds, Positive
from exporter.records.verdict import Status


@dataclass(frozen=True)
class Latency:
    """Milliseconds on this host: never a phone's."""

    p50_ms: Milliseconds
    p90_ms: Milliseconds
    samples: Count
    threads: Annotated[int, Ge(1)]
    samples_ns: tuple[Count, ...] = ()


BudgetVerdict = Literal["pass", "fail", "inconclusive", "not_measured"]
DeviceEvidence = Literal["measured", "simulated", "host"]
Launch = tuple[Milliseconds, Milliseconds, Milliseconds, Milliseconds, Milliseconds]
"""p5, p25, p50, p75 and p95 of the calls of one launch."""


@dataclass(frozen=True)
class OperatorTime:
    """The time of one operator in a call, by its runtime's profiler."""

    name: str
    kind: str
    """As the runtime calls it: "Conv", "Convolution (NHWC, F32) IGEMM"."""
    ms: Annotated[float, Ge(0)]
    module: str = ""
    """The model's module that it computes; empty where that is not known."""


@dataclass(frozen=True)
class DeviceLatency:
    """What one device said about one artifact, as the harness judged it. Milliseconds."""

    evidence: DeviceEvidence
    device: Mapping[str, Any]
    """Serial, model, SoC, Android version, fingerprint, runtime, runner, power, clocks, …"""
    p50_ms: Milliseconds
    p90_ms: Milliseconds
    p90_ci_ms: tuple[Milliseconds, Milliseconds]
    """95 % interval of p90, launches being the sampling unit."""
    launches: Annotated[int, Ge(1)]
    samples: Annotated[int, Ge(1)]
    flags: tuple[str, ...]
    """Signs of instability, "name: what was seen"; empty for a stable run."""
    max_error: Annotated[float, Ge(0)] | None
    verdict: BudgetVerdict
    budget_ms: Positive | None = None
    """What it was judged against; None: the export's own."""
    p95_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    max_ms: Milliseconds | None = None
    mad_ms: Milliseconds | None = None
    first_ms: Milliseconds | None = None
    load_ms: Milliseconds | None = None
    peak_bytes: Count | None = None
    peak_pss_bytes: Count | None = None
    """The highest PSS between timed calls: the runner's own memory and its share of what others use too."""
    energy_mj: Annotated[float, Ge(0)] | None = None
    """Energy of a call, of the whole phone; None where the battery's counters cannot tell."""
    energy_problem: str = ""
    """Why there is none."""
    operators: Annotated[tuple[OperatorTime, ...], Len(max_length=20_000)] = ()
    """The time of each operator, from a run with the runtime's profiler (`bench --profile`)."""
    problem: str = ""
    """Why the device's outputs are not the model's; empty when they are."""
    exceeded: tuple[str, ...] = ()
    """Limits of `bench` that the artifact exceeded (memory, load, first call), a sentence each."""
    why: tuple[str, ...] = ()
    """What a real phone would have shown in place of a simulated one."""
    started_at: str = ""
    samples_file: str | None = None
    """The raw samples, a JSON line per launch, in OUT."""
    launch_ms: Annotated[tuple[Launch, ...], Len(max_length=10_000)] = ()
    """For the report's plot."""

    @property
    def serial(self) -> str:
        return str(self.device.get("serial", ""))

    @property
    def app_like(self) -> bool:
        """Whether it was measured as an app runs, by `bench --app-like`."""
        return "app" in str(self.device.get("context", ""))


@dataclass(frozen=True)
class EstimatedLatency:
    """What an artifact is expected to take on the target's CPU: calculated, so it never meets a budget."""

    threads: Annotated[int, Ge(1)]
    p50_ms: Milliseconds
    low_ms: Milliseconds
    high_ms: Milliseconds
    """The interval's ends."""
    coverage: Annotated[float, Ge(0), Le(1)]
    """The share of cases that the interval is meant to hold."""
    basis: Literal["counts", "graph"]
    """Counted instructions of the runtime's Arm kernels, or only the graph: operators, else FLOPs."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """What bounds it (arithmetic, loads, memory, starting threads, ...) -> share of the time."""
    notes: tuple[str, ...] = ()
    """Why the interval is wider than that of published latencies, a sentence each."""
    anchor: Positive = 1.0
    """The correction by a phone's own measurements that is in it; 1 without any."""
    operators: tuple[OperatorTime, ...] = ()
    """The time divided over operators and modules by the graph; only of an artifact's fastest estimate."""
    shared: Annotated[float, Ge(1)] = 1.0
    """The factor by which all estimates of this chip and runtime may be off together; anchors correct it."""
    core: str = ""
    """The small core that it is for, as "Cortex-A55"; empty for the chip's fastest cores."""
    evidence: Literal["estimated"] = "estimated"

    @property
    def where(self) -> str:
        """Where it is meant to run: "1 thread", "4 threads" or "1 thread of a Cortex-A55"."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{threads} of a {self.core}" if self.core else threads


@dataclass(frozen=True)
class Emulation:
    """The outputs of an artifact on a phone's CPU kernels under emulation, judged. It is never a time."""

    status: Status
    reason: str
    """Why it did not pass; empty when it did."""
    runtime: str
    """"executorch 1.5.1": the Arm library that executed it; empty where none did."""
    core: str
    """The emulated processor, as QEMU calls it."""
    samples: Count
    max_error: float | None = None
    """As `Comparison.max_error`; None where nothing could be compared, or it is not finite."""
    sqnr_db: float | None = None
    difference: float | None = None
    """The largest difference from the same file's outputs on this machine, as a share of their scale."""
