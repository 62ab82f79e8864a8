"""Tonight's sessions against those of the nights before: slower, worse, since when, and what else changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from android_harness.history.records import Filter, StoredSession
from android_harness.regressions import causes, judging, quality
from android_harness.regressions.records import Cause, Judgement, Worsening
from exporter.nightly.measuring import Found
from exporter.nightly.records import Cell

if TYPE_CHECKING:
    from android_harness.history.store import History

BY_DESIGN = frozenset({"size_bytes", "max_error"})
"""Figures whose growth is told but is no regression: a larger file may be meant, an extreme value is luck."""


@dataclass(frozen=True)
class Judged:
    """What the sessions of one cell are worth."""

    judgement: Judgement
    worse: tuple[Worsening, ...] = ()
    causes: tuple[Cause, ...] = ()
    """What else changed, of a confirmed regression."""

    @property
    def suspected(self) -> bool:
        return self.judgement.status == "suspected"

    @property
    def regressions(self) -> tuple[str, ...]:
        """Why this is a regression, a sentence each; empty when it is none."""
        slower = (self.judgement.reason,) if self.judgement.status == "confirmed" else ()
        return (*slower, *(item.reason for item in self.worse if item.figure not in BY_DESIGN))

    @property
    def doubted(self) -> bool:
        """It got slower or worse, or may have."""
        return self.suspected or bool(self.regressions)

    @property
    def words(self) -> str:
        """All that is to be said about it."""
        said = (self.judgement.reason, *(item.reason for item in self.worse))
        return " ".join((*said, *(cause.description for cause in self.causes)))


def judge_all(history: History, found: Found, cells: Iterable[Cell] | None = None) -> dict[Cell, Judged]:
    """Judge every cell's first session, and its second where there is one.

    Args:
        history: Remembers.
        found: Tonight's sessions.
        cells: Only these; all when None.
    """
    wanted = found.sessions if cells is None else cells
    return {cell: _judge(history, found.sessions[cell]) for cell in wanted}


def _judge(history: History, sessions: Sequence[StoredSession]) -> Judged:
    first = sessions[0]
    baseline = history.baseline(first)
    found = judging.judge(first, baseline)
    for again in sessions[1:]:
        found = judging.confirm(found, again, baseline)
    earlier = history.earlier(sessions[-1])
    judged = Judged(found, _worse(sessions[-1], earlier))
    if not judged.regressions:  # else there is something that it was held against: `earlier` is not empty
        return judged
    return replace(judged, causes=causes.causes(earlier, sessions))


def _worse(session: StoredSession, earlier: Sequence[StoredSession]) -> tuple[Worsening, ...]:
    """Without the SQNR of fp32, which is rounding noise and has a limit of its own."""
    found = quality.worse(session, earlier)
    return tuple(item for item in found if (item.figure, session.precision) != ("sqnr_db", "fp32"))


def suspects(judged: Mapping[Cell, Judged], found: Found) -> frozenset[Cell]:
    """What is to be measured once more: slower, and measured once so far."""
    return frozenset(cell for cell, one in judged.items() if one.suspected and len(found.sessions[cell]) == 1)


def mark(history: History, judged: Mapping[Cell, Judged], found: Found) -> None:
    """Keep what got slower or worse, or may have, out of what later nights are held against.

    A suspicion too that no stable re-run has cleared: else it would be the new normal after some nights.
    """
    for cell, one in judged.items():
        if one.doubted:
            for session in found.sessions[cell]:
                history.mark(session.key, regressed=True)


def mark_abandoned(history: History, run: str) -> None:
    """As `mark`, for a night that was cut off before it judged."""
    for session in history.sessions(Filter(run=run)):
        if _judge(history, [session]).doubted:
            history.mark(session.key, regressed=True)
