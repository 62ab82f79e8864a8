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
            path = logcat_file(device.serial, artifact, "log")
            path.write_text(completed.stdout, encoding="utf-8")
            return f"The device's log is in {path}."
    return ""


def logcat_file(serial: str, artifact: str, suffix: str) -> Path:
    """Return the path of a new file that is kept with a failure; delete the oldest of its kind.

    Raises:
        OSError: The folder cannot be written.
    """
    folder = saved_launches.saved_launches_root().parent / "logcat"
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob(f"*.{suffix}"))[: -KEPT + 1]:
        old.unlink(missing_ok=True)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{time.strftime('%Y%m%d-%H%M%S')}-{artifact}-{serial}")[:150]
    return folder / f"{name}.{suffix}"
