"""Computes weights that a network computes from others at every call (weight norm, spectral norm) once.

In eval mode they do not change. A graph that computes them is larger and slower, and XNNPACK does not take a
convolution whose weight is computed.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from exporter.capture.calls import copy_module_for_calls


def with_folded_weights(module: nn.Module) -> nn.Module:
    """Return a copy of a network with its computed weights stored; the network itself where it has none.

    Args:
        module: In eval mode. A scripted one is returned as it is.
    """
    if isinstance(module, torch.jit.ScriptModule) or not any(map(_has_folded_weight, module.modules())):
        return module
    folded = copy_module_for_calls(module)
    if folded is module:  # it cannot be copied
        return module
    with torch.no_grad():
        for part in folded.modules():
            _fold_weights_of(part)
    return folded


def _has_folded_weight(part: nn.Module) -> bool:
    return parametrize.is_parametrized(part) or any(_norms_of_folded_weights(part))


def _norms_of_folded_weights(part: nn.Module) -> list[WeightNorm | SpectralNorm]:
    """Return the hooks of the old `weight_norm` and `spectral_norm`."""
    hooks = part._forward_pre_hooks.values()
    return [hook for hook in hooks if isinstance(hook, (WeightNorm, SpectralNorm))]


def _fold_weights_of(part: nn.Module) -> None:
    for norm in _norms_of_folded_weights(part):
        remove = remove_weight_norm if isinstance(norm, WeightNorm) else remove_spectral_norm
        remove(part, norm.name)
    if parametrize.is_parametrized(part):
        _fold_parametrizations(part)


def _fold_parametrizations(part: nn.Module) -> None:
    """Store what the parametrizations of a module give.

    `remove_parametrizations` changes the module's class, which a copy shares with the original.
    """
    weights = {name: getattr(part, name).detach().clone() for name in part.parametrizations}  # type: ignore[union-attr]
    part.__class__ = type(part).__bases__[0]
    del part.parametrizations
    for name, weight in weights.items():
        part.register_parameter(name, nn.Parameter(weight, requires_grad=False))
