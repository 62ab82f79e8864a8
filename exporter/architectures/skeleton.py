"""Construct torchvision networks without initialising their weights."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from exporter.capture import torchvision_ops

if TYPE_CHECKING:
    import torch
    from torch.overrides import TorchFunctionMode

QUANTIZABLE_PREFIX = "quantized_"
SLOW_INITIALISERS = ("googlenet", "inception_v3")
"""Builders whose `init_weights` draws every weight with SciPy, and warns when not told whether to."""


def skeleton_builders() -> dict[str, Callable[..., torch.nn.Module]]:
    """List every network that torchvision can build, by its registered name."""
    torchvision_ops.prepare_torchvision_ops()
    from torchvision import models

    return {name: models.get_model_builder(name) for name in models.list_models()}


def construct_skeleton(name: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """Build torchvision's network `name`, its weights left on the meta device; buffers are real.

    Raises:
        TypeError, ValueError: torchvision's own, for arguments that the builder does not take.
    """
    builder = skeleton_builders()[name]
    with warnings.catch_warnings(), skeleton_weights_on_meta():
        warnings.simplefilter("ignore")
        return builder(**{**untrained_skeleton_arguments(name, builder), **arguments})


def untrained_skeleton_arguments(name: str, builder: Callable[..., torch.nn.Module]) -> dict[str, Any]:
    """Return the arguments that keep a builder from downloading or drawing weights, and from quantising."""
    arguments: dict[str, Any] = {"weights": None}
    parameters = inspect.signature(builder).parameters
    arguments |= {key: None for key in parameters if key.startswith("weights_")}
    if name.startswith(QUANTIZABLE_PREFIX):
        arguments["quantize"] = False
    if name.removeprefix(QUANTIZABLE_PREFIX) in SLOW_INITIALISERS:
        arguments["init_weights"] = False
    return arguments


def replace_stem_of_skeleton(module: torch.nn.Module, name: str, channels: int) -> None:
    """Swap the convolution `name` for one of the same kind that reads `channels` channels."""
    import torch

    old = module.get_submodule(name)
    assert isinstance(old, torch.nn.Conv2d)
    new = torch.nn.Conv2d(
        channels,
        old.out_channels,
        kernel_size=old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        dilation=old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
        device="meta",
    )
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, new)


def skeleton_weights_on_meta() -> TorchFunctionMode:
    """Send `torch.empty` (every layer's weights) to the meta device, and nothing else.

    `torch.device("meta")` would catch the arithmetic with which RegNets compute their widths, and buffers
    that no checkpoint holds.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class WeightsOnMeta(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = dict(kwargs or {})
            if func is torch.empty and kwargs.get("device") is None:
                kwargs["device"] = "meta"
            return func(*args, **kwargs)

    return WeightsOnMeta()
