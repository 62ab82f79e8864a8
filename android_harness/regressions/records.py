"""The frozen results of comparing sessions, in milliseconds and shares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Status = Literal["no_baseline", "unstable", "steady", "suspected", "confirmed", "refuted"]
Kind = Literal["model", "tool", "device", "unexplained"]


@dataclass(frozen=True)
class Limits:
    """When a session counts as slower or worse."""

    min_baseline: int = 5
    """Stable sessions that a judgement needs: docs/explanation/measurement-protocol.md, section 4.9."""
    range_share: float = 0.10
    """Share of the range of the baseline's p90s that is added to their p90 (section 4.9, too)."""
    min_slower: float = 0.05
    """Share by which p50 must exceed the usual p50; TFLite's and PyTorch's dashboards use it, too."""
    sqnr_db: float = 1.0
    """Largest accepted loss: a quarter more noise power."""
    agreement: float = 0.02
    """Largest accepted loss: one of the default 64 photos is 0.016."""
    accuracy: float = 0.01
    """Largest accepted loss on the same evaluation data."""
    error_factor: float = 2.0
    """Largest accepted growth of the largest error, an extreme value that other kernels change alone."""
    size_share: float = 0.01
    """Largest accepted growth of the file."""


@dataclass(frozen=True)
class Judgement:
    """The comparison of a session with its baseline."""

    status: Status
    """"suspected": slower, to be measured again; "confirmed": slower twice; "refuted": slower only once."""
    reason: str
    """A sentence with the figures."""
    p50_ms: float
    usual_ms: float | None = None
    """Median of the baseline's p50s; None without a baseline."""
    limit_ms: float | None = None
    """The limit that p50 must exceed to be slower."""
    baseline: tuple[str, ...] = ()
    """Keys of the baseline's sessions."""

    @property
    def slower(self) -> float | None:
        """Share above the usual p50: 0.1 if a tenth slower, negative if faster."""
        return self.p50_ms / self.usual_ms - 1 if self.usual_ms else None


@dataclass(frozen=True)
class Worsening:
    """A figure of quality that got worse."""

    figure: str
    """"sqnr_db", "top1_agreement", "accuracy", "max_error", "size_bytes" or "outputs"."""
    before: float | None
    """Median of the earlier sessions."""
    now: float | None
    reason: str


@dataclass(frozen=True)
class Cause:
    """Something that changed at the same time as a series."""

    kind: Kind
    description: str
    """A sentence: "onnxruntime went from 1.31.0 to 1.32.0."."""


@dataclass(frozen=True)
class Change:
    """A change of a series to another level."""

    index: int
    """Index of the first session of the new level."""
    key: str
    started_at: datetime
    before_ms: float
    """Median of the previous level."""
    after_ms: float
    causes: tuple[Cause, ...]
    """Everything known to have changed there; one "unexplained" cause if nothing is known."""

    @property
    def slower(self) -> float:
        """Share above the previous level: 0.1 if a tenth slower, negative if faster."""
        return self.after_ms / self.before_ms - 1
