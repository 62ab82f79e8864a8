"""Keep the end of a device's log with a failure."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

from android_harness import saved_launches
from android_harness.errors import DeviceError
from android_harness.records import HOST, Device

LINES = 400
KEPT = 50
"""The number of logs that are kept; the oldest are deleted."""
LOGCAT_S = 15.0


def keep_logcat(device: Device, artifact: str) -> str:
    """Save the last lines of logcat on this machine; return a sentence with the file, or an empty text."""
    if device.serial == HOST:
        return ""
    with contextlib.suppress(DeviceError, OSError):
        completed = device.run("logcat", "-d", "-t", str(LINES), timeout_s=LOGCAT_S)
        if completed.exit_code == 0 and completed.stdout.strip():
            return f"The device's log is in {_write_logcat(device.serial, artifact, completed.stdout)}."
    return ""


def _write_logcat(serial: str, artifact: str, text: str) -> Path:
    folder = saved_launches.saved_launches_root().parent / "logcat"
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{time.strftime('%Y%m%d-%H%M%S')}-{artifact}-{serial}")[:150]
    path = folder / f"{name}.log"
    path.write_text(text, encoding="utf-8")
    for old in sorted(folder.glob("*.log"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path
