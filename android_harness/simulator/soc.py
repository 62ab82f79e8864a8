"""The files that make a Debian root look like a Snapdragon 865 on Android 13."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Arch = Literal["x86_64", "aarch64"]
Soc = Literal["snapdragon865"]
ARCHS: tuple[Arch, ...] = get_args(Arch)
SOCS: tuple[Soc, ...] = get_args(Soc)

KERNEL = "4.19.113-perf-simulated"
ABI: Mapping[Arch, str] = {"x86_64": "x86_64", "aarch64": "arm64-v8a"}
FEATURES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
)


@dataclass(frozen=True)
class SocPolicy:
    """A cpufreq policy: cores that share a clock."""

    name: str
    cores: tuple[int, ...]
    khz: tuple[int, ...]
    """Ascending. The first and last are from the mainline device tree; the rest allow throttling."""


POLICIES = (
    SocPolicy("policy0", (0, 1, 2, 3), (300000, 691200, 1075200, 1516800, 1804800)),
    SocPolicy("policy4", (4, 5, 6), (710400, 1056000, 1478400, 1862400, 2419200)),
    SocPolicy("policy7", (7,), (844800, 1305600, 1862400, 2419200, 2841600)),
)
CPUFREQ = "sys/devices/system/cpu/cpufreq"
THERMAL = "sys/class/thermal"

# (name, its `temp` when idle): mostly thousandths of a degree, and misleading values of real phones.
ZONES: tuple[tuple[str, int], ...] = (
    ("aoss0-usr", 33900),
    *((f"cpu-0-{core}-usr", 34200 + 100 * core) for core in range(4)),
    *((f"cpu-1-{core}-usr", 34600 + 100 * core) for core in range(8)),
    ("cpuss-0-usr", 34800),
    ("cpuss-1-usr", 34900),
    ("gpuss-0-usr", 33500),
    ("gpuss-1-usr", 33600),
    ("ddr-usr", 34100),
    ("npu-usr", 33700),
    ("skin-therm-usr", 31200),
    ("xo-therm-usr", 31900),
    ("cpu-0-0-step", 34200),
    ("gpuss-max-step", 33600),
    ("soc", 84),  # battery percent
    ("pm8150b-vbat-lvl0", 4211),
    ("pm8150b-ibat-lvl0", 215),
    ("modem-mmw0-usr", -40000),  # placeholders of sensors that are switched off
    ("modem-skin-usr", -40000),
)

PROPERTIES = {
    "ro.export_mobile.simulated": "1",
    "ro.board.platform": "kona",
    "ro.soc.model": "SM8250",
    "ro.soc.manufacturer": "QTI",
    "ro.hardware": "qcom",
    "ro.product.manufacturer": "export-mobile",
    "ro.product.brand": "export-mobile",
    "ro.product.model": "Simulated SM8250",
    "ro.product.device": "simulated_kona",
    "ro.product.name": "simulated_kona",
    "ro.build.fingerprint": "export-mobile/simulated_kona/simulated_kona:13/SIM1/1:userdebug/test-keys",
    "ro.build.version.release": "13",
    "ro.build.version.sdk": "33",
    "ro.build.version.incremental": "1",
    "ro.build.type": "userdebug",
    "ro.build.tags": "test-keys",
    "ro.debuggable": "1",
    "sys.boot_completed": "1",
}
BATTERY = {"level": "84", "temperature": "271", "status": "2", "plugged": "usb"}
SETTINGS = {
    "global/low_power": "0",
    "global/airplane_mode_on": "0",
    "global/stay_on_while_plugged_in": "0",
    "system/screen_brightness": "102",
}


def soc_files(arch: Arch) -> dict[str, str]:
    """Return the files of a device: path below its root -> text."""
    return {
        **_soc_identity_files(arch),
        **_soc_cpu_files(),
        **_soc_thermal_files(),
        **{f"sim/battery/{name}": f"{text}\n" for name, text in BATTERY.items()},
        **{f"sim/settings/{name}": f"{text}\n" for name, text in SETTINGS.items()},
        "sim/settings/secure/android_id": "5149534d38323530\n",
        "sim/proc/loadavg": "0.42 0.38 0.31 1/1103 20417\n",
        "sim/proc/meminfo": "MemTotal:        7800000 kB\nMemFree:         1650000 kB\n"
        "MemAvailable:    4300000 kB\nBuffers:            8000 kB\nCached:          2600000 kB\n"
        "SwapTotal:       2097148 kB\nSwapFree:        2097148 kB\n",
    }


def _soc_identity_files(arch: Arch) -> dict[str, str]:
    properties = PROPERTIES | {"ro.product.cpu.abi": ABI[arch], "ro.product.cpu.abilist": ABI[arch]}
    return {
        "sim/SIMULATED": "This is not a phone. Nothing measured here is a measurement.\n",
        "sim/properties": "".join(f"{name}={value}\n" for name, value in properties.items()),
        "sim/machine": f"{arch}\n",
        "sim/kernel": f"{KERNEL}\n",
        "sim/proc/cpuinfo": soc_cpuinfo(),
        "etc/passwd": "root:x:0:0:root:/:/bin/sh\nshell:x:2000:2000:shell:/:/bin/sh\n",
        "etc/group": "root:x:0:\ntty:x:5:\nshell:x:2000:\n",
    }


def soc_cpuinfo() -> str:
    """Return /proc/cpuinfo as the 4.19 kernel of a Snapdragon 865 writes it."""
    cores = [("0x51", "0xd", "0x805", "14")] * 4 + [("0x41", "0x1", "0xd0d", "0")] * 4
    blocks = [
        f"processor\t: {index}\nBogoMIPS\t: 38.40\nFeatures\t: {FEATURES}\nCPU implementer\t: {implementer}\n"
        f"CPU architecture: 8\nCPU variant\t: {variant}\nCPU part\t: {part}\nCPU revision\t: {revision}\n\n"
        for index, (implementer, variant, part, revision) in enumerate(cores)
    ]
    head = "Processor\t: AArch64 Processor rev 14 (aarch64)\n"
    return head + "".join(blocks) + "Hardware\t: Qualcomm Technologies, Inc SM8250\n"


def _soc_cpu_files() -> dict[str, str]:
    files = {f"sys/devices/system/cpu/{name}": "0-7\n" for name in ("online", "present", "possible")}
    for policy in POLICIES:
        files |= {f"{CPUFREQ}/{policy.name}/{name}": text for name, text in _soc_policy_files(policy).items()}
    gpu = {"gpu_model": "Adreno650v2", "gpuclk": "305000000", "max_gpuclk": "587000000"}
    gpu |= {"gpu_busy_percentage": "0 %", "temp": "33500", "devfreq/governor": "msm-adreno-tz"}
    files |= {f"sys/class/kgsl/kgsl-3d0/{name}": f"{text}\n" for name, text in gpu.items()}
    return files


def _soc_policy_files(policy: SocPolicy) -> dict[str, str]:
    lowest, highest = policy.khz[0], policy.khz[-1]
    return {
        "related_cpus": " ".join(map(str, policy.cores)) + "\n",
        "affected_cpus": " ".join(map(str, policy.cores)) + "\n",
        "scaling_governor": "schedutil\n",
        "scaling_available_governors": "conservative powersave performance schedutil\n",
        "scaling_available_frequencies": " ".join(map(str, policy.khz)) + " \n",
        "scaling_cur_freq": f"{lowest}\n",
        "scaling_min_freq": f"{lowest}\n",
        "scaling_max_freq": f"{highest}\n",
        "cpuinfo_min_freq": f"{lowest}\n",
        "cpuinfo_max_freq": f"{highest}\n",
        "stats/time_in_state": soc_time_in_state(dict.fromkeys(policy.khz, 1000)),
    }


def soc_time_in_state(ticks: Mapping[int, int]) -> str:
    """Format `soc_time_in_state`: frequency in kHz -> time at that frequency in units of 10 ms."""
    return "".join(f"{khz} {count}\n" for khz, count in ticks.items())


def _soc_thermal_files() -> dict[str, str]:
    files = {"sim/thermal/status": "0\n", "sim/thermal/override": "false\n"}
    # A real thermal service may show its cached values unchanged for a whole run.
    files["sim/thermal/cached"] = "\tTemperature{mValue=27.3, mType=3, mName=skin-therm-usr, mStatus=0}\n"
    for number, (name, temperature) in enumerate(ZONES):
        files[f"{THERMAL}/thermal_zone{number}/type"] = f"{name}\n"
        files[f"{THERMAL}/thermal_zone{number}/temp"] = f"{temperature}\n"
    return files
