"""Anchors tell how far a phone's measurements were from their estimates, and correct later ones."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from exporter.records import DeviceLatency, EstimatedLatency

MOST = 1000
"""Anchors that are kept; the oldest go first."""
PHONES_DIFFER = 1.08
"""The least factor by which a phone may differ from the published ones of its chip: sources differ by 8 %."""


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
    same = [item for item in estimates if item.threads == latency.device.get("threads") and not item.core]
    if wrong or not same or same[0].p50_ms <= 0 or latency.p50_ms <= 0:
        return None
    return same[0].threads, latency.p50_ms / (same[0].p50_ms / same[0].anchor)


def anchor_estimate(
    estimate: EstimatedLatency,
    anchors: Sequence[Anchor],
    soc: str,
    runtime: str,
    precision: str,
    artifact_sha256: str = "",
) -> EstimatedLatency:
    """Return an estimate corrected by the anchors of its chip, runtime, precision and threads.

    A measurement of the same artifact tells all that the estimate misses by. Those of others tell by how much
    all estimates are off together, and miss by what each network is off alone. So they are weighted as
    measurements of a shift that has a prior (empirical Bayes): the shift spreads by `shared`, or by what the
    anchors themselves show beyond chance, and each measurement by `own`. What they leave of the shift's
    variance stays in the interval. All of these are logarithms.
    """
    fitting = [
        anchor
        for anchor in anchors
        if (anchor.soc, anchor.runtime, anchor.precision, anchor.threads)
        == (soc, runtime, precision, estimate.threads)
    ]
    if not fitting or estimate.core:
        return estimate
    own = [anchor.ratio for anchor in fitting if anchor.artifact_sha256 == artifact_sha256 != ""]
    return _own_anchor_estimate(estimate, own) if own else _other_anchor_estimate(estimate, fitting)


def _own_anchor_estimate(estimate: EstimatedLatency, ratios: Sequence[float]) -> EstimatedLatency:
    """Return the estimate of an artifact that was measured: other phones of the chip differ a little."""
    ratio = statistics.median(ratios)
    factor = max(PHONES_DIFFER, max(ratios) / ratio, ratio / min(ratios))
    note = f"Corrected by {ratio:.2f}: your own phone measured this artifact."
    return _corrected_estimate(estimate, ratio, factor, note)


def _other_anchor_estimate(estimate: EstimatedLatency, fitting: Sequence[Anchor]) -> EstimatedLatency:
    """Return the estimate of an artifact where others were measured."""
    ratios = [anchor.ratio for anchor in fitting]
    shift = math.log(statistics.median(ratios))
    whole = math.log(estimate.high_ms / estimate.p50_ms) ** 2
    shared = min(math.log(max(estimate.shared, PHONES_DIFFER)) ** 2, whole)
    own = whole - shared
    shown = max(shared, shift**2 - own / len(ratios))
    weight = len(ratios) * shown / (len(ratios) * shown + own) if own else 1.0
    ratio = math.exp(weight * shift)
    factor = math.exp(math.sqrt(own + shared * (1 - weight)))
    measurements = "1 measurement" if len(ratios) == 1 else f"{len(ratios)} measurements"
    note = (
        f"Corrected by {ratio:.2f}, for {measurements} of your own phone of {statistics.median(ratios):.2f} "
    )
    note += "times the estimate."
    return _corrected_estimate(estimate, ratio, factor, note)


def _corrected_estimate(
    estimate: EstimatedLatency, ratio: float, factor: float, note: str
) -> EstimatedLatency:
    p50 = estimate.p50_ms * ratio
    return replace(
        estimate,
        p50_ms=p50,
        low_ms=p50 / factor,
        high_ms=p50 * factor,
        anchor=ratio,
        notes=(*estimate.notes, note),
    )
