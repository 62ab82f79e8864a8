"""Check whether a device may be measured, and wait for conditions that pass by themselves.

An unreadable value does not block, except the SoC if one is required: an unknown battery level may cost a
repeated run, but an unknown chip makes the figures worthless. The conditions are those of
docs/explanation/measurement-protocol.md, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
"""SoC -> the chip that a target of this name means, for SoCs that several chips share."""
STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def readiness_gates(
    identity: Identity,
    state: State,
    *,
    soc: str | None,
    need_bytes: int,
    baseline_celsius: float | None = None,
) -> tuple[Gate, ...]:
    """Return every condition of a device's readiness, met or not.

    Args:
        identity: The device. Its doubts are no gate: they make its figures simulated, not impossible.
        state: Its current state.
        soc: The required SoC, such as "SM8250"; None for any.
        need_bytes: The space that will be written.
        baseline_celsius: The temperature of this device's hottest CPU zone when idle, if known.
    """
    return (
        *((_soc_readiness(identity, soc),) if soc else ()),
        _flag_readiness(
            "boot",
            state.boot_completed,
            {True: "completed", False: "not completed"},
            "Wait until Android has started; unlock the phone if it asks for its PIN.",
        ),
        _flag_readiness(
            "screen",
            state.awake,
            {True: "on", False: "dark"},
            "Wake the phone: in its sleep it turns cores off.",
        ),
        _battery_readiness(state.battery_percent),
        _heat_readiness(
            "battery temperature",
            state.battery_celsius,
            MAX_BATTERY_CELSIUS,
            "Let the phone cool down, out of its case.",
        ),
        _thermal_status_readiness(state.thermal_status),
        _flag_readiness(
            "thermal override",
            state.thermal_overridden,
            {False: "not overridden", True: "overridden"},
            "Run `adb shell cmd thermalservice reset`.",
            passing=False,
        ),
        _heat_readiness(
            "cpu temperature",
            parse.parse_hottest_cpu(state.celsius),
            MAX_CPU_CELSIUS if baseline_celsius is None else baseline_celsius + MAX_ABOVE_BASELINE,
            "Let the phone cool down, with its screen off.",
        ),
        _load_readiness(state.load1, identity),
        _flag_readiness(
            "power saver",
            state.power_saver,
            {False: "off", True: "on"},
            "Turn battery saver off (Settings > Battery).",
            passing=False,
        ),
        _at_least_readiness("free space", state.free_bytes, need_bytes, "Free some space on the phone."),
        _at_least_readiness(
            "free memory",
            state.available_memory_bytes,
            MIN_MEMORY_BYTES,
            "Close apps or restart the phone.",
        ),
    )


def _soc_readiness(identity: Identity, soc: str) -> Gate:
    required = CHIP_MEANT.get(soc, "")
    seen = f"{identity.soc or UNREADABLE}{f' ({identity.chip})' if identity.chip else ''}"
    return Gate(
        name="soc",
        ok=identity.soc == soc and required in ("", identity.chip),
        seen=f"{seen}: {'; '.join(identity.soc_reasons)}",
        expected=f"{soc}{f' ({required})' if required else ''}",
        fix="Use a phone with that chip, or export for the chip of this one (--target).",
        passing=False,
    )


def _flag_readiness(
    name: str, value: bool | None, words: Mapping[bool, str], fix: str, passing: bool = True
) -> Gate:
    """Return the gate of a condition that is met or not; the first of the words is of the met one."""
    met, expected = next(iter(words.items()))
    seen = UNREADABLE if value is None else words[value]
    return Gate(name, value in (None, met), seen, expected, fix, passing)


def _battery_readiness(percent: int | None) -> Gate:
    return Gate(
        name="battery",
        ok=percent is None or percent >= MIN_BATTERY_PERCENT,
        seen=UNREADABLE if percent is None else f"{percent} %",
        expected=f"at least {MIN_BATTERY_PERCENT} %",
        fix="Charge the phone.",
        passing=False,
    )


def _heat_readiness(name: str, celsius: float | None, limit: float, fix: str) -> Gate:
    return Gate(
        name=name,
        ok=celsius is None or celsius <= limit,
        seen=UNREADABLE if celsius is None else f"{celsius:.1f} °C",
        expected=f"at most {limit:.1f} °C",
        fix=fix,
    )


def _thermal_status_readiness(status: int | None) -> Gate:
    known = dict(enumerate(STATUSES))
    return Gate(
        name="thermal status",
        ok=status in (None, 0),
        seen=UNREADABLE if status is None else f"{status} ({known.get(status, 'unknown')})",
        expected="0 (none)",
        fix="Let the phone cool down: Android is slowing it.",
    )


def _load_readiness(load: float | None, identity: Identity) -> Gate:
    limit = max(len(identity.parts), sum(len(c.cores) for c in identity.clusters), MIN_CORES)
    return Gate(
        name="load",
        ok=load is None or load <= limit,
        seen=UNREADABLE if load is None else f"{load:.1f}",
        expected=f"at most {limit} (one per core)",
        fix="Close apps and wait until updates and indexing are done.",
    )


def _at_least_readiness(name: str, value: int | None, least: int, fix: str) -> Gate:
    return Gate(
        name=name,
        ok=value is None or value >= least,
        seen=UNREADABLE if value is None else _readiness_megabytes(value),
        expected=f"at least {_readiness_megabytes(least)}",
        fix=fix,
        passing=False,
    )


def _readiness_megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def unmet_readiness(checked: tuple[Gate, ...]) -> tuple[Gate, ...]:
    return tuple(gate for gate in checked if not gate.ok)


def describe_readiness(checked: tuple[Gate, ...]) -> str:
    """Describe each unmet gate: its value, the expected value, and the fix."""
    return " ".join(f"{g.name}: {g.seen}, expected {g.expected}. {g.fix}" for g in unmet_readiness(checked))


def wait_for_readiness(
    read: Callable[[], State],
    evaluate: Callable[[State], tuple[Gate, ...]],
    wait_s: float,
    observer: Callable[[tuple[Gate, ...], float], None],
    sleep: Callable[[float], None],
) -> tuple[Gate, ...]:
    """Check every 5 seconds until all gates are met, while every unmet gate may pass by itself.

    Args:
        read: Reads the device's state.
        evaluate: Returns the gates of a state.
        wait_s: The longest wait in seconds, without the time that `read` takes.
        observer: Called with the unmet gates and the seconds left, before each wait.
        sleep: Waits for a number of seconds.

    Returns:
        All gates, which are met.

    Raises:
        NotReadyError: A gate is still unmet; the message names each one and its fix.
        DeviceError: `read` raised it.
    """
    left = wait_s
    while failed := unmet_readiness(checked := evaluate(read())):
        if left <= 0 or not all(gate.passing for gate in failed):
            waited = f" after {wait_s:g} s" if left <= 0 < wait_s else ""
            raise NotReadyError(f"The device is not ready{waited}. {describe_readiness(checked)}")
        observer(failed, left)
        pause = min(POLL_S, left)
        sleep(pause)
        left -= pause
    return checked
