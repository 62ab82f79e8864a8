"""Remember how warm each phone is when it idles: the baseline of its temperature gate."""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
from pathlib import Path

from android_harness import saved_launches

READINGS = 5
MIN_READINGS = 3


def note_idle_temperature(serial: str, celsius: float | None) -> None:
    """Remember the hottest CPU zone of an idle phone: one that was ready, or that waited in vain to cool."""
    if celsius is None:
        return
    with contextlib.suppress(OSError):
        path = _idle_temperature_path(serial)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([*_idle_temperature_readings(serial), round(celsius, 1)][-READINGS:]))


def baseline_of_idle_temperature(serial: str) -> float | None:
    """Return the median of the last readings; None while there are fewer than three.

    The median follows the season, and a single reading of a warm phone does not move it.
    """
    readings = _idle_temperature_readings(serial)
    return statistics.median(readings) if len(readings) >= MIN_READINGS else None


def _idle_temperature_readings(serial: str) -> list[float]:
    try:
        values = json.loads(_idle_temperature_path(serial).read_text())
        return [float(value) for value in values][-READINGS:]
    except (OSError, ValueError, TypeError):
        return []


def _idle_temperature_path(serial: str) -> Path:
    digest = hashlib.sha256(serial.encode()).hexdigest()[:24]
    return saved_launches.saved_launches_root().parent / "idle" / f"{digest}.json"
