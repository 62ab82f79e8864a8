"""Every device adb knows, and whether each is ready to be measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from android_harness import adb, identity
from android_harness.adb_states import advice
from android_harness.errors import HarnessError
from android_harness.readiness import gates
from android_harness.records import DeviceEntry, DeviceReport, Gate

NEED_BYTES = 256 << 20
"""Room for the runner, a few artifacts and their outputs."""
MAX_THREADS = 32


def reports(soc: str | None = None) -> tuple[DeviceReport, ...]:
    """Ask all devices at once; one that hangs costs only its own deadlines.

    Args:
        soc: "SM8250" to ask for that one; None takes any.

    Returns:
        A report per device, in adb's order, those that cannot be talked to included.

    Raises:
        SetupError: adbutils or adb is missing, or its server cannot be started.
        DeviceError: The adb server does not answer.
    """
    seen = adb.list_devices()
    with ThreadPoolExecutor(max_workers=MAX_THREADS, thread_name_prefix="device") as pool:
        return tuple(pool.map(lambda device: report(device, soc), seen))


def report(seen: DeviceEntry, soc: str | None = None) -> DeviceReport:
    """One device's row; what is wrong with it is a gate, never an exception."""
    if seen.state != "device":
        return _silent(seen, seen.state, advice(seen.state))
    device = adb.AdbDevice(seen.serial)
    try:
        who = identity.identify(device)
        state = identity.read_state(device, who)
    except HarnessError as error:
        return _silent(seen, error.message, error.hint)
    return DeviceReport(seen, who, state, gates(who, state, soc=soc, need_bytes=NEED_BYTES))


def _silent(seen: DeviceEntry, said: str, fix: str) -> DeviceReport:
    gate = Gate("connection", ok=False, seen=said, expected="a device that answers", fix=fix, passing=False)
    return DeviceReport(seen, None, None, (gate,))
