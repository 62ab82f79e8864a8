"""Compare outputs, accuracy and size with earlier sessions: a faster artifact may have lost quality."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from android_harness.history.records import StoredSession
from android_harness.regressions.records import Limits, Worsening


def worse_quality(
    session: StoredSession, earlier: Sequence[StoredSession], limits: Limits | None = None
) -> tuple[Worsening, ...]:
    """Return every figure that is worse than the median of the earlier sessions.

    Quality does not depend on heat or clocks, so unstable sessions and other system versions count as well.

    Args:
        session: The new session.
        earlier: `History.earlier(session)`; if it is empty, nothing is worse.
        limits: What counts as worse.

    Raises:
        ValueError: An earlier session belongs to another series.
    """
    for entry in earlier:
        if entry.series_key != session.series_key:
            raise ValueError(f"{entry.key} ({entry.evidence}) belongs to another series than {session.key}.")
    return tuple(_quality_worsenings(session, earlier, limits or Limits()))


def _quality_worsenings(
    session: StoredSession, earlier: Sequence[StoredSession], limits: Limits
) -> Iterator[Worsening]:
    if session.problem and not all(entry.problem for entry in earlier):
        yield Worsening("outputs", None, None, f"The device's outputs are not the model's: {session.problem}")
    for figure, is_worse, describe in _quality_rules(limits):
        known = [value for entry in earlier if (value := getattr(entry, figure)) is not None]
        now = getattr(session, figure)
        if now is None or not known:
            continue
        before = statistics.median(known)
        if is_worse(before, now):
            yield Worsening(figure, before, now, describe(before, now))


def _quality_rules(
    limits: Limits,
) -> tuple[tuple[str, Callable[[float, float], bool], Callable[[float, float], str]], ...]:
    """Return (figure, whether it is worse, description) for each rule."""
    return (
        (
            "sqnr_db",
            lambda before, now: before - now > limits.sqnr_db,
            lambda before, now: f"SQNR fell from {before:.1f} to {now:.1f} dB.",
        ),
        (
            "top1_agreement",
            lambda before, now: before - now > limits.agreement,
            lambda before, now: f"Agreement with the float64 model fell from {before:.1%} to {now:.1%}.",
        ),
        (
            "accuracy",
            lambda before, now: before - now > limits.accuracy,
            lambda before, now: f"Accuracy fell from {before:.1%} to {now:.1%}.",
        ),
        (
            "max_error",
            lambda before, now: now > limits.error_factor * before,
            lambda before, now: (
                f"The largest error grew from {before:.3g} to {now:.3g} of the output's scale."
            ),
        ),
        (
            "size_bytes",
            lambda before, now: now > (1 + limits.size_share) * before,
            lambda before, now: f"The file grew from {before / 1e6:.2f} to {now / 1e6:.2f} MB.",
        ),
    )
