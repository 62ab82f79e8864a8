"""Computes a sha256 over everything a build depends on, which is its key in the cache.

The walk follows the graph and not its printed code, because printed code leaves out nested graphs,
attributes and constants. A value that the walk does not know makes the digest empty: nothing is cached then.
"""

from __future__ import annotations

import hashlib
import io
import operator
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, fx

PLAIN = (
    str,
    int,
    float,
    complex,
    bool,
    bytes,
    type(None),
    type(...),
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.Size,
)


class UnknownValueError(Exception):
    """A value that the digest cannot cover."""


def digest_program(program: torch.export.ExportedProgram | None) -> str:
    """Hash a program's graphs, nested ones included, its signature, and every tensor and constant.

    Returns:
        The hash in hexadecimal; empty when there is no program, or when it holds something unknown.
    """
    if program is None:
        return ""
    total = _Digest()
    try:
        total.add("graph", program.graph_module)
        total.add("signature", str(program.graph_signature))
        total.add("ranges", str(program.range_constraints))
        total.add("state", dict(program.state_dict))
        total.add("constants", dict(program.constants))
    except UnknownValueError:
        return ""
    return total.hexdigest()


class _Digest:
    """Hashes values by kind, so that no two kinds of equal text are alike."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()
        self._open: list[int] = []

    def hexdigest(self) -> str:
        return self._total.hexdigest()

    def add(self, *values: Any) -> None:
        """Hash values one after the other.

        Raises:
            UnknownValueError: A value is of no kind that this class knows.
        """
        for value in values:
            self._add(value)

    def _text(self, kind: str, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self._total.update(f"{kind}:{len(data)}:".encode() + data)

    def _add(self, value: Any) -> None:
        if isinstance(value, Enum):
            self._text("enum", f"{type(value).__qualname__}.{value.name}")
        elif isinstance(value, PLAIN):
            self._text(type(value).__name__, repr(value))
        elif isinstance(value, torch._subclasses.FakeTensor):  # a shape in a graph's notes, without values
            self._text("shape", f"{value.dtype} {tuple(value.shape)} {value.stride()}")
        elif isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, fx.GraphModule):
            self._graph(value)
        elif isinstance(value, fx.Node):
            self._text("node", value.name)
        elif isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            self._text("symbol", str(value))
        elif isinstance(value, torch._ops.OperatorBase):
            self._text("operator", str(value))
        elif isinstance(value, torch.ScriptObject | torch.jit.ScriptModule):
            self._script(value)
        else:
            self._container(value)

    def _container(self, value: Any) -> None:
        if id(value) in self._open:
            raise UnknownValueError("a value that contains itself")
        self._open.append(id(value))
        if isinstance(value, Mapping):
            self._text("mapping", str(len(value)))
            for key in sorted(value, key=repr):
                self.add(key, value[key])
        elif isinstance(value, tuple | list):
            self._text("sequence", str(len(value)))  # saving a graph makes tuples of some lists
            self.add(*value)
        elif isinstance(value, set | frozenset):
            self.add("set", sorted(value, key=repr))
        elif isinstance(value, slice):
            self.add("slice", value.start, value.stop, value.step)
        elif is_dataclass(value) and not isinstance(value, type):
            self.add(type(value).__qualname__, {f.name: getattr(value, f.name) for f in fields(value)})
        elif isinstance(value, torch.nn.Module):
            self._module(value)
        elif callable(value) and hasattr(value, "__module__") and hasattr(value, "__qualname__"):
            self._text("function", f"{value.__module__}.{value.__qualname__}")
        else:
            raise UnknownValueError(type(value).__name__)
        self._open.pop()

    def _tensor(self, tensor: Tensor) -> None:
        plain = tensor.detach()
        layout = tensor.stride() if tensor.layout == torch.strided else str(tensor.layout)
        self._text("tensor", f"{tensor.dtype} {tuple(tensor.shape)} {layout} {type(tensor).__name__}")
        if (
            type(plain) not in (Tensor, torch.nn.Parameter)
            or plain.layout != torch.strided
            or plain.is_quantized
        ):
            self._pickle(plain)
        else:
            flat = plain.resolve_conj().resolve_neg().contiguous().reshape(-1)
            self._total.update(flat.view(torch.uint8).numpy().data)

    def _graph(self, module: fx.GraphModule) -> None:
        """Hash every node with its arguments, and every attribute and nested graph that the nodes name."""
        for node in module.graph.nodes:
            self.add("at", node.op, node.name, node.target, node.args, dict(node.kwargs))
            if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor | int | float):
                self.add(node.meta["val"])
            if node.op in ("get_attr", "call_module"):
                self.add(operator.attrgetter(str(node.target))(module))

    def _module(self, module: torch.nn.Module) -> None:
        self.add(f"{type(module).__module__}.{type(module).__qualname__}", dict(module.state_dict()))
        self.add({name: value for name, value in vars(module).items() if not name.startswith("_")})
        self.add(dict(module.named_children()))

    def _script(self, value: Any) -> None:
        buffer = io.BytesIO()
        try:
            torch.jit.save(value, buffer) if isinstance(value, torch.jit.ScriptModule) else torch.save(
                value, buffer
            )
        except Exception as error:
            raise UnknownValueError(str(error)) from error
        self._text("script", buffer.getvalue())

    def _pickle(self, value: Any) -> None:
        buffer = io.BytesIO()
        try:
            torch.save(value, buffer)
        except Exception as error:
            raise UnknownValueError(str(error)) from error
        self._text("pickle", buffer.getvalue())
