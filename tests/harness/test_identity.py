from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_harness import identity, parse
from android_harness.host import HostDevice
from android_harness.records import Identity

FIXTURES = Path(__file__).parent / "fixtures"
IDENTITY = (FIXTURES / "identity_sm8250.txt").read_text()
STATE = (FIXTURES / "state_sm8250.txt").read_text()


def who(text: str = IDENTITY, serial: str = "0a1b2c3d") -> Identity:
    return identity.identity_from_text(serial, parse.parse_sections(text))


def test_an_865_is_known_by_all_its_sources() -> None:
    """Name, platform, cores and prime clock agree, and nothing indicates another device."""
    phone = who()
    assert (phone.soc, phone.chip, phone.doubts) == ("SM8250", "snapdragon865", ())
    assert (phone.manufacturer, phone.model, phone.android, phone.sdk) == ("Xiaomi", "Mi 10", "12", 31)
    assert (phone.machine, phone.kernel, phone.abi) == ("aarch64", "4.19.157-perf-g92c089fc2d37", "arm64-v8a")


@pytest.mark.parametrize(
    ("prime_khz", "chip"),
    [("2841600", "snapdragon865"), ("3091200", "snapdragon865+"), ("3187200", "snapdragon870")],
)
def test_the_prime_cores_clock_tells_the_three_konas_apart(prime_khz: str, chip: str) -> None:
    """All three report SM8250 and kona."""
    phone = who(IDENTITY.replace("2841600", prime_khz))
    assert (phone.soc, phone.chip) == ("SM8250", chip)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[kona]", "[lahaina]", "contradict"),
        ("[ro.soc.model]: [SM8250]", "[ro.soc.model]: [SM8350]", "contradict"),
        ("Inc SM8250", "Inc SM8150", "contradict"),
        ("0x805", "0xd05", "cores"),
        ("2841600", "2000000", "prime core"),
    ],
)
def test_a_source_that_disagrees_leaves_the_soc_empty(old: str, new: str, reason: str) -> None:
    """The reasons name the source that disagrees."""
    phone = who(IDENTITY.replace(old, new))
    assert (phone.soc, phone.chip) == ("", "")
    assert any(reason in source for source in phone.soc_reasons)


def test_one_name_is_enough_if_the_others_are_missing() -> None:
    """Android 11 has no ro.soc.model, and newer kernels have no Hardware line."""
    text = IDENTITY.replace("[ro.soc.model]: [SM8250]\n", "").replace(
        "/proc/cpuinfo:Hardware", "/proc/other:x"
    )
    assert who(text).soc == "SM8250"


def test_unreadable_clocks_leave_the_chip_open() -> None:
    """An 870 cannot be distinguished from an 865 without clocks."""
    phone = who(IDENTITY.replace("/cpufreq/", "/denied/"))
    assert (phone.soc, phone.chip, phone.clusters) == ("SM8250", "", ())


@pytest.mark.parametrize("soc", identity.SOCS, ids=lambda soc: soc.name)
def test_each_target_is_known_by_its_platform(soc: identity.Soc) -> None:
    """The table's platforms and cores are consistent."""
    named = identity.soc_identity({"ro.board.platform": soc.platform}, "", tuple(soc.parts), ())
    assert named[0] == soc.name
    assert identity.soc_identity({"ro.board.platform": soc.platform}, "", (("0x41", "0xd03"),), ())[0] == ""


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (lambda t: t.replace("[ro.kernel.qemu]: []", "[ro.kernel.qemu]: [1]"), "emulator"),
        (lambda t: t.replace("[ro.hardware]: [qcom]", "[ro.hardware]: [ranchu]"), "emulator"),
        (lambda t: t.replace("[ro.hardware]: [qcom]", "[ro.hardware]: [goldfish]"), "emulator"),
        (lambda t: t.replace("[Mi 10]", "[sdk_gphone64_arm64]"), "emulator"),
        (lambda t: t.replace("Xiaomi/umi_eea", "generic/umi_eea"), "fingerprint"),
        (lambda t: t.replace("ro.build.fingerprint", "ro.build.other"), "fingerprint"),
        (lambda t: t + "[ro.export_mobile.simulated]: [1]\n", "simulated"),
        (lambda t: t.partition("@@getprop")[0], "getprop"),
        (lambda t: t.replace("/system/build.prop", ""), "build.prop"),
        (lambda t: t.replace("/system/bin/linker64", ""), "linker64"),
        (lambda t: t.replace("aarch64\n@@kernel", "x86_64\n@@kernel"), "x86_64"),
        (lambda t: t.replace("CPU implementer", "vendor_id"), "cores"),
        (lambda t: t.replace("/cpufreq/", "/denied/"), "clocks"),
    ],
)
def test_every_sign_of_another_device_is_a_doubt(change: Callable[[str], str], doubt: str) -> None:
    """One sign is enough for a doubt."""
    text = change(IDENTITY)
    assert text != IDENTITY
    assert any(doubt in sentence for sentence in who(text).doubts)


def test_an_emulators_serial_is_a_doubt() -> None:
    """The serials of emulators have a prefix."""
    assert any("emulator" in sentence for sentence in who(serial="emulator-5554").doubts)


def test_the_state_of_a_cool_idle_phone() -> None:
    """The state has every figure of the fixture in the record's units."""
    state = identity.identity_state_from_text(parse.parse_sections(STATE), who())
    assert (state.battery_percent, state.battery_celsius, state.plugged) == (72, 29.8, "usb")
    assert (state.thermal_status, state.thermal_overridden, state.power_saver) == (0, False, False)
    assert state.load1 == 2.31
    assert state.free_bytes == 63892336 * 1024
    assert state.available_memory_bytes == 3914468 * 1024
    assert state.scaling_max_khz == (1804800, 2419200, 2841600)
    assert state.governors == ("schedutil",) * 3
    assert parse.parse_hottest_cpu(state.celsius) == 37.5


def test_a_silent_phone_has_no_state() -> None:
    """Unknown values stay unknown."""
    state = identity.identity_state_from_text({}, who())
    assert (state.battery_percent, state.thermal_status, state.power_saver, state.load1) == (None,) * 4
    assert (state.plugged, state.scaling_max_khz, dict(state.celsius)) == ("unknown", (), {})


def test_the_runner_watches_clocks_and_cpu_zones_only() -> None:
    """Zones are recognised by name; misleading and other zones are not watched."""
    paths = identity.identity_watch_paths(who())
    assert len(paths) == 3 * 4 + 14
    assert "/sys/devices/system/cpu/cpufreq/policy7/stats/time_in_state" in paths
    assert "/sys/class/thermal/thermal_zone1/temp" in paths
    assert "/sys/class/thermal/thermal_zone0/temp" not in paths


def test_this_machine_is_not_identified_as_a_phone() -> None:
    """The scripts run on this machine as well."""
    host = HostDevice()
    phone = identity.read_identity(host)
    assert "This machine is not a phone." in phone.doubts
    state = identity.read_identity_state(host, phone)
    assert state.load1 is not None
    assert state.free_bytes


@given(st.integers(0, len(IDENTITY)), st.integers(0, 300), st.text(max_size=8))
def test_no_garbage_raises(start: int, length: int, text: str) -> None:
    """A device that prints garbage gets an identity nevertheless."""
    broken = IDENTITY[:start] + text + IDENTITY[start + length :]
    identity.identity_state_from_text(parse.parse_sections(broken + STATE), who(broken))
