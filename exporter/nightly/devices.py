"""Which phones are there tonight, who they are, and what is wrong with the others."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from android_harness.adb_states import advice
from android_harness.errors import DeviceError, HarnessError, NoDeviceError
from android_harness.records import HOST

if TYPE_CHECKING:
    from android_harness.records import Device, Identity

ALL = "all"


@dataclass(frozen=True, eq=False)
class DevicePool:
    """The devices that answered, by serial, and why the rest cannot be used."""

    devices: Mapping[str, Device]
    identities: Mapping[str, Identity]
    problems: Mapping[str, str]
    """By serial, or "all" where none was found or adb itself failed."""
    wanted: tuple[str, ...]

    @property
    def lacks_phone(self) -> bool:
        """Phones were asked for, and not one answered."""
        return set(self.wanted) != {HOST} and not set(self.devices) - {HOST}

    @property
    def absent(self) -> Mapping[str, str]:
        """What was asked for and cannot be used: serial, or "all" -> why."""
        if self.lacks_phone and not self.problems:
            return {ALL: "No phone answered."}
        return {serial: why for serial, why in self.problems.items() if serial not in self.devices}

    def why_not(self, serial: str, soc: str | None) -> str:
        """Why a device is not measured on for a target; an empty string when it is.

        Args:
            serial: Of one that answered or is `absent`.
            soc: The target's; None where any will do.
        """
        if serial in self.absent:
            return self.absent[serial]
        seen = self.identities[serial].soc
        if soc is None or serial == HOST or not seen or seen == soc:
            return ""
        return f"this device is a {seen}, the target a {soc}"


def find(names: Sequence[str]) -> DevicePool:
    """Ask the devices named who they are; an earlier start's runner that still runs on one is ended.

    Args:
        names: Serials, "all", "host".
    """
    from android_harness.host import HostDevice

    found: dict[str, Device] = {}
    problems: dict[str, str] = {}
    for name in names:
        if name == HOST:
            found[HOST] = HostDevice()
            continue
        try:
            more, silent = _all() if name == ALL else _one(name)
        except HarnessError as error:
            more, silent = {}, {name: str(error)}
        found |= {serial: device for serial, device in more.items() if serial not in found}
        problems |= silent
    identities = {serial: _identity(device) for serial, device in found.items()}
    problems |= {serial: str(who) for serial, who in identities.items() if isinstance(who, Exception)}
    known = {serial: who for serial, who in identities.items() if not isinstance(who, Exception)}
    return DevicePool({serial: found[serial] for serial in known}, known, problems, tuple(names))


def _one(serial: str) -> tuple[dict[str, Device], dict[str, str]]:
    from android_harness import adb

    return {serial: adb.connect(serial)}, {}


def _all() -> tuple[dict[str, Device], dict[str, str]]:
    from android_harness import adb

    seen = adb.list_devices()
    if not seen:
        raise NoDeviceError("adb sees no phone.", "See export-mobile devices.")
    silent = {
        one.serial: f"adb says {one.state!r}. {advice(one.state)}" for one in seen if one.state != "device"
    }
    return {one.serial: adb.AdbDevice(one.serial) for one in seen if one.state == "device"}, silent


def _identity(device: Device) -> Identity | HarnessError:
    from android_harness import identity, launch

    try:
        with contextlib.suppress(DeviceError):
            launch.kill_runner(device)
        return identity.identify(device)
    except HarnessError as error:
        return error
