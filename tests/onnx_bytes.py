"""ONNX models as protobuf's own writer writes them, and as the exporter's does."""

from __future__ import annotations

import io

import onnx
import onnx_ir

from exporter.formats.onnx.onnx_export import clean_onnx_export, strip_onnx_export
from exporter.formats.onnx.onnx_streamed import StreamedOnnx


def whole_onnx(model: onnx_ir.Model) -> bytes:
    """Return a checked model's bytes, all of which protobuf writes at once."""
    clean_onnx_export(model)
    proto = onnx_ir.to_proto(model)
    strip_onnx_export(proto)
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString(deterministic=True))


def streamed_bytes(model: StreamedOnnx) -> bytes:
    """Return the file that the exporter writes."""
    file = io.BytesIO()
    model.write_to(file)
    return file.getvalue()
