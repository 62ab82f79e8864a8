"""Captures a network whose inputs may have several sizes (`--dynamic`), and its reference at some of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from exporter.capture.calls import call_runner, copy_module_for_calls
from exporter.capture.embedded_preprocessing import embedded_preprocessing_of
from exporter.errors import FixedSizesError, LoweringError, UsageError
from exporter.records import Captured, DynamicShape, DynamicSize, Sample, SizeRange, TensorSpec
from exporter.verify.several_sizes import (
    Point,
    SizedCall,
    SizesIO,
    max_error_of_several_sizes,
    sample_of_several_sizes,
    several_size_points,
)

CALLS = 2
"""Calls at each point."""
PIXEL_AXES = {0: 0, 2: 1, 3: 2}
"""Axis of planes [N, colours, height, width] -> that of pixels [N, height, width, channels]."""


def resolve_dynamic_shapes(
    shapes: Sequence[DynamicShape], inputs: Sequence[TensorSpec]
) -> tuple[DynamicSize, ...]:
    """Find the places of every range in the model's inputs.

    Args:
        shapes: As declared; an empty name is matched by position.
        inputs: The model's inputs, with the sizes of the example.

    Raises:
        UsageError: A shape does not fit its input, or the example's size is not in its range.
    """
    names = [spec.name for spec in inputs]
    places: dict[SizeRange, list[tuple[int, int]]] = {}
    for number, shape in enumerate(shapes):
        # Within a dictionary, an input is named by its key, or by the whole path.
        called = (shape.name, shape.name.rpartition(".")[2], shape.name.replace(".", "_"))
        position = next((names.index(name) for name in called if name in names), number)
        if (shape.name and not {*called} & {*names}) or position >= len(inputs):
            raise _dynamic_shape_range_error(
                f"names {shape.name or f'input {number}'}; the inputs are {', '.join(names)}"
            )
        spec = inputs[position]
        if len(shape.sizes) != len(spec.shape):
            raise _dynamic_shape_range_error(
                f"gives {spec.name} {len(shape.sizes)} sizes; the example is {list(spec.shape)}"
            )
        for axis, (size, own) in enumerate(zip(shape.sizes, spec.shape, strict=True)):
            if isinstance(size, int):
                if size != own:
                    raise _dynamic_shape_range_error(
                        f"gives {spec.name} {size} on axis {axis}; the example has {own}"
                    )
                continue
            assert isinstance(size, SizeRange), "lists are exported size by size"
            if not size.low <= own <= size.high or (own - size.low) % size.step:
                raise _dynamic_shape_range_error(
                    f"lets {spec.name} have {size.low} to {size.high} in steps of {size.step} "
                    f"on axis {axis}; the example has {own}"
                )
            named = size if size.name else replace(size, name=f"{spec.name}[{axis}]")
            places.setdefault(named, []).append((position, axis))
    return tuple(DynamicSize(size, tuple(where)) for size, where in places.items())


def _dynamic_shape_range_error(what: str) -> UsageError:
    return UsageError(
        f"--dynamic {what}.", "Give an --input-shape within the ranges, or none.", code="EM-DYNAMIC"
    )


def dynamic_shapes_of_pixels(sizes: Sequence[DynamicSize]) -> tuple[DynamicSize, ...]:
    """Return where the ranges of a photo's planes are in its pixels, which artifacts take instead."""
    return tuple(
        replace(size, places=tuple((position, PIXEL_AXES[axis]) for position, axis in size.places))
        for size in sizes
    )


def dynamic_shapes_of_photos(sides: tuple[int, int] | None) -> tuple[DynamicSize, ...]:
    """Return the ranges of a whole photo's height and width in its pixels; none where it has one size."""
    if sides is None:
        return ()
    return tuple(
        DynamicSize(SizeRange(name, *sides), ((0, axis),)) for name, axis in (("height", 1), ("width", 2))
    )


def torch_dynamic_shapes(module: nn.Module, sizes: Sequence[DynamicSize], count: int) -> Any:
    """Return what `torch.export` takes as `dynamic_shapes`; None without a range.

    Args:
        module: Its forward takes inputs by name, and the others as `*args` where it has that.
        sizes: The ranges; one with a step is the step times a dimension of its own.
        count: The number of inputs.
    """
    sizes = [size for size in sizes if not size.range.fixed]
    if not sizes:
        return None
    axes: list[dict[int, Any]] = [{} for _ in range(count)]
    for size in sizes:
        for position, axis in size.places:
            axes[position][axis] = _torch_dynamic_dimension(size.range)
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(axes)
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*axes[:named], tuple(axes[named:])) if count > named else tuple(axes)


def _torch_dynamic_dimension(size: SizeRange) -> Any:
    name = re.sub(r"\W+", "_", size.name).strip("_")
    if size.step == 1:
        return torch.export.Dim(name, min=size.low, max=size.high)
    steps, rest = (
        torch.export.Dim(f"{name}_steps", min=size.low // size.step, max=size.high // size.step),
        size.low % size.step,
    )
    return size.step * steps + rest if rest else size.step * steps


def dynamic_shapes_refusal(architecture: str, problem: LoweringError | None) -> FixedSizesError:
    """Return the error for a network whose graph has one size only."""
    cause = problem.cause if problem else "it has no graph"
    return FixedSizesError(
        f"{architecture} cannot have the ranges of --dynamic in one file: {cause}",
        "List the sizes, which makes a file for each, or mend the line that fixes it.",
    )


def axes_of_dynamic_shapes(program: torch.export.ExportedProgram, count: int) -> tuple[tuple[int, ...], ...]:
    """Return the axes of each of the `count` outputs whose size follows the inputs'."""
    (result,) = (node for node in program.graph.nodes if node.op == "output")
    shapes = [getattr(getattr(node, "meta", {}).get("val"), "shape", ()) for node in result.args[0]][-count:]
    return tuple(
        tuple(axis for axis, size in enumerate(shape) if isinstance(size, torch.SymInt)) for shape in shapes
    )


def run_reference_of_dynamic_shapes(captured: Captured, samples: Sequence[Sample]) -> SizesIO:
    """Run the model in float64 at both ends of every range and between.

    Args:
        captured: The model with its ranges.
        samples: Verification inputs of the example's sizes, which are cut and repeated; photos that are
            resized within the network are resized.

    Raises:
        CaptureError: The network does not run at a size in its ranges.
    """
    names = [spec.name for spec in captured.inputs]
    wide = call_runner(copy_module_for_calls(captured.module).double(), True, names)
    single = call_runner(copy_module_for_calls(captured.module), names=names)
    embedded = embedded_preprocessing_of(captured.module)
    whole = embedded is not None and embedded.resize is not None
    sample_at = _photo_of_several_sizes if whole else sample_of_several_sizes
    calls = []
    for point in several_size_points(captured.dynamic):
        for sample in samples[:CALLS]:
            inputs = sample_at(sample, captured.dynamic, point)
            exact = _like_single_dynamic_shape(wide(inputs), own := single(inputs))
            calls.append(SizedCall(point, inputs, exact, max_error_of_several_sizes(exact, own)))
    count = len(captured.outputs)
    varying = axes_of_dynamic_shapes(captured.program, count) if captured.program else ((),) * count
    return SizesIO(captured.dynamic, varying, tuple(calls))


def _photo_of_several_sizes(sample: Sample, sizes: Sequence[DynamicSize], point: Point) -> Sample:
    """Return a photo [1, height, width, channels] of a point's sizes that shows the same."""
    (pixels,) = sample
    places = {size.places[0][1]: size.range.name for size in sizes}
    wanted = [point[places[axis]] for axis in (1, 2)]
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    resized = nn.functional.interpolate(planes, wanted, mode="bilinear", antialias=True).round()
    return (np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy().astype(np.uint8)),)


def _like_single_dynamic_shape(exact: Sample, single: Sample) -> Sample:
    """Return float64 outputs, and the others as float32 gives them: rounding may decide a class number."""
    pairs = zip(exact, single, strict=True)
    return tuple(np.asarray(e if s.dtype.kind in "fc" else s) for e, s in pairs)
