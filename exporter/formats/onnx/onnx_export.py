"""Translates a captured program into an ONNX model."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.errors import LoweringError
from exporter.formats.composite_operators import list_composite_operators_in_one_go
from exporter.formats.onnx.onnx_attention import give_attention_four_dimensions
from exporter.formats.onnx.onnx_registry import make_onnx_registry_once
from exporter.records import Captured, TensorSpec

if TYPE_CHECKING:
    import onnx
    import onnx_ir
    import torch

OPSET = 18
"""The opset of PyTorch's own translations, so that nothing is converted up or down afterwards.

ONNX Runtime's mobile packages carry every operator of the full runtime since 1.19 (the reduced
`onnxruntime-mobile`, which stopped at opset 15, is gone: https://github.com/microsoft/onnxruntime/pull/20941).
Opset 18 runs on all of them, and holds all that is needed: per-channel QDQ came with 13, LayerNormalization
with 17. Newer opsets only shut out older apps.
"""

MAX_BYTES = 2**31 - 1
"""The most bytes that a protobuf file can hold."""


@functools.lru_cache(maxsize=1)
def translate_fp32_to_onnx(captured: Captured) -> onnx_ir.Model:
    """Translate the program, once per captured model: every float variant starts here.

    Returns:
        A simplified ONNX model (batch norms and constants folded), static shapes, inputs and outputs named as
        in `captured`. The same program gives the same bytes. Its tensors are the program's where they can be.

    Raises:
        LoweringError: There is no program.
        Exception: Whatever PyTorch or ONNX raise when they cannot express it.
    """
    if captured.program is None:
        raise LoweringError(captured.program_error, captured.program_source)
    model = export_to_onnx(captured.program, captured.inputs, captured.outputs)
    clean_onnx_export(model)
    return model


def export_to_onnx(
    program: torch.export.ExportedProgram,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> onnx_ir.Model:
    """Translate by PyTorch's own exporter; inputs and outputs get the given names.

    Args:
        program: In ATen dialect.
        inputs: The model's inputs.
        outputs: The model's outputs.

    Raises:
        Exception: Whatever PyTorch or ONNX raise when they cannot express it.
    """
    import torch

    _give_bounds_one_type(program)
    give_attention_four_dimensions(program)
    _subtract_from_floats(program)
    with warnings.catch_warnings(), make_onnx_registry_once(), list_composite_operators_in_one_go():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[s.name for s in inputs],
            output_names=[s.name for s in outputs],
            verbose=False,
        )
    assert exported is not None
    return exported.model


def _give_bounds_one_type(program: torch.export.ExportedProgram) -> None:
    """Make `clamp(0, 0.2)` `clamp(0.0, 0.2)`, in place: PyTorch's exporter cannot promote two types."""
    import torch

    for node in program.graph.nodes:
        if node.target is torch.ops.aten.clamp.default and any(isinstance(a, float) for a in node.args[1:]):
            node.args = (node.args[0], *(None if bound is None else float(bound) for bound in node.args[1:]))


def _subtract_from_floats(program: torch.export.ExportedProgram) -> None:
    """Make `1.0 - mask` of an integer mask `1.0 - mask.float()`, in place: PyTorch's exporter fails on it."""
    import torch

    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.rsub.Scalar):
        (mask, *others), dtype = node.args, node.meta["val"].dtype
        if mask.meta["val"].dtype == dtype or not dtype.is_floating_point:
            continue
        with program.graph.inserting_before(node):
            floats = program.graph.call_function(torch.ops.aten.to.dtype, (mask, dtype))
        floats.meta["val"] = mask.meta["val"].to(dtype)
        node.args = (floats, *others)


def clean_onnx_export(model: onnx_ir.Model) -> None:
    """Remove notes, and make names and the order of nodes valid."""
    from onnx_ir.passes import common

    common.ClearMetadataAndDocStringPass()(model)
    common.NameFixPass()(model)  # outputs got their names last: an inner value may have had that name
    common.TopologicalSortPass()(model)


def refuse_onnx_program_too_large(program: torch.export.ExportedProgram) -> None:
    """Refuse a program whose weights an ORT file cannot hold, before it is translated.

    Raises:
        LoweringError: They are too large.
    """
    refuse_onnx_export_too_large(sum(tensor.nbytes for tensor in program.state_dict.values()))


def refuse_onnx_export_too_large(size_bytes: int) -> None:
    """Refuse weights that an ORT file, which is made from one ONNX file, cannot hold.

    Raises:
        LoweringError: They are too large.
    """
    if size_bytes > MAX_BYTES:
        raise LoweringError(
            f"The weights take {size_bytes / 1e9:.2f} GB; one file holds up to {MAX_BYTES / 1e9:.2f} GB, and "
            "an ORT artifact has no other for them: use the ONNX artifact."
        )


def strip_onnx_export(proto: onnx.ModelProto) -> None:
    """Remove PyTorch's notes on the model and its values, which the passes leave."""
    graph = proto.graph
    proto.producer_name, proto.producer_version, proto.doc_string = "export-mobile", "", ""
    for holder in (proto, graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
