"""What cores execute in a cycle, and what chips have of caches and memory. Data with their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LLVM = "https://github.com/llvm/llvm-project/commit/38c92c1ee2f07e3260c94d51834a97e84f93c708"
ASSUMED = "assumed"
"""Written from knowledge of Arm's and Qualcomm's guides, and not looked up: no public page was found here."""


@dataclass(frozen=True)
class Core:
    """What a core executes in a cycle."""

    vectors: float
    """128-bit vector operations."""
    others: float
    """Instructions of any kind, decoded and retired."""
    source: str = ASSUMED
    """Where the vector operations were read."""


CORES: Mapping[str, Core] = {
    "Cortex-A55": Core(1, 2),
    "Cortex-A77": Core(2, 4, LLVM),
    "Cortex-A78": Core(2, 4),
    "Cortex-A510": Core(1, 3),
    "Cortex-A520": Core(1, 3),
    "Cortex-A710": Core(2, 4),
    "Cortex-A715": Core(2, 5),
    "Cortex-A720": Core(2, 5),
    "Cortex-X1": Core(4, 5),
    "Cortex-X2": Core(4, 5),
    "Cortex-X3": Core(4, 6),
    "Cortex-X4": Core(4, 8),
    "Oryon": Core(4, 8),
}
"""Core -> its widths."""


@dataclass(frozen=True)
class Memory:
    """What a chip's cores share."""

    last_mb: float
    """The last cache of the cores: L3, or Oryon's L2."""
    system_mb: float
    """The system's cache behind it. No public page states its size for these chips: it is assumed."""
    gb_per_s: float
    """The fastest memory that its maker supports, 64 bits wide: no call reads faster."""
    last_source: str
    speed_source: str

    @property
    def caches_mb(self) -> float:
        """Both caches together: what of a model's weights can stay from call to call."""
        return self.last_mb + self.system_mb


WIKICHIP_865 = "https://en.wikichip.org/wiki/qualcomm/snapdragon_800/865"
DROIDHOLIC_8_GEN_3 = "https://droidholic.com/snapdragon-8-gen-3-launched/"
NANOREVIEW = (
    "https://nanoreview.net/en/soc-compare/qualcomm-snapdragon-8-gen-2-vs-qualcomm-snapdragon-8-gen-1"
)
MEMORIES: Mapping[str, Memory] = {
    "SM8250": Memory(4, 3, 44.0, "https://www.anandtech.com/show/15178", WIKICHIP_865),
    "SM8350": Memory(
        4, 3, 51.2, "https://www.bitsandchips.it/mobile/snapdragon-888-il-primo-soc-a-5nm-di-qualcomm",
        "https://www.bitsandchips.it/mobile/snapdragon-888-il-primo-soc-a-5nm-di-qualcomm",
    ),
    "SM8450": Memory(6, 4, 51.2, NANOREVIEW, ASSUMED),
    "SM8550": Memory(8, 6, 67.2, NANOREVIEW, DROIDHOLIC_8_GEN_3),
    "SM8650": Memory(12, 6, 76.8, ASSUMED, DROIDHOLIC_8_GEN_3),
    "SM8750": Memory(
        24, 8, 85.4, "https://droidholic.com/snapdragon-8-elite-launched/",
        "https://digitpatrox.com/snapdragon-8-elite-vs-8-gen-3-qualcomms-biggest-performance-leap/",
    ),
}  # fmt: skip
"""SoC -> its caches and memory. The speed is a bound and not a fit: no published row is long enough in memory
to tell a cost of it."""
CACHES_OF_865_BYTES: Mapping[str, float] = {"L1": 64e3, "L2": 512e3, "L3": 4e6, "last": 7e6}
"""The caches of a Snapdragon 865's fastest core, by the sources of SM8250; the L1 is assumed."""
