"""Read what a call costs from the battery's own counters, where they can tell.

A phone on a cable is charged while it is measured: its counters then show the charger's current, not what the
phone uses. Over Wi-Fi they show the whole phone, the screen included.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from android_harness import parse
from android_harness.records import Session

SUPPLY = "/sys/class/power_supply/battery"
STATUS, CURRENT, VOLTAGE = (f"{SUPPLY}/{name}" for name in ("status", "current_now", "voltage_now"))
ENERGY_FILES = (STATUS, CURRENT, VOLTAGE)
"""The runner reads them between chunks of calls: text, microamperes of either sign, microvolts."""
MIN_READINGS = 10
MAX_WATTS = 30.0
"""More is another unit: some kernels count milliamperes."""
MIN_WATTS = 0.05


def energy_per_call(session: Session) -> tuple[float | None, str]:
    """Return the energy of a call in mJ, of the whole phone, and why there is none.

    It is the mean power between chunks, times the time of a call.
    """
    readings = [clock.texts for launch in session.launches for clock in launch.clocks]
    states = {texts[STATUS].strip() for texts in readings if STATUS in texts}
    watts = [power for texts in readings if (power := _energy_watts(texts)) is not None]
    if not states or len(watts) < MIN_READINGS:
        return None, "the battery's counters cannot be read"
    if states != {"Discharging"}:
        return (
            None,
            f"the battery's counters show the charger ({', '.join(sorted(states))}): measure over Wi-Fi",
        )
    power = statistics.mean(watts)
    if not MIN_WATTS <= power <= MAX_WATTS:
        return None, f"the battery's counters show {power:.3g} W, which no phone uses"
    durations = [ns for launch in session.launches for ns in launch.durations_ns]
    return power * statistics.mean(durations) / 1e6, ""


def _energy_watts(texts: Mapping[str, str]) -> float | None:
    current, voltage = (parse.parse_integer(texts.get(path, "").strip()) for path in (CURRENT, VOLTAGE))
    if not current or not voltage:
        return None
    return abs(current) * 1e-6 * voltage * 1e-6
