"""Turn the names that a user gives (serials, "host", "all") into devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from android_harness import adb, physical_phones
from android_harness.adb_states import adb_state_advice
from android_harness.errors import HarnessError, NoDeviceError
from android_harness.host import HostDevice
from android_harness.records import HOST, Device

ALL = "all"


@dataclass(frozen=True, eq=False)
class ResolvedDevices:
    """The devices that names stand for."""

    devices: Mapping[str, Device]
    """Serial -> device."""
    errors: Mapping[str, HarnessError]
    """Serial, or "all" -> why there is no device."""


def resolve_devices(names: Sequence[str]) -> ResolvedDevices:
    """Connect to every device that is named; "all" stands for every phone that adb lists.

    A phone that is named twice, by its serial and by an address, is there once.
    """
    devices: dict[str, Device] = {}
    errors: dict[str, HarnessError] = {}
    names_of_devices: set[str] = set()
    for name in dict.fromkeys(names):
        try:
            if name == HOST:
                devices[HOST] = HostDevice()
            elif name == ALL:
                listed = _resolve_all_listed()
                errors |= listed.errors
                devices = {**listed.devices, **devices}
            elif name not in devices:
                device = adb.connect_adb(name)
                devices.setdefault(device.serial, device)
                names_of_devices.add(name)
        except HarnessError as error:
            errors[name] = error
    return ResolvedDevices(
        devices, {name: error for name, error in errors.items() if name not in {*devices, *names_of_devices}}
    )


def _resolve_all_listed() -> ResolvedDevices:
    entries = adb.list_adb_devices()
    if not entries:
        raise NoDeviceError("adb lists no phone.", "See `export-mobile devices`.")
    usable = [adb.AdbDevice(entry.serial) for entry in entries if entry.state == "device"]
    return ResolvedDevices(
        {device.serial: device for device in physical_phones.distinct_physical_phones(usable)},
        {
            entry.serial: NoDeviceError(
                f"adb reports the state {entry.state!r}.", adb_state_advice(entry.state)
            )
            for entry in entries
            if entry.state != "device"
        },
    )
