"""Writes TorchScript out as a straight graph: the operators that one call runs, without branches and loops.

The graph that PyTorch converts from a TorchScript archive keeps its branches, and drops what the archive
keeps in attributes from call to call. Here the archive is called once while its operators are recorded: a
branch on a size, a number or an attribute is taken as the example takes it, and one on a tensor's values ends
the recording with an error. Attributes that a call changes become buffers.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from exporter.capture.calls import call_arguments, call_leaves, copy_module_for_calls
from exporter.errors import CaptureError
from exporter.records import Model, Sample

aten = torch.ops.aten

INTERPRETER = "failed in the TorchScript interpreter"
BRANCHES = frozenset({"prim::If", "prim::Loop", "prim::SetAttr"})
"""Nodes of TorchScript that a straight graph does not have."""
CELLS = {cell: cell.decompose for cell in (aten.lstm_cell.default, aten.gru_cell.default)}
"""Steps of recurrent layers, which are recorded as their linear layers: those are quantised."""


class StraightScript(nn.Module):
    """Runs the recorded operators of a TorchScript archive; its state is in buffers."""

    def __init__(self, graph: nn.Module, states: Mapping[str, Tensor], spec: Any) -> None:
        """Wrap a recording.

        Args:
            graph: It takes the states and the inputs, and returns the outputs and the states after the call.
            states: Name of a buffer -> its value before the first call.
            spec: How the outputs are nested.
        """
        super().__init__()
        self.recorded = graph
        self.states = tuple(states)
        self.spec = spec
        for name, value in states.items():
            self.register_buffer(name, value.clone())

    def forward(self, *inputs: Tensor) -> Any:
        before = [getattr(self, name) for name in self.states]  # `--state explicit` makes attributes of them
        results = self.recorded(*before, *inputs)
        outputs, after = results[: self.spec.num_leaves], results[self.spec.num_leaves :]
        for buffer, value in zip(before, after, strict=True):
            buffer.copy_(value)
        return _pytree.tree_unflatten(outputs, self.spec)

    def restart(self, states: Mapping[str, Tensor]) -> None:
        """Set the state to the given values, in its own order."""
        for name, value in zip(self.states, states.values(), strict=True):
            self.get_buffer(name).copy_(value)


def model_without_branches(model: Model, sample: Sample) -> Model:
    """Return a model whose network is no TorchScript with branches or state; see `straighten_script`."""
    module = straighten_script(model.module, call_arguments(sample))
    if not isinstance(module, StraightScript):
        return model
    note = "the TorchScript archive is written out as a graph: branches are taken as these inputs take them"
    if module.states:
        note += f"; it keeps {', '.join(module.states)} from call to call"
    return replace(model, module=module, notes=(*model.notes, note))


def straighten_script(module: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """Return a TorchScript archive with branches, loops, state or nested outputs as a straight network.

    Others are returned as they are: their graph can be converted.

    Args:
        module: It is not changed.
        inputs: The inputs of a call.

    Raises:
        CaptureError: A branch depends on a tensor's values, or the first call's outputs depend on what an
            attribute holds besides tensors.
    """
    if not isinstance(module, torch.jit.ScriptModule):
        return module
    if not _has_branches(module) and _has_flat_script_outputs(module, inputs):
        return module
    fresh: Any = copy_module_for_calls(module)
    used: Any = copy_module_for_calls(module)
    with torch.no_grad():
        outputs = _first_script_call(fresh, inputs)
        states = _first_script_states(used, fresh)
        straight = _recorded_script(fresh, states, inputs)
        again = straight(*_copied_script_inputs(inputs))
        straight.restart(states)
    if not _equal_script_outputs(outputs, again):
        raise CaptureError(
            "The TorchScript archive computes something else at its first call than later: it keeps "
            "something besides tensors, or its branches depend on values.",
            "Give the network's own class with --arch, or an archive without such branches.",
            code="EM-STATE",
        )
    return straight


def _has_flat_script_outputs(module: torch.jit.ScriptModule, inputs: Sequence[Tensor]) -> bool:
    """Tell whether an archive returns a tensor or a tuple of tensors, no dictionary, list or tuple within."""
    with torch.no_grad():
        outputs = _first_script_call(copy_module_for_calls(module), inputs)
    return isinstance(outputs, Tensor) or (
        type(outputs) is tuple and all(isinstance(item, Tensor) for item in outputs)
    )


def _first_script_call(module: Any, inputs: Sequence[Tensor]) -> Any:
    """Return the archive's outputs.

    Raises:
        CaptureError: It does not run on these inputs.
    """
    try:
        return module(*_copied_script_inputs(inputs))
    except Exception as error:
        shapes = ", ".join(str(list(value.shape)) for value in inputs)
        raise CaptureError(
            f"The TorchScript archive does not run on inputs of {shapes}: {_script_failure(str(error))}.",
            "Give the shapes that it was made for with --input-shape.",
        ) from error


def _has_branches(module: torch.jit.ScriptModule) -> bool:
    try:
        pending: list[Any] = [module.inlined_graph]
    except RuntimeError:  # a method that cannot be inlined
        return True
    while pending:
        for node in pending.pop().nodes():
            if node.kind() in BRANCHES:
                return True
            pending.extend(node.blocks())
    return False


def _copied_script_inputs(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in inputs]


def _first_script_states(before: torch.jit.ScriptModule, after: torch.jit.ScriptModule) -> dict[str, Tensor]:
    """Return the tensor attributes that a call changed, with their values before it.

    An attribute that was empty, to be made at the first call, starts as zeros of the shape that it got.
    """
    old, new = _script_tensors(before), _script_tensors(after)
    return {
        path: old[path].clone() if path in old and old[path].shape == value.shape else torch.zeros_like(value)
        for path, value in new.items()
        if path not in old or old[path].shape != value.shape or not torch.equal(old[path], value)
    }


def _script_tensors(module: torch.jit.ScriptModule) -> dict[str, Tensor]:
    """Return every tensor of an archive by its path: parameters, buffers and plain attributes."""
    tensors = {}
    for path, part in module.named_modules():
        own: Any = part
        kind: Any = torch._C.ConcreteModuleType.from_jit_type(own._c._type())
        names = [*kind.get_attributes(), *(name for name, _ in own.named_buffers(recurse=False))]
        for name in names:
            value = own._c.getattr(name)
            if isinstance(value, Tensor):
                tensors[f"{path}.{name}".lstrip(".")] = value
    return tensors


def _recorded_script(
    module: torch.jit.ScriptModule, states: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> StraightScript:
    """Call an archive once, with its operators recorded; it has been called before."""
    from torch.fx.experimental.proxy_tensor import make_fx

    spec: list[Any] = []

    def call(*values: Tensor) -> list[Tensor]:
        for path, value in zip(states, values, strict=False):
            owner, name = _script_owner(module, path)
            owner.setattr(name, value)
        leaves, form = _pytree.tree_flatten(module(*values[len(states) :]))
        spec[:] = [form]
        after = [owner.getattr(name) for owner, name in (_script_owner(module, path) for path in states)]
        return [*leaves, *after]

    try:
        graph = make_fx(call, CELLS, pre_dispatch=True)(*_copied_script_inputs([*states.values(), *inputs]))
    except Exception as error:
        raise CaptureError(
            "The TorchScript archive cannot be written out as a straight graph: "
            f"{_script_failure(str(error))}.",
            "Compute both ways and choose with torch.where, or give the network's own class with --arch.",
        ) from error
    _name_recorded_weights(graph)
    buffers = {path.replace(".", "_"): value for path, value in states.items()}
    return StraightScript(graph, buffers, spec[0]).eval()


def _script_failure(text: str) -> str:
    """Say which line of the archive's code failed, and why: of TorchScript's text, its end has that.

    A branch on a tensor's values has no reason of its own there.
    """
    lines = [line.strip() for line in text.strip().splitlines()] or [""]
    if INTERPRETER not in lines[0]:
        return lines[0][:200]
    file, marked = "", []
    for above, line in itertools.pairwise(lines):
        if above.startswith("File "):
            file = above.partition(", in ")[0].removeprefix("File ")
        if line.endswith("<--- HERE"):
            marked.append((file, above))
    own = [(place, code) for place, code in marked if "/torch/" not in place]
    place, code = next(reversed(own or marked), ("its code", ""))
    reason = lines[-1].partition("Error:")[2].strip() if "Error:" in lines[-1] else lines[-1]
    if not reason:
        return f"a branch depends on a tensor's values, at {place}: {code[:160]!r}"
    return f"{reason[:200]}, at {place}: {code[:160]!r}"


def _name_recorded_weights(graph: torch.fx.GraphModule) -> None:
    """Make parameters of the recorded constants: a recording has no names for an archive's weights."""
    places = [node for node in graph.graph.nodes if node.op == "get_attr"]
    for name in dict.fromkeys(str(node.target) for node in places):
        value = getattr(graph, name)
        if not (isinstance(value, Tensor) and value.is_floating_point() and value.dim()):
            continue
        weight = name.replace("_tensor_constant", "weight")
        delattr(graph, name)
        graph.register_parameter(weight, nn.Parameter(value.detach().clone()))
        for node in places:
            if node.target == name:
                node.target = weight
    graph.recompile()


def _script_owner(module: torch.jit.ScriptModule, path: str) -> tuple[Any, str]:
    """Return the C++ object that holds the attribute at a path, and the attribute's name."""
    *parents, name = path.split(".")
    owner: Any = module._c
    for parent in parents:
        owner = owner.getattr(parent)
    return owner, name


def _equal_script_outputs(first: Any, again: Any) -> bool:
    pairs = list(zip(call_leaves(first), call_leaves(again), strict=True))
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True) for (_, a), (_, b) in pairs)
