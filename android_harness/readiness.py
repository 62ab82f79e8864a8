"""What must hold before a device may be measured, and waiting for what passes by itself.

A value that cannot be read never blocks, except the SoC when one is asked for: an unknown battery level
costs a repeated run, an unknown chip makes the figure worthless.
"""

from __future__ import annotations

from collections.abc import Callable

from android_harness import parse
from android_harness.errors import NotReadyError
from android_harness.records import Gate, Identity, State

MIN_BATTERY_PERCENT = 25
MAX_BATTERY_CELSIUS = 35.0
MAX_CPU_CELSIUS = 45.0
MAX_ABOVE_BASELINE = 5.0
MIN_MEMORY_BYTES = 512 << 20
MIN_CORES = 4
POLL_S = 5.0
UNREADABLE = "unreadable"
CHIP_MEANT = {"SM8250": "snapdragon865"}
"""Of chips that share a SoC's name, the one whose clock a target of that name is about."""
STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def gates(
    identity: Identity,
    state: State,
    *,
    soc: str | None,
    need_bytes: int,
    baseline_celsius: float | None = None,
) -> tuple[Gate, ...]:
    """Judge a device's readiness; every condition is listed, met or not.

    Args:
        identity: Who the device is. Its doubts are no gate: they make a figure simulated, not impossible.
        state: How it is now.
        soc: "SM8250" where only that will do; None measures whatever it is.
        need_bytes: Space that will be written.
        baseline_celsius: The hottest CPU zone of this device when idle, where known.
    """
    return (
        *((_soc_gate(identity, soc),) if soc else ()),
        _battery_gate(state.battery_percent),
        _battery_heat_gate(state.battery_celsius),
        _status_gate(state.thermal_status),
        _override_gate(state.thermal_overridden),
        _cpu_heat_gate(parse.hottest_cpu(state.celsius), baseline_celsius),
        _load_gate(state.load1, identity),
        _saver_gate(state.power_saver),
        _space_gate(state.free_bytes, need_bytes),
        _memory_gate(state.available_memory_bytes),
    )


def _soc_gate(identity: Identity, soc: str) -> Gate:
    wanted = CHIP_MEANT.get(soc, "")
    seen = f"{identity.soc or UNREADABLE}{f' ({identity.chip})' if identity.chip else ''}"
    return Gate(
        name="soc",
        ok=identity.soc == soc and wanted in ("", identity.chip),
        seen=f"{seen}: {'; '.join(identity.soc_reasons)}",
        expected=f"{soc}{f' ({wanted})' if wanted else ''}",
        fix="Use a phone with that chip, or export for the chip of this one (--target).",
        passing=False,
    )


def _battery_gate(percent: int | None) -> Gate:
    return Gate(
        name="battery",
        ok=percent is None or percent >= MIN_BATTERY_PERCENT,
        seen=UNREADABLE if percent is None else f"{percent} %",
        expected=f"at least {MIN_BATTERY_PERCENT} %",
        fix="Charge the phone.",
        passing=False,
    )


def _battery_heat_gate(celsius: float | None) -> Gate:
    return _heat(
        "battery temperature", celsius, MAX_BATTERY_CELSIUS, "Let the phone cool down, out of its case."
    )


def _cpu_heat_gate(celsius: float | None, baseline: float | None) -> Gate:
    limit = MAX_CPU_CELSIUS if baseline is None else baseline + MAX_ABOVE_BASELINE
    return _heat("cpu temperature", celsius, limit, "Let the phone cool down, with its screen off.")


def _heat(name: str, celsius: float | None, limit: float, fix: str) -> Gate:
    return Gate(
        name=name,
        ok=celsius is None or celsius <= limit,
        seen=UNREADABLE if celsius is None else f"{celsius:.1f} °C",
        expected=f"at most {limit:.1f} °C",
        fix=fix,
    )


def _status_gate(status: int | None) -> Gate:
    known = dict(enumerate(STATUSES))
    return Gate(
        name="thermal status",
        ok=status in (None, 0),
        seen=UNREADABLE if status is None else f"{status} ({known.get(status, 'unknown')})",
        expected="0 (none)",
        fix="Let the phone cool down: Android is slowing it.",
    )


def _override_gate(overridden: bool | None) -> Gate:
    return Gate(
        name="thermal override",
        ok=not overridden,
        seen=UNREADABLE if overridden is None else "overridden" if overridden else "not overridden",
        expected="not overridden",
        fix="Run `adb shell cmd thermalservice reset`.",
        passing=False,
    )


def _load_gate(load: float | None, identity: Identity) -> Gate:
    limit = max(len(identity.parts), sum(len(c.cores) for c in identity.clusters), MIN_CORES)
    return Gate(
        name="load",
        ok=load is None or load <= limit,
        seen=UNREADABLE if load is None else f"{load:.1f}",
        expected=f"at most {limit} (one a core)",
        fix="Close apps and wait until updates and indexing are done.",
    )


def _saver_gate(saver: bool | None) -> Gate:
    return Gate(
        name="power saver",
        ok=not saver,
        seen=UNREADABLE if saver is None else "on" if saver else "off",
        expected="off",
        fix="Turn battery saver off (Settings > Battery).",
        passing=False,
    )


def _space_gate(free: int | None, need: int) -> Gate:
    return _at_least("free space", free, need, "Free some space on the phone.")


def _memory_gate(available: int | None) -> Gate:
    return _at_least("free memory", available, MIN_MEMORY_BYTES, "Close apps or restart the phone.")


def _at_least(name: str, value: int | None, least: int, fix: str) -> Gate:
    return Gate(
        name=name,
        ok=value is None or value >= least,
        seen=UNREADABLE if value is None else _megabytes(value),
        expected=f"at least {_megabytes(least)}",
        fix=fix,
        passing=False,
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def unmet(judged: tuple[Gate, ...]) -> tuple[Gate, ...]:
    return tuple(gate for gate in judged if not gate.ok)


def describe(judged: tuple[Gate, ...]) -> str:
    """The unmet gates as sentences: what was seen, what was expected, what to do."""
    return " ".join(f"{g.name}: {g.seen}, expected {g.expected}. {g.fix}" for g in unmet(judged))


def wait_until_ready(
    read: Callable[[], State],
    evaluate: Callable[[State], tuple[Gate, ...]],
    wait_s: float,
    observer: Callable[[tuple[Gate, ...], float], None],
    sleep: Callable[[float], None],
) -> tuple[Gate, ...]:
    """Look again every 5 seconds while only gates are unmet that may pass by themselves.

    Args:
        read: Reads the device's state.
        evaluate: Judges it.
        wait_s: Seconds to wait at most; time that `read` takes is not counted.
        observer: Told of the unmet gates and the seconds left, before each wait.
        sleep: Waits that many seconds.

    Returns:
        All gates, every one met.

    Raises:
        NotReadyError: Names every unmet gate and its fix.
        DeviceError: Of `read`.
    """
    left = wait_s
    while failed := unmet(judged := evaluate(read())):
        if left <= 0 or not all(gate.passing for gate in failed):
            waited = f" after {wait_s:g} s" if left <= 0 < wait_s else ""
            raise NotReadyError(f"The device is not ready{waited}. {describe(judged)}")
        observer(failed, left)
        pause = min(POLL_S, left)
        sleep(pause)
        left -= pause
    return judged
