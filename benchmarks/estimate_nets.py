"""Write the networks of published latencies as ONNX files: single operators, and torchvision's models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

Nodes = tuple[list[Any], list[Any], tuple[int, ...]]
"""Nodes that lead from "x" to "y", their constants, and the shape of "x"."""
OPSET = 17


def _weight(name: str, *shape: int) -> onnx.TensorProto:
    from onnx import numpy_helper

    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def _conv(channels: int, out: int, side: int, kernel: int, stride: int = 1, depthwise: bool = False) -> Nodes:
    from onnx import helper

    node = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], kernel_shape=[kernel, kernel], strides=[stride, stride],
        pads=[kernel // 2] * 4, group=channels if depthwise else 1,
    )  # fmt: skip
    weight = _weight("w", out, 1 if depthwise else channels, kernel, kernel)
    return [node], [weight, _weight("b", out)], (1, channels, side, side)


def _depthwise(channels: int, side: int, stride: int = 1) -> Nodes:
    return _conv(channels, channels, side, 3, stride, depthwise=True)


def _matmul(rows: int, inner: int, columns: int) -> Nodes:
    from onnx import helper

    return [helper.make_node("MatMul", ["x", "w"], ["y"])], [_weight("w", inner, columns)], (1, rows, inner)


def _simple(operator: str, *shape: int, **attributes: Any) -> Nodes:
    from onnx import helper

    return [helper.make_node(operator, ["x"], ["y"], **attributes)], [], shape


def _layer_norm(rows: int, width: int) -> Nodes:
    from onnx import helper

    node = helper.make_node("LayerNormalization", ["x", "w", "b"], ["y"], axis=-1)
    return [node], [_weight("w", width), _weight("b", width)], (1, rows, width)


def _gelu(*shape: int) -> Nodes:
    from onnx import helper, numpy_helper

    def constant(name: str, value: float) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(value, np.float32), name)

    nodes = [
        helper.make_node("Div", ["x", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["more"]),
        helper.make_node("Mul", ["x", "more"], ["twice"]),
        helper.make_node("Mul", ["twice", "half"], ["y"]),
    ]
    return nodes, [constant("root", 2**0.5), constant("one", 1), constant("half", 0.5)], shape


OPERATORS: Mapping[str, Callable[[], Nodes]] = {
    "Conv1x1_M3136_C64_K128": partial(_conv, 64, 128, 56, 1),
    "Conv1x1_K1024_C256_M784": partial(_conv, 256, 1024, 28, 1),
    "Conv1x1_M49_C256_K512": partial(_conv, 256, 512, 7, 1),
    "Conv1x1_M784_C32_K64": partial(_conv, 32, 64, 28, 1),
    "Conv1x1_MBV2_C32_S112_K16": partial(_conv, 32, 16, 112, 1),
    "Conv1x1_MVIT_C256_S32_K96": partial(_conv, 256, 96, 32, 1),
    "Conv1x1_Misaligned_C31_K64": partial(_conv, 31, 64, 56, 1),
    "Conv1x1_Misaligned_C33_K64": partial(_conv, 33, 64, 56, 1),
    "Conv1x1_R50_C256_S56_K512_S2": partial(_conv, 256, 512, 56, 1, 2),
    "Conv1x1_R50_C256_S56_K64": partial(_conv, 256, 64, 56, 1),
    "Conv1x1_YOLO_C384_S40_K128": partial(_conv, 384, 128, 40, 1),
    "Conv3x3_MBV2_C3_S224_K32_S2": partial(_conv, 3, 32, 224, 3, 2),
    "Conv3x3_YOLO_C32_S160_K64_S2": partial(_conv, 32, 64, 160, 3, 2),
    "Conv3x3_YOLO_C64_S20_K64": partial(_conv, 64, 64, 20, 3),
    "Conv7x7_R50_C3_S224_K64_S2": partial(_conv, 3, 64, 224, 7, 2),
    "DWConv_MBV2_C384_S14_K384": partial(_depthwise, 384, 14),
    "DWConv_MBV2_C576_S14_K576_S2": partial(_depthwise, 576, 14, 2),
    "DWConv_MVIT_C384_S32_K384_S2": partial(_depthwise, 384, 32, 2),
    "DWConv_MVIT_C64_S128_K64": partial(_depthwise, 64, 128),
    "MatMul_BERT_3072x768": partial(_matmul, 128, 3072, 768),
    "MatMul_MVIT_288x144": partial(_matmul, 1024, 288, 144),
    "LayerNorm_BERT_L128_H768": partial(_layer_norm, 128, 768),
    "LayerNorm_MVIT_L256_H144": partial(_layer_norm, 256, 144),
    "Softmax_BERT_12x128": partial(_simple, "Softmax", 1, 12, 128, 128, axis=-1),
    "GELU_BERT": partial(_gelu, 1, 128, 3072),
    "MaxPool_R50_C64_S112": partial(
        _simple, "MaxPool", 1, 64, 112, 112, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    ),
    "MaxPool_YOLO_C128_S20": partial(
        _simple, "MaxPool", 1, 128, 20, 20, kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4
    ),
}
"""Published name -> its operator. C are input channels, K outputs, S the side or the stride, M pixels.

Names that state no whole shape (MatMul_3072x768, DWConv_C16_3x3, Concat, ...) are left out.
"""

MODELS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "MobileNetV2": ("mobilenet_v2", (1, 3, 224, 224)),
    "MobileNet-v2": ("mobilenet_v2", (1, 3, 224, 224)),
    "MobileNetV3_small_x1_0": ("mobilenet_v3_small", (1, 3, 224, 224)),
    "MobileNetV3_large_x1_0": ("mobilenet_v3_large", (1, 3, 224, 224)),
    "ResNet18": ("resnet18", (1, 3, 224, 224)),
    "ResNet50": ("resnet50", (1, 3, 224, 224)),
    "ResNet101": ("resnet101", (1, 3, 224, 224)),
    "GoogLeNet": ("googlenet", (1, 3, 224, 224)),
    "SqueezeNet-1.1": ("squeezenet1_1", (1, 3, 224, 224)),
    "Shufflenet-v2": ("shufflenet_v2_x1_0", (1, 3, 224, 224)),
    "DenseNet-121": ("densenet121", (1, 3, 224, 224)),
    "EfficientNet-B0": ("efficientnet_b0", (1, 3, 224, 224)),
    "VIT": ("vit_b_16", (1, 3, 224, 224)),
}
"""Published name -> torchvision's builder, and the shape of its input."""


def buildable(name: str) -> bool:
    """Tell whether the network of a published row can be written."""
    return name.removeprefix("op:") in OPERATORS or name in MODELS


def write_network(name: str, precision: str, folder: Path) -> tuple[Path, tuple[int, ...]]:
    """Write a network once, in float32 or int8; return its file and the shape of its input."""
    path = folder / f"{name.removeprefix('op:')}-{precision}.onnx"
    if name in MODELS:
        builder, shape = MODELS[name]
        if not path.exists():
            write_torchvision_model(builder, shape, path.with_name(f"{name}-fp32.onnx"))
    else:
        nodes, constants, shape = OPERATORS[name.removeprefix("op:")]()
        _write_operator(nodes, constants, shape, path.with_name(f"{name.removeprefix('op:')}-fp32.onnx"))
    if precision == "int8" and not path.exists():
        quantize_network(path.with_name(f"{name.removeprefix('op:')}-fp32.onnx"), path, shape)
    return path, shape


def _write_operator(nodes: list[Any], constants: list[Any], shape: tuple[int, ...], path: Path) -> None:
    import onnx
    from onnx import helper

    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "operator", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    onnx.save(onnx.shape_inference.infer_shapes(model), path)


def write_torchvision_model(builder: str, shape: tuple[int, ...], path: Path) -> None:
    import torch

    from exporter.capture import torchvision_ops

    torchvision_ops.prepare_torchvision_ops()
    import torchvision

    if path.exists():
        return
    torch.manual_seed(0)
    options: dict[str, Any] = {"init_weights": True, "aux_logits": False} if builder == "googlenet" else {}
    network = getattr(torchvision.models, builder)(**options).eval()
    torch.onnx.export(network, (torch.zeros(shape),), str(path), dynamo=True, external_data=False)


def quantize_network(source: Path, path: Path, shape: tuple[int, ...]) -> None:
    """Quantise with one random input: which kernels run depends on the types, not on the ranges."""
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
            self.rest = [dict.fromkeys(_inputs(source), values)]

        def get_next(self) -> dict[str, Any] | None:
            return self.rest.pop() if self.rest else None

    prepared = path.with_suffix(".prepared.onnx")
    shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared), str(path), Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    prepared.unlink()


def _inputs(source: Path) -> list[str]:
    import onnx

    graph = onnx.load(source, load_external_data=False).graph
    constants = {item.name for item in graph.initializer}
    return [item.name for item in graph.input if item.name not in constants]


def describe_network(path: Path, narrow: bool) -> dict[str, Any]:
    """Return FLOPs, bytes of weights, kernels and the graph's work of a float32 file."""
    import onnx

    from exporter.estimate.operator_split import HEAVY, operators_to_split

    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)
    graph = onnx.load(path).graph
    width = 1 if narrow else 4
    return {
        "flops": 2 * sum(operator.macs for operator in operators_to_split(path)),
        "weight_bytes": sum(int(np.prod(item.dims)) for item in graph.initializer) * width,
        "kernels": sum(node.op_type in HEAVY for node in graph.node),
        "graph": describe_graph(path, width),
    }


def describe_graph(path: Path, width: int) -> dict[str, int]:
    """Return what a float32 file's operators do, and what comes from beyond each cache."""
    from exporter.estimate.chips import CACHES_OF_865_BYTES
    from exporter.estimate.graph_work import work_of_graph
    from exporter.estimate.operator_split import operators_to_split

    operators = operators_to_split(path, least_macs=0)
    works = {level: work_of_graph(operators, width, size) for level, size in CACHES_OF_865_BYTES.items()}
    sums = asdict(works["last"])
    del sums["missed_bytes"]
    return sums | {f"missed_{level}": work.missed_bytes for level, work in works.items()}


def time_network(path: Path, sample: np.ndarray, seconds: float = 1.0) -> float:
    """Return the fastest call on one thread of this host, in milliseconds."""
    import time

    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: sample}
    session.run(None, feed)
    best, end = float("inf"), time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        session.run(None, feed)
        best = min(best, time.perf_counter() - begin)
    return 1000 * best
