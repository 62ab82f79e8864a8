"""The phones we export for: what each can run, and why not the rest.

To add one, add a record to `TARGETS`. Every figure names its source; unmeasured figures are left out.

Sources used throughout:
- CPU features: /proc/cpuinfo dumps of real phones, github.com/hrw/arm-socs-table issues
  19 (865), 36 (888+), 90 (8 Gen 1), 88 (8 Gen 2), 98 (8 Gen 3), 115 (8 Elite).
  SVE is left out on purpose: only some vendors' kernels expose it (issue 89 against 90, both 8 Gen 1).
- NPU generation: `_soc_info_table` in executorch/backends/qualcomm/serialization/qc_schema.py (1.4.1).
- Vulkan 1.1 is mandatory on 64-bit Android since API 29 (registry.khronos.org, platforms), and is all
  that ExecuTorch's Vulkan backend asks for (docs.pytorch.org/executorch, vulkan-overview).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.errors import UsageError


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind. `max_mhz` is None where the target stands for many chips."""

    count: int
    core: str
    max_mhz: int | None


@dataclass(frozen=True)
class Target:
    name: str
    title: str
    soc: str
    clusters: tuple[Cluster, ...]
    """The clusters, fastest first."""
    instruction_sets: tuple[str, ...]
    gpu: str
    npu: str
    variants: tuple[str, ...]
    """Names of the variants to emit, best first."""
    runnable: tuple[str, ...]
    """The `variants` that the device can execute; only these can be chosen."""
    why_not: Mapping[str, str] = field(hash=False)
    """Variant or stack -> why the target does not run it, or why it is not emitted."""
    aliases: tuple[str, ...] = ()
    on_request: tuple[str, ...] = ()
    """Names of the variants that are emitted only where `--formats` names them: they need an extra."""


ON_XNNPACK = ("executorch-xnnpack-int8", "executorch-xnnpack-mixed", "executorch-xnnpack-fp32")
ON_VULKAN = ("executorch-vulkan-fp16",)
# onnxruntime-android and onnxruntime-c read both; the reduced "mobile" build reads .ort only.
ON_ONNXRUNTIME = ("ort-int8", "onnx-int8", "onnx-mixed", "onnx-fp16", "ort-fp32", "onnx-fp32")
# Last: PyTorch Mobile "is no longer actively supported" (docs.pytorch.org, mobile_optimizer).
ON_LITE = ("torchscript-lite-fp32",)
ON_COREML = ("coreml-fp16", "coreml-w8", "coreml-w4")
ON_COREAI = ("coreai-fp16", "coreai-fp32")

ON_ANDROID = ON_XNNPACK + ON_VULKAN + ON_ONNXRUNTIME + ON_LITE
ON_CPU = ON_XNNPACK + ON_ONNXRUNTIME + ON_LITE

NO_COREML = {
    **dict.fromkeys(ON_COREML, "Core ML runs on Apple devices only; made for the iPhone build"),
    **dict.fromkeys(ON_COREAI, "Core AI runs on Apple devices only; made for the iPhone build"),
}
# developer.android.com/ndk/guides/neuralnetworks/migration-guide
NO_NNAPI = {"nnapi": "Android's Neural Networks API is deprecated since Android 15"}
V66 = (
    "Hexagon v66: no current stack supports it (ExecuTorch QNN and ONNX Runtime QNN start at v68, "
    "LiteRT's QNN at SM8450)"
)
# ExecuTorch: QcomChipset starts at SM8350. LiteRT: ai.google.dev/edge/litert/next/qualcomm lists SM8450+.
# TFLite's Hexagon delegate failed on the 865: github.com/tensorflow/tensorflow/issues/53207.
NO_NPU_ON_865 = {
    "executorch-qnn": V66,
    "onnxruntime-qnn": V66,
    "litert-qnn": V66,
    "tflite-hexagon": "TensorFlow Lite's Hexagon delegate failed on Snapdragon 865 (tensorflow#53207)",
}
NO_SVE = "the CPU features listed are those every phone with this chip shows; SVE is not among them"


ONE_NPU_STACK = "the NPU is reached through ONNX Runtime's QNN provider: --formats onnx-qnn"


def _targets_on_npu(hexagon: str) -> tuple[str, ...]:
    """Return the variants for a generation of the NPU."""
    return (f"onnx-qnn-{hexagon}-int8",)


ARMV82 = ("asimd", "fp16", "dotprod")
ARMV86 = (*ARMV82, "i8mm", "bf16")

TARGETS: tuple[Target, ...] = (
    Target(
        name="snapdragon865",
        title="Snapdragon 865",
        soc="SM8250",
        # Mainline sm8250.dtsi operating points; 865+ and 870 differ from it only in the prime core's clock.
        clusters=(
            Cluster(1, "Cortex-A77", 2842),
            Cluster(3, "Cortex-A77", 2419),
            Cluster(4, "Cortex-A55", 1805),
        ),
        instruction_sets=ARMV82,
        gpu="Adreno 650",
        npu="Hexagon 698 (v66)",
        variants=ON_ANDROID + ON_COREML,
        on_request=ON_COREAI,
        runnable=ON_ANDROID,
        why_not={**NO_COREML, **NO_NNAPI, **NO_NPU_ON_865},
        aliases=("kona",),
    ),
    Target(
        name="snapdragon888",
        title="Snapdragon 888",
        soc="SM8350",
        # tipsclear.com "Qualcomm Snapdragon 8 Gen 1 deep dive" (table of three generations).
        clusters=(
            Cluster(1, "Cortex-X1", 2840),
            Cluster(3, "Cortex-A78", 2400),
            Cluster(4, "Cortex-A55", 1800),
        ),
        instruction_sets=ARMV82,
        gpu="Adreno 660",
        npu="Hexagon 780 (v68)",
        variants=ON_ANDROID + ON_COREML,
        on_request=_targets_on_npu("v68") + ON_COREAI,
        runnable=_targets_on_npu("v68") + ON_ANDROID,
        why_not={
            **NO_COREML,
            **NO_NNAPI,
            "executorch-qnn": ONE_NPU_STACK,
            "litert-qnn": "LiteRT's QNN list starts at SM8450",
        },
        aliases=("lahaina",),
    ),
    Target(
        name="snapdragon8gen1",
        title="Snapdragon 8 Gen 1",
        soc="SM8450",
        # gizbot.com "Snapdragon 8 Gen 1 SoC specs"; nanoreview.net for the GPU.
        clusters=(
            Cluster(1, "Cortex-X2", 3000),
            Cluster(3, "Cortex-A710", 2500),
            Cluster(4, "Cortex-A510", 1800),
        ),
        instruction_sets=ARMV86,
        gpu="Adreno 730",
        npu="Hexagon (v69)",
        variants=ON_ANDROID + ON_COREML,
        on_request=_targets_on_npu("v69") + ON_COREAI,
        runnable=_targets_on_npu("v69") + ON_ANDROID,
        why_not={**NO_COREML, **NO_NNAPI, "executorch-qnn": ONE_NPU_STACK, "sve": NO_SVE},
        aliases=("taro",),
    ),
    Target(
        name="snapdragon8gen2",
        title="Snapdragon 8 Gen 2",
        soc="SM8550",
        # nanoreview.net/en/soc/qualcomm-snapdragon-8-gen-2, notebookcheck.net.
        clusters=(
            Cluster(1, "Cortex-X3", 3187),
            Cluster(2, "Cortex-A715", 2800),
            Cluster(2, "Cortex-A710", 2800),
            Cluster(3, "Cortex-A510", 2000),
        ),
        instruction_sets=ARMV86,
        gpu="Adreno 740",
        npu="Hexagon (v73)",
        variants=ON_ANDROID + ON_COREML,
        on_request=_targets_on_npu("v73") + ON_COREAI,
        runnable=_targets_on_npu("v73") + ON_ANDROID,
        why_not={**NO_COREML, **NO_NNAPI, "executorch-qnn": ONE_NPU_STACK, "sve": NO_SVE},
        aliases=("kalama",),
    ),
    Target(
        name="snapdragon8gen3",
        title="Snapdragon 8 Gen 3",
        soc="SM8650",
        # droidholic.com "Snapdragon 8 Gen 3 goes official".
        clusters=(
            Cluster(1, "Cortex-X4", 3300),
            Cluster(3, "Cortex-A720", 3200),
            Cluster(2, "Cortex-A720", 3000),
            Cluster(2, "Cortex-A520", 2300),
        ),
        instruction_sets=ARMV86,
        gpu="Adreno 750",
        npu="Hexagon (v75)",
        variants=ON_ANDROID + ON_COREML,
        on_request=_targets_on_npu("v75") + ON_COREAI,
        runnable=_targets_on_npu("v75") + ON_ANDROID,
        why_not={**NO_COREML, **NO_NNAPI, "executorch-qnn": ONE_NPU_STACK, "sve": NO_SVE},
        aliases=("pineapple",),
    ),
    Target(
        name="snapdragon8elite",
        title="Snapdragon 8 Elite",
        soc="SM8750",
        # xda-developers.com "Snapdragon 8 Elite: Specifications"; tweakers.net 227880 for the GPU.
        clusters=(Cluster(2, "Oryon", 4320), Cluster(6, "Oryon", 3530)),
        instruction_sets=ARMV86,
        gpu="Adreno 830",
        npu="Hexagon (v79)",
        variants=ON_ANDROID + ON_COREML,
        on_request=_targets_on_npu("v79") + ON_COREAI,
        runnable=_targets_on_npu("v79") + ON_ANDROID,
        why_not={**NO_COREML, **NO_NNAPI, "executorch-qnn": ONE_NPU_STACK, "sve": NO_SVE},
    ),
    Target(
        name="iphone",
        title="iPhone 13 and later (A15+)",
        soc="A15",
        # en.wikipedia.org/wiki/Apple_A15: ARMv8.6-A, which makes bf16 and i8mm mandatory.
        clusters=(Cluster(2, "Avalanche", 3240), Cluster(4, "Blizzard", 2010)),
        instruction_sets=ARMV86,
        gpu="Apple, 4 or 5 cores",
        npu="Apple Neural Engine, 16 cores",
        variants=ON_COREML + ON_CPU,
        on_request=ON_COREAI,
        runnable=ON_COREML + ON_COREAI + ON_CPU,
        why_not={
            # registry.khronos.org/vulkan/site/guide/latest/platforms.html
            "executorch-vulkan-fp16": "iOS has no Vulkan, and ExecuTorch's backend is for Android GPUs",
            "executorch-coreml": "the .mlpackage runs on the same Core ML without a second runtime",
            "qnn": "Qualcomm's NPU only",
        },
        aliases=("ios", "a15", "a15+", "apple", "iphone13"),
    ),
    Target(
        name="generic-arm64",
        title="Any 64-bit Arm device",
        soc="arm64",
        clusters=(),
        instruction_sets=("asimd",),
        gpu="unknown",
        npu="unknown",
        variants=ON_CPU,
        runnable=ON_CPU,
        why_not={
            **NO_COREML,
            "executorch-vulkan-fp16": "an unknown GPU: not every one has a Vulkan 1.1 driver",
            "executorch-qnn": "an unknown NPU",
        },
        aliases=("arm64", "aarch64", "arm64-v8a", "generic"),
    ),
)


def get_target(name: str) -> Target:
    """Find a target by name, SoC number or alias, whatever its case, dashes and spaces.

    Args:
        name: "snapdragon865", "SD 865", "sm8250", "8-gen-2", "iphone", …

    Raises:
        UsageError: There is no such target; the message names the nearest ones, and lists all.
    """
    spellings = {spelling: target for target in TARGETS for spelling in _target_spellings(target)}
    wanted = _plain_target_name(name)
    if wanted in spellings:
        return spellings[wanted]
    near = [spellings[s].name for s in difflib.get_close_matches(wanted, spellings, n=6, cutoff=0.6)]
    suggestion = f"Did you mean {' or '.join(dict.fromkeys(near[:3]))}? " if near else ""
    raise UsageError(
        f"Unknown target {name[:80]!r}.",
        f"{suggestion}Targets: {', '.join(t.name for t in TARGETS)}.",
        code="EM-TARGET",
    )


def _target_spellings(target: Target) -> tuple[str, ...]:
    """List the accepted spellings of a target; Snapdragons also as "865" and "sd865"."""
    plain = tuple(_plain_target_name(s) for s in (target.name, target.soc, *target.aliases))
    number = plain[0].removeprefix("snapdragon")
    return plain if number == plain[0] else (*plain, number, f"sd{number}", f"qualcommsnapdragon{number}")


def _plain_target_name(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.casefold())
