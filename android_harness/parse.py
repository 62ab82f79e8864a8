"""Parse what devices print. The functions are pure and accept any text; a missing value is None."""

from __future__ import annotations

import re
from collections.abc import Mapping

from android_harness.records import Cluster, DeviceEntry

CPU_ZONE = re.compile(r"(?i)^(cpu(ss)?[-_]?\d|cpu$|ap$)")
"""Matches cpu-1-3-usr, cpuss-0-usr, cpu-0-0, cpu4-top-thermal, and CPU0 and AP of thermal HALs."""
TRAP_ZONE = re.compile(r"(?i)(-step$|-lowf$|-lvl\d*$|^soc$)")
"""Matches trip-point zones, which report no temperature, and "soc", the battery's percentage."""
PLAUSIBLE_CELSIUS = (1.0, 150.0)
PLUGS = (("AC", "ac"), ("USB", "usb"), ("Wireless", "wireless"), ("Dock", "ac"))
CPU = "/sys/devices/system/cpu"


def parse_text(raw: bytes) -> str:
    """Decode a device's output; the CRLF of old shells becomes LF."""
    return raw.decode(errors="replace").replace("\r\n", "\n")


def parse_devices(listing: str) -> tuple[DeviceEntry, ...]:
    """Parse the output of `host:devices` or `adb devices`: tabs separate fields, serials may hold spaces."""
    rows = (line.rpartition("\t") for line in listing.splitlines())
    return tuple(
        DeviceEntry(serial, state.strip()) for serial, tab, state in rows if tab and serial and state.strip()
    )


def parse_sections(output: str) -> dict[str, str]:
    """Split a script's output at lines "@@name"; the first section of each name counts."""
    bodies: dict[str, str] = {}
    for part in re.split(r"^@@", output.replace("\r\n", "\n"), flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        bodies.setdefault(name.strip(), body)
    return bodies


def parse_files(output: str) -> dict[str, str]:
    """Parse the output of `grep -H . FILE…`: path -> text without empty lines."""
    texts: dict[str, list[str]] = {}
    for line in output.splitlines():
        path, colon, rest = line.partition(":")
        if colon and path.startswith("/"):
            texts.setdefault(path, []).append(rest)
    return {path: "\n".join(lines) for path, lines in texts.items()}


def parse_getprop(output: str) -> dict[str, str]:
    """Parse the output of `parse_getprop`; properties with several lines are left out."""
    rows = (re.match(r"\[([^\]]+)\]: \[(.*)\]\s*$", line) for line in output.splitlines())
    return {row[1]: row[2].strip() for row in rows if row}


def parse_cpu_parts(cpuinfo: str) -> tuple[tuple[str, str], ...]:
    """Return (implementer, part) of each core in /proc/cpuinfo, in lower case: ("0x51", "0x805")."""
    implementers = re.findall(r"^CPU implementer[ \t]*:[ \t]*(0x[0-9a-fA-F]+)", cpuinfo, re.MULTILINE)
    parts = re.findall(r"^CPU part[ \t]*:[ \t]*(0x[0-9a-fA-F]+)", cpuinfo, re.MULTILINE)
    if len(implementers) != len(parts):
        return ()
    return tuple((i.lower(), p.lower()) for i, p in zip(implementers, parts, strict=True))


def parse_hardware(cpuinfo: str) -> str:
    """Return the "Hardware" line of /proc/cpuinfo ("Qualcomm Technologies, Inc SM8250"), or an empty text."""
    match = re.search(r"^Hardware[ \t]*:[ \t]*(\S.*)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else ""


def parse_integer(content: str | None) -> int | None:
    """Return the number that is a text's only content, as in a sysfs file."""
    stripped = (content or "").strip()
    return int(stripped) if re.fullmatch(r"-?[0-9]{1,18}", stripped) else None


def parse_cores(content: str) -> tuple[int, ...]:
    """Parse related_cpus: "4 5 6", "4-6" or "4,5-6"; return nothing for any other text."""
    numbers: set[int] = set()
    for word in re.split(r"[\s,]+", content.strip()):
        span = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", word)
        if not span:
            return ()
        numbers.update(range(int(span[1]), int(span[2] or span[1]) + 1))
    return tuple(sorted(numbers))


def parse_clusters(contents: Mapping[str, str]) -> tuple[Cluster, ...]:
    """Return the clusters, slowest first, from sysfs texts by path: by policy, or else by core."""
    policies = _parse_clusters(contents, rf"({CPU}/cpufreq/policy\d+)/related_cpus")
    return policies or _parse_clusters(contents, rf"({CPU}/cpu\d+/cpufreq)/related_cpus")


def _parse_clusters(contents: Mapping[str, str], pattern: str) -> tuple[Cluster, ...]:
    clusters_by_cores: dict[tuple[int, ...], Cluster] = {}
    for path, content in contents.items():
        folder = re.fullmatch(pattern, path)
        top = parse_integer(contents.get(f"{folder[1]}/cpuinfo_max_freq")) if folder else None
        members = parse_cores(content)
        if folder and members and top is not None and top > 0:
            clusters_by_cores.setdefault(members, Cluster(members, top, folder[1]))
    return tuple(sorted(clusters_by_cores.values(), key=lambda cluster: (cluster.max_khz, cluster.cores)))


def parse_thermal_zones(contents: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return (name, path of the temperature) of every thermal zone; numbers change, names do not."""
    zones = (
        (content.strip(), path.removesuffix("type") + "temp")
        for path, content in contents.items()
        if re.fullmatch(r"/sys/class/thermal/thermal_zone\d+/type", path)
    )
    return tuple(sorted((name, path) for name, path in zones if name and not TRAP_ZONE.search(name)))


def parse_zone_celsius(contents: Mapping[str, str]) -> dict[str, float]:
    """Return zone name -> temperature, from millidegrees in sysfs; placeholders are left out."""
    read = ((name, parse_integer(contents.get(path))) for name, path in parse_thermal_zones(contents))
    return {
        name: raw / 1000 for name, raw in read if raw is not None and is_parsed_celsius_plausible(raw / 1000)
    }


def is_parsed_celsius_plausible(celsius: float) -> bool:
    low, high = PLAUSIBLE_CELSIUS
    return low <= celsius <= high


def parse_hottest_cpu(celsius: Mapping[str, float]) -> float | None:
    """Return the highest temperature of the CPU zones."""
    return max((value for name, value in celsius.items() if CPU_ZONE.match(name)), default=None)


def parse_thermal_status(dump: str) -> int | None:
    """Return the status in `dumpsys thermalservice`, 0 (none) to 6 (shutdown), not "IsStatusOverride"."""
    match = re.search(r"^Thermal Status:[ \t]*(\d{1,3})[ \t\r]*$", dump, re.MULTILINE)
    return int(match[1]) if match else None


def parse_status_overridden(dump: str) -> bool | None:
    """Return whether `cmd thermalservice override-status` has been used."""
    match = re.search(r"^IsStatusOverride:[ \t]*(true|false)\b", dump, re.MULTILINE)
    return match[1] == "true" if match else None


def parse_hal_celsius(dump: str) -> dict[str, float]:
    """Return the HAL's current temperatures from `dumpsys thermalservice`; its cached ones may be old."""
    start = re.search(r"^Current temperatures from HAL:[ \t\r]*$", dump, re.MULTILINE)
    temperatures: dict[str, float] = {}
    for line in dump[start.end() :].splitlines()[1:] if start else ():
        if not re.match(r"\s+Temperature\{", line):
            break
        row = re.match(
            r"\s+Temperature\{mValue=(-?[0-9]{1,6}(?:\.[0-9]{1,9})?), mType=-?\d+, mName=([^,}]+),", line
        )
        if not row:  # a sensor without a value: mValue=NaN
            continue
        if is_parsed_celsius_plausible(float(row[1])) and not TRAP_ZONE.search(row[2]):
            temperatures[row[2]] = float(row[1])
    return temperatures


def parse_battery_percent(dump: str) -> int | None:
    """Return the battery's level from `dumpsys battery`, relative to its scale."""
    level, scale = _parse_field(dump, "level"), _parse_field(dump, "scale")
    if level is None or not 0 <= level <= (scale or 100):
        return None
    return round(100 * level / (scale or 100))


def parse_battery_celsius(dump: str) -> float | None:
    """Return the battery's temperature from `dumpsys battery`, which prints tenths of a degree."""
    tenths = _parse_field(dump, "temperature")
    return tenths / 10 if tenths is not None and is_parsed_celsius_plausible(tenths / 10) else None


def _parse_field(dump: str, name: str) -> int | None:
    match = re.search(rf"^[ \t]*{name}:[ \t]*(-?\d{{1,9}})[ \t\r]*$", dump, re.MULTILINE)
    return int(match[1]) if match else None


def parse_plugged(dump: str) -> str:
    """Return the charger from `dumpsys battery`: "ac", "usb", "wireless", "none" or "unknown"."""
    matches = {
        name: re.search(rf"^[ \t]*{name} powered:[ \t]*(true|false)\b", dump, re.MULTILINE)
        for name, _ in PLUGS
    }
    if not any(matches.values()):
        return "unknown"
    return next((kind for name, kind in PLUGS if (row := matches[name]) and row[1] == "true"), "none")


def parse_available_memory(meminfo: str) -> int | None:
    """Return MemAvailable of /proc/meminfo."""
    match = re.search(r"^MemAvailable:[ \t]*(\d{1,15}) kB", meminfo, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def parse_free_bytes(df: str) -> int | None:
    """Return the free space from `df -k FOLDER`; a long device name may push the figures to the next line."""
    match = re.search(r"\s(\d{1,15})\s+(\d{1,15})\s+(-?\d{1,15})\s+\d{1,3}%", df)
    return max(0, int(match[3])) * 1024 if match else None


def parse_load1(loadavg: str) -> float | None:
    """Return the first figure of /proc/loadavg."""
    match = re.match(r"\s*(\d{1,6}\.\d{1,6})\s", loadavg)
    return float(match[1]) if match else None


def parse_boot_completed(output: str) -> bool | None:
    """Return whether Android has finished its start, from `getprop sys.boot_completed`; None if unknown."""
    return {"1": True, "0": False, "": None}.get(output.strip())


def parse_awake(output: str) -> bool | None:
    """Return whether the screen is on, from `dumpsys power`; None if it does not say."""
    match = re.search(r"mWakefulness=(\w+)", output)
    return match[1] in {"Awake", "Dreaming"} if match else None


def parse_setting(output: str) -> str | None:
    """Return the output of `settings get`; None if the setting is not set ("null")."""
    value = output.strip()
    return None if value == "null" else value


def parse_time_in_state(content: str) -> dict[int, int]:
    """Parse stats/time_in_state: kHz -> ticks of 10 ms."""
    rows = re.findall(r"^[ \t]*(\d{1,9})[ \t]+(\d{1,18})[ \t\r]*$", content, re.MULTILINE)
    return {int(khz): int(ticks) for khz, ticks in rows}
