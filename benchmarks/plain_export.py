"""What a team writes today: plain library calls, one after the other, no verification.

    python benchmarks/plain_export.py CHECKPOINT PHOTOS OUT

Makes the same artifacts of MobileNetV2 as `export-mobile CHECKPOINT --target snapdragon865`.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image

from exporter.capture import torchvision_ops

torchvision_ops.prepare_torchvision_ops()  # without it torchvision does not import beside a CPU-only torch

from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort
from onnxruntime.transformers.float16 import convert_float_to_float16
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchvision.models import mobilenet_v2
from torchvision.transforms._presets import ImageClassification

COUNT = 64


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, photos: list[torch.Tensor]) -> None:
        self.photos = iter(photos)

    def get_next(self) -> dict[str, np.ndarray] | None:
        photo = next(self.photos, None)
        return None if photo is None else {"x": photo.numpy()}


def photos(folder: Path) -> list[torch.Tensor]:
    preprocess = ImageClassification(crop_size=224)
    images = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    tensors = [preprocess(image)[None].contiguous() for image in images]
    return (tensors * COUNT)[:COUNT]


def executorch(model: torch.nn.Module, images: list[torch.Tensor], out: Path) -> None:
    example = (images[0],)
    program = torch.export.export(model, example)
    for name, partitioner in {
        "xnnpack-fp32": XnnpackPartitioner(),
        "vulkan-fp16": VulkanPartitioner({"force_fp16": True}),
    }.items():
        lowered = to_edge_transform_and_lower(program, partitioner=[partitioner]).to_executorch()
        (out / f"{name}.pte").write_bytes(lowered.buffer)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(program.module(), quantizer)
    for image in images:
        prepared(image)
    quantized = torch.export.export(convert_pt2e(prepared), example)
    lowered = to_edge_transform_and_lower(quantized, partitioner=[XnnpackPartitioner()]).to_executorch()
    (out / "xnnpack-int8.pte").write_bytes(lowered.buffer)


def torchscript(model: torch.nn.Module, images: list[torch.Tensor], out: Path) -> None:
    frozen = torch.jit.freeze(torch.jit.trace(model, images[0]))  # type: ignore[no-untyped-call]
    frozen._save_for_lite_interpreter(str(out / "model.ptl"))


def onnx_files(model: torch.nn.Module, images: list[torch.Tensor], out: Path) -> None:
    path = out / "fp32.onnx"
    torch.onnx.export(model, (images[0],), path, dynamo=True, input_names=["x"], external_data=False)
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), out / "fp16.onnx")
    quantize_static(
        path,
        out / "int8.onnx",
        Reader(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    for name in ("fp32", "int8"):
        convert_onnx_models_to_ort(out / f"{name}.onnx", optimization_styles=[OptimizationStyle.Fixed])


def coreml(model: torch.nn.Module, images: list[torch.Tensor], out: Path) -> None:
    program = torch.export.export(model, (images[0],)).run_decompositions({})
    converted = ct.convert(program, minimum_deployment_target=ct.target.iOS17)
    converted.save(str(out / "fp16.mlpackage"))
    linear = cto.OptimizationConfig(cto.OpLinearQuantizerConfig(mode="linear_symmetric"))
    cto.linear_quantize_weights(converted, linear).save(str(out / "w8.mlpackage"))
    palette = cto.OptimizationConfig(cto.OpPalettizerConfig(mode="kmeans", nbits=4))
    cto.palettize_weights(converted, palette).save(str(out / "w4.mlpackage"))


def main() -> None:
    checkpoint, folder, out = (Path(argument) for argument in sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    onnxruntime.set_default_logger_severity(3)
    model = mobilenet_v2()
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    model.eval()
    images = photos(folder)
    for make in (torchscript, executorch, onnx_files, coreml):
        make(model, images, out)


if __name__ == "__main__":
    main()
