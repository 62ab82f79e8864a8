"""Find the phones that answer tonight, identify them, and say what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from android_harness.errors import HarnessError
from android_harness.records import HOST

if TYPE_CHECKING:
    from android_harness.records import Device, Identity

ALL = "all"


@dataclass(frozen=True, eq=False)
class DevicePool:
    """The devices that answered, by serial, and why the others cannot be used."""

    devices: Mapping[str, Device]
    identities: Mapping[str, Identity]
    problems: Mapping[str, str]
    """The problem by serial, or under "all" where no phone is connected or adb itself failed."""
    wanted: tuple[str, ...]

    @property
    def lacks_phone(self) -> bool:
        """Return whether phones were asked for and none answered."""
        return set(self.wanted) != {HOST} and not set(self.devices) - {HOST}

    @property
    def absent(self) -> Mapping[str, str]:
        """Return what was asked for and cannot be used: serial, or "all" -> why."""
        if self.lacks_phone and not self.problems:
            return {ALL: "No phone answered."}
        return {serial: why for serial, why in self.problems.items() if serial not in self.devices}

    def why_not(self, serial: str, soc: str | None) -> str:
        """Return why a device is not used for a target; an empty string when it is used.

        Args:
            serial: The serial of a device that answered or is `absent`.
            soc: The target's SoC; None where any will do.
        """
        if serial in self.absent:
            return self.absent[serial]
        seen = self.identities[serial].soc
        if soc is None or serial == HOST or not seen or seen == soc:
            return ""
        return f"this device is a {seen}, the target a {soc}"


def find_night_devices(names: Sequence[str]) -> DevicePool:
    """Identify the named devices.

    Args:
        names: Serials, "all", "host".
    """
    from android_harness.resolve_devices import resolve_devices

    resolved = resolve_devices(names)
    identities: dict[str, Identity] = {}
    problems = {name: str(error) for name, error in resolved.errors.items()}
    for serial, device in resolved.devices.items():
        try:
            identities[serial] = _night_device_identity(device)
        except HarnessError as error:
            problems[serial] = str(error)
    devices = {serial: resolved.devices[serial] for serial in identities}
    return DevicePool(devices, identities, problems, tuple(names))


def _night_device_identity(device: Device) -> Identity:
    from android_harness import identity

    return identity.read_identity(device)
