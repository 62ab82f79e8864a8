"""What the history remembers. Frozen; units in the names; times are UTC.

StoredSession + Samples -> history -> StoredSession, by Filter; Gap where there was nothing to measure
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from android_harness.records import Provenance, Verdict

BASELINE_SESSIONS = 10
"""How many stable sessions another is held against at most; pruning never takes them."""
NAMESPACE = uuid.UUID("5f0d4bb0-6c35-4e0c-9d7e-3a1f6a5f8f11")
"""Of the keys made by `key_of`; random once, fixed for ever."""


def key_of(*parts: str) -> str:
    """A key that is the same for the same parts: who is killed and starts again adds nothing twice."""
    return str(uuid.uuid5(NAMESPACE, json.dumps(parts)))


def digest(*parts: object) -> str:
    """A short hash to look rows up by; equal exactly where the parts are."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def device_hash(serial: str) -> str:
    """What sessions of one device are compared by; the serial need not be shown to whoever sees it."""
    return digest("device", serial)


def now() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class SeriesKey:
    """Sessions that make one series: the same thing, measured the same way, night after night."""

    model: str
    target: str
    artifact: str
    device: str
    """`device_hash` of its serial."""
    evidence: Provenance
    """Part of the line, so that no simulated session is ever held against a measured one."""
    threads: int
    affinity: str
    context: str = "shell"

    @property
    def id(self) -> str:
        return digest("line", *(getattr(self, one.name) for one in fields(self)))


@dataclass(frozen=True)
class Moment:
    """The device's state before or after a session; None and empty where it does not say."""

    battery_percent: int | None = None
    battery_celsius: float | None = None
    plugged: str = "unknown"
    """"ac", "usb", "wireless", "none" or "unknown"."""
    thermal_status: int | None = None
    celsius: Mapping[str, float] = field(default_factory=dict)
    power_saver: bool | None = None
    load1: float | None = None
    scaling_max_khz: tuple[int, ...] = ()
    governors: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredSession:
    """One device's answer about one artifact, as it is remembered; its raw samples are `Samples`."""

    key: str
    """Its own for ever: adding it again changes nothing."""
    run: str
    """The night it belongs to."""
    host: str
    """The machine that the device was plugged into."""
    started_at: datetime
    model: str
    """The model card's name: what stays when the weights change."""
    target: str
    artifact: str
    format: str
    runtime: str
    """"onnxruntime 1.32.0"."""
    backend: str
    precision: str
    artifact_sha256: str
    source_sha256: str
    """Of the checkpoint."""
    serial: str
    device_model: str
    soc: str
    chip: str
    fingerprint: str
    """Android's build; empty where there is none."""
    evidence: Provenance
    threads: int
    affinity: str
    clock_state: str
    """"locked-verified", "unlocked" or "unknown"."""
    runner: Mapping[str, str]
    """The program on the device: version, build and platform."""
    toolchain: Mapping[str, str]
    """Package -> version of what made the artifact."""
    before: Moment
    after: Moment
    clocks: Mapping[str, float]
    """What the cores did while it was measured: "policy7 lowest limit khz", "policy7 mean khz", …"""
    p50_ms: float
    p90_ms: float
    p90_low_ms: float
    p90_high_ms: float
    p95_ms: float
    p99_ms: float | None
    max_ms: float
    mad_ms: float
    first_ms: float
    load_ms: float
    launches: int
    samples: int
    flags: tuple[str, ...]
    """Signs of instability, "name: what was seen"."""
    verdict: Verdict
    budget_ms: float
    problem: str = ""
    """Why the device's outputs are not the model's; empty when they are."""
    peak_bytes: int | None = None
    size_bytes: int | None = None
    max_error: float | None = None
    sqnr_db: float | None = None
    top1_agreement: float | None = None
    accuracy: float | None = None
    """On the model card's evaluation data."""
    context: str = "shell"
    regressed: bool = False
    """Slower or worse than what it was held against, or so suspected and not cleared: others are not held
    against it, so that nights stay red until it is repaired or accepted. This and the next are the only
    fields that may change."""
    accepted: bool = False
    """Its level is the new normal: a baseline begins here, nothing before it counts any more."""

    @property
    def stable(self) -> bool:
        """Nothing speaks against its times: it may be what others are held to."""
        return not self.flags and not self.problem

    @property
    def device(self) -> str:
        return device_hash(self.serial)

    @property
    def series_key(self) -> SeriesKey:
        return SeriesKey(
            self.model,
            self.target,
            self.artifact,
            self.device,
            self.evidence,
            self.threads,
            self.affinity,
            self.context,
        )

    @property
    def build(self) -> str:
        """The runtime and the program it is built into, in one line."""
        return ", ".join([self.runtime, *(f"{name} {self.runner[name]}" for name in sorted(self.runner))])

    @property
    def comparability_key(self) -> str:
        """Sessions of a line with the same are compared: the same Android, runtime build and clocks' lock.

        An update of the system or of the runtime starts a new baseline (protocol, section 4.9 as kept in
        `android_harness.regressions`); pinned clocks are another machine than free ones.
        """
        return digest("footing", self.fingerprint, self.build, self.clock_state == "locked-verified")


@dataclass(frozen=True, slots=True)
class Point:
    """One session as far as the trend of its line goes: a year of them is read for every line of a page."""

    key: str
    run: str
    started_at: datetime
    p50_ms: float
    p90_ms: float
    stable: bool
    series_id: str
    """`SeriesKey.id`."""


@dataclass(frozen=True)
class LaunchSamples:
    """One process, raw."""

    index: int
    load_ns: int
    first_ns: int
    warmup_calls: int
    warm: bool
    peak_bytes: int | None
    durations_ns: tuple[int, ...]
    offsets_ns: tuple[int, ...]
    """Start of each timed call since the first."""
    clocks: tuple[tuple[int, Mapping[str, str]], ...] = ()
    """(nanoseconds since the first call, sysfs file -> its text) between chunks."""


@dataclass(frozen=True)
class Samples:
    """Everything a session's figures were computed from."""

    launches: tuple[LaunchSamples, ...]
    canary_ns: tuple[tuple[int, ...], ...] = ()
    """Durations of the pinned computation: before the first launch, and after each."""


@dataclass(frozen=True)
class Gap:
    """Something that should have been measured and was not: a night without a phone."""

    key: str
    run: str
    host: str
    at: datetime
    reason: str
    model: str = ""
    """Empty where nothing at all could be measured, as the rest."""
    target: str = ""
    artifact: str = ""
    device: str = ""
    """`device_hash`."""


@dataclass(frozen=True)
class Filter:
    """Which sessions; what is None does not matter."""

    model: str | None = None
    target: str | None = None
    artifact: str | None = None
    device: str | None = None
    """A serial, or the hash of one."""
    evidence: Provenance | None = None
    run: str | None = None
    host: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Before this."""
    stable: bool | None = None
    newest: int | None = None
    """At most so many."""


def as_json(record: Any) -> dict[str, Any]:
    """Any frozen record as JSON knows it; of a session with what follows from it beside."""
    found = {name: _plain(value) for name, value in asdict(record).items()}
    if isinstance(record, StoredSession):
        found |= {"device": record.device, "stable": record.stable, "line": record.series_key.id}
    return found


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return list(value) if isinstance(value, tuple) else value
