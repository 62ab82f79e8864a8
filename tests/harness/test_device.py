"""The Python side with the real adbd: quoting, deadlines, failures, identity, settings and the listing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from android_harness import adb, device_listing, identity, phone_settings
from android_harness.errors import DeviceError, Disconnected, NoDeviceError
from android_harness.readiness import readiness_gates, unmet_readiness
from android_harness.records import DeviceEntry
from tests.harness import simulated
from tests.harness.simulated import TestDevice
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("simulator")]
HOSTILE = ("a b;$(reboot)'\"\n*.pte", "-rf", "~", "`id`", "ä\u2603", "%s\\n", "a,b")


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[TestDevice, ...]]:
    with simulated.devices(count=2, serials=("lab phone 1", "lab phone 2")) as both:
        yield both


@pytest.fixture
def phone(pair: tuple[TestDevice, ...], monkeypatch: pytest.MonkeyPatch) -> Iterator[adb.AdbDevice]:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(pair[0].server_port))
    device = adb.connect_adb("lab phone 1")
    yield device
    pair[0].misbehave("none")
    pair[0].reconnect()
    device.reconnect(20)


def file_of(folder: Path, size: int) -> Path:
    (folder / "file").write_bytes(os.urandom(size))
    return folder / "file"


def test_two_devices_with_spaces_are_listed_and_ambiguous(phone: adb.AdbDevice) -> None:
    """The error for two devices names both."""
    assert [entry.serial for entry in adb.list_adb_devices()] == ["lab phone 1", "lab phone 2"]
    with pytest.raises(NoDeviceError, match=r"2 devices: lab phone 1 \(device\); lab phone 2 \(device\)"):
        adb.connect_adb()


def test_arguments_arrive_as_given(phone: adb.AdbDevice) -> None:
    """Arguments arrive unchanged through the device's shell, whatever they contain."""
    assert phone.run("printf", "%s|", *HOSTILE, "").stdout == "".join(f"{w}|" for w in (*HOSTILE, ""))


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("nosuch", 127)])
def test_exit_codes_and_streams(phone: adb.AdbDevice, script: str, code: int) -> None:
    """Exit codes are exact even if the script itself calls `exit`."""
    ended = phone.run("sh", "-c", f"echo out; echo err >&2; {script}")
    assert (ended.exit_code, ended.stdout, ended.stderr[:4]) == (code, "out\n", "err\n")


@pytest.mark.parametrize("name", HOSTILE)
def test_files_of_any_name_go_there_and_back(phone: adb.AdbDevice, tmp_path: Path, name: str) -> None:
    """Files arrive byte for byte, whatever their names are."""
    source = file_of(tmp_path, 100_000)
    phone.push(source, f"{phone.root}/{name}")
    phone.pull(f"{phone.root}/{name}", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_a_command_that_hangs_costs_its_deadline(phone: adb.AdbDevice) -> None:
    """A hanging command takes its deadline; the message does not blame the cable."""
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"did not end within 0\.5 s") as raised:
        phone.run("sleep", "300", timeout_s=0.5)
    assert not isinstance(raised.value, Disconnected)
    assert time.monotonic() - start < 60


def test_the_error_of_a_full_disk_says_what_is_free_and_needed(
    pair: tuple[TestDevice, ...], phone: adb.AdbDevice, tmp_path: Path
) -> None:
    """The error says how much is free and how much is needed; no part of the file remains."""
    pair[0].misbehave("disk_full", free_bytes=1 << 20)
    with pytest.raises(DeviceError, match=r"full.*needs 8\.0 MB, 1\.\d MB are free"):
        phone.push(file_of(tmp_path, 8_000_000), f"{phone.root}/big")
    assert phone.run("ls", f"{phone.root}/big").exit_code != 0


def test_a_device_that_goes_offline_in_a_push_is_back_after_reconnect(
    pair: tuple[TestDevice, ...], phone: adb.AdbDevice, tmp_path: Path
) -> None:
    """A second attempt succeeds, and the other device is unaffected."""
    source = file_of(tmp_path, 8_000_000)
    pair[0].misbehave("offline", after_bytes=1 << 20, seconds=1.0)
    with pytest.raises(Disconnected):
        phone.push(source, f"{phone.root}/cut")
    assert adb.AdbDevice("lab phone 2").run("true").exit_code == 0
    time.sleep(1.0)
    pair[0].reconnect()
    phone.reconnect(20)
    phone.push(source, f"{phone.root}/cut")


def test_an_unauthorised_device_is_a_row_that_says_what_to_do(
    pair: tuple[TestDevice, ...], phone: adb.AdbDevice
) -> None:
    """An unauthorised device is listed with what to do; the other device is identified."""
    pair[0].misbehave("unauthorized")
    pair[0].reconnect()
    wait_until(lambda: DeviceEntry("lab phone 1", "unauthorized") in adb.list_adb_devices())
    rows = {report.entry.serial: report for report in device_listing.list_device_reports()}
    assert "accept" in rows["lab phone 1"].gates[0].fix
    other = rows["lab phone 2"].identity
    assert other is not None
    assert other.soc == "SM8250"
    with pytest.raises(NoDeviceError, match="accept"):
        adb.connect_adb("lab phone 1")


def test_a_simulated_device_never_passes_for_a_phone(phone: adb.AdbDevice) -> None:
    """A simulated device reports its chip and plausible readings, and that it is simulated."""
    who = identity.read_identity(phone)
    state = identity.read_identity_state(phone, who)
    assert (who.soc, who.chip) == ("SM8250", "snapdragon865")
    assert any("simulated" in doubt for doubt in who.doubts)
    assert not [
        g
        for g in unmet_readiness(readiness_gates(who, state, soc="SM8250", need_bytes=1 << 20))
        if g.name != "load"
    ]
    assert state.thermal_status == 0
    for path in identity.identity_watch_paths(who):
        assert phone.run("cat", path).exit_code == 0, path


def test_settings_are_changed_and_restored(phone: adb.AdbDevice) -> None:
    """Settings are changed and restored; one that was unset is unset again."""
    before = phone.run("settings", "get", "global", "stay_on_while_plugged_in").stdout
    with phone_settings.changed_phone_settings(phone) as problems:
        assert problems == ()
        assert phone.run("settings", "get", "global", "stay_on_while_plugged_in").stdout == "7\n"
    assert phone.run("settings", "get", "global", "stay_on_while_plugged_in").stdout == before
    assert phone_settings.recover_phone_settings(phone) == ()
