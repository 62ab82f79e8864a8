"""Tell which phone is behind an address in adb: one phone may have several (USB, Wi-Fi, a new port)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from android_harness.errors import HarnessError
from android_harness.records import Device

SCRIPT = "getprop ro.serialno; getprop ro.boot.serialno; cat /proc/sys/kernel/random/boot_id 2>/dev/null"
SHARED = re.compile(r"(?i)|unknown|0+|0?123456789(abcdef)?|emulator.*")
"""Serials that many devices report, and that identify none."""
PLAIN = re.compile(r"[\x21-\x7e]{1,100}")


@dataclass(frozen=True)
class Hardware:
    """What identifies a phone. Empty texts are unknown."""

    serial: str = ""
    """`ro.serialno`."""
    boot: str = ""
    """The kernel's random id of this boot, which no two running phones share."""


def read_physical_phone(device: Device) -> Hardware:
    """Return what identifies a phone; a phone that does not answer is known by its address only."""
    try:
        lines = device.run("sh", "-c", SCRIPT).stdout.splitlines()
    except HarnessError:
        return Hardware()
    values = [line.strip() for line in (*lines, "", "", "")][:3]
    serials = [v for v in values[:2] if PLAIN.fullmatch(v) and not SHARED.fullmatch(v)]
    return Hardware(serials[0], values[2][:64]) if serials else Hardware()


class AddressedPhysical(Device, Protocol):
    """A device that has an address in adb, and a serial of its own."""

    @property
    def address(self) -> str:
        """The device's name in adb."""

    def known_as(self, serial: str) -> Self:
        """Return the same device under its own serial."""


A = TypeVar("A", bound=AddressedPhysical)


def distinct_physical_phones(devices: Sequence[A]) -> tuple[A, ...]:
    """Return each phone once, under its own serial, with the best of its addresses (USB before a network).

    Two phones that report the same serial keep their addresses as names.
    """
    found = [
        (device, read_physical_phone(device))
        for device in sorted(devices, key=lambda device: is_physical_phone_over_network(device.address))
    ]
    phones: dict[tuple[str, str], A] = {}
    for device, hardware in found:
        boots = {other.boot for _, other in found if other.serial == hardware.serial}
        if hardware.serial and len(boots) == 1:
            phones.setdefault((hardware.serial, hardware.boot), device.known_as(hardware.serial))
        else:
            phones[device.address, ""] = device
    return tuple(sorted(phones.values(), key=lambda device: device.serial))


def is_physical_phone_over_network(address: str) -> bool:
    """Return whether an address in adb belongs to a network connection."""
    return re.search(r":\d+$|\._adb-tls-connect\._tcp\.?$", address) is not None
