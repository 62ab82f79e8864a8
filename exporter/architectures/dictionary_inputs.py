"""Lets a network take dictionaries and tuples: each tensor within is an input.

`--input-shape batch.image=1x3x8x8` is a tensor in a dictionary, `state.0=1x1x64` one in a tuple.
"""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exporter.errors import UsageError
from exporter.records import TensorSpec

INPUT_NAME_HINT = "Give names of letters, digits and underscores, such as --input-shape state.0=1x1x64."


class DictionaryInputs(nn.Module):
    """Calls a network with dictionaries and tuples made of its inputs."""

    def __init__(self, network: nn.Module, paths: Sequence[tuple[str, ...]], names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.paths = tuple(paths)
        """For each input the argument of the network's forward, and the keys within it."""
        self.names = tuple(names)

    def forward(self, *inputs: Tensor) -> Any:
        arguments: dict[str, Any] = {}
        for path, tensor in zip(self.paths, inputs, strict=True):
            place = arguments
            for key in path[:-1]:
                place = place.setdefault(key, {})
            place[path[-1]] = tensor
        return self.network(**{name: _tuples_within(argument) for name, argument in arguments.items()})


def _tuples_within(argument: Any) -> Any:
    """Return what was collected by keys, with a tuple wherever the keys are 0, 1, 2, …."""
    if not isinstance(argument, dict):
        return argument
    within = {key: _tuples_within(value) for key, value in argument.items()}
    places = [str(place) for place in range(len(within))]
    return tuple(within[place] for place in places) if set(within) == set(places) else within


def with_dictionary_inputs(
    module: torch.nn.Module, asked: tuple[TensorSpec, ...]
) -> tuple[torch.nn.Module, tuple[TensorSpec, ...]]:
    """Return a network whose inputs are the tensors within dictionaries, and their specs.

    Args:
        module: A network whose forward takes dictionaries or tuples.
        asked: Specs by path: "batch.image" is the tensor under "image" in the argument `batch`, "state.0" the
            first of the tuple `state`. Where no name is a path, the network and the specs are returned as
            they are.

    Returns:
        The network, and the specs named by their last key; by the whole path where two have the same,
        or where it is a number.
    """
    if not any("." in spec.name for spec in asked):
        return module, asked
    paths = [tuple(spec.name.split(".")) for spec in asked]
    last = [path[-1] for path in paths]
    own = [last.count(path[-1]) == 1 and not path[-1].isdecimal() for path in paths]
    names = [path[-1] if alone else "_".join(path) for path, alone in zip(paths, own, strict=True)]
    specs = tuple(dataclasses.replace(spec, name=name) for spec, name in zip(asked, names, strict=True))
    if isinstance(module, torch.jit.ScriptModule):
        return _scripted_dictionary_inputs(module, paths, names), specs
    return DictionaryInputs(module, paths, names), specs


def _scripted_dictionary_inputs(
    module: torch.jit.ScriptModule, paths: Sequence[tuple[str, ...]], names: Sequence[str]
) -> torch.jit.ScriptModule:
    """Return the same for a TorchScript network, in TorchScript: a Python module around it has no graph.

    Raises:
        UsageError: A name is no name in TorchScript.
    """
    for name in (*names, *(path[0] for path in paths)):
        if not name.isidentifier() or keyword.iskeyword(name):  # it becomes code
            raise UsageError(f"The input {name!r} has a name that TorchScript cannot have.", INPUT_NAME_HINT)
    arguments: dict[str, Any] = {}
    for path, name in zip(paths, names, strict=True):
        place = arguments
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = name
    given = ", ".join(f"{name}={_script_of(_tuples_within(value))}" for name, value in arguments.items())
    holder = nn.Module()
    holder.network = module
    caller: torch.jit.ScriptModule = torch.jit.script(holder)
    caller.define(f"def forward(self, {', '.join(names)}):\n    return self.network({given})\n")
    return caller


def _script_of(argument: Any) -> str:
    """Return what was collected as an expression."""
    if isinstance(argument, tuple):
        return f"({', '.join(map(_script_of, argument))},)"
    if isinstance(argument, dict):
        return f"{{{', '.join(f'{key!r}: {_script_of(value)}' for key, value in argument.items())}}}"
    return str(argument)
