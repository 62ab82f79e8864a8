"""Convert weights in training-only forms: weight norm, spectral norm, pruning masks, fake-quantisation.

A network built for inference has the plain weight, or the same thing by newer names; what follows from the
stored tensors alone is computed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from exporter.architectures import network_index
from exporter.architectures.weight_readings import Weights

if TYPE_CHECKING:
    import torch


OBSERVER = re.compile(
    r"(^|\.)(weight_fake_quant|bias_fake_quant|activation_post_process|fake_quant\w*)(_\d+)?\."
)
"""Tensors that quantisation-aware training stores in addition to the float weights."""

RENAMED = (
    ("{0}{1}_g", "{0}parametrizations.{1}.original0"),
    ("{0}{1}_v", "{0}parametrizations.{1}.original1"),
    ("{0}{1}_orig", "{0}parametrizations.{1}.original"),
    ("{0}{1}_u", "{0}parametrizations.{1}.0._u"),
    ("{0}{1}_v", "{0}parametrizations.{1}.0._v"),
)
"""Names of weight norm and spectral norm: `torch.nn.utils`' old ones, and those of `parametrizations`."""


def adapt_reparametrized(weights: Weights, own: Mapping[str, network_index.Shape]) -> Weights:
    """Bring the weights into the form that a network has, where the tensors alone decide how.

    Args:
        weights: The stored weights.
        own: The network's own names and shapes.
    """
    return _plain_of_reparametrized(
        _rename_reparametrized(
            _split_reparametrized(reparametrized_without_observers(weights, own), own), own
        ),
        own,
    )


def merge_reparametrized(weights: Weights) -> Weights:
    """Bring every weight into its plain form, for a network that is not built yet."""
    return _plain_of_reparametrized(reparametrized_without_observers(weights, {}), None)


def reparametrized_without_observers(weights: Weights, own: Mapping[str, network_index.Shape]) -> Weights:
    """Leave out the ranges that quantisation-aware training learned."""
    rest = {k: t for k, t in weights.tensors.items() if k in own or not OBSERVER.search(k)}
    count = len(weights.tensors) - len(rest)
    if not count:
        return weights
    return weights.noted(
        rest,
        f"the file is of quantisation-aware training: its float weights are used, and {count} tensors of "
        "fake-quantisation are left out",
    )


def _plain_of_reparametrized(weights: Weights, own: Mapping[str, network_index.Shape] | None) -> Weights:
    """Compute the plain weight from its parts, where the network (None: any) has that one."""
    tensors = dict(weights.tensors)
    notes = []
    for key in list(tensors):
        for kind, weight, parts in _reparametrized_sources(key, tensors):
            if (own is None or weight in own) and weight not in tensors and parts[0] not in (own or {}):
                tensors[weight] = _compute_plain_reparametrized(kind, *(tensors[part] for part in parts))
                for part in parts:
                    del tensors[part]
                notes.append((kind, weight))
                break
    by_kind = {kind: [weight for k, weight in notes if k == kind] for kind, _ in notes}
    return (
        weights.noted(tensors, *(_reparametrized_note(kind, keys) for kind, keys in by_kind.items()))
        if notes
        else weights
    )


def _reparametrized_sources(
    key: str, tensors: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, str, tuple[str, str]]]:
    """Yield (kind, name of the plain weight, names of its two parts) for the first part's name."""
    if key.endswith("_orig") and f"{key[:-5]}_mask" in tensors:
        yield "pruned", key[:-5], (key, f"{key[:-5]}_mask")
    for weight, direction in _reparametrized_norm_parts(key):
        if direction in tensors and _is_reparametrized_magnitude(tensors[key], tensors[direction]):
            yield "weight norm", weight, (key, direction)


def _compute_plain_reparametrized(kind: str, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    if kind == "pruned":
        return first * second.to(first.dtype)
    plain: torch.Tensor = second * (first / _reparametrized_norm(second, tuple(first.shape)))
    return plain


def _is_reparametrized_magnitude(magnitude: torch.Tensor, direction: torch.Tensor) -> bool:
    sizes = zip(magnitude.shape, direction.shape, strict=False)
    return magnitude.dim() == 0 or (
        magnitude.dim() == direction.dim() and all(size in (1, whole) for size, whole in sizes)
    )


def _reparametrized_norm(direction: torch.Tensor, shape: network_index.Shape) -> torch.Tensor:
    """Compute a weight's length over every axis except the one of its magnitude."""
    if len(shape) != direction.dim():
        return direction.square().sum().sqrt()
    axes = [axis for axis, size in enumerate(shape) if size == 1]
    return direction.square().sum(axes, keepdim=True).sqrt() if axes else direction.abs()


def _reparametrized_note(kind: str, weights: list[str]) -> str:
    how = {
        "pruned": "pruned: weight and mask are multiplied",
        "weight norm": "weight norm: magnitude and direction are multiplied into the plain weight",
    }
    return (
        f"{how[kind]} ({len(weights)} weights, first {network_index.printable_network_index_key(weights[0])})"
    )


def _rename_reparametrized(weights: Weights, own: Mapping[str, network_index.Shape]) -> Weights:
    """Respell weight norm and spectral norm between their old names and those of `parametrizations`."""
    renamed = {}
    for wanted in own:
        for other in _other_reparametrized_names(wanted):
            absent = wanted not in weights.tensors and other not in own
            if absent and other in weights.tensors and weights.tensors[other].shape == own[wanted]:
                renamed[other] = wanted
    if not renamed:
        return weights
    tensors = {renamed.get(key, key): tensor for key, tensor in weights.tensors.items()}
    first, wanted = next(iter(renamed.items()))
    return weights.noted(
        tensors,
        f"{len(renamed)} names of weight norm or spectral norm are respelt, "
        f"first {network_index.printable_network_index_key(first)} as "
        f"{network_index.printable_network_index_key(wanted)}",
    )


def _other_reparametrized_names(key: str) -> Iterator[str]:
    for old, new in RENAMED:
        for pattern, replacement in ((old, new), (new, old)):
            escaped = re.escape(pattern).replace(r"\{0\}", r"(|.*\.)").replace(r"\{1\}", r"(\w+)")
            match = re.fullmatch(escaped, key)
            if match:
                yield replacement.format(*match.groups())


def _split_reparametrized(weights: Weights, own: Mapping[str, network_index.Shape]) -> Weights:
    """Split a plain weight into magnitude and direction, where the network has weight norm."""
    tensors = dict(weights.tensors)
    split = []
    for key in own:
        for weight, direction in _reparametrized_norm_parts(key):
            if direction in own and weight in tensors and key not in tensors and direction not in tensors:
                tensors[key] = _reparametrized_norm(tensors[weight], own[key]).reshape(own[key])
                tensors[direction] = tensors.pop(weight)
                split.append(weight)
    if not split:
        return weights
    return weights.noted(
        tensors,
        f"{len(split)} plain weights split for weight norm, first "
        f"{network_index.printable_network_index_key(split[0])}",
    )


def _reparametrized_norm_parts(key: str) -> Iterator[tuple[str, str]]:
    """Return the names of the plain weight and of its direction for a magnitude's name."""
    if key.endswith("_g"):
        yield key[:-2], f"{key[:-2]}_v"
    match = re.fullmatch(r"(|.*\.)parametrizations\.(\w+)\.original0", key)
    if match:
        yield match[1] + match[2], f"{match[1]}parametrizations.{match[2]}.original1"
