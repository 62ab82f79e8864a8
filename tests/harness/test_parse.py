from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_harness import parse
from android_harness.records import Cluster, DeviceEntry

FIXTURES = Path(__file__).parent / "fixtures"


def fixture(name: str) -> str:
    return (FIXTURES / name).read_bytes().decode()


def test_serials_with_spaces_and_every_state_survive_the_listing() -> None:
    """Messages of the daemon are not devices, and "no permissions (…)" is one state."""
    entries = parse.parse_devices(fixture("adb_devices.txt"))
    assert entries[:3] == (
        DeviceEntry("0a1b2c3d", "device"),
        DeviceEntry("My Phone 7", "unauthorized"),
        DeviceEntry("192.168.1.7:5555", "offline"),
    )
    assert entries[3].state.startswith("no permissions")
    assert len(entries) == 4


def test_sections_end_where_the_next_begins() -> None:
    """Only a marker at the start of a line counts, and only the first one of each name."""
    assert parse.parse_sections("noise\n@@a\n1 @@b\n@@b\n2\n@@a\nforged") == {"a": "1 @@b\n", "b": "2\n"}


def test_grep_output_is_split_at_the_first_colon() -> None:
    """The lines of cpuinfo contain colons themselves."""
    assert parse.parse_files("/p/a:x : 1\n/p/a:y : 2\ngrep: nothing\n/p/b:3") == {
        "/p/a": "x : 1\ny : 2",
        "/p/b": "3",
    }


def test_properties_keep_brackets_in_their_values() -> None:
    """A value ends at the last bracket of its line."""
    assert parse.parse_getprop("[a.b]: [x [y]]\r\n[c]: []\nnoise\n[d]: [two") == {"a.b": "x [y]", "c": ""}


def test_qualcomms_own_core_numbers_are_read() -> None:
    """An 865's little cores are 0x51/0x805, its big cores 0x41/0xd0d."""
    cpuinfo = parse.parse_files(fixture("identity_sm8250.txt"))["/proc/cpuinfo"]
    assert parse.parse_cpu_parts(cpuinfo) == (("0x51", "0x805"),) * 4 + (("0x41", "0xd0d"),) * 4
    assert parse.parse_hardware(cpuinfo) == "Qualcomm Technologies, Inc SM8250"


def test_clusters_come_from_policies_slowest_first() -> None:
    """Cores that share a clock are one cluster."""
    policy = "/sys/devices/system/cpu/cpufreq/policy"
    assert parse.parse_clusters(parse.parse_files(fixture("identity_sm8250.txt"))) == (
        Cluster((0, 1, 2, 3), 1804800, f"{policy}0"),
        Cluster((4, 5, 6), 2419200, f"{policy}4"),
        Cluster((7,), 2841600, f"{policy}7"),
    )


def test_clusters_fall_back_to_each_cores_folder() -> None:
    """Kernels without policy folders still have cpu*/cpufreq."""
    contents = {
        path: text
        for path, text in parse.parse_files(fixture("identity_sm8250.txt")).items()
        if "/cpufreq/policy" not in path
    }
    assert [(c.cores, c.max_khz) for c in parse.parse_clusters(contents)] == [
        ((0, 1, 2, 3), 1804800),
        ((4, 5, 6), 2419200),
        ((7,), 2841600),
    ]


def test_zones_without_a_temperature_are_left_out() -> None:
    """Zone "soc" is the battery's percentage, others are trip points, -40000 and 0 are placeholders."""
    celsius = parse.parse_zone_celsius(parse.parse_files(fixture("state_sm8250.txt")))
    assert celsius["cpu-1-7-usr"] == 37.5
    left_out = {"soc", "cpu-1-0-step", "cpu-0-0-lowf", "pm8150b-ibat-lvl0", "conn-therm-usr", "usb-therm"}
    assert not left_out & set(celsius)
    assert parse.parse_hottest_cpu(celsius) == 37.5


@pytest.mark.parametrize(
    "name", ["cpu-1-3-usr", "cpuss-0-usr", "cpu-0-0", "cpu4-top-thermal", "CPU7", "cpu_0", "AP"]
)
def test_cpu_zones_are_known_by_name(name: str) -> None:
    """Each vendor's kernel and HAL has its own names."""
    assert parse.parse_hottest_cpu({name: 40.0, "aoss0-usr": 80.0, "gpuss-0-usr": 90.0}) == 40.0


def test_stale_cached_temperatures_are_not_read() -> None:
    """The cache has 88.8 while the HAL has 36.4."""
    dump = fixture("thermalservice_stale.txt")
    assert parse.parse_hal_celsius(dump) == {"CPU0": 36.4, "CPU7": 37.1, "skin": 31.5}
    assert parse.parse_thermal_status(dump) == 0
    assert parse.parse_status_overridden(dump) is False


def test_an_overridden_status_is_recognised_despite_crlf() -> None:
    """The status is not confused with the override line."""
    dump = fixture("thermalservice_overridden_crlf.txt")
    assert parse.parse_status_overridden(dump) is True
    assert parse.parse_thermal_status(dump) == 3
    assert parse.parse_thermal_status("Last Thermal Status: 3\nThermal Status: 0\n") == 0
    assert parse.parse_hal_celsius(dump)["CPU0"] == 36.4


def test_battery_temperature_is_in_tenths() -> None:
    """298 means 29.8 °C, and the level is relative to its scale."""
    dump = parse.parse_sections(fixture("state_sm8250.txt"))["battery"]
    assert (
        parse.parse_battery_percent(dump),
        parse.parse_battery_celsius(dump),
        parse.parse_plugged(dump),
    ) == (
        72,
        29.8,
        "usb",
    )
    assert parse.parse_battery_percent("  level: 100\n  scale: 200\n") == 50
    assert parse.parse_plugged("  AC powered: false\n  USB powered: false\n") == "none"
    assert parse.parse_plugged("") == "unknown"


@pytest.mark.parametrize(
    ("df", "free"),
    [
        ("Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/dm-1 100 40 60 40% /data\n", 60 * 1024),
        (
            "Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/a-long-name\n   100 40 60 40% /d\n",
            60 * 1024,
        ),
        ("/dev/dm-1 100 140 -40 100% /data\r\n", 0),
        ("df: /data: No such file or directory\n", None),
    ],
)
def test_free_space_is_read_off_df(df: str, free: int | None) -> None:
    """Free space is read even if a long device name wraps, or a quota makes it negative."""
    assert parse.parse_free_bytes(df) == free


def test_small_files() -> None:
    """loadavg, meminfo, settings and time_in_state are parsed, with CRLF from some shells."""
    assert parse.parse_load1("2.31 2.78 3.02 1/4711 20917\r\n") == 2.31
    assert parse.parse_available_memory("MemFree: 1 kB\r\nMemAvailable:    3914468 kB\r\n") == 3914468 * 1024
    assert parse.parse_setting("null\n") is None
    assert parse.parse_setting("7\r\n") == "7"
    assert parse.parse_time_in_state("300000 12\r\n2841600 345\n") == {300000: 12, 2841600: 345}
    assert parse.parse_cores("0-2,5 7") == (0, 1, 2, 5, 7)
    assert parse.parse_text(b"a\r\n\xff") == "a\n\N{REPLACEMENT CHARACTER}"


PARSERS: tuple[Callable[[str], Any], ...] = (
    parse.parse_devices,
    parse.parse_sections,
    parse.parse_files,
    parse.parse_getprop,
    parse.parse_cpu_parts,
    parse.parse_hardware,
    parse.parse_integer,
    parse.parse_cores,
    parse.parse_thermal_status,
    parse.parse_status_overridden,
    parse.parse_hal_celsius,
    parse.parse_battery_percent,
    parse.parse_battery_celsius,
    parse.parse_plugged,
    parse.parse_available_memory,
    parse.parse_free_bytes,
    parse.parse_load1,
    parse.parse_setting,
    parse.parse_time_in_state,
    lambda text: parse.parse_clusters(parse.parse_files(text)),
    lambda text: parse.parse_zone_celsius(parse.parse_files(text)),
)
REAL = "\n".join(fixture(path.name) for path in sorted(FIXTURES.glob("*.txt")))


@given(
    st.one_of(
        st.text(),
        st.tuples(st.integers(0, len(REAL)), st.integers(0, 400), st.text(max_size=5)).map(
            lambda cut: REAL[: cut[0]] + cut[2] + REAL[cut[0] + cut[1] :]
        ),
        st.sampled_from(("level: ²", "0-٣", "[a]: [b", "Thermal Status: 9999999", "AC powered: maybe")),
    )
)
def test_no_parser_raises_on_garbage(text: str) -> None:
    """Every parser returns a value or None, whatever a device prints."""
    for parser in PARSERS:
        parser(text)
