"""Anchors tell how far a phone's measurements were from their estimates, and correct later ones."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from exporter.records import DeviceLatency, EstimatedLatency

MOST = 1000
"""Anchors that are kept; the oldest go first."""
KEPT_MISS = 0.5
"""The share of an interval's width, as a logarithm, that is left with an anchor: one halves the error."""


@dataclass(frozen=True)
class Anchor:
    """One measurement of a phone beside its estimate."""

    soc: str
    serial: str
    runtime: str
    precision: str
    threads: int
    artifact_sha256: str
    ratio: float
    """Measured over estimated median, the estimate being without anchors."""


def anchors_file() -> Path:
    """Return the file of anchors in `$EXPORT_MOBILE_STATE`, or in the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(os.environ.get("EXPORT_MOBILE_STATE") or Path(state) / "export-mobile") / "anchors.json"


def read_anchors(path: Path | None = None) -> tuple[Anchor, ...]:
    """Return the anchors; none where the file is missing or damaged."""
    from pydantic import TypeAdapter, ValidationError

    try:
        text = (path or anchors_file()).read_bytes()
        return TypeAdapter(tuple[Anchor, ...]).validate_json(text)
    except (OSError, ValidationError):
        return ()


def keep_anchors(anchors: Sequence[Anchor], path: Path | None = None) -> None:
    """Add anchors; a phone's newer one of the same artifact and threads replaces the older."""
    file = path or anchors_file()

    def key(anchor: Anchor) -> tuple[object, ...]:
        return (anchor.serial, anchor.artifact_sha256, anchor.threads, anchor.runtime)

    kept = {key(anchor): anchor for anchor in (*read_anchors(file), *anchors)}
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(json.dumps([asdict(anchor) for anchor in list(kept.values())[-MOST:]], indent=1))
    fresh.replace(file)


def ratio_of_anchor(
    latency: DeviceLatency, estimates: Sequence[EstimatedLatency]
) -> tuple[int, float] | None:
    """Return the threads and the ratio of a measurement to its estimate; None where nothing may be learned.

    Only a real phone's stable, right run with as many threads as an estimate has counts.
    """
    wrong = latency.evidence != "measured" or latency.problem or latency.flags
    same = [item for item in estimates if item.threads == latency.device.get("threads")]
    if wrong or not same or same[0].p50_ms <= 0 or latency.p50_ms <= 0:
        return None
    return same[0].threads, latency.p50_ms / (same[0].p50_ms / same[0].anchor)


def anchor_estimate(
    estimate: EstimatedLatency, anchors: Sequence[Anchor], soc: str, runtime: str, precision: str
) -> EstimatedLatency:
    """Return an estimate corrected by the median anchor of its chip, runtime, precision and threads."""
    ratios = [
        anchor.ratio
        for anchor in anchors
        if (anchor.soc, anchor.runtime, anchor.precision, anchor.threads)
        == (soc, runtime, precision, estimate.threads)
    ]
    if not ratios:
        return estimate
    ratio = statistics.median(ratios)
    factor = (estimate.high_ms / estimate.p50_ms) ** KEPT_MISS
    p50 = estimate.p50_ms * ratio
    note = f"Corrected by {len(ratios)} measurements of your own phone, {ratio:.2f} times the estimate."
    return replace(
        estimate,
        p50_ms=p50,
        low_ms=p50 / factor,
        high_ms=p50 * factor,
        anchor=ratio,
        notes=(*estimate.notes, note),
    )
