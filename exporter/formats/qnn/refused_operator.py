"""Finds the operator that Qualcomm's compiler cannot take, where its own error names none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exporter.errors import LoweringError

CONSTANTS = frozenset({"QuantizeLinear", "DequantizeLinear", "Constant"})
"""Operators that are not named: what they stand around is at fault."""


def refused_operator(model: bytes, folder: Path, compiles: Callable[[Path], object]) -> str:
    """Return the name of the first operator with which the compiler fails; empty where it is not found.

    The first operators of the graph are compiled, ever more and ever fewer of them: half a dozen times for
    a hundred operators.

    Args:
        model: The QDQ model that does not compile.
        folder: Where the first part of it is written.
        compiles: Compiles a file, and raises the compiler's error.
    """
    import onnx

    whole = onnx.load_model_from_string(model)
    low, high = 0, len(whole.graph.node)  # the compiler takes the first `low`, and not the first `high`
    while high - low > 1:
        middle = (low + high) // 2
        path = folder / "first.onnx"
        path.write_bytes(_first_operators(whole, middle).SerializeToString())
        low, high = (low, middle) if _is_refused(path, compiles) else (middle, high)
        path.unlink()
    return _named_operator(whole.graph.node[low:])


def _is_refused(path: Path, compiles: Callable[[Path], object]) -> bool:
    try:
        compiles(path)
    except LoweringError:
        return False  # it holds nothing to compile yet
    except Exception:
        return True
    return False


def _first_operators(whole: Any, count: int) -> Any:
    """Return a model of the first operators, whose outputs are what the others read."""
    import onnx

    part = onnx.ModelProto()
    part.CopyFrom(whole)
    kept, rest = whole.graph.node[:count], whole.graph.node[count:]
    read = {name for node in rest for name in node.input} | {value.name for value in whole.graph.output}
    del part.graph.node[count:]
    del part.graph.output[:]
    part.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name)
        for node in kept
        for name in node.output
        if name in read
    )
    return part


def _named_operator(nodes: Sequence[Any]) -> str:
    """Return the type of the first operator that computes, and the name that the export gave it."""
    node = next((node for node in nodes if node.op_type not in CONSTANTS), None)
    return f"{node.op_type} ({node.name})" if node is not None and node.name else getattr(node, "op_type", "")
