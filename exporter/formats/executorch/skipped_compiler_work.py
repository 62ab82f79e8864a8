"""Skips work of ExecuTorch's compiler whose result is thrown away. The bytes that it writes stay the same.

Lowering MobileNetV2 spends nearly half of its time on three things, and a small network on a fourth:
    pattern graphs   bilinear upsampling, attention and rotary embeddings are exported and decomposed to be
                     searched for, also in networks that lack the operators every such pattern needs
    retracing        passes run the whole graph through fake tensors again when they changed nothing
    provenance       every retrace deep-copies each node's history, which nothing ever changes
    lists            composite operators are looked up again for each namespace (`composite_operators.py`)

They can't be switched off from outside, so this replaces internals while a lowering runs, and only
in the versions where it was proven (`test_executorch_skipped_compiler_work.py` compares the bytes).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from exporter.formats.composite_operators import list_composite_operators_in_one_go
from exporter.formats.replaced_internals import are_versions_proven, replaced_internal

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node
    from torch.fx.passes.infra.pass_base import PassResult

PROVEN_VERSIONS = {"executorch": "1.4.1", "torch": "2.13.0"}
XNNPACK_PATTERNS = {
    "ConvertToUpsampleBilinear2d": frozenset({"aten.upsample_bilinear2d.vec"}),
    "ConvertToSDPAPass": frozenset({"aten.logical_not.default", "aten._softmax.default"}),
}
"""XNNPACK pass -> operators that each of its patterns contains: without one of them it cannot match."""
VULKAN_PATTERNS = {
    "export_llama_rope": frozenset({"aten.mul.Tensor", "aten.cat.default", "aten.sub.Tensor"}),
    "hf_rope": frozenset({"aten.mul.Tensor", "aten.cat.default", "aten.neg.default"}),
}
"""Vulkan pattern -> operators that it contains: without one of them it cannot match."""
_RETRACED = "exporter_retraced"


@contextmanager
def skip_compiler_work() -> Iterator[None]:
    """Leave out the compiler's wasted work inside the block; does nothing in other versions."""
    if not are_versions_proven(PROVEN_VERSIONS):
        yield
        return
    with ExitStack() as stack:
        for saving in (
            _skip_work_by_shared_provenance,
            _skip_idle_retraces,
            _skip_xnnpack_search,
            _skip_vulkan_search,
            list_composite_operators_in_one_go,
        ):
            stack.enter_context(saving())
        yield


def _skip_work_by_shared_provenance() -> contextlib.AbstractContextManager[None]:
    from torch.fx.traceback import NodeSource

    # Provenance is written once, when its node is made: a copy may share it.
    return replaced_internal(NodeSource, "__deepcopy__", lambda self, _memo: self)


def _skip_idle_retraces() -> contextlib.AbstractContextManager[None]:
    from executorch.exir.pass_base import ExportPass, PassResult

    retrace = ExportPass.call
    hooks = _hooks_of_skipped_pass(ExportPass)

    def call(self: Any, module: GraphModule) -> PassResult:
        # Most passes edit the graph and then retrace it with every hook of ExportPass left as it is.
        plain = all(getattr(type(self), name) is hook for name, hook in hooks.items())
        if plain and module.meta.get(_RETRACED) == _fingerprint_to_skip_retrace(module.graph):
            return PassResult(module, True)
        result = retrace(self, module)
        result.graph_module.meta[_RETRACED] = _fingerprint_to_skip_retrace(result.graph_module.graph)
        return result

    return replaced_internal(ExportPass, "call", call)


def _hooks_of_skipped_pass(base: type) -> dict[str, Any]:
    """Return the methods that a pass can override to change nodes as they are retraced."""
    names = {name for cls in base.__mro__[:-1] for name, value in vars(cls).items() if callable(value)}
    names -= {"__init__", "call", "requires", "ensures", "inputs", "__call__"}
    return {name: getattr(base, name) for name in names if not name.startswith("__")}


def _fingerprint_to_skip_retrace(graph: Graph) -> list[Any]:
    """Return everything that a retrace of the graph depends on."""
    return [(n.op, n.target, str(n.args), str(n.kwargs), str(_specs_to_skip_retrace(n))) for n in graph.nodes]


def _specs_to_skip_retrace(node: Node) -> Any:
    import torch
    from torch.utils import _pytree

    def spec(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.dtype, tuple(value.shape), value.stride()
        return value

    return _pytree.tree_map(spec, node.meta.get("val"))


@contextmanager
def _skip_xnnpack_search() -> Iterator[None]:
    from executorch.backends.xnnpack import _passes

    with ExitStack() as stack:
        for name, operators in XNNPACK_PATTERNS.items():
            pass_class = getattr(_passes, name)
            stack.enter_context(
                replaced_internal(pass_class, "call", _search_that_skips_work(pass_class.call, operators))
            )
        yield


def _search_that_skips_work(call: Callable[[Any, GraphModule], PassResult], operators: frozenset[str]) -> Any:
    from torch.fx.passes.infra.pass_base import PassResult

    def search(self: Any, module: GraphModule) -> PassResult:
        if operators <= _operators_to_skip_search(module.graph):
            return call(self, module)
        return PassResult(module, False)

    return search


@contextmanager
def _skip_vulkan_search() -> Iterator[None]:
    from executorch.backends.vulkan import patterns

    find, replace = patterns.get_all_fusable_subgraphs, patterns.replace_all_fusable_subgraphs

    def candidates(graph: Graph) -> dict[str, Any]:
        present = _operators_to_skip_search(graph)
        patterns_by_name = patterns.fusable_patterns.items()
        return {
            name: entry for name, entry in patterns_by_name if VULKAN_PATTERNS.get(name, present) <= present
        }

    def find_candidates(module: GraphModule) -> Any:
        with replaced_internal(patterns, "fusable_patterns", candidates(module.graph)):
            return find(module)

    def replace_candidates(program: Any, module: GraphModule) -> Any:
        with replaced_internal(patterns, "fusable_patterns", candidates(module.graph)):
            return replace(program, module)

    with (
        replaced_internal(patterns, "get_all_fusable_subgraphs", find_candidates),
        replaced_internal(patterns, "replace_all_fusable_subgraphs", replace_candidates),
    ):
        yield


def _operators_to_skip_search(graph: Graph) -> frozenset[str]:
    return frozenset(
        getattr(node.target, "__name__", "") for node in graph.nodes if node.op == "call_function"
    )
