"""Reads what an .onnx or .ort file needs from ONNX Runtime: operators, their versions, the file's layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.android.records import Needs, Operator
from exporter.formats.onnx import onnx_external, onnx_file, ort_file

if TYPE_CHECKING:
    import onnx

MAX_DEPTH = 8
"""The deepest nesting of functions whose bodies call functions."""


def onnx_needs(path: Path) -> Needs:
    """Read the needs of a file.

    Raises:
        LoweringError: It is not a whole, well-formed file of its format.
    """
    return _onnx_needs_of_ort(path) if path.suffix == ".ort" else _onnx_needs_of_onnx(path)


def _onnx_needs_of_onnx(path: Path) -> Needs:
    import onnx

    onnx_file.read_onnx_file(path)  # refuses what is not whole, valid and self-contained
    model = onnx.load_model_from_string(onnx_external.onnx_model_file(path).read_bytes())
    opsets = {_domain_of_onnx_needs(entry.domain): entry.version for entry in model.opset_import}
    operators = {
        _describe_operator_of_onnx_needs(node, opsets)
        for graph in onnx_file.onnx_file_graphs(model)
        for node in graph.node
    }
    return Needs(
        runtime="ONNX Runtime",
        operators=tuple(sorted(operators, key=lambda operator: operator.title)),
        ir_version=model.ir_version,
        opsets=tuple(sorted(opsets.items())),
    )


def _onnx_needs_of_ort(path: Path) -> Needs:
    ort_file.read_ort_file(path)
    nodes, layout = ort_file.ort_file_operators(path.read_bytes())
    operators = {Operator(name, _domain_of_onnx_needs(domain), version) for name, domain, version in nodes}
    return Needs(
        runtime="ONNX Runtime",
        operators=tuple(sorted(operators, key=lambda operator: operator.title)),
        ort_format=layout,
    )


def _domain_of_onnx_needs(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _describe_operator_of_onnx_needs(
    node: onnx.NodeProto, opsets: dict[str, int], depth: int = MAX_DEPTH
) -> Operator:
    """Describe a node; ONNX defines some operators as functions, whose bodies a runtime can call instead."""
    domain = _domain_of_onnx_needs(node.domain)
    schema = _schema_of_onnx_needs(node.op_type, domain, opsets.get(domain, 0))
    if schema is None:  # ONNX Runtime's own operators have one version
        return Operator(node.op_type, domain, 1 if domain else 0)
    body: tuple[Operator, ...] = ()
    if schema.has_function and depth:
        inner = {
            _domain_of_onnx_needs(entry.domain): entry.version for entry in schema.function_body.opset_import
        }
        body = tuple(
            dict.fromkeys(
                _describe_operator_of_onnx_needs(n, opsets | inner, depth - 1)
                for n in schema.function_body.node
            )
        )
    return Operator(node.op_type, domain, schema.since_version, body)


def _schema_of_onnx_needs(name: str, domain: str, opset: int) -> Any:
    import onnx

    try:
        return onnx.defs.get_schema(name, max_inclusive_version=opset, domain=domain)
    except onnx.defs.SchemaError:
        return None
