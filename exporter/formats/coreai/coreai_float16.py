"""Rewrites a float32 program to half precision for Core AI; `formats.half_precision` decides what stays.

Batch norms are folded first, in float32: many variances of a trained network are below float16's smallest
number, and their inverse roots would be infinite.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree

from exporter.errors import LoweringError
from exporter.formats.simulation import float32_nodes_to_simulate
from exporter.quantize import batch_norms, graphs
from exporter.records import Captured


def coreai_float16_program(
    captured: Captured, program: torch.export.ExportedProgram
) -> tuple[torch.export.ExportedProgram, str]:
    """Return a program that computes in float16 between float32 inputs and outputs, and a note.

    Args:
        captured: Gives the example inputs.
        program: The float32 program; left as it is.

    Raises:
        LoweringError: A weight is beyond float16's range.
    """
    module = copy.deepcopy(program.module())
    batch_norms.fold_batch_norms(module)
    for node in [n for n in module.graph.nodes if "assert" in str(n.target)]:
        module.graph.erase_node(node)  # they assert the types of the float32 program
    module.recompile()
    float32 = float32_nodes_to_simulate(module.graph)
    for node in module.graph.nodes:
        if node.op == "get_attr" and any(user not in float32 for user in node.users):
            _store_attribute_in_coreai_float16(module, str(node.target))
    half = torch.export.export(_HalfProgram(module, float32), captured.example, strict=False)
    kinds = sorted({str(node.target).removeprefix("aten.").partition(".")[0] for node in float32})
    note = f"{len(float32)} operators compute in float32: {', '.join(kinds)}." if kinds else ""
    return half, note


def _store_attribute_in_coreai_float16(module: fx.GraphModule, name: str) -> None:
    value = graphs.graph_attribute(module, name)
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return
    stored = value.detach().half()
    if bool((stored.isinf() & value.isfinite()).any()):
        raise LoweringError(f"{name} holds values beyond float16's range (65504).")
    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path)
    delattr(owner, last)
    owner.register_buffer(last, stored)


class _HalfProgram(nn.Module):
    """Runs a program in float16, except the nodes of `float32`, so that `torch.export` records the casts."""

    def __init__(self, module: fx.GraphModule, float32: frozenset[fx.Node]) -> None:
        super().__init__()
        self.module = module
        self._float32 = float32

    def forward(self, *inputs: Tensor) -> Any:
        outputs = _HalfInterpreter(self.module, self._float32).run(*inputs)
        return tuple(_cast_to_coreai_float16(leaf, torch.float32) for leaf in _pytree.tree_leaves(outputs))


class _HalfInterpreter(fx.Interpreter):
    """Casts what an operator reads to the type that it computes in; a tensor is cast once."""

    def __init__(self, module: fx.GraphModule, float32: frozenset[fx.Node]) -> None:
        super().__init__(module)
        self._float32 = float32
        self._casts: dict[tuple[int, torch.dtype], tuple[Any, Any]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute a node in float32 where it must be, else in float16."""
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        cast = self._as_float32 if n in self._float32 else self._as_half
        args, kwargs = _pytree.tree_map(cast, (args, kwargs))
        return self.call_function(n.target, args, kwargs)

    def _as_float32(self, value: Any) -> Any:
        return self._cast_once(value, torch.float32)

    def _as_half(self, value: Any) -> Any:
        if value is torch.float32:
            return torch.float16
        return self._cast_once(value, torch.float16)

    def _cast_once(self, value: Any, dtype: torch.dtype) -> Any:
        """Cast a float tensor; the key's tensor is kept, so that no other takes its identity."""
        if not isinstance(value, Tensor):
            return value
        key = (id(value), dtype)
        if key not in self._casts:
            self._casts[key] = (value, _cast_to_coreai_float16(value, dtype))
        return self._casts[key][1]


def _cast_to_coreai_float16(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.float32) and value.dtype != dtype:
        return value.to(dtype)
    return value
