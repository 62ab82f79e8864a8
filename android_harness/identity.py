"""Identify a device by several sources that must agree, and read its current state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from android_harness import parse, socs
from android_harness.errors import DeviceError
from android_harness.records import Cluster, Device, Identity, State

SCRIPT_S = 10.0
CPUS = "/sys/devices/system/cpu"
ZONES = "/sys/class/thermal/thermal_zone*"
SCREEN = "dumpsys power 2>/dev/null | grep -m 1 mWakefulness="
# One script with few processes: each call over adb takes 10 to 50 ms, and so does each process on a phone.
IDENTITY_SCRIPT = f"""
echo @@machine; uname -m
echo @@kernel; uname -r
echo @@system; ls /system/build.prop /system/bin/linker64 2>/dev/null
echo @@files
grep -sH . /proc/cpuinfo {CPUS}/present {CPUS}/online {CPUS}/cpufreq/policy*/related_cpus \
{CPUS}/cpufreq/policy*/cpuinfo_max_freq \
{CPUS}/cpu[0-9]*/cpufreq/related_cpus {CPUS}/cpu[0-9]*/cpufreq/cpuinfo_max_freq {ZONES}/type
echo @@getprop; getprop 2>/dev/null
exit 0
"""
STATE_SCRIPT = f"""
echo @@files
grep -sH . /proc/meminfo /proc/loadavg {ZONES}/type {ZONES}/temp "$@"
echo @@space; df -k "$0" 2>/dev/null
echo @@battery; dumpsys battery 2>/dev/null
echo @@thermal; dumpsys thermalservice 2>/dev/null
echo @@saver; settings get global low_power 2>/dev/null
echo @@boot; getprop sys.boot_completed 2>/dev/null
echo @@screen; {SCREEN}
exit 0
"""

A510, A710, A715, A720 = ("0x41", "0xd46"), ("0x41", "0xd47"), ("0x41", "0xd4d"), ("0x41", "0xd81")


@dataclass(frozen=True)
class Soc:
    """How phones with one SoC describe themselves. The core ids are from /proc/cpuinfo (arm-socs-table)."""

    name: str
    platform: str
    parts: frozenset[tuple[str, str]]


SOCS = (
    # Its A55 has Qualcomm's own number instead of Arm's 0x41/0xd05.
    Soc("SM8250", "kona", frozenset({("0x51", "0x805"), ("0x41", "0xd0d")})),
    Soc("SM8350", "lahaina", frozenset({("0x41", "0xd05"), ("0x41", "0xd41"), ("0x41", "0xd44")})),
    Soc("SM8450", "taro", frozenset({A510, A710, ("0x41", "0xd48")})),
    Soc("SM8550", "kalama", frozenset({A510, A710, A715, ("0x41", "0xd4e")})),
    Soc("SM8650", "pineapple", frozenset({("0x41", "0xd80"), A720, ("0x41", "0xd82")})),
    Soc("SM8750", "sun", frozenset({("0x51", "0x001")})),
)
CHIPS_OF_SM8250 = (
    ("snapdragon865", 2_841_600, 2_841_600),
    ("snapdragon865+", 3_050_000, 3_150_000),
    ("snapdragon870", 3_187_200, 3_187_200),
)
"""(chip, lowest, highest kHz of the prime core), which is the only difference between these three."""

EMULATED_HARDWARE = ("goldfish", "ranchu", "cutf", "vsoc", "vbox", "qemu")
ARM_IMPLEMENTERS = ("0x41", "0x48", "0x51", "0x53")
"""Arm, HiSilicon, Qualcomm, Samsung: the implementers of phones' cores."""


def read_identity(device: Device) -> Identity:
    """Identify a device in one round trip.

    Raises:
        DeviceError: It does not answer, or its answer is no output of the script.
    """
    completed = device.run("sh", "-c", IDENTITY_SCRIPT, timeout_s=SCRIPT_S)
    sections = parse.parse_sections(completed.stdout)
    if "machine" not in sections:
        raise DeviceError(
            f"{device.serial} did not run a simple script (exit code {completed.exit_code}).",
            "Restart the device.",
        )
    return identity_from_text(device.serial, sections)


def identity_from_text(serial: str, sections: Mapping[str, str]) -> Identity:
    """Make an identity from the sections that `IDENTITY_SCRIPT` prints."""
    props = parse.parse_getprop(sections.get("getprop", ""))
    contents = parse.parse_files(sections.get("files", ""))
    cpuinfo = contents.get("/proc/cpuinfo", "")
    parts = parse.parse_cpu_parts(cpuinfo)
    clusters = parse.parse_clusters(contents)
    machine = sections.get("machine", "").strip()[:64]
    parked = _cores_parked_in_identity(contents)
    soc, chip, reasons = soc_identity(props, parse.parse_hardware(cpuinfo), parts, clusters, parked)
    return Identity(
        serial=serial,
        manufacturer=props.get("ro.product.manufacturer", ""),
        model=props.get("ro.product.model", ""),
        soc=soc,
        chip=chip,
        soc_reasons=reasons,
        android=props.get("ro.build.version.release", ""),
        sdk=parse.parse_integer(props.get("ro.build.version.sdk")),
        fingerprint=props.get("ro.build.fingerprint", ""),
        abi=props.get("ro.product.cpu.abi", ""),
        machine=machine,
        kernel=sections.get("kernel", "").strip()[:200],
        parts=parts,
        clusters=clusters,
        doubts=find_identity_doubts(serial, props, machine, parts, clusters, sections.get("system", "")),
        parked=parked,
        thermal_zones=parse.parse_thermal_zones(contents),
    )


def _cores_parked_in_identity(contents: Mapping[str, str]) -> tuple[int, ...]:
    """Return the cores that are switched off at the moment."""
    present, online = (
        parse.parse_cores(contents.get(f"{CPUS}/{name}", "")) for name in ("present", "online")
    )
    return tuple(core for core in present if online and core not in online)


def soc_identity(
    props: Mapping[str, str],
    hardware: str,
    parts: tuple[tuple[str, str], ...],
    clusters: tuple[Cluster, ...],
    parked: tuple[int, ...] = (),
) -> tuple[str, str, tuple[str, ...]]:
    """Return (SoC, chip, reasons); the SoC is empty unless a source names it and no source objects."""
    model = props.get("ro.soc.model", "")
    platform = props.get("ro.board.platform", "")
    family = _soc_family_of_identity(platform)
    named = {
        f"ro.soc.model is {model!r}": socs.soc_named(model),
        f"cpuinfo's Hardware is {hardware!r}": socs.soc_named(hardware),
    }
    names = {name for name in named.values() if name}
    named[f"ro.board.platform is {platform!r}"] = " or ".join(family)
    reasons = [f"{source}: {name or 'unknown'}" for source, name in named.items()]
    if not names and (len(family) == 1 or (family and _has_identity_known_parts(family[0]))):
        names = {family[0]}  # its cores are looked at below; siblings without known cores stay open
    contradict = len(names) > 1 or bool(family and not names & set(family))
    soc = "" if contradict or not names else names.pop()
    chip = _identity_chip(clusters) if soc == "SM8250" else socs.soc_title(soc)
    objections = [*_identity_against_parts(soc, parts), *_identity_against_clock(soc, chip, clusters, parked)]
    if contradict:
        objections.append("the names contradict each other")
    if parked:
        reasons.append(f"cores {', '.join(map(str, parked))} are parked: their clocks and ids are unreadable")
    reasons += [*_identity_clock_reason(clusters), *objections]
    return ("", "", tuple(reasons)) if objections else (soc, chip, tuple(reasons))


def _soc_family_of_identity(platform: str) -> tuple[str, ...]:
    """Return the SoCs that report a platform, the most likely first."""
    if platform in socs.SIBLINGS:
        return socs.SIBLINGS[platform].socs
    name = next((s.name for s in SOCS if s.platform == platform), "") or socs.soc_named(platform)
    return (name,) if name else ()


def _has_identity_known_parts(soc: str) -> bool:
    return any(known.name == soc for known in SOCS)


def _identity_against_parts(soc: str, parts: tuple[tuple[str, str], ...]) -> list[str]:
    expected = next((known.parts for known in SOCS if known.name == soc), None)
    if expected is None or not parts or set(parts) <= expected:  # parked cores are not listed
        return []
    seen = ", ".join(sorted("/".join(part) for part in set(parts)))
    return [f"the cores ({seen}) are not those of an {soc}"]


def _identity_against_clock(
    soc: str, chip: str, clusters: tuple[Cluster, ...], parked: tuple[int, ...]
) -> list[str]:
    if soc != "SM8250" or chip or not clusters or parked:
        return []
    return [f"no {soc} has a prime core of {clusters[-1].max_khz} kHz"]


def _identity_clock_reason(clusters: tuple[Cluster, ...]) -> list[str]:
    return [
        f"the prime core's maximum is {clusters[-1].max_khz} kHz" if clusters else "clocks are unreadable"
    ]


def _identity_chip(clusters: tuple[Cluster, ...]) -> str:
    top = clusters[-1].max_khz if clusters else 0
    return next((chip for chip, low, high in CHIPS_OF_SM8250 if low <= top <= high), "")


def find_identity_doubts(
    serial: str,
    props: Mapping[str, str],
    machine: str,
    parts: tuple[tuple[str, str], ...],
    clusters: tuple[Cluster, ...],
    system: str,
) -> tuple[str, ...]:
    """Return every reason to doubt that this is a real Android phone, a sentence each."""
    files = system.split()
    fingerprint = props.get("ro.build.fingerprint", "")
    checks = (
        (serial == "host", "This machine is not a phone."),
        (serial.startswith("emulator-"), f"adb calls it {serial}, an emulator."),
        (bool(props.get("ro.export_mobile.simulated")), "It reports that it is a simulated device."),
        (not props, "getprop does not answer."),
        (_is_identity_emulated(props), "Its properties are those of an emulator."),
        (
            bool(props) and not _is_identity_fingerprint_real(fingerprint),
            f"Its fingerprint is {fingerprint[:100]!r}.",
        ),
        ("/system/build.prop" not in files, "There is no /system/build.prop."),
        (
            "/system/bin/linker64" not in files,
            "There is no /system/bin/linker64, which runs Android's programs.",
        ),
        (machine != "aarch64", f"uname says {machine!r}, not 'aarch64'."),
        (
            not any(i in ARM_IMPLEMENTERS for i, _ in parts),
            "/proc/cpuinfo lists no cores of a phone.",
        ),
        (not clusters, "It reports no CPU clocks."),
    )
    return tuple(sentence for doubtful, sentence in checks if doubtful)


def _is_identity_emulated(props: Mapping[str, str]) -> bool:
    hardware = " ".join(props.get(key, "") for key in ("ro.hardware", "ro.boot.hardware", "ro.product.board"))
    return (
        any(props.get(key, "0") not in ("", "0") for key in ("ro.boot.qemu", "ro.kernel.qemu"))
        or any(word in hardware.lower() for word in EMULATED_HARDWARE)
        or "emulator" in props.get("ro.build.characteristics", "")
        or re.search(r"(?i)sdk_gphone|android sdk built|google_sdk", props.get("ro.product.model", ""))
        is not None
    )


def _is_identity_fingerprint_real(fingerprint: str) -> bool:
    """Whether it has the form brand/product/device:version/id/incremental:type/tags and is not generic."""
    shape = re.fullmatch(r"[^/:]+/[^/:]+/[^/:]+:[^/:]+/[^/:]+/[^/:]+:[^/:]+/[^/:]+", fingerprint)
    return bool(shape) and not re.match(r"(?i)generic|unknown|.*(vbox|/sdk_|emulator)", fingerprint)


def read_identity_state(device: Device, identity: Identity) -> State:
    """Read the state of a device in one round trip.

    Raises:
        DeviceError: It does not answer.
    """
    clocks = [
        f"{c.policy}/{name}" for c in identity.clusters for name in ("scaling_max_freq", "scaling_governor")
    ]
    completed = device.run("sh", "-c", STATE_SCRIPT, device.root, *clocks, timeout_s=SCRIPT_S)
    return identity_state_from_text(parse.parse_sections(completed.stdout), identity)


def identity_state_from_text(sections: Mapping[str, str], identity: Identity) -> State:
    """Make a state from the sections that `STATE_SCRIPT` prints."""
    contents = parse.parse_files(sections.get("files", ""))
    battery, thermal = sections.get("battery", ""), sections.get("thermal", "")
    tops = [parse.parse_integer(contents.get(f"{c.policy}/scaling_max_freq")) for c in identity.clusters]
    governors = [contents.get(f"{c.policy}/scaling_governor", "").strip() for c in identity.clusters]
    return State(
        battery_percent=parse.parse_battery_percent(battery),
        battery_celsius=parse.parse_battery_celsius(battery),
        plugged=parse.parse_plugged(battery),
        thermal_status=parse.parse_thermal_status(thermal),
        thermal_overridden=parse.parse_status_overridden(thermal),
        celsius={**parse.parse_hal_celsius(thermal), **parse.parse_zone_celsius(contents)},
        power_saver={"0": False, "1": True, "null": False}.get(sections.get("saver", "").strip()),
        load1=parse.parse_load1(contents.get("/proc/loadavg", "")),
        boot_completed=parse.parse_boot_completed(sections.get("boot", "")),
        awake=parse.parse_awake(sections.get("screen", "")),
        free_bytes=parse.parse_free_bytes(sections.get("space", "")),
        available_memory_bytes=parse.parse_available_memory(contents.get("/proc/meminfo", "")),
        scaling_max_khz=tuple(top for top in tops if top is not None) if None not in tops else (),
        governors=tuple(governors) if all(governors) else (),
    )


def identity_watch_paths(identity: Identity) -> tuple[str, ...]:
    """Return the files that the runner reads between chunks: each cluster's clocks, and CPU temperatures."""
    names = ("scaling_cur_freq", "scaling_min_freq", "scaling_max_freq", "stats/time_in_state")
    clocks = tuple(f"{cluster.policy}/{name}" for cluster in identity.clusters for name in names)
    return clocks + tuple(path for name, path in identity.thermal_zones if parse.CPU_ZONE.match(name))
