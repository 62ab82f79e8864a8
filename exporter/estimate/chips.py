"""What cores execute in a cycle, and what chips have of caches and memory. Data with their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ASSUMED = "assumed"
"""Written from knowledge of Arm's and Qualcomm's guides: no public page that states it was found. An estimate
that follows from such a figure has a wider interval."""


def _llvm(commit: str, core: str) -> str:
    """Return the address of LLVM's scheduling model of a core, or of its sibling for servers."""
    path = f"llvm/lib/Target/AArch64/AArch64Sched{core}.td"
    return f"https://github.com/llvm/llvm-project/blob/{commit}/{path}"


LLVM_A55 = _llvm("1d7cce3f3b45f1f0a59cbc16133ded99968348da", "A55")
LLVM_A510 = _llvm("48f247b793e4775802ca169a55c31442abfda960", "A510")
LLVM_A77 = _llvm("02cec0a4ec2edb30a6e92730ca17378b35de9596", "NeoverseN1")
LLVM_A710 = _llvm("007f1e9600616a2dda8337142bedfc83e4657333", "NeoverseN2")
LLVM_A720 = _llvm("063c7a4a1e58441c1f39987c9e90471176f9c713", "NeoverseN3")
LLVM_X3 = _llvm("06d9edc01ab587e6272cba61b2a20381b46f2fe8", "NeoverseV2")
LLVM_X4 = _llvm("4385f960ac5411fbe6ccc133ca7b65f29a717a51", "NeoverseV3")
LLVM_ORYON = _llvm("241be3c0c76553af138ded968eff942ba0bd4838", "Oryon")
WIKICHIP_A77 = "https://en.wikichip.org/wiki/arm_holdings/microarchitectures/cortex-a77"
WIKICHIP_X3 = "https://en.wikichip.org/wiki/arm_holdings/microarchitectures/cortex-x3"
WIKIPEDIA_X1 = "https://en.wikipedia.org/wiki/ARM_Cortex-X1"
WIKIPEDIA_X4 = "https://en.wikipedia.org/wiki/ARM_Cortex-X4"
ANANDTECH_A78 = "https://www.anandtech.com/show/15813/arm-cortex-a78-cortex-x1-cpu-ip-diverging/3"
ANANDTECH_A520 = (
    "https://www.anandtech.com/show/18871/arm-unveils-armv92-mobile-architecture-cortex-x4-a720-and-a520-64bit-"
    "exclusive/4"
)
WIKICHIP_A510 = "https://en.wikichip.org/wiki/arm_holdings/microarchitectures/cortex-a510"
WIKICHIP_A720 = "https://fuse.wikichip.org/?p=7529"
BOARDOR_X3 = "https://boardor.com/blog/discussing-arms-new-cortex-x3-a715-and-a510-v2"
HOT_CHIPS_ORYON = "https://techovedas.com/hot-chips-2024-qualcomm-unveils-advanced-oryon-core-architecture/"


@dataclass(frozen=True)
class Core:
    """What a core executes in a cycle."""

    vectors: float
    """128-bit vector operations."""
    others: float
    """Instructions of any kind that its decoders take."""
    vectors_source: str = ASSUMED
    others_source: str = ASSUMED

    @property
    def assumed(self) -> bool:
        """Tell whether a width has no source."""
        return ASSUMED in {self.vectors_source, self.others_source}


CORES: Mapping[str, Core] = {
    "Cortex-A55": Core(1, 2, LLVM_A55, LLVM_A55),  # two vector pipes of 64 bits
    "Cortex-A77": Core(2, 4, LLVM_A77, WIKICHIP_A77),
    "Cortex-A78": Core(2, 4, ANANDTECH_A78, ANANDTECH_A78),
    "Cortex-A510": Core(1, 3, LLVM_A510, WIKICHIP_A510),  # two vector pipes, which two cores share
    "Cortex-A520": Core(1, 3, ANANDTECH_A520, ANANDTECH_A520),  # "more of a refinement of the Cortex-A510"
    "Cortex-A710": Core(2, 4, LLVM_A710),
    "Cortex-A715": Core(2, 5, WIKICHIP_A720),  # its successor, with no major changes of widths, has two
    "Cortex-A720": Core(2, 5, LLVM_A720),
    "Cortex-X1": Core(4, 5, WIKIPEDIA_X1, WIKIPEDIA_X1),
    # The successor has as many vectors ("no major changes" to them), and 6 decoders, "increased from 5".
    "Cortex-X2": Core(4, 5, BOARDOR_X3, WIKICHIP_X3),
    "Cortex-X3": Core(4, 6, LLVM_X3, WIKICHIP_X3),
    "Cortex-X4": Core(4, 10, LLVM_X4, WIKIPEDIA_X4),
    "Oryon": Core(4, 8, LLVM_ORYON, HOT_CHIPS_ORYON),
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


GADGETS_8_GEN_1 = "https://www.gadgetsinnepal.com.np/snadpdragon-8-gen-1/"
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
    "SM8450": Memory(6, 4, 51.2, GADGETS_8_GEN_1, GADGETS_8_GEN_1),
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
