"""Puts a checkpoint's tensors into a network, strictly, and says in words why they do not fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from exporter.architectures import index
from exporter.errors import ArchitectureError

if TYPE_CHECKING:
    import torch


def shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, index.Shape]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def load(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], title: str, *, assign: bool) -> None:
    """Load a state_dict whose keys and shapes must be exactly the module's.

    Args:
        module: Changed in place.
        tensors: Floating-point tensors become float32. BatchNorm's `num_batches_tracked` may be missing.
        title: How the network is called in messages.
        assign: Take the tensors themselves instead of copying into the module's (which may be on the meta
            device).

    Raises:
        ArchitectureError: Keys, shapes or types differ; names the first that do.
    """
    import torch

    own = module.state_dict()
    if not assign:
        tensors = {**tensors, **_tied(own, tensors)}
    own_shapes = {key: tuple(value.shape) for key, value in own.items() if isinstance(value, torch.Tensor)}
    comparison = index.compare(title, own_shapes, shapes(tensors))
    if not comparison.exact:
        raise mismatch(comparison)
    state: OrderedDict[str, torch.Tensor] = OrderedDict(
        (key, _converted(key, tensors[key], value) if key in own_shapes and key in tensors else value)
        for key, value in own.items()
    )
    # The versions of the layers' own formats: the keys were just checked against the current ones, and
    # MNASNet refuses a state_dict without.
    state._metadata = own._metadata  # type: ignore[attr-defined]
    try:
        module.load_state_dict(state, strict=True, assign=assign)
    except Exception as error:
        raise ArchitectureError(f"The weights cannot be loaded into {title}: {_first_line(error)}") from error


def mismatch(comparison: index.Comparison, hint: str = "") -> ArchitectureError:
    """Describe weights that are not the network's, by the first keys that differ."""
    share = f"{comparison.matched} of {len(comparison.tensors)} tensors match"
    return ArchitectureError(
        f"The weights do not fit {comparison.title}: {share}. {comparison.summary()}.", hint
    )


def _tied(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Find tensors that the file stores once (safetensors does) and the network uses under two names."""
    import torch

    def place(key: str) -> tuple[int, index.Shape] | None:
        value = own[key]
        return (value.data_ptr(), tuple(value.shape)) if isinstance(value, torch.Tensor) else None

    stored = {place(key): given[key] for key in own if key in given}
    return {key: stored[place(key)] for key in own if key not in given and place(key) in stored}


def _converted(key: str, tensor: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    import torch

    if not own.is_floating_point():
        return tensor.detach().to("cpu", own.dtype)
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ArchitectureError(
            f"{index.printable(key)} holds {kind} where floating-point weights are expected.",
            "Give the checkpoint from before quantisation.",
        )
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
