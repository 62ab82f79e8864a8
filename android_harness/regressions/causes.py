"""What else changed where a series did: the model, a tool, the device, or nothing that is known.

Everything that changed is named: where a new checkpoint came in the same night as a new runtime, both are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median, mode

from android_harness.history.records import StoredSession
from android_harness.regressions.records import Cause, Kind

NEAR = 1
"""Sessions by which a change-point may be misplaced."""
AROUND = 5
"""Sessions on each side that tell the device's state."""
WARMER_CELSIUS = 5.0
"""The readiness gate's own tolerance (protocol, section 4.2)."""
OTHER_CLOCKS = 0.03
"""Share by which mean clocks must differ, as for the flag "frequency"."""
OFTEN = 0.5
"""Share of sessions with a flag that makes it part of a level."""
NO_CAUSE = Cause("unexplained", "Neither the model, nor a tool, nor anything known of the device changed.")


def causes(before: Sequence[StoredSession], after: Sequence[StoredSession]) -> tuple[Cause, ...]:
    """Everything that changed between two levels of a series, oldest first; `NO_CAUSE` when nothing did.

    What is certain from one session to the next (hashes, versions, builds) must have changed within `NEAR`
    sessions of the border; what varies (heat, clocks, flags) is compared over `AROUND` sessions each side.
    """
    near = (*before[-1 - NEAR :], *after[: 1 + NEAR])
    last, first = before[-AROUND:], after[:AROUND]
    found = (*_model(near), *_tools(near), *_device(near), *_state(last, first))
    return found or (NO_CAUSE,)


def _model(near: Sequence[StoredSession]) -> Iterator[Cause]:
    for old, new in pairwise(near):
        if old.source_sha256 != new.source_sha256:
            yield Cause("model", f"The checkpoint went from {_short(old)} to {_short(new)}.")
        elif old.artifact_sha256 != new.artifact_sha256 and old.toolchain == new.toolchain:
            yield Cause("model", "The artifact changed, made by the same tools from the same checkpoint.")


def _tools(near: Sequence[StoredSession]) -> Iterator[Cause]:
    yield from _versions("", [one.toolchain for one in near])
    yield from _versions("The runner's ", [one.runner for one in near])
    yield from _changed("tool", "The runtime", [one.runtime for one in near])


def _versions(prefix: str, near: Sequence[Mapping[str, str]]) -> Iterator[Cause]:
    for name in sorted({name for one in near for name in one}):
        yield from _changed("tool", f"{prefix}{name}", [one.get(name, "") for one in near])


def _device(near: Sequence[StoredSession]) -> Iterator[Cause]:
    yield from _changed("device", "Android's build", [one.fingerprint for one in near])
    yield from _changed("device", "The clocks' lock", [one.clock_state for one in near])
    yield from _changed("device", "The host", [one.host for one in near])


def _state(before: Sequence[StoredSession], after: Sequence[StoredSession]) -> Iterator[Cause]:
    for what, value in STATES.items():
        old, new = (mode(value(one) for one in side) for side in (before, after))
        yield from _changed("device", what, [old, new])
    for what, reading in TEMPERATURES.items():
        cold, warm = _median(map(reading, before)), _median(map(reading, after))
        if cold is not None and warm is not None and abs(warm - cold) > WARMER_CELSIUS:
            yield Cause("device", f"{what} went from {cold:.0f} to {warm:.0f} °C.")
    yield from _clocks(before, after)
    yield from _flags(before, after)


def _limits(one: StoredSession) -> str:
    return ", ".join(str(khz) for khz in one.before.scaling_max_khz)


STATES: Mapping[str, Callable[[StoredSession], str]] = {
    "Power": lambda one: one.before.plugged,
    "Power saver": lambda one: {None: "", True: "on", False: "off"}[one.before.power_saver],
    "The thermal status": lambda one: (
        "" if one.after.thermal_status is None else str(one.after.thermal_status)
    ),
    "The governors": lambda one: ", ".join(one.before.governors),
    "The clocks' limits (kHz)": _limits,
}
"""What a device says of itself, as words; the usual one of each side is compared."""
TEMPERATURES: Mapping[str, Callable[[StoredSession], float | None]] = {
    "The battery": lambda one: one.before.battery_celsius,
    "The hottest zone at the start": lambda one: max(one.before.celsius.values(), default=None),
    "The hottest core in the run": lambda one: one.clocks.get("hottest celsius"),
}


def _clocks(before: Sequence[StoredSession], after: Sequence[StoredSession]) -> Iterator[Cause]:
    for name in sorted({name for one in (*before, *after) for name in one.clocks if name.endswith(" khz")}):
        old, new = (_median(one.clocks.get(name) for one in side) for side in (before, after))
        if old and new and abs(new / old - 1) > OTHER_CLOCKS:
            clock = name.removesuffix(" khz")
            yield Cause("device", f"The {clock} went from {old / 1e3:.0f} to {new / 1e3:.0f} MHz.")


def _flags(before: Sequence[StoredSession], after: Sequence[StoredSession]) -> Iterator[Cause]:
    for name in sorted({_name(flag) for one in (*before, *after) for flag in one.flags}):
        old, new = _share(before, name), _share(after, name)
        if (old >= OFTEN) != (new >= OFTEN):
            yield Cause("device", f"The flag {name} {'appeared' if new > old else 'is gone'}.")


def _share(sessions: Sequence[StoredSession], name: str) -> float:
    return sum(name in {_name(flag) for flag in one.flags} for one in sessions) / len(sessions)


def _name(flag: str) -> str:
    return flag.partition(":")[0]


def _changed(kind: Kind, what: str, values: Sequence[str]) -> Iterator[Cause]:
    for old, new in pairwise(values):
        if old != new:
            yield Cause(kind, f"{what} went from {old or 'unknown'} to {new or 'unknown'}.")


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _short(one: StoredSession) -> str:
    return one.source_sha256[:12]
