"""`android_harness.resolve_devices`: the names that a user gives become devices."""

from __future__ import annotations

import pytest

from android_harness import adb
from android_harness.errors import HarnessError, NoDeviceError, SetupError
from android_harness.host import HostDevice
from android_harness.records import DeviceEntry
from android_harness.resolve_devices import resolve_devices

ENTRIES = (DeviceEntry("A", "device"), DeviceEntry("B", "unauthorized"), DeviceEntry("C", "device"))


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> list[DeviceEntry]:
    """The devices that adb lists; change the list to change what adb reports."""
    entries = list(ENTRIES)

    def connect(serial: str) -> adb.AdbDevice:
        return adb.AdbDevice(adb.choose_adb_device(tuple(entries), serial).serial)

    monkeypatch.setattr(adb, "list_adb_devices", lambda: tuple(entries))
    monkeypatch.setattr(adb, "connect_adb", connect)
    return entries


@pytest.mark.parametrize(
    ("names", "serials", "failed"),
    [
        ([], set(), set()),
        (["A"], {"A"}, set()),
        (["A", "A", "host"], {"A", "host"}, set()),
        (["all"], {"A", "C"}, {"B"}),
        (["all", "C", "host"], {"A", "C", "host"}, {"B"}),
        (["B", "C", "X"], {"C"}, {"B", "X"}),
        (["X", "all"], {"A", "C"}, {"B", "X"}),
    ],
)
def test_each_name_becomes_devices_or_an_error(names: list[str], serials: set[str], failed: set[str]) -> None:
    """A device that cannot be used does not affect the others, and no device is there twice."""
    resolved = resolve_devices(names)
    assert set(resolved.devices) == serials
    assert {serial: device.serial for serial, device in resolved.devices.items()} == {s: s for s in serials}
    assert set(resolved.errors) == failed


def test_the_host_is_a_device_of_its_own() -> None:
    """Measuring on the host needs no adb."""
    (device,) = resolve_devices(["host"]).devices.values()
    assert isinstance(device, HostDevice)


def test_an_unusable_phone_is_reported_with_advice() -> None:
    """The message names adb's state and what the user can do about it."""
    message = str(resolve_devices(["all"]).errors["B"])
    assert "unauthorized" in message
    assert "unlock the phone" in message


def test_no_phone_at_all_is_an_error_of_all(listed: list[DeviceEntry]) -> None:
    """The error is attached to the name "all"; other names still resolve."""
    listed.clear()
    resolved = resolve_devices(["all", "host"])
    assert set(resolved.devices) == {"host"}
    assert isinstance(resolved.errors["all"], NoDeviceError)


def test_a_missing_adb_is_reported_for_each_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host remains usable without adb."""

    def missing(*_arguments: str) -> HarnessError:
        raise SetupError("There is no adb.")

    monkeypatch.setattr(adb, "list_adb_devices", missing)
    monkeypatch.setattr(adb, "connect_adb", missing)
    resolved = resolve_devices(["all", "A", "host"])
    assert set(resolved.devices) == {"host"}
    assert {name: type(error) for name, error in resolved.errors.items()} == dict.fromkeys(
        ("all", "A"), SetupError
    )
