"""The processor that QEMU emulates for a target, and the files by which runtimes recognise it."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.config.targets import Target

ARMV82_CORE = "cortex-a76"
"""It has float16 and dot products as the Cortex-A77 does, and no i8mm."""
ARMV86_CORE = "max,sve=off,sme=off"
"""It has i8mm and bf16. QEMU 7 names no such core; it emulates SME wrongly, and phones do not show SVE."""
OLDEST_CORE = "cortex-a53"
IMPLEMENTER_ARM, IMPLEMENTER_QUALCOMM = 0x41, 0x51
PARTS: Mapping[str, tuple[int, int]] = {
    "Cortex-A55": (IMPLEMENTER_ARM, 0xD05),
    "Cortex-A77": (IMPLEMENTER_ARM, 0xD0D),
    "Cortex-A78": (IMPLEMENTER_ARM, 0xD41),
    "Cortex-A510": (IMPLEMENTER_ARM, 0xD46),
    "Cortex-A520": (IMPLEMENTER_ARM, 0xD80),
    "Cortex-A710": (IMPLEMENTER_ARM, 0xD47),
    "Cortex-A715": (IMPLEMENTER_ARM, 0xD4D),
    "Cortex-A720": (IMPLEMENTER_ARM, 0xD81),
    "Cortex-X1": (IMPLEMENTER_ARM, 0xD44),
    "Cortex-X2": (IMPLEMENTER_ARM, 0xD48),
    "Cortex-X3": (IMPLEMENTER_ARM, 0xD4E),
    "Cortex-X4": (IMPLEMENTER_ARM, 0xD82),
    "Oryon": (IMPLEMENTER_QUALCOMM, 0x001),
}
"""Core -> implementer and part, as in Linux' arch/arm64/include/asm/cputype.h."""
UNKNOWN_PART = (IMPLEMENTER_ARM, 0xD03)
"""The part of a Cortex-A53, for cores that `PARTS` does not list."""
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
ARMV82_FEATURES = f"{FEATURES} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
ARMV86_FEATURES = f"{ARMV82_FEATURES} i8mm bf16"


def emulated_core(target: Target) -> str:
    """Return the value of QEMU's -cpu for a target."""
    if "i8mm" in target.instruction_sets:
        return ARMV86_CORE
    return ARMV82_CORE if "dotprod" in target.instruction_sets else OLDEST_CORE


def emulated_core_name(target: Target) -> str:
    """Return the emulated core's name for people."""
    return emulated_core(target).partition(",")[0]


def emulated_core_files(target: Target) -> Mapping[str, str]:
    """Return the files of /proc and /sys by which runtimes count and recognise cores: path -> text."""
    clusters = [(c.core, c.max_mhz or 2000) for c in reversed(target.clusters) for _ in range(c.count)]
    cores = clusters or [("", 2000)] * 4
    last = len(cores) - 1
    texts = {
        "proc/cpuinfo": "\n".join(
            _emulated_core_cpuinfo(i, core_name, target) for i, (core_name, _) in enumerate(cores)
        ),
        "sys/devices/system/cpu/kernel_max": f"{last}\n",
        **{f"sys/devices/system/cpu/{n}": f"0-{last}\n" for n in ("possible", "present", "online")},
    }
    for i, (_, mhz) in enumerate(cores):
        folder = f"sys/devices/system/cpu/cpu{i}"
        texts[f"{folder}/cpufreq/cpuinfo_max_freq"] = f"{mhz * 1000}\n"
        texts[f"{folder}/cpufreq/cpuinfo_min_freq"] = "300000\n"
        texts[f"{folder}/topology/physical_package_id"] = "0\n"
        texts[f"{folder}/topology/core_siblings_list"] = f"0-{last}\n"
        texts[f"{folder}/topology/core_id"] = f"{i}\n"
    return texts


def _emulated_core_cpuinfo(index: int, core_name: str, target: Target) -> str:
    implementer, part = PARTS.get(core_name, UNKNOWN_PART)
    features = FEATURES
    if "dotprod" in target.instruction_sets:
        features = ARMV86_FEATURES if "i8mm" in target.instruction_sets else ARMV82_FEATURES
    return (
        f"processor\t: {index}\nBogoMIPS\t: 38.40\nFeatures\t: {features}\n"
        f"CPU implementer\t: {implementer:#04x}\nCPU architecture: 8\nCPU variant\t: 0x1\n"
        f"CPU part\t: {part:#05x}\nCPU revision\t: 0\n"
    )
