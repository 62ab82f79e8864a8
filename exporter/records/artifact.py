"""What a format writes: variants, files, and what the files hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exporter.records.network import ImageInput, TensorSpec
from exporter.records.values import NARROW_DTYPES

Precision = Literal["fp32", "fp16", "int8", "mixed", "w8", "w4"]
QUANTIZED: tuple[Precision, ...] = ("int8", "mixed")
"""Precisions whose program is quantised before any format lowers it."""
SIMULATED: tuple[Precision, ...] = ("fp16", "w8", "w4")
"""Their cost is simulated from the float program; quantised ones have a program of their own."""
FormatName = Literal["executorch", "torchscript", "onnx", "coreml", "coreai", "onnx-qnn"]
ONNX_GRAPH, ONNX_WEIGHTS = "model.onnx", "model.onnx.data"
"""The files of an ONNX artifact that is a folder."""
ONNX_FOLDER_NOTE = (
    "A folder: one file cannot hold so many weights. "
    f"Apps open its {ONNX_GRAPH}, with {ONNX_WEIGHTS} beside it."
)
"""The note by which the report knows such an artifact."""


@dataclass(frozen=True)
class Variant:
    """One artifact that a format can make."""

    name: str
    """Unique, used for files and on the command line: "executorch-xnnpack-int8"."""
    format: FormatName
    backend: str
    """Who executes it: xnnpack, vulkan, lite, onnxruntime, onnxruntime-mobile, coreml."""
    precision: Precision
    suffix: str
    group: str
    """Variants of one group share work and are made one after the other by one worker."""
    cost_s: float
    """Rough build seconds for MobileNetV2: only orders the work (longest first)."""


@dataclass(frozen=True, eq=False)
class Emission:
    """What `emit` made. Lives inside the worker that made it."""

    path: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Structure:
    """What can be read from an artifact without running it.

    Raises nothing: a file that cannot be parsed raises `LoweringError` in the reader.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]
    """Operator name -> count, delegated ones included where the delegate's format can be read."""
    weight_bytes: int
    weight_elements: Mapping[str, int]
    """Storage type ("float32", "float16", "int8", "uint8", "int4", …) -> number of weight elements.
    Biases and quantisation parameters are not weights: only tensors of two or more dimensions count, where
    the format tells without those that are only added or multiplied elementwise (a position embedding)."""
    delegated_fraction: float | None = None
    """Share of the multiply-accumulates that the backend executes; None where there is no delegate."""
    image: ImageInput | None = None
    """How the file prepares the picture that is its input; None where it takes the model's own input."""
    classes: tuple[str, ...] = ()
    """The labels that the file itself predicts, in the order of the scores; empty where it predicts none."""
    epsilons: tuple[float, ...] = ()
    """What its norms add to a variance before they divide by its root, where that is stored as a number of
    its own: a batch norm that was folded into weights has none."""

    @property
    def quantized_weight_fraction(self) -> float:
        """Share of weight elements stored in 8 bits or fewer."""
        total = sum(self.weight_elements.values())
        small = sum(count for dtype, count in self.weight_elements.items() if dtype in NARROW_DTYPES)
        return small / total if total else 0.0
