"""Says which operator a converter or a runtime does not know, where the model uses it, and what to do.

Converters decompose a network before they give up, and name what they were left with: `prims.signbit` for
`copysign`. The user wrote neither.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import fx

_CONVERTERS = (
    (re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'"), "PyTorch's ONNX exporter"),
    (re.compile(r"No ONNX function found for .*?_higher_order_ops\.(\w+)\."), "PyTorch's ONNX exporter"),
    (re.compile(r"Operator torch\._ops\.([\w.]+) is not in Core ATen opset"), "ExecuTorch"),
    (
        re.compile(r"inputs with mismatched dtypes:\s*Operator: <EdgeOpOverload: ([\w.]+)>"),
        "With these types, ExecuTorch",
    ),
    (
        re.compile(r"the derivative for '(?:aten::)?(\w+)' is not implemented"),
        "The int8 recipe, which needs derivatives,",
    ),
    (re.compile(r"Missing out variants: \{'([\w.:]+)'"), "ExecuTorch"),
    (re.compile(r"Unsupported fx node (\w+)"), "Core ML's converter"),
    (re.compile(r"convert function for op '([\w.:]+)' not implemented"), "Core ML's converter"),
    (
        re.compile(r"[Uu]n(?:supported|known|implemented) (?:op(?:erator)?s?|aten op)[: ]+'?([\w.:]+)"),
        "The converter",
    ),
    (re.compile(r"Detected that you are using FX to torch\.jit\.trace()"), "TorchScript"),
    (
        re.compile(r"No (?:lowering|converter|translation) .*?(?:for|of) (?:op )?'?((?:aten|prims)[\w.:]+)"),
        "The converter",
    ),
)
"""How a converter says that it does not know an operator, which it names, and what to call the converter."""
ADVICE = "write it with operators that it knows, end the network before it, or leave this format out"


def unknown_operator(
    texts: Iterable[str], program: torch.export.ExportedProgram | None
) -> tuple[str, str | None] | None:
    """Return in a sentence which operator a converter does not know, and the line that uses it.

    Args:
        texts: The converter's messages, the first cause last.
        program: The network; None where it has no graph.

    Returns:
        The sentence and "file:line", or None where no message is about an unknown operator.
    """
    for text in reversed(list(texts)):
        for pattern, converter in _CONVERTERS:
            if match := pattern.search(text):
                return _unknown_operator_sentence(match[1], converter, program)
    return None


def _unknown_operator_sentence(
    name: str, converter: str, program: torch.export.ExportedProgram | None
) -> tuple[str, str | None] | None:
    bare = _bare_operator(name)
    node = _operator_in_program(bare, program) if program else None
    if node is None:
        return (f"{converter} does not know the operator {bare}: {ADVICE}", None) if bare else None
    written = written_operator(node)
    became = f", which becomes {bare} there" if bare and written != bare.strip("_") else ""
    return f"{converter} does not know the operator {written}{became}: {ADVICE}", _line_of_operator(node)


def _bare_operator(name: str) -> str:
    """Return the name without its namespace and overload: "aten::sort.values" is "sort"."""
    parts = re.sub(r"^\w+::", "", name).split(".")
    return parts[1] if parts[0] in {"aten", "prims", "torch", "higher_order"} and len(parts) > 1 else parts[0]


def _operator_in_program(name: str, program: torch.export.ExportedProgram) -> fx.Node | None:
    """Return the node of an operator; without a name, of one that holds graphs of its own."""
    for graph in _graphs_with_operators(program):
        for node in graph.nodes:
            if node.op == "call_function" and _is_operator(node, name):
                operator: fx.Node = node
                return operator
    return None


def _graphs_with_operators(program: torch.export.ExportedProgram) -> Iterator[fx.Graph]:
    """Yield the program's graph, and then what is left of it after every decomposition that PyTorch has."""
    import torch

    yield program.graph
    with contextlib.suppress(Exception):  # PyTorch may fail to decompose what no converter takes either
        yield program.run_decompositions().graph
    with contextlib.suppress(Exception):
        yield program.run_decompositions(dict(torch._decomp.decomposition_table)).graph


def _is_operator(node: fx.Node, name: str) -> bool:
    import torch

    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return not name or str(node.target).removesuffix("_impl") == name
    return bool(name) and getattr(node.target, "_opname", "").strip("_") == name.strip("_")


def written_operator(node: fx.Node) -> str:
    """Return the operator as the model's code calls it, whatever a decomposition made of it."""
    source = node.meta.get("original_aten") or node.target
    name = getattr(source, "_opname", "") or str(source)
    return name.removesuffix("_impl").strip("_")


def missing_kernel_advice(text: str) -> str:
    """Return what to do about a runtime's message that names a kernel it lacks; empty for other messages."""
    match = re.search(r"kernel '([\w.:]+)' not found", text)
    return (
        f". The runtime does not know the operator {_bare_operator(match[1]).strip('_')}: {ADVICE}"
        if match
        else ""
    )


def operators_at_lines(names: Iterable[str], program: torch.export.ExportedProgram) -> list[str]:
    """Return each operator as the model's code calls it, with its line where that is known."""
    nodes = [(name, _operator_in_program(_bare_operator(name), program)) for name in names]
    texts = []
    for name, node in nodes:
        line = _line_of_operator(node) if node else None
        operator = written_operator(node) if node else _bare_operator(name).strip("_")
        texts.append(f"{operator} (at {line})" if line else operator)
    return texts


def _line_of_operator(node: fx.Node) -> str | None:
    from exporter.capture.lowering_errors import lowering_error_source_in_text

    return lowering_error_source_in_text(node.stack_trace or "")
