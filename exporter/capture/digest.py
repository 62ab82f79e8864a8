"""Computes a sha256 over everything a build depends on, which is its key in the cache.

The walk follows the graph and not its printed code, because printed code leaves out nested graphs,
attributes and constants. A value that the walk does not know makes the digest empty: nothing is cached then.
The same holds for code of the user's own that a graph only names, a custom operator's for one: it can be
edited without a change of the name.
"""

from __future__ import annotations

import hashlib
import io
import operator
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import ModuleType
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
OPERATOR_LIBRARIES = frozenset(
    {"aten", "prim", "prims", "quantized", "quantized_decomposed", "torchvision", "torchao", "executorch"}
)
"""Libraries of operators whose code is in an installed package: the cache's keys have their versions."""
CODE_PACKAGES = frozenset({"torch", "torchvision", "torchao", "executorch", *sys.stdlib_module_names})
"""Packages whose functions and classes are known by their names, for the same reason."""


SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)
INPUTS = (Tensor, *SYMBOLS, *PLAIN)
"""What a graph notes of an input: its type and sizes, or a number."""


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
        total.add(program.graph_module, str(program.graph_signature), str(program.range_constraints))
        total.add(str(program.call_spec), dict(program.state_dict), dict(program.constants))
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
            self._text("enum", f"{type(value).__module__}.{type(value).__qualname__}.{value.name}")
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
        elif isinstance(value, SYMBOLS):
            self._text("symbol", str(value))
        elif isinstance(value, torch._ops.OperatorBase):
            self._operator(value)
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
            self._text("set", str(len(value)))
            self.add(*sorted(value, key=repr))
        elif isinstance(value, slice):
            self._text("slice", "")
            self.add(value.start, value.stop, value.step)
        elif is_dataclass(value) and not isinstance(value, type):
            self._text("record", f"{type(value).__module__}.{type(value).__qualname__}")
            self.add({field.name: getattr(value, field.name) for field in fields(value)})
        elif isinstance(value, torch.nn.Module):
            self._text("module", _name_of_digested_code(type(value)))
            self.add(dict(vars(value)))
        else:
            self._text("function", _name_of_digested_code(value))
        self._open.pop()

    def _operator(self, value: torch._ops.OperatorBase) -> None:
        library = getattr(value, "namespace", "")
        if isinstance(value, torch._ops.OpOverload) and library not in OPERATOR_LIBRARIES:
            raise UnknownValueError(f"the code of {value}")
        self._text("operator", str(value))

    def _tensor(self, tensor: Tensor) -> None:
        plain = tensor.detach()
        if plain.device.type != "cpu":
            raise UnknownValueError(f"a tensor on {plain.device}")
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
        """Hash every node with its arguments, and every attribute and nested graph that the nodes name.

        Reports name an operator by its place in the user's network, so that the place counts.
        """
        for node in module.graph.nodes:
            self.add(node.op, node.name, node.target, node.args, dict(node.kwargs))
            self.add([path for path, _ in node.meta.get("nn_module_stack", {}).values()])
            if node.op == "placeholder" and isinstance(value := node.meta.get("val"), INPUTS):
                self.add(value)
            if node.op in ("get_attr", "call_module"):
                self.add(operator.attrgetter(str(node.target))(module))

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


def _name_of_digested_code(value: Any) -> str:
    """Return the full name of a function or a class of an installed package.

    Raises:
        UnknownValueError: It is the user's own, a closure, or bound to an object: its name does not say what
            it does.
    """
    module, name = (getattr(value, attribute, None) for attribute in ("__module__", "__qualname__"))
    owner = getattr(value, "__self__", None)
    known = isinstance(module, str) and module.partition(".")[0] in CODE_PACKAGES
    if not (known and name and "<" not in name and isinstance(owner, ModuleType | None)):
        raise UnknownValueError(f"{name or type(value).__name__} of {module}")
    return f"{module}.{name}"
