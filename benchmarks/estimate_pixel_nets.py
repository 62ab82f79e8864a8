"""Describe the networks that were published on a Pixel 4 (github.com/qed-usc/mobile-ml-benchmark), by name.

CNNs are those of pytorchcv, transformers those of timm or of Hugging Face. They are built without weights and
run on shapes alone. A network whose FLOPs differ from the published ones by more than a tenth is another one,
and is not described.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from benchmarks import estimate_van
from exporter.estimate.graph_work import GraphWork

MOST_OTHER_FLOPS = 0.1
VIEWS = ("empty", "t", "unsafe_view", "_unsafe_view", "clone", "detach", "alias")
"""Operators of PyTorch that compute nothing."""
FUSED = ("relu", "relu_", "hardtanh", "hardtanh_")
"""Activations that PyTorch Mobile's XNNPACK computes within the convolution before them."""
FUNCTIONS = ("gelu", "silu", "sigmoid", "tanh", "exp", "erf", "softplus", "mish", "elu")
"""PyTorch's names of `operator_split.FUNCTIONS`."""
TIMM: tuple[tuple[str, str], ...] = (
    (r"vit-base-patch(\d+)-(\d+)(?:-in21k)?", r"vit_base_patch\1_\2"),
    (r"vit-msn-(base|small)", r"vit_\1_patch16_224"),
    (r"deit-(\w+)-distilled-patch16-(\d+)", r"deit_\1_distilled_patch16_\2"),
    (r"beit-base-patch16-(\d+)", r"beit_base_patch16_\1"),
    (r"swin-(\w+)-patch4-window(\d+)-(\d+)", r"swin_\1_patch4_window\2_\3"),
    (r"swinv2-(\w+)-patch4-window12-192-22k", r"swinv2_\1_window12_192"),
    (r"swinv2-(\w+)-patch4-window(\d+)-256", r"swinv2_\1_window\2_256"),
    (r"levit-(\d+)(S?)", r"levit_\1\2"),
    (r"poolformer_(\w+)", r"poolformer_\1"),
    (r"focalnet-(\w+)", r"focalnet_\1_srf"),
    (r"mobilevit-small", "mobilevit_s"),
    (r"mobilevit-x-small", "mobilevit_xs"),
    (r"mobilevit-xx-small", "mobilevit_xxs"),
    (r"vit-hybrid-base-bit-384", "vit_base_r50_s16_384"),
    (r"efficientformer-(l\d)-300", r"efficientformer_\1"),
    (r"swiftformer-(\w+)", r"swiftformer_\1"),
)
"""The published name of a transformer -> timm's."""


HUGGING_FACE: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("mit-b0", "Segformer", {"depths": [2, 2, 2, 2], "hidden_sizes": [32, 64, 160, 256]}),
    *(
        (f"mit-b{index}", "Segformer", {"depths": depths, "hidden_sizes": [64, 128, 320, 512]})
        for index, depths in enumerate(
            ([2, 2, 2, 2], [3, 4, 6, 3], [3, 4, 18, 3], [3, 8, 27, 3], [3, 6, 40, 3]), start=1
        )
    ),
    ("cvt-13", "Cvt", {"depth": [1, 2, 10]}),
    ("cvt-13-384", "Cvt", {"depth": [1, 2, 10]}),
    ("cvt-21", "Cvt", {"depth": [1, 4, 16]}),
    ("cvt-21-384", "Cvt", {"depth": [1, 4, 16]}),
    ("pvt-tiny-224", "Pvt", {"depths": [2, 2, 2, 2]}),
    ("pvt-small-224", "Pvt", {"depths": [3, 4, 6, 3]}),
    ("pvt-medium-224", "Pvt", {"depths": [3, 4, 18, 3]}),
    ("pvt-large-224", "Pvt", {"depths": [3, 8, 27, 3]}),
    ("dinov2-small-imagenet1k-1-layer", "Dinov2", {"hidden_size": 384, "num_attention_heads": 6}),
    ("dinov2-base-imagenet1k-1-layer", "Dinov2", {}),
    ("vit-msn-base-4", "ViTMSN", {"patch_size": 4}),
    ("mobilevitv2-1.0-imagenet1k-256", "MobileViTV2", {"width_multiplier": 1.0}),
    ("mobilevitv2-1.5-voc-deeplabv3", "MobileViTV2", {"width_multiplier": 1.5, "num_labels": 21}),
    ("mobilevitv2-2.0-imagenet1k-256", "MobileViTV2", {"width_multiplier": 2.0}),
)
"""The published name of a transformer that timm lacks, its class in `transformers`, and its configuration.

The FLOPs and weights of MobileViTV2 are those of images of 224 and of a classifier, whatever the names say.
"""


def describe_pixel_network(name: str, flops: float) -> dict[str, int]:
    """Return a network's work as `estimate_nets.describe_graph` does; nothing where it cannot be built.

    Args:
        name: The published name.
        flops: The published FLOPs.
    """
    import torch

    from exporter.capture import torchvision_ops

    torchvision_ops.prepare_torchvision_ops()
    try:
        with torch.device("meta"):
            network, side = _pixel_network(name)
        sums = _summed_operators(network, torch.zeros(1, 3, side, side, device="meta"))
    except (ImportError, RuntimeError, ValueError, AttributeError, KeyError):
        return {}
    macs = sums["macs"] + sums["depthwise_macs"]
    return sums if abs(2 * macs / flops - 1) <= MOST_OTHER_FLOPS else {}


def _pixel_network(name: str) -> tuple[Any, int]:
    """Return a network, and the side of its square input."""
    if name in estimate_van.VANS:
        return estimate_van.van_network(name), 224
    for known, family, options in HUGGING_FACE:
        if known == name:
            import transformers

            config = getattr(transformers, f"{family}Config")(**{"num_labels": 1000, **options})
            network = getattr(transformers, f"{family}ForImageClassification")(config)
            return network, 384 if name.endswith("384") else 224
    timm_name = next((re.sub(known, new, name) for known, new in TIMM if re.fullmatch(known, name)), None)
    if timm_name is None:
        from pytorchcv.model_provider import get_model

        return get_model(name), 224
    import timm

    network = timm.create_model(timm_name.lower())
    return network, network.default_cfg["input_size"][-1]


def _summed_operators(network: Any, image: Any) -> dict[str, int]:
    """Return the sums of what an inference executes; batch norms are folded, as in a deployed file."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    sums = {item.name: 0 for item in fields(GraphWork) if item.name != "missed_bytes"}
    convolved: dict[int, Any] = {}  # the outputs of convolutions, which keeps their ids unique

    class Summing(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
            answer = function(*args, **(options or {}))
            name = function._schema.name.rpartition("::")[2]
            output = answer[0] if isinstance(answer, list | tuple) and answer else answer
            if name in {"convolution", "_convolution"}:
                convolved[id(output)] = output
            if name in FUSED and id(args[0]) in convolved:
                return answer
            if not function.is_view and name not in VIEWS and isinstance(output, torch.Tensor):
                for key, value in _work_of_operator(name, args, output).items():
                    sums[key] += value
            return answer

    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            vars(module)["forward"] = lambda values: values
    with torch.no_grad(), Summing():  # type: ignore[no-untyped-call]
        network.eval().to("meta")(image)
    return {**sums, "missed_L1": 0, "missed_L2": 0, "missed_L3": 0, "missed_last": 0}


def _work_of_operator(name: str, args: Any, output: Any) -> Mapping[str, int]:
    import torch

    flat = [item for arg in args for item in (arg if isinstance(arg, list | tuple) else [arg])]
    tensors = [item for item in flat if isinstance(item, torch.Tensor)]
    read = sum(item.numel() for item in tensors if not isinstance(item, torch.nn.Parameter))
    work = {"values": read + output.numel()}
    if name in {"convolution", "_convolution"}:
        work |= _work_of_convolution(args[1], args[8], output, work["values"])
    elif name in {"mm", "addmm", "bmm", "baddbmm"}:
        work["macs"] = output.numel() * tensors[-1].shape[-2]
    elif name.removesuffix("_") in FUNCTIONS:
        work["functions"] = output.numel()
    return work


def _work_of_convolution(weight: Any, groups: int, output: Any, values: int) -> Mapping[str, int]:
    macs = output.numel() * weight[0].numel()
    if weight.shape[1] == 1 and groups > 1:
        return {"depthwise_macs": macs, "depthwise_values": values, "conv_values": values}
    patches = macs * groups // weight.shape[0] if weight[0, 0].numel() > 1 else 0
    return {"macs": macs, "patches": patches, "conv_values": values}
