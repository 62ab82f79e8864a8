"""The names that SoCs have in Android's properties: a table to add to.

A phone names its SoC in `ro.soc.model` (since Android 12), in `ro.board.platform`, and on old kernels in
/proc/cpuinfo. The platform of a family is shared by siblings. To add a SoC, add its part number to
`MARKETING`, its other names to `ALIASES`, and its platform to `SIBLINGS` where it shares one.

Read for this table: the silicon table of https://github.com/woa-msmnile/woa-msmnile.github.io (folder
ReferenceTables, commit 68388ac: SM7325 is yupik, SM7475 and SM8475 are of the family of SM8450, SM8350 is
lahaina, SM8550 kalama, SM8650 pineapple), and Qualcomm's QnnTypes.h (SM8735 is a part number). The other
rows follow the makers' naming (qualcomm.com, mediatek.com, semiconductor.samsung.com) and the platforms of
Android's kernel trees, and were not looked up one by one. A wrong name shows up as "unknown SoC" or as
another SoC than the target's, and nothing is measured for that target then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

PART_NUMBER = re.compile(
    r"(?<![A-Z0-9])(SM\d{4}|SDM\d{3}|MSM\d{4}|GS[12]01|ZUMAPRO|ZUMA|LAGUNA|S5E\d{4}|MT\d{4}|KIRIN\d{3,4})(?!\d)"
)
"""Qualcomm, Google, Samsung, MediaTek, HiSilicon."""
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
"""Other names -> part number."""
SIBLINGS: Mapping[str, tuple[str, ...]] = {
    "lahaina": ("SM8350", "SM7325", "SM7350"),
    "taro": ("SM8450", "SM8475", "SM7450", "SM7475"),
    "kalama": ("SM8550", "SM7550"),
    "pineapple": ("SM8650", "SM8635", "SM7675"),
    "sun": ("SM8750", "SM8735"),
    "lito": ("SM7250", "SM7225", "SM6350"),
    "yupik": ("SM7325",),
    "crow": ("SM7550", "SM7435"),
}
"""`ro.board.platform` -> the SoCs that report it; the first is assumed where nothing else names one."""
MARKETING: Mapping[str, str] = {
    "SM7225": "Snapdragon 750G",
    "SM7250": "Snapdragon 765G",
    "SM7325": "Snapdragon 778G",
    "SM7350": "Snapdragon 780G",
    "SM7435": "Snapdragon 7s Gen 2",
    "SM7450": "Snapdragon 7 Gen 1",
    "SM7475": "Snapdragon 7+ Gen 2",
    "SM7550": "Snapdragon 7 Gen 3",
    "SM7675": "Snapdragon 7+ Gen 3",
    "SM8475": "Snapdragon 8+ Gen 1",
    "SM8635": "Snapdragon 8s Gen 3",
    "SM8735": "Snapdragon 8s Gen 4",
    "GS101": "Google Tensor",
    "GS201": "Google Tensor G2",
    "ZUMA": "Google Tensor G3",
    "ZUMAPRO": "Google Tensor G4",
    "LAGUNA": "Google Tensor G5",
    "S5E9830": "Exynos 990",
    "S5E9840": "Exynos 2100",
    "S5E9925": "Exynos 2200",
    "S5E9945": "Exynos 2400",
    "S5E8825": "Exynos 1280",
    "S5E8835": "Exynos 1380",
    "S5E8845": "Exynos 1480",
    "MT6833": "Dimensity 700",
    "MT6853": "Dimensity 720",
    "MT6877": "Dimensity 900",
    "MT6893": "Dimensity 1200",
    "MT6895": "Dimensity 8100",
    "MT6897": "Dimensity 8300",
    "MT6983": "Dimensity 9000",
    "MT6985": "Dimensity 9200",
    "MT6989": "Dimensity 9300",
    "MT6991": "Dimensity 9400",
}
"""Part number -> the name that it is sold under."""
UNKNOWN = "unknown SoC"
"""What a phone has whose sources name no SoC, or contradict each other."""


def soc_named(text: str) -> str:
    """Return the SoC that a text names: SM8250 for "Qualcomm Technologies, Inc SM8250_AC"; "" without one."""
    upper = text.strip().upper()
    if upper in ALIASES:
        return ALIASES[upper]
    match = PART_NUMBER.search(upper)
    return match[0] if match else ""
