"""Makes the networks that a model is easily mistaken for: those with GELU's other form.

A half-precision file of such a network is as near to the model as half precision itself takes any file. Its
error has the direction of the difference between the two networks, though, and rounding has none: the gate
`exporter.verify.gates.lookalikes_gate` looks along that direction.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx

from exporter.records import Runner, Sample

_OTHER_GELU = {"none": "tanh", "tanh": "none"}
_CHANGES: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "GELU in its other form (tanh for erf, or erf for tanh)": ("approximate", _OTHER_GELU.get),
}
"""What the other network has -> the argument of the operators that it changes, and the value given there.

None leaves an operator as it is."""


def lookalike_runners(program: torch.export.ExportedProgram) -> dict[str, Runner]:
    """Return a runner for each network that the program is easily mistaken for, by what that network has.

    Args:
        program: A float program; left as it is.
    """
    modules = {what: _lookalike_runner_module(program, *change) for what, change in _CHANGES.items()}
    return {what: lookalike_module_runner(module) for what, module in modules.items() if module is not None}


def lookalike_module_runner(module: Callable[..., Any]) -> Runner:
    """Return a runner that calls a module of a program, in the precision that it has."""

    def run(sample: Sample) -> Sample:
        tensors = [torch.from_numpy(array.copy()) for array in sample]
        with torch.inference_mode():
            leaves = torch.utils._pytree.tree_leaves(module(*tensors))
        return tuple(leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor))

    return run


def _lookalike_runner_module(
    program: torch.export.ExportedProgram, argument: str, change: Callable[[Any], Any]
) -> fx.GraphModule | None:
    """Return the program with an argument of all its operators changed; None where no operator has it."""
    module = program.module()
    changed = [
        _change_node_of_lookalike_runner(node, argument, change)
        for node in _lookalike_runner_calls(module.graph)
    ]
    if not any(changed):
        return None
    module.recompile()
    return copy.deepcopy(module)  # with a state of its own


def _lookalike_runner_calls(graph: fx.Graph) -> Iterator[fx.Node]:
    return (node for node in graph.nodes if isinstance(node.target, torch._ops.OpOverload))


def _change_node_of_lookalike_runner(node: fx.Node, argument: str, change: Callable[[Any], Any]) -> bool:
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    place = next((i for i, a in enumerate(arguments) if a.name == argument), None)
    if place is None:
        return False
    given = node.kwargs.get(argument, arguments[place].default_value)
    value = change(node.args[place] if place < len(node.args) else given)
    if value is None:
        return False
    if place < len(node.args):
        node.update_arg(place, value)
    else:
        node.update_kwarg(argument, value)
    return True
