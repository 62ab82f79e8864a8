"""What comparing sessions says. Frozen; milliseconds and shares."""

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
    """Stable sessions that a judgement needs (protocol, section 4.9)."""
    range_share: float = 0.10
    """Of the range of the baseline's p90s, added to their p90 (the same)."""
    min_slower: float = 0.05
    """Share that p50 must be above the baseline's own; TFLite's and PyTorch's dashboards use it too."""
    sqnr_db: float = 1.0
    """Loss: a quarter more noise power."""
    agreement: float = 0.02
    """Loss: more than one photo of the default 64."""
    accuracy: float = 0.01
    """Loss, on the same evaluation data."""
    error_factor: float = 2.0
    """Growth of the largest error: an extreme value, so other kernels alone move it."""
    size_share: float = 0.01
    """Growth of the file."""


@dataclass(frozen=True)
class Judgement:
    """One session against its baseline."""

    status: Status
    """"suspected": slower, to be measured again; "confirmed": both times; "refuted": not the second time."""
    reason: str
    """A sentence with the figures."""
    p50_ms: float
    usual_ms: float | None = None
    """Median of the baseline's p50s; None without a baseline."""
    limit_ms: float | None = None
    """What p50 had to exceed."""
    baseline: tuple[str, ...] = ()
    """Keys of the sessions it was held against."""

    @property
    def slower(self) -> float | None:
        """Share above the usual: 0.1 for a tenth slower, negative when faster."""
        return self.p50_ms / self.usual_ms - 1 if self.usual_ms else None


@dataclass(frozen=True)
class Worsening:
    """One figure of quality that got worse."""

    figure: str
    """The field: "sqnr_db", "top1_agreement", "accuracy", "max_error", "size_bytes", or "outputs"."""
    before: float | None
    """Median of the sessions before."""
    now: float | None
    reason: str


@dataclass(frozen=True)
class Cause:
    """Something that changed where a series did."""

    kind: Kind
    what: str
    """A sentence: "onnxruntime went from 1.31.0 to 1.32.0."."""


@dataclass(frozen=True)
class Change:
    """A place where a series went to another level."""

    index: int
    """Of the first session of the new level."""
    key: str
    started_at: datetime
    before_ms: float
    """Median of the level before."""
    after_ms: float
    causes: tuple[Cause, ...]
    """All that is known to have changed there; one "unexplained" where nothing is."""

    @property
    def slower(self) -> float:
        """Share: 0.1 for a tenth slower, negative for faster."""
        return self.after_ms / self.before_ms - 1
