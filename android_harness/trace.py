"""Record a Perfetto trace of a launch, and keep it where the launch fails (`bench --trace`).

Tracing takes processor time, so it is a choice: a traced session is flagged, and never passes.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from android_harness import logcat
from android_harness.errors import DeviceError, Disconnected
from android_harness.records import HOST, Device

FOLDER = "/data/misc/perfetto-traces"
"""The only folder that Android lets perfetto write to from the shell."""
CATEGORIES = ("sched", "freq", "idle", "am", "wm", "gfx", "memory")
BUFFER = "32mb"
SECONDS = 300
TRACE_S = 30.0
STOP = """
kill -TERM "$1" 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do [ -d "/proc/$1" ] || break; sleep 0.2; done
"""
"""Ends perfetto, which writes its file then, and waits for it."""


@contextlib.contextmanager
def traced_launch(device: Device, artifact: str, wanted: bool) -> Iterator[None]:
    """Trace the body if that is wanted. If it fails, its error names the trace's file; else none is kept.

    A phone without perfetto (before Android 9) is measured without a trace, and a failure then says so.
    """
    if not wanted or device.serial == HOST:
        yield
        return
    path = f"{FOLDER}/export-mobile-{secrets.token_hex(4)}"
    process, problem = _start_trace(device, path)
    try:
        yield
    except Disconnected:
        raise
    except DeviceError as error:
        kept = problem or _keep_trace(device, artifact, path, process)
        raise DeviceError(error.message, f"{error.hint} {kept}".strip(), error.code) from error
    finally:
        with contextlib.suppress(DeviceError):
            if process:
                device.run("sh", "-c", STOP, "sh", process, timeout_s=TRACE_S)
            device.run("rm", "-f", path, timeout_s=TRACE_S)


def _start_trace(device: Device, path: str) -> tuple[str, str]:
    """Return perfetto's process id, and why there is none."""
    command = ("perfetto", "--background", "-o", path, "-t", f"{SECONDS}s", "-b", BUFFER, *CATEGORIES)
    try:
        completed = device.run(*command, timeout_s=TRACE_S)
    except DeviceError as error:
        return "", f"There is no trace: {error.message}"
    process = completed.stdout.strip().rpartition("\n")[2].strip()
    if completed.exit_code or not process.isdigit():
        reason = completed.stderr.strip()[:200] or f"perfetto ended with {completed.exit_code}"
        return "", f"There is no trace: {reason}."
    return process, ""


def _keep_trace(device: Device, artifact: str, path: str, process: str) -> str:
    """Stop the trace and copy it to this machine; return a sentence with the file, or why there is none."""
    try:
        device.run("sh", "-c", STOP, "sh", process, timeout_s=TRACE_S)
        target = logcat.logcat_file(device.serial, artifact, "perfetto-trace")
        device.pull(path, target)
    except (DeviceError, OSError) as error:
        return f"The trace could not be copied: {error}"
    return f"The trace is in {target}: open it in https://ui.perfetto.dev."
