"""Judge tonight's sessions by those of earlier nights: slower, worse, since when, and what else changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from android_harness.history.records import Filter, StoredSession
from android_harness.regressions import causes, quality, session_judging
from android_harness.regressions.records import Cause, Judgement, Worsening
from exporter.nightly.night_measuring import Measurements
from exporter.nightly.records import Cell

if TYPE_CHECKING:
    from android_harness.history.store import History

BY_DESIGN = frozenset({"size_bytes", "max_error"})
"""Figures whose growth is no regression, only reported: a larger file may be intended, a maximum is luck."""


@dataclass(frozen=True)
class JudgedCell:
    """The verdict on the sessions of one cell."""

    judgement: Judgement
    worse: tuple[Worsening, ...] = ()
    causes: tuple[Cause, ...] = ()
    """What else changed, for a confirmed regression; empty otherwise."""

    @property
    def suspected(self) -> bool:
        return self.judgement.status == "suspected"

    @property
    def regressions(self) -> tuple[str, ...]:
        """Return why this is a regression, one sentence each; empty when it is none."""
        slower = (self.judgement.reason,) if self.judgement.status == "confirmed" else ()
        return (*slower, *(item.reason for item in self.worse if item.figure not in BY_DESIGN))

    @property
    def doubted(self) -> bool:
        """Return whether it got slower or worse, or may have."""
        return self.suspected or bool(self.regressions)

    @property
    def words(self) -> str:
        """Return the verdict in sentences."""
        reasons = (self.judgement.reason, *(item.reason for item in self.worse))
        return " ".join((*reasons, *(cause.description for cause in self.causes)))


def judge_night(
    history: History, measurements: Measurements, cells: Iterable[Cell] | None = None
) -> dict[Cell, JudgedCell]:
    """Judge each cell's first session, and its second where there is one.

    Args:
        history: The stored sessions of earlier nights.
        measurements: Tonight's sessions.
        cells: The cells to judge; all when None.
    """
    wanted = measurements.sessions if cells is None else cells
    return {cell: _night_judging_of_cell(history, measurements.sessions[cell]) for cell in wanted}


def _night_judging_of_cell(history: History, sessions: Sequence[StoredSession]) -> JudgedCell:
    first = sessions[0]
    baseline = history.baseline(first)
    judgement = _night_judging_of_unstable_suspect(session_judging.judge_session(first, baseline))
    for again in sessions[1:]:
        judgement = session_judging.confirm_session_judging(judgement, again, baseline)
    earlier = history.earlier(sessions[-1])
    verdict = JudgedCell(judgement, _worse_figures_for_night_judging(sessions[-1], earlier))
    if not verdict.regressions:  # a regression has a baseline, so `earlier` is not empty
        return verdict
    return replace(verdict, causes=causes.causes_of_change(earlier, sessions))


def _night_judging_of_unstable_suspect(judgement: Judgement) -> Judgement:
    """Suspect a session that was slower and not stable: a second one tells which of both it is."""
    limit = judgement.limit_ms
    if judgement.status != "unstable" or limit is None or judgement.p50_ms <= limit:
        return judgement
    slower = f"p50 is {judgement.p50_ms:.3g} ms; the limit is {limit:.3g} ms. {judgement.reason}"
    return replace(judgement, status="suspected", reason=slower)


def _worse_figures_for_night_judging(
    session: StoredSession, earlier: Sequence[StoredSession]
) -> tuple[Worsening, ...]:
    """Return the figures that got worse. fp32's SQNR is left out: it is rounding noise with its own limit."""
    figures = quality.worse_quality(session, earlier)
    return tuple(item for item in figures if (item.figure, session.precision) != ("sqnr_db", "fp32"))


def suspects_for_night_judging_again(
    verdicts: Mapping[Cell, JudgedCell], measurements: Measurements
) -> frozenset[Cell]:
    """Return the cells to measure again: those that look slower and were measured only once."""
    return frozenset(
        cell
        for cell, verdict in verdicts.items()
        if verdict.suspected and len(measurements.sessions[cell]) == 1
    )


def mark_night_judged(
    history: History, verdicts: Mapping[Cell, JudgedCell], measurements: Measurements
) -> None:
    """Exclude sessions that got slower or worse, or may have, from the baselines of later nights.

    This includes a suspicion that no stable re-run has cleared, which would otherwise become the baseline.
    """
    for cell, verdict in verdicts.items():
        if verdict.doubted:
            for session in measurements.sessions[cell]:
                history.mark(session.key, regressed=True)


def mark_night_unjudged(history: History, run: str) -> None:
    """Do what `mark_night_judged` does for a night that was interrupted before it judged its sessions."""
    for session in history.sessions(Filter(run=run)):
        if _night_judging_of_cell(history, [session]).doubted:
            history.mark(session.key, regressed=True)
