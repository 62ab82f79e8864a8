"""The frozen records of a session's latency: figures, and one class for each kind of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from android_harness.records import OperatorTime, Provenance


@dataclass(frozen=True)
class Figures:
    """Statistics over the pooled samples of all launches of a session."""

    p50_ms: float
    p90_ms: float
    p90_low_ms: float
    """Lower limit of the 95 % interval of p90; launches are the sampling unit."""
    p90_high_ms: float
    p95_ms: float
    p99_ms: float | None
    """None below 1000 samples."""
    max_ms: float
    mad_ms: float
    first_ms: float
    """Median over launches of the first call."""
    load_ms: float
    launches: int
    samples: int
    flags: tuple[str, ...]
    """Signs of instability, "name: detail"; empty for a stable session."""
    peak_bytes: int | None = None

    @property
    def p90_ci_ms(self) -> tuple[float, float]:
        return self.p90_low_ms, self.p90_high_ms


@dataclass(frozen=True)
class _Latency:
    """What the three kinds of latency have in common. Only `android_harness.provenance` makes them."""

    artifact: str
    device: Mapping[str, Any]
    """Serial, manufacturer, model, SoC, Android version, fingerprint, runtime and runner, power, clocks."""
    figures: Figures
    max_error: float | None
    """max|a-y| / max|y| of the device's outputs a and the float64 model's outputs y."""
    problem: str
    """Why the device's outputs are not the model's; empty if they are."""
    exceeded: tuple[str, ...]
    """Limits of memory, load or first call that were exceeded, a sentence each."""
    peak_pss_bytes: int | None
    energy_mj: float | None
    """Energy of a call, of the whole phone; None where the battery's counters cannot tell."""
    energy_problem: str
    """Why there is none; empty if there is."""
    operators: tuple[OperatorTime, ...]
    started_at: str
    evidence: ClassVar[Provenance]


@dataclass(frozen=True)
class MeasuredLatency(_Latency):
    """A latency on a proven real phone: the only kind that can meet or miss a budget."""

    budget_ms: float
    evidence: ClassVar[Provenance] = "measured"


@dataclass(frozen=True)
class SimulatedLatency(_Latency):
    """A latency on a device that did not prove to be a real phone."""

    why: tuple[str, ...] = field(default=())
    """The missing proof."""
    evidence: ClassVar[Provenance] = "simulated"


@dataclass(frozen=True)
class HostLatency(_Latency):
    """A latency of the same runner on this machine."""

    evidence: ClassVar[Provenance] = "host"


Latency: TypeAlias = MeasuredLatency | SimulatedLatency | HostLatency
