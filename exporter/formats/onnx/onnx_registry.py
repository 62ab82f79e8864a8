"""Lets PyTorch's ONNX exporter make its table of translations once in a process.

The exporter reads the source of all its 500 functions again for every network: half of the time that a small
one takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from exporter.formats.replaced_internals import are_versions_proven, replaced_internal

if TYPE_CHECKING:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

PROVEN_VERSIONS = {"torch": "2.13.0"}
TORCHLIB_OPSET = 18
"""The opset of an exporter that is not told any."""


@contextmanager
def make_onnx_registry_once() -> Iterator[None]:
    """Give exports inside the block copies of one table; does nothing in other versions."""
    if not are_versions_proven(PROVEN_VERSIONS):
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    make = ONNXRegistry.from_torchlib

    def copied(opset_version: int = TORCHLIB_OPSET) -> ONNXRegistry:
        """Return a table of the caller's own, as an exporter may add to it."""
        made = _made_onnx_registry(make, opset_version, _declared_operators())
        registry = ONNXRegistry()
        registry._opset_version = made.opset_version
        registry.functions = {operator: list(functions) for operator, functions in made.functions.items()}
        return registry

    with replaced_internal(ONNXRegistry, "from_torchlib", staticmethod(copied)):
        yield


@functools.lru_cache(maxsize=4)
def _made_onnx_registry(
    make: Callable[[int], ONNXRegistry], opset_version: int, declared: frozenset[str]
) -> ONNXRegistry:
    """Make the table, which leaves out the translations of operators that are not declared yet."""
    return make(opset_version)


def _declared_operators() -> frozenset[str]:
    """Return the names of all operators; imports declare more, such as those of int8 or torchvision."""
    import torch

    return frozenset(torch._C._dispatch_get_all_op_names())
