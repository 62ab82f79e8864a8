"""List every device that adb knows, and whether it is ready to be measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from android_harness import adb, identity, idle_temperature, physical_phones
from android_harness.adb_states import adb_state_advice
from android_harness.errors import HarnessError
from android_harness.readiness import readiness_gates
from android_harness.records import DeviceEntry, DeviceReport, Gate

NEED_BYTES = 256 << 20
"""Space for the runner, a few artifacts and their outputs."""
MAX_THREADS = 32


def list_device_reports() -> tuple[DeviceReport, ...]:
    """Examine all devices at once, so that one that hangs delays only itself.

    Returns:
        A report for each device, in the order of serials, including unusable devices.

    Raises:
        SetupError: adbutils or adb is missing, or its server cannot be started.
        DeviceError: The adb server does not answer.
    """
    entries = adb.list_adb_devices()
    with ThreadPoolExecutor(max_workers=MAX_THREADS, thread_name_prefix="device") as pool:
        return tuple(pool.map(_list_device_report, entries))


def _list_device_report(entry: DeviceEntry) -> DeviceReport:
    """Return the report of one device. A problem becomes an unmet gate, never an exception."""
    if entry.state != "device":
        return _list_unusable_device(entry, entry.state, adb_state_advice(entry.state))
    device = adb.AdbDevice(entry.serial)
    try:
        who = identity.read_identity(device)
        state = identity.read_identity_state(device, who)
    except HarnessError as error:
        return _list_unusable_device(entry, error.message, error.hint)
    return DeviceReport(
        entry,
        who,
        state,
        readiness_gates(
            who,
            state,
            soc=None,
            need_bytes=NEED_BYTES,
            baseline_celsius=idle_temperature.baseline_of_idle_temperature(
                physical_phones.read_physical_phone(device).serial or entry.serial
            ),
        ),
    )


def _list_unusable_device(entry: DeviceEntry, problem: str, fix: str) -> DeviceReport:
    gate = Gate("connection", False, seen=problem, expected="a device that answers", fix=fix, passing=False)
    return DeviceReport(entry, None, None, (gate,))
