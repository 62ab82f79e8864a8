"""The names that SoCs have in Android's properties: a table to add to.

A phone names its SoC in `ro.soc.model` (since Android 12), in `ro.board.platform`, and on old kernels in
/proc/cpuinfo. The platform of a family is shared by siblings. To add a SoC, add its part number to
`CHIPS`, its other names to `ALIASES`, and its platform to `SIBLINGS` where it shares one, each with a
source. A wrong name shows up as "unknown SoC" or as another SoC than the target's, and nothing is
measured for that target then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

PART_NUMBER = re.compile(
    r"(?<![A-Z0-9])(SM\d{4}|SDM\d{3}|MSM\d{4}|GS[12]01|ZUMAPRO|ZUMA|LAGUNA|S5E\d{4}|MT\d{4}|KIRIN\d{3,4})(?!\d)"
)
"""Qualcomm, Google, Samsung, MediaTek, HiSilicon."""
SOURCES: Mapping[str, str] = {
    "cpufetch": "https://github.com/Dr-Noob/cpufetch/blob/b1f20cfec6ff902975919ab6f3fd18be744f16fe/src/arm/soc.c",
    "customfetch": "https://github.com/Toni500github/customfetch-android-app, the query of the CPU's name",
    "fastfetch": "https://github.com/fastfetch-cli/fastfetch/blob/026489c934b51729ed57412c6c45743bd89e49ab/"
    "src/detection/cpu/cpu_linux.c",
    "olv": "https://github.com/olvaffe/olv-notes/blob/2d56323d2f1352427a6cdac37a5ef2d4e85c13d0/hardware/"
    "soc-google.md",
    "linux": "https://github.com/torvalds/linux/blob/master/drivers/soc/samsung/exynos-chipid.c",
    "woa": "https://github.com/woa-msmnile/woa-msmnile.github.io, ReferenceTables at commit 68388ac",
    "aospa": "https://github.com/AOSPA/android_device_xiaomi_sm8450-common, README: SM8450, SM8475, SM7475",
    "fairphone": "https://github.com/LineageOS/android_device_fairphone_FP4/blob/"
    "00be9f426d7e7b88c617a59c415e809e43e9462d/BoardConfig.mk: the kernel of sm7225, the platform lito",
    "renoir": "https://github.com/LineageOS/android_device_xiaomi_sm8350-common/blob/"
    "0189a5ce3a617f54a57af6322b8514a5d20ee3bb/BoardConfigCommon.mk, which Xiaomi's SM7350 (renoir) uses too",
    "peridot": "https://github.com/LineageOS/android_device_xiaomi_peridot: ro.soc.model is SM8635, the "
    "platform pineapple",
    "dizi": "notes of ports to Xiaomi's Redmi Pad Pro: SM7435 is parrot; cpufetch: so is SM6450",
    "oneplus": "hardware notes of OnePlus' Turbo 6: SM8735 reports the platform sun",
    "crow": "a table of names in a public app: SM7550 is crow; no device tree was found",
    "family": "no device tree was found: the part is of the family of the platform's other parts",
}
"""Key of a row's source -> where the row was read, on 30 November 2026."""


@dataclass(frozen=True)
class Chip:
    """A SoC's name in shops, and the key of the source that gives it."""

    title: str
    source: str


@dataclass(frozen=True)
class Platform:
    """The SoCs that report one `ro.board.platform`, the most likely first, and the keys of the sources."""

    socs: tuple[str, ...]
    sources: tuple[str, ...]


SIBLINGS: Mapping[str, Platform] = {
    "lahaina": Platform(("SM8350", "SM7325", "SM7350"), ("woa", "renoir")),
    "taro": Platform(("SM8450", "SM8475", "SM7450", "SM7475"), ("aospa", "woa", "cpufetch")),
    "pineapple": Platform(("SM8650", "SM8635", "SM7675"), ("woa", "peridot", "family")),
    "sun": Platform(("SM8750", "SM8735"), ("oneplus",)),
    "lito": Platform(("SM7250", "SM7225", "SM6350"), ("fairphone", "family")),
    "yupik": Platform(("SM7325",), ("woa",)),
    "crow": Platform(("SM7550",), ("crow",)),
    "parrot": Platform(("SM7435", "SM6450"), ("dizi", "cpufetch")),
}
"""`ro.board.platform` -> who reports it."""
ALIASES: Mapping[str, str] = {
    "TENSOR": "GS101",
    "TENSOR G2": "GS201",
    "TENSOR G3": "ZUMA",
    "TENSOR G4": "ZUMAPRO",
    "TENSOR G5": "LAGUNA",
    "EXYNOS990": "S5E9830",
    "EXYNOS2100": "S5E9840",
    "EXYNOS2200": "S5E9925",
    "EXYNOS2400": "S5E9945",
    "EXYNOS1280": "S5E8825",
    "EXYNOS1380": "S5E8835",
    "EXYNOS1480": "S5E8845",
}
"""Other names -> part number; of the sources of these parts' rows."""
CHIPS: Mapping[str, Chip] = {
    "SM7225": Chip("Snapdragon 750G", "cpufetch"),
    "SM7250": Chip("Snapdragon 765G", "cpufetch"),
    "SM7325": Chip("Snapdragon 778G", "customfetch"),
    "SM7350": Chip("Snapdragon 780G", "customfetch"),
    "SM7435": Chip("Snapdragon 7s Gen 2", "fastfetch"),
    "SM7450": Chip("Snapdragon 7 Gen 1", "fastfetch"),
    "SM7475": Chip("Snapdragon 7+ Gen 2", "fastfetch"),
    "SM7550": Chip("Snapdragon 7 Gen 3", "fastfetch"),
    "SM7675": Chip("Snapdragon 7+ Gen 3", "fastfetch"),
    "SM8475": Chip("Snapdragon 8+ Gen 1", "fastfetch"),
    "SM8635": Chip("Snapdragon 8s Gen 3", "fastfetch"),
    "SM8735": Chip("Snapdragon 8s Gen 4", "oneplus"),
    "GS101": Chip("Google Tensor", "olv"),
    "GS201": Chip("Google Tensor G2", "olv"),
    "ZUMA": Chip("Google Tensor G3", "olv"),
    "ZUMAPRO": Chip("Google Tensor G4", "olv"),
    "LAGUNA": Chip("Google Tensor G5", "olv"),
    "S5E9830": Chip("Exynos 990", "linux"),
    "S5E9840": Chip("Exynos 2100", "customfetch"),
    "S5E9925": Chip("Exynos 2200", "linux"),
    "S5E9945": Chip("Exynos 2400", "customfetch"),
    "S5E8825": Chip("Exynos 1280", "customfetch"),
    "S5E8835": Chip("Exynos 1380", "customfetch"),
    "S5E8845": Chip("Exynos 1480", "customfetch"),
    "MT6833": Chip("Dimensity 700", "cpufetch"),
    "MT6853": Chip("Dimensity 720", "cpufetch"),
    "MT6877": Chip("Dimensity 900", "cpufetch"),
    "MT6893": Chip("Dimensity 1200", "cpufetch"),
    "MT6895": Chip("Dimensity 8000 or 8100", "customfetch"),
    "MT6897": Chip("Dimensity 8300 or 8350", "customfetch"),
    "MT6983": Chip("Dimensity 9000", "fastfetch"),
    "MT6985": Chip("Dimensity 9200", "fastfetch"),
    "MT6989": Chip("Dimensity 9300", "fastfetch"),
    "MT6991": Chip("Dimensity 9400", "fastfetch"),
}
"""Part number -> its name. A part with several speeds has the name of the first."""
UNKNOWN = "unknown SoC"
"""What a phone has whose sources name no SoC, or contradict each other."""


def soc_named(text: str) -> str:
    """Return the SoC that a text names: SM8250 for "Qualcomm Technologies, Inc SM8250_AC"; "" without one."""
    upper = text.strip().upper()
    if upper in ALIASES:
        return ALIASES[upper]
    match = PART_NUMBER.search(upper)
    return match[0] if match else ""


def soc_title(soc: str) -> str:
    """Return the name that a SoC is sold under; "" where the table has none."""
    return CHIPS[soc].title if soc in CHIPS else ""
