"""The records of the history. They are frozen; units are in the names; times are UTC.

A `Session` of the harness becomes a `StoredSession` and its `Samples`. A `Filter` selects stored sessions.
A `Gap` records that something was not measured.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from android_harness.latencies import Figures
from android_harness.records import LaunchSamples, Moment, Provenance, Verdict

BASELINE_SESSIONS = 10
"""The largest baseline, in stable sessions; pruning never deletes them."""
NAMESPACE = uuid.UUID("5f0d4bb0-6c35-4e0c-9d7e-3a1f6a5f8f11")
"""Namespace of the keys that `history_record_key` makes: random, and never changed."""


def history_record_key(*parts: str) -> str:
    """Return a key that is the same for the same parts, so that a restarted night adds nothing twice."""
    return str(uuid.uuid5(NAMESPACE, json.dumps(parts)))


def history_record_digest(*parts: object) -> str:
    """Return a short hash that is equal exactly if the parts are equal."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def history_record_device_hash(serial: str) -> str:
    """Return the hash that identifies a device without showing its serial."""
    return history_record_digest("device", serial)


def history_record_time() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class SeriesKey:
    """What all sessions of one series share: the same thing, measured the same way, night after night."""

    model: str
    target: str
    artifact: str
    device: str
    """`history_record_device_hash` of its serial."""
    evidence: Provenance
    """Part of the key, so that no simulated session is ever compared with a measured one."""
    threads: int
    affinity: str
    context: str = "shell"

    @property
    def id(self) -> str:
        return history_record_digest("line", *(getattr(self, entry.name) for entry in fields(self)))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the measured artifact is, and what is known about it without a device."""

    model: str
    """The model card's name: it stays the same when the weights change."""
    target: str
    artifact: str
    format: str
    backend: str
    precision: str
    source_sha256: str
    """SHA-256 of the checkpoint."""
    size_bytes: int | None = None
    sqnr_db: float | None = None
    top1_agreement: float | None = None
    accuracy: float | None = None
    """Accuracy on the model card's evaluation data."""
    toolchain: Mapping[str, str] = field(default_factory=dict)
    """Package -> version of the tools that made the artifact."""


@dataclass(frozen=True, kw_only=True)
class StoredSession(Figures, Origin):
    """One session as the history stores it. `Samples` holds its raw samples."""

    key: str
    """The session's permanent key: adding the session again changes nothing."""
    run: str
    """The night it belongs to."""
    host: str
    """The machine that the device was plugged into."""
    started_at: datetime
    runtime: str
    """"onnxruntime 1.32.0"."""
    artifact_sha256: str
    serial: str
    device_model: str
    soc: str
    chip: str
    fingerprint: str
    """Android's build fingerprint; empty if there is none."""
    evidence: Provenance
    threads: int
    affinity: str
    clock_state: str
    """"locked-verified", "unlocked" or "unknown"."""
    runner: Mapping[str, str]
    """Version, build and platform of the runner."""
    before: Moment
    after: Moment
    clocks: Mapping[str, float]
    """What the cores did during the measurement: "policy7 lowest limit khz", "policy7 mean khz", …"""
    verdict: Verdict
    budget_ms: float
    problem: str = ""
    """Why the device's outputs are not the model's; empty if they are."""
    max_error: float | None = None
    context: str = "shell"
    regressed: bool = False
    """Whether it is slower or worse than its baseline, or suspected to be. Such a session is in no baseline,
    so that nights stay red until it is repaired or accepted. Only this field and the next may change."""
    accepted: bool = False
    """Whether its level is the new normal: the baseline begins with it, and earlier sessions do not count."""

    @property
    def stable(self) -> bool:
        """Whether it may be part of a baseline."""
        return not self.flags and not self.problem

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The kinds of its flags ("spread", "heat"), each once."""
        return tuple(dict.fromkeys(flag.partition(":")[0] for flag in self.flags))

    @property
    def device(self) -> str:
        return history_record_device_hash(self.serial)

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
        """The runtime and the runner it is built into, as one text."""
        return ", ".join([self.runtime, *(f"{name} {self.runner[name]}" for name in sorted(self.runner))])

    @property
    def comparability_key(self) -> str:
        """The hash that two sessions of a series must share to be compared.

        It covers Android's build, the runtime build and whether the clocks were locked. An update of the
        system or the runtime therefore starts a new baseline: docs/explanation/measurement-protocol.md,
        section 4.9.
        """
        return history_record_digest(
            "footing", self.fingerprint, self.build, self.clock_state == "locked-verified"
        )


@dataclass(frozen=True, slots=True)
class Point:
    """The few columns of a session that a trend needs: a page reads a year of them for every series."""

    key: str
    run: str
    started_at: datetime
    p50_ms: float
    p90_ms: float
    stable: bool
    series_id: str
    """`SeriesKey.id`."""


@dataclass(frozen=True)
class Samples:
    """The raw samples from which a session's figures were computed."""

    launches: tuple[LaunchSamples, ...]
    canary_ns: tuple[tuple[int, ...], ...] = ()
    """Durations of the canary: before the first launch, and after each launch."""


@dataclass(frozen=True)
class Gap:
    """Something that should have been measured and was not, such as a night without a phone."""

    key: str
    run: str
    host: str
    at: datetime
    reason: str
    model: str = ""
    """Empty, like the fields below, if nothing at all could be measured."""
    target: str = ""
    artifact: str = ""
    device: str = ""
    """`history_record_device_hash` of its serial."""


@dataclass(frozen=True)
class Filter:
    """Conditions that select sessions. A condition that is None always holds."""

    model: str | None = None
    target: str | None = None
    artifact: str | None = None
    device: str | None = None
    """A serial, or the hash of a serial."""
    evidence: Provenance | None = None
    run: str | None = None
    host: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    stable: bool | None = None
    newest: int | None = None
    """The largest number of sessions."""


def history_record_as_json(record: Any) -> dict[str, Any]:
    """Return a record as JSON values; a session also gets its device, stability and series."""
    values = {name: _history_record_json_value(value) for name, value in asdict(record).items()}
    if isinstance(record, StoredSession):
        values |= {"device": record.device, "stable": record.stable, "line": record.series_key.id}
    return values


def _history_record_json_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return list(value) if isinstance(value, tuple) else value
