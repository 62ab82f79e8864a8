"""Latencies as `manifest.json` holds them: of this host, and what a device said."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue, model_validator

from exporter.records import BudgetVerdict, DeviceEvidence
from exporter.records import DeviceLatency as DeviceLatencyRecord
from exporter.report.manifest.parts import Count, FileName, Milliseconds, Part

Launch = tuple[Milliseconds, Milliseconds, Milliseconds, Milliseconds, Milliseconds]
"""p5, p25, p50, p75 and p95 of one launch."""


class HostLatency(Part):
    p50_ms: Milliseconds
    p90_ms: Milliseconds
    samples: Count
    threads: Annotated[int, Field(ge=1)]
    samples_ns: tuple[Count, ...] = ()


class DeviceLatency(Part):
    """Field for field `records.DeviceLatency`. A claim that contradicts itself is refused."""

    evidence: DeviceEvidence
    device: dict[str, JsonValue]
    p50_ms: Milliseconds
    p90_ms: Milliseconds
    p90_ci_ms: tuple[Milliseconds, Milliseconds]
    launches: Annotated[int, Field(ge=1)]
    samples: Annotated[int, Field(ge=1)]
    flags: tuple[str, ...]
    max_error: Annotated[float, Field(ge=0)] | None
    verdict: BudgetVerdict
    budget_ms: Annotated[float, Field(gt=0)] | None = None
    p95_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    max_ms: Milliseconds | None = None
    mad_ms: Milliseconds | None = None
    first_ms: Milliseconds | None = None
    load_ms: Milliseconds | None = None
    peak_bytes: Count | None = None
    problem: str = ""
    why: tuple[str, ...] = ()
    started_at: str = ""
    samples_file: FileName | None = None
    launch_ms: Annotated[tuple[Launch, ...], Field(max_length=10_000)] = ()

    @model_validator(mode="after")
    def _honest(self) -> DeviceLatency:
        serial = self.device.get("serial")
        if not isinstance(serial, str) or not serial:
            raise ValueError("device has no serial")
        if self.p50_ms > self.p90_ms or self.p90_ci_ms[0] > self.p90_ci_ms[1]:
            raise ValueError("p50_ms, p90_ms and p90_ci_ms are not in order")
        if (self.evidence == "measured") == (self.verdict == "not_measured"):
            raise ValueError(f"evidence {self.evidence} cannot have the verdict {self.verdict}")
        if self.evidence == "measured" and (self.why or self.device.get("doubts")):
            raise ValueError("evidence is measured, but the device itself lists doubts")
        if (self.evidence == "host") != (serial == "host"):
            raise ValueError(f"evidence is {self.evidence}, but its device is {serial!a}")
        if self.verdict == "pass" and (self.flags or not self.device.get("soc")):
            raise ValueError("the verdict is pass, but the run was not stable or its SoC is not identified")
        return self

    def record(self) -> DeviceLatencyRecord:
        return DeviceLatencyRecord(**{name: getattr(self, name) for name in type(self).model_fields})
