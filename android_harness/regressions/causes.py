"""Name what else changed when a series changed: the model, a tool, the device, or nothing known.

Everything that changed is named: if a new checkpoint and a new runtime came in the same night, both are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median, mode

from android_harness.history.records import StoredSession
from android_harness.regressions.records import Cause, Kind

NEAR = 1
"""Number of sessions by which a change-point may be misplaced."""
AROUND = 5
"""Number of sessions on each side that show the device's state."""
WARMER_CELSIUS = 5.0
"""The tolerance of the readiness check: docs/explanation/measurement-protocol.md, section 4.2."""
OTHER_CLOCKS = 0.03
"""Share by which mean clocks must differ; the flag "frequency" uses the same share."""
OFTEN = 0.5
"""Share of sessions that must have a flag for it to belong to their level."""
NO_CAUSE = Cause("unexplained", "Neither the model, nor a tool, nor anything known of the device changed.")


def causes_of_change(before: Sequence[StoredSession], after: Sequence[StoredSession]) -> tuple[Cause, ...]:
    """Return everything that changed between two levels of a series, oldest first, or `NO_CAUSE`.

    Hashes, versions and builds must have changed within `NEAR` sessions of the change-point. Heat, clocks and
    flags vary, so they are compared over `AROUND` sessions on each side.
    """
    near = (*before[-1 - NEAR :], *after[: 1 + NEAR])
    last, first = before[-AROUND:], after[:AROUND]
    changed = (*_model_causes(near), *_tool_causes(near), *_device_causes(near), *_state_causes(last, first))
    return changed or (NO_CAUSE,)


def _model_causes(near: Sequence[StoredSession]) -> Iterator[Cause]:
    for old, new in pairwise(near):
        if old.source_sha256 != new.source_sha256:
            yield Cause("model", f"The checkpoint went from {_short_cause(old)} to {_short_cause(new)}.")
        elif old.artifact_sha256 != new.artifact_sha256 and old.toolchain == new.toolchain:
            yield Cause(
                "model", "The artifact changed, although the same tools made it from the same checkpoint."
            )


def _tool_causes(near: Sequence[StoredSession]) -> Iterator[Cause]:
    yield from _version_causes("", [session.toolchain for session in near])
    yield from _version_causes("The runner's ", [session.runner for session in near])
    yield from _cause_by_difference("tool", "The runtime", [session.runtime for session in near])


def _version_causes(prefix: str, near: Sequence[Mapping[str, str]]) -> Iterator[Cause]:
    for name in sorted({name for versions in near for name in versions}):
        yield from _cause_by_difference(
            "tool", f"{prefix}{name}", [versions.get(name, "") for versions in near]
        )


def _device_causes(near: Sequence[StoredSession]) -> Iterator[Cause]:
    yield from _cause_by_difference("device", "Android's build", [session.fingerprint for session in near])
    yield from _cause_by_difference("device", "The clocks' lock", [session.clock_state for session in near])
    yield from _cause_by_difference("device", "The host", [session.host for session in near])


def _state_causes(before: Sequence[StoredSession], after: Sequence[StoredSession]) -> Iterator[Cause]:
    for subject, value in STATES.items():
        old, new = (mode(value(session) for session in side) for side in (before, after))
        yield from _cause_by_difference("device", subject, [old, new])
    for subject, reading in TEMPERATURES.items():
        cold, warm = _median_for_cause(map(reading, before)), _median_for_cause(map(reading, after))
        if cold is not None and warm is not None and abs(warm - cold) > WARMER_CELSIUS:
            yield Cause("device", f"{subject} went from {cold:.0f} to {warm:.0f} °C.")
    yield from _clock_causes(before, after)
    yield from _flag_causes(before, after)


def _limit_causes(session: StoredSession) -> str:
    return ", ".join(str(khz) for khz in session.before.scaling_max_khz)


STATES: Mapping[str, Callable[[StoredSession], str]] = {
    "Power": lambda session: session.before.plugged,
    "Power saver": lambda session: {None: "", True: "on", False: "off"}[session.before.power_saver],
    "The thermal status": lambda session: (
        "" if session.after.thermal_status is None else str(session.after.thermal_status)
    ),
    "The governors": lambda session: ", ".join(session.before.governors),
    "The clocks' limits (kHz)": _limit_causes,
}
"""States of a device as text; the most common state of each side is compared."""
TEMPERATURES: Mapping[str, Callable[[StoredSession], float | None]] = {
    "The battery": lambda session: session.before.battery_celsius,
    "The hottest zone at the start": lambda session: max(session.before.celsius.values(), default=None),
    "The hottest core in the run": lambda session: session.clocks.get("hottest celsius"),
}


def _clock_causes(before: Sequence[StoredSession], after: Sequence[StoredSession]) -> Iterator[Cause]:
    for name in sorted(
        {name for session in (*before, *after) for name in session.clocks if name.endswith(" khz")}
    ):
        old, new = (
            _median_for_cause(session.clocks.get(name) for session in side) for side in (before, after)
        )
        if old and new and abs(new / old - 1) > OTHER_CLOCKS:
            clock = name.removesuffix(" khz")
            yield Cause("device", f"The {clock} went from {old / 1e3:.0f} to {new / 1e3:.0f} MHz.")


def _flag_causes(before: Sequence[StoredSession], after: Sequence[StoredSession]) -> Iterator[Cause]:
    for name in sorted({name for session in (*before, *after) for name in session.flag_names}):
        old, new = _share_with_cause(before, name), _share_with_cause(after, name)
        if (old >= OFTEN) != (new >= OFTEN):
            yield Cause("device", f"The flag {name} {'appeared' if new > old else 'is gone'}.")


def _share_with_cause(sessions: Sequence[StoredSession], name: str) -> float:
    return sum(name in session.flag_names for session in sessions) / len(sessions)


def _cause_by_difference(kind: Kind, subject: str, values: Sequence[str]) -> Iterator[Cause]:
    for old, new in pairwise(values):
        if old != new:
            yield Cause(kind, f"{subject} went from {old or 'unknown'} to {new or 'unknown'}.")


def _median_for_cause(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _short_cause(session: StoredSession) -> str:
    return session.source_sha256[:12]
