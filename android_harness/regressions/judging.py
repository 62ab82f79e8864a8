"""One session against the last stable ones of its line and footing: protocol, section 4.9.

Slower means p50 above the p90 of the baseline's p90s plus a tenth of their range *and* above 1.05 times the
baseline's usual p50. The first is FAI-PEP's rule: the middle of the new against the worst of the old. It is
confirmed only if a re-run is slower, too: `benchmarks/regression_detection.py` tells how often that errs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from android_harness.history.records import StoredSession
from android_harness.regressions.records import Judgement, Limits


def judge(
    session: StoredSession, baseline: Sequence[StoredSession], limits: Limits | None = None
) -> Judgement:
    """Hold a session against its baseline.

    Args:
        session: The new one.
        baseline: `History.baseline(session)`.
        limits: What counts as slower; the protocol's when None.

    Returns:
        "no_baseline", "unstable", "steady", or "suspected": then measure again and ask `confirm`.

    Raises:
        ValueError: The baseline is not the session's: another line (evidence included) or footing, unstable.
    """
    limits = limits or Limits()
    _check(session, baseline)
    found = Judgement("steady", "", session.p50_ms, baseline=tuple(one.key for one in baseline))
    if len(baseline) < limits.min_baseline:
        return replace(found, status="no_baseline", reason=_too_few(len(baseline), limits))
    usual, limit = _thresholds(baseline, limits)
    found = replace(found, usual_ms=usual, limit_ms=limit)
    if not session.stable:
        why = "; ".join((*session.flags, session.problem)).strip("; ")
        return replace(found, status="unstable", reason=f"The run was not stable: {why}.")
    words = f"p50 is {session.p50_ms:.3g} ms, {_percent(found)} {usual:.3g}; the limit is {limit:.3g} ms."
    return replace(found, status="suspected" if session.p50_ms > limit else "steady", reason=words)


def confirm(
    first: Judgement,
    again: StoredSession,
    baseline: Sequence[StoredSession],
    limits: Limits | None = None,
) -> Judgement:
    """What a suspicion is worth after the re-run.

    Args:
        first: `judge` of the first run; what is not "suspected" stays as it is.
        again: The re-run.
        baseline: The same as before: the first run is not part of it.
        limits: As for `judge`.

    Returns:
        "confirmed" if the re-run is slower, too, "refuted" if it is not; still "suspected" where it was not
        stable and so says nothing.
    """
    if first.status != "suspected":
        return first
    second = judge(again, baseline, limits)
    both = f"{first.reason} Measured again: {second.reason}"
    if second.status == "suspected":
        return replace(first, status="confirmed", reason=both)
    return replace(first, status="refuted" if second.status == "steady" else "suspected", reason=both)


def _check(session: StoredSession, baseline: Sequence[StoredSession]) -> None:
    for one in baseline:
        if (
            one.series_key != session.series_key
            or one.comparability_key != session.comparability_key
            or not one.stable
        ):
            raise ValueError(
                f"{one.key} ({one.evidence}) is no baseline for {session.key} ({session.evidence})."
            )


def _too_few(count: int, limits: Limits) -> str:
    return (
        f"{count} stable sessions of the same device, Android build and runtime build lie before it; "
        f"{limits.min_baseline} are needed."
    )


def _thresholds(baseline: Sequence[StoredSession], limits: Limits) -> tuple[float, float]:
    """(the usual p50, what p50 must exceed), in milliseconds."""
    p90s = [one.p90_ms for one in baseline]
    worst = statistics.quantiles(p90s, n=10, method="inclusive")[8]
    usual = statistics.median(one.p50_ms for one in baseline)
    room = limits.range_share * (max(p90s) - min(p90s))
    return usual, max(worst + room, (1 + limits.min_slower) * usual)


def _percent(found: Judgement) -> str:
    slower = found.slower or 0.0
    return f"{abs(slower):.1%} {'above' if slower >= 0 else 'below'} the usual"
