"""Tests of `android_harness.physical_phones`: a phone is one device, whatever addresses adb has for it."""

from __future__ import annotations

import pytest

from android_harness import adb, physical_phones
from android_harness.adb import AdbDevice
from android_harness.errors import Disconnected, NoDeviceError, SetupError
from android_harness.records import Completed, DeviceEntry
from android_harness.resolve_devices import resolve_devices

USB, WIFI, TLS = "R58N", "192.168.1.7:5555", "adb-R58N-x1Y2z3._adb-tls-connect._tcp"


@pytest.fixture
def phones(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    """The phones that adb lists: address -> (ro.serialno, the id of the boot)."""
    listed = {USB: ("R58N", "boot-1"), WIFI: ("R58N", "boot-1"), TLS: ("R58N", "boot-1")}

    def run(self: AdbDevice, *argv: str, timeout_s: float = 5.0) -> Completed:
        if physical_phones.SCRIPT not in argv:
            return Completed(0, "", "")
        if self.address not in listed:
            raise Disconnected("gone")
        serial, boot = listed[self.address]
        return Completed(0, f"{serial}\n\n{boot}\n", "")

    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.setattr(AdbDevice, "run", run)
    monkeypatch.setattr(
        adb, "list_adb_devices", lambda: tuple(DeviceEntry(a, "device") for a in sorted(listed))
    )
    monkeypatch.setattr(adb, "connect_adb_address", lambda address: None)
    return listed


def test_one_phone_at_three_addresses_is_one_device(phones: dict[str, tuple[str, str]]) -> None:
    """USB, Wi-Fi and TLS lead to one device, which is reached over USB."""
    resolved = resolve_devices(["all"])
    assert [(d.serial, d.address) for d in resolved.devices.values() if isinstance(d, AdbDevice)] == [
        ("R58N", USB)
    ]
    assert (adb.connect_adb().serial, adb.connect_adb().address) == ("R58N", USB)


@pytest.mark.parametrize("address", [USB, WIFI, TLS, "10.0.0.9:41234"])
def test_a_new_address_is_the_same_device(address: str, phones: dict[str, tuple[str, str]]) -> None:
    """The serial, and with it the line in the history, does not depend on the address."""
    phones.clear()
    phones[address] = ("R58N", "boot-2")
    (device,) = resolve_devices(["all"]).devices.values()
    assert device.serial == "R58N"
    assert adb.connect_adb(address).serial == "R58N"
    assert adb.connect_adb("R58N").serial == "R58N"


def test_a_phone_that_is_named_twice_is_there_once(phones: dict[str, tuple[str, str]]) -> None:
    """A phone's serial and an address of it are the same phone."""
    resolved = resolve_devices([USB, WIFI, "all"])
    assert (list(resolved.devices), dict(resolved.errors)) == (["R58N"], {})


@pytest.mark.parametrize("serial", ["", "unknown", "0123456789ABCDEF", "EMULATOR36X2X11X0", "00000000"])
def test_a_serial_that_many_devices_share_identifies_none(
    serial: str, phones: dict[str, tuple[str, str]]
) -> None:
    """Such devices are known by their addresses."""
    for address in phones:
        phones[address] = (serial, "boot-1")
    assert set(resolve_devices(["all"]).devices) == {USB, WIFI, TLS}


def test_two_phones_with_one_serial_stay_two(phones: dict[str, tuple[str, str]]) -> None:
    """A clone reports the serial of another phone, but not its boot."""
    phones[WIFI] = ("R58N", "boot-2")
    del phones[TLS]
    assert set(resolve_devices(["all"]).devices) == {USB, WIFI}


def test_a_phone_that_does_not_answer_keeps_its_address(phones: dict[str, tuple[str, str]]) -> None:
    """What is wrong with it is told when it is used."""
    assert physical_phones.read_physical_phone(AdbDevice("X")) == physical_phones.Hardware()


def test_android_serial_names_the_phone(
    phones: dict[str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable chooses as it does for adb; a name on the command line counts more."""
    phones["B"] = ("B", "boot-3")
    with pytest.raises(NoDeviceError, match="There are 4 devices"):
        adb.connect_adb()
    monkeypatch.setenv("ANDROID_SERIAL", "B")
    assert adb.connect_adb().serial == "B"
    assert adb.connect_adb("R58N").serial == "R58N"


def test_an_address_that_adb_has_forgotten_is_connected_to(
    phones: dict[str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart of adb's server, a configured address works again."""
    phones.clear()

    def connect(address: str) -> None:
        phones[address] = ("R58N", "boot-1")

    monkeypatch.setattr(adb, "connect_adb_address", connect)
    assert resolve_devices([WIFI]).devices["R58N"].serial == "R58N"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("127.0.0.1", 5037)),
        ({"ANDROID_ADB_SERVER_PORT": "5038"}, ("127.0.0.1", 5038)),
        ({"ADB_SERVER_SOCKET": "tcp:5039"}, ("127.0.0.1", 5039)),
        ({"ADB_SERVER_SOCKET": "tcp:farm:5039", "ANDROID_ADB_SERVER_PORT": "5038"}, ("farm", 5039)),
        ({"ADB_SERVER_SOCKET": "tcp:[::1]:5039"}, ("::1", 5039)),
    ],
)
def test_the_server_is_the_one_that_adb_uses(
    variables: dict[str, str], expected: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables of adb name its server."""
    from android_harness import adb_client

    for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert adb_client.adb_client_server_address() == expected
    assert (adb_client.AdbClient(1.0, 1).host, adb_client.AdbClient(1.0, 1).port) == expected


def test_a_server_elsewhere_is_not_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says where it should run, and how to start it."""
    from android_harness import adb_client

    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:127.0.0.2:9")
    with pytest.raises(SetupError, match=r"127\.0\.0\.2:9 \(ADB_SERVER_SOCKET\) does not answer"):
        adb_client.start_adb_server_for_client()
    monkeypatch.setenv("ADB_SERVER_SOCKET", "localfilesystem:/tmp/adb")
    with pytest.raises(SetupError, match="expected tcp:HOST:PORT"):
        adb_client.start_adb_server_for_client()
