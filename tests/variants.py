"""Made-up variants for tests that need no framework."""

from __future__ import annotations

from exporter.records import Variant

FP32 = Variant("some-fp32", "onnx", "onnxruntime", "fp32", ".onnx", "some", 1.0)
FP16 = Variant("some-fp16", "onnx", "onnxruntime", "fp16", ".onnx", "some", 1.0)
INT8 = Variant("some-int8", "executorch", "xnnpack", "int8", ".pte", "other", 1.0)
W4 = Variant("some-w4", "coreml", "coreml", "w4", ".mlpackage", "coreml", 1.0)
