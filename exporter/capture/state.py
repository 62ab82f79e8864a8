"""Finds what a network carries from one call to the next: buffers and attributes that `forward` changes.

A change that no output depends on (a counter, a table made at the first call) is not state.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exporter.capture.calls import (
    call_arguments,
    call_array,
    call_leaves,
    call_network,
    copy_module_for_calls,
    copy_tensor_for_calls,
    unwrapped_call,
)
from exporter.errors import CaptureError
from exporter.records import Sample
from exporter.verify.compare_outputs import REPEAT_TOLERANCE, compare_max_error

CALLS = 4
"""How many different samples are called before the first is called again."""


def state_changed_by_calls(module: nn.Module, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Name the tensors through which earlier calls change a later call's outputs.

    Args:
        module: It is not changed, where it can be copied.
        samples: Inputs of calls; only different ones show anything.

    Returns:
        Paths of buffers, parameters and attributes, in the module's order; empty without such a dependency.

    Raises:
        CaptureError: The network's own code raised, or earlier calls change the outputs through something
            that is not a tensor.
    """
    fresh, used = copy_module_for_calls(module), copy_module_for_calls(module)
    if used is module:
        return ()
    first = _outputs_by_state(fresh, samples[0])
    before = state_tensors(used), plain_state(used)
    for sample in samples[:CALLS]:
        call_network(used, call_arguments(sample))
    between = state_tensors(used), plain_state(used)
    again = _outputs_by_state(used, samples[0])
    if same_outputs_for_state(first, again):
        return ()
    if names := _differing_state(before[0], between[0]):
        return names
    plain = ", ".join(_differing_state(before[1], between[1]))
    raise CaptureError(
        f"Earlier calls change the network's outputs, through {plain or 'something'} that is not a tensor: "
        "no artifact keeps it.",
        "Keep it in a buffer (register_buffer), so that it is part of the checkpoint.",
        code="EM-STATE",
    )


def state_not_in_buffers(module: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Return those of a network's changing tensors that are plain attributes: an exported file drops them."""
    buffers = {name for name, _ in unwrapped_call(module).named_buffers()}
    return tuple(name for name in names if name not in buffers)


def same_outputs_for_state(first: Sequence[Any], again: Sequence[Any]) -> bool:
    """Tell whether two calls gave equal outputs, except for the last bits."""
    if len(first) != len(again) or any(a.shape != b.shape for a, b in zip(first, again, strict=True)):
        return False
    return all(_equal_for_state(a, b) for a, b in zip(first, again, strict=True))


def _equal_for_state(first: Any, again: Any) -> bool:
    if np.array_equal(first, again, equal_nan=first.dtype.kind in "fc"):
        return True
    finite = bool(np.isfinite(first).all() and np.isfinite(again).all()) if first.dtype.kind == "f" else False
    return finite and compare_max_error(first, again) <= REPEAT_TOLERANCE


def _outputs_by_state(module: nn.Module, sample: Sample) -> list[Any]:
    return [call_array(leaf) for _, leaf in call_leaves(call_network(module, call_arguments(sample)))]


def _differing_state(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in {**before, **after} if not _alike_state(before.get(name), after.get(name)))


def _alike_state(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and bool(torch.equal(first, second))
    return type(first) is type(second) and not isinstance(first, Tensor) and bool(first == second)


def state_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Copy every tensor of a module by its path: parameters, buffers, attributes, and lists of tensors."""
    tensors: dict[str, Tensor] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, part in module.named_modules():
            for name, value in _state_attributes(part):
                for suffix, leaf in _list_nested_state(value):
                    if isinstance(leaf, Tensor):
                        tensors[".".join(filter(None, (path, name, suffix)))] = copy_tensor_for_calls(leaf)
    return tensors


def plain_state(module: nn.Module) -> dict[str, str]:
    """Print every attribute that is not a tensor, by its path."""
    return {
        ".".join(filter(None, (path, name))): repr(value)
        for path, part in module.named_modules()
        for name, value in _state_attributes(part)
        if isinstance(value, bool | int | float | str | type(None) | list | tuple | dict | set)
    }


def _state_attributes(part: nn.Module) -> list[tuple[str, Any]]:
    own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
    if isinstance(part, torch.jit.ScriptModule):
        return own
    internal = nn.Module().__dict__.keys()
    return own + [(name, value) for name, value in part.__dict__.items() if name not in internal]


def _list_nested_state(value: Any, depth: int = 3) -> list[tuple[str, Any]]:
    if depth and isinstance(value, tuple | list):
        return [
            (".".join(filter(None, (str(i), suffix))), leaf)
            for i, item in enumerate(value)
            for suffix, leaf in _list_nested_state(item, depth - 1)
        ]
    if depth and isinstance(value, dict):
        return [
            (".".join(filter(None, (str(key), suffix))), leaf)
            for key, item in value.items()
            for suffix, leaf in _list_nested_state(item, depth - 1)
        ]
    return [("", value)]
