"""Compare a session with the last comparable stable sessions of its series.

A session is slower if its p50 exceeds the p90 of the baseline's p90s plus a tenth of their range *and* 1.05
times the baseline's median p50. The first rule is FAI-PEP's. A re-run must confirm it. See
docs/explanation/measurement-protocol.md, section 4.9; `benchmarks/regression_detection.py` measures the error
rates.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from android_harness.history.records import StoredSession
from android_harness.regressions.records import Judgement, Limits


def judge_session(
    session: StoredSession, baseline: Sequence[StoredSession], limits: Limits | None = None
) -> Judgement:
    """Compare a session with its baseline.

    Args:
        session: The new session.
        baseline: `History.baseline(session)`.
        limits: What counts as slower; None for the protocol's limits.

    Returns:
        A judgement with the status "no_baseline", "unstable", "steady" or "suspected". If it is suspected,
        measure again and call `confirm_session_judging`.

    Raises:
        ValueError: A session of the baseline is unstable, or its series or comparability key differs.
    """
    limits = limits or Limits()
    _check_session_for_judging(session, baseline)
    judgement = Judgement("steady", "", session.p50_ms, baseline=tuple(entry.key for entry in baseline))
    if len(baseline) < limits.min_baseline:
        return replace(
            judgement, status="no_baseline", reason=_too_few_for_session_judging(len(baseline), limits)
        )
    usual, limit = _session_judging_thresholds(baseline, limits)
    judgement = replace(judgement, usual_ms=usual, limit_ms=limit)
    if not session.stable:
        signs = "; ".join((*session.flags, session.problem)).strip("; ")
        return replace(judgement, status="unstable", reason=f"The run was not stable: {signs}.")
    percent = _format_session_judging_percent(judgement)
    reason = f"p50 is {session.p50_ms:.3g} ms, {percent} {usual:.3g}; the limit is {limit:.3g} ms."
    return replace(judgement, status="suspected" if session.p50_ms > limit else "steady", reason=reason)


def confirm_session_judging(
    first: Judgement,
    again: StoredSession,
    baseline: Sequence[StoredSession],
    limits: Limits | None = None,
) -> Judgement:
    """Judge a suspected session by its re-run.

    Args:
        first: The judgement of the first run; returned as it is unless it is "suspected".
        again: The re-run.
        baseline: The baseline of the first run, which does not include that run.
        limits: The limits given to `judge_session`.

    Returns:
        "confirmed" if the re-run is slower, too; "refuted" if it is not; "suspected" if it was unstable.
    """
    if first.status != "suspected":
        return first
    second = judge_session(again, baseline, limits)
    both = f"{first.reason} Measured again: {second.reason}"
    if second.status == "suspected":
        return replace(first, status="confirmed", reason=both)
    return replace(first, status="refuted" if second.status == "steady" else "suspected", reason=both)


def _check_session_for_judging(session: StoredSession, baseline: Sequence[StoredSession]) -> None:
    for entry in baseline:
        if (
            entry.series_key != session.series_key
            or entry.comparability_key != session.comparability_key
            or not entry.stable
        ):
            raise ValueError(
                f"{entry.key} ({entry.evidence}) is no baseline for {session.key} ({session.evidence})."
            )


def _too_few_for_session_judging(count: int, limits: Limits) -> str:
    return (
        f"{count} stable sessions of the same device, Android build and runtime build precede it; "
        f"{limits.min_baseline} are needed."
    )


def _session_judging_thresholds(baseline: Sequence[StoredSession], limits: Limits) -> tuple[float, float]:
    """Return (the usual p50, the limit that p50 must exceed), in milliseconds."""
    p90s = [entry.p90_ms for entry in baseline]
    worst = statistics.quantiles(p90s, n=10, method="inclusive")[8]
    usual = statistics.median(entry.p50_ms for entry in baseline)
    room = limits.range_share * (max(p90s) - min(p90s))
    return usual, max(worst + room, (1 + limits.min_slower) * usual)


def _format_session_judging_percent(judgement: Judgement) -> str:
    slower = judgement.slower or 0.0
    return f"{abs(slower):.1%} {'above' if slower >= 0 else 'below'} the usual"
