"""Sum the time of a runtime's operators by the model's own modules.

Runtimes name operators in their own ways: ONNX Runtime by the file's nodes, which it fuses and renames,
XNNPACK by kind and number. What all artifacts of an export share is the order of the layers that have
weights, and the float32 ONNX file names these by module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.estimate.operator_split import NAMED
from exporter.records import OperatorTime

WEIGHTED_NODES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
WEIGHTED_KIND = re.compile(
    r"Convolution|Deconvolution|Fully Connected|(QLinear|Fused|Nhwc|Q)*(Conv|Gemm|MatMul)"
)
"""Kinds of operators with weights, as ONNX Runtime and XNNPACK call them."""
RENAMED = re.compile(r"(_nchwc|_token_\d+|_quant)+$")
"""What ONNX Runtime adds to the name of a node or of its output when it fuses nodes."""
UNKNOWN = ""


def name_modules_of_operator_times(
    operators: Sequence[OperatorTime], out: Path, artifact: Path
) -> tuple[OperatorTime, ...]:
    """Return the operators with the module of each; "" where it is not known.

    Operators with weights are named by the order of the model's layers, if there are as many of both. One
    without weights, such as an activation, is counted for the module before it.

    Args:
        operators: As the runtime executed them.
        out: The folder of the export.
        artifact: The artifact that was executed.
    """
    if not operators:
        return ()
    modules = _modules_of_operator_times(out / NAMED)
    places = _operator_time_places(operators, artifact)
    weighted = [index for index, operator in enumerate(operators) if WEIGHTED_KIND.match(operator.kind)]
    if not modules or len(weighted) != len(modules):
        return tuple(operators)
    order = sorted(weighted, key=lambda index: places[index]) if places.keys() >= set(weighted) else weighted
    named = dict(zip(order, modules, strict=True))
    result, last = [], UNKNOWN
    for index, operator in enumerate(operators):
        last = named.get(index, last)
        result.append(replace(operator, module=last))
    return tuple(result)


def _modules_of_operator_times(path: Path) -> list[str]:
    """Return the module of each layer with weights, in the model's order."""
    graph = _operator_time_graph(path)
    if graph is None:
        return []
    initializers = {tensor.name for tensor in graph.initializer}
    modules = []
    for node in graph.node:
        weights = [name for name in node.input if name in initializers]
        if node.op_type in WEIGHTED_NODES and weights:
            modules.append(weights[0].rpartition(".")[0] or weights[0])
    return modules


def _operator_time_places(operators: Sequence[OperatorTime], artifact: Path) -> Mapping[int, int]:
    """Return an operator's index -> its node's place in an ONNX file: the runtime may reorder them."""
    graph = _operator_time_graph(artifact) if artifact.suffix == ".onnx" else None
    if graph is None:
        return {}
    place = {name: index for index, node in enumerate(graph.node) for name in (node.name, *node.output)}
    stems = (RENAMED.sub("", operator.name) for operator in operators)
    return {index: place[stem] for index, stem in enumerate(stems) if stem in place}


def _operator_time_graph(path: Path) -> Any:
    """Return the graph of an ONNX file; None if it is not there, or is none."""
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False).graph
    except Exception:  # protobuf's own DecodeError, or no such file
        return None
