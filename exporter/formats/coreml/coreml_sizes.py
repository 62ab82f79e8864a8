"""Lets the inputs of a package have several sizes (`--dynamic`), and reads which sizes a package allows.

Core ML refuses a call of any other size itself, by the package's description: a range for each axis, or up to
128 whole shapes. Steps can only be listed, for one input.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

from exporter.errors import LoweringError
from exporter.formats.coreml.coreml_package import coremltools_quietly_for_package
from exporter.records import Array, Captured, DynamicSize, SizeRange

MAX_SHAPES = 128
"""The most shapes that Core ML takes in a list."""


def coreml_sizes_of_inputs(captured: Captured) -> list[Any]:
    """Return the shape of each input as `coremltools.TensorType` takes it.

    Raises:
        LoweringError: Core ML cannot say which sizes are allowed.
    """
    shapes: list[Any] = [list(spec.shape) for spec in captured.inputs]
    if any(size.range.step > 1 for size in captured.ranges):
        return _listed_coreml_sizes(shapes, captured.ranges)
    ct = coremltools_quietly_for_package()
    for size in captured.ranges:
        (position, axis), *_ = size.places
        dimension = ct.RangeDim(size.range.low, size.range.high, default=shapes[position][axis])
        for position, axis in size.places:  # one dimension for all places: they have one size
            shapes[position][axis] = dimension
    return [tuple(shape) for shape in shapes]


def _listed_coreml_sizes(shapes: list[Any], sizes: Sequence[DynamicSize]) -> list[Any]:
    positions = {position for size in sizes for position, _ in size.places}
    count = prod(len(_steps_of_coreml_size(size.range)) for size in sizes)
    if len(positions) > 1 or count > MAX_SHAPES:
        problem = (
            f"{len(positions)} inputs have ranges" if len(positions) > 1 else f"there are {count} shapes"
        )
        raise LoweringError(
            f"Core ML lists sizes in steps as at most {MAX_SHAPES} shapes of one input; here {problem}: "
            "leave out the steps, or list the sizes, as {224,320}, to get a file for each"
        )
    (position,) = positions
    listed = []
    for values in product(*(_steps_of_coreml_size(size.range) for size in sizes)):
        shape = list(shapes[position])
        for size, value in zip(sizes, values, strict=True):
            for _, axis in size.places:
                shape[axis] = value
        listed.append(tuple(shape))
    ct = coremltools_quietly_for_package()
    enumerated = ct.EnumeratedShapes(listed, default=tuple(shapes[position]))
    return [enumerated if i == position else tuple(shape) for i, shape in enumerate(shapes)]


def _steps_of_coreml_size(size: SizeRange) -> range:
    return range(size.low, size.high + 1, size.step)


def check_coreml_sizes(spec: Any, arrays: Sequence[Array]) -> None:
    """Refuse arrays of sizes that a package's description does not allow, as Core ML does.

    Raises:
        ValueError: It names the input.
    """
    for feature, array in zip(spec.description.input, arrays, strict=True):
        if feature.type.WhichOneof("Type") != "multiArrayType":
            continue
        kind = feature.type.multiArrayType
        flexible = kind.WhichOneof("ShapeFlexibility")
        if flexible == "enumeratedShapes":
            allowed = array.shape in {tuple(shape.shape) for shape in kind.enumeratedShapes.shapes}
        elif flexible == "shapeRange":
            ranges = [(int(r.lowerBound), int(r.upperBound)) for r in kind.shapeRange.sizeRanges]
            allowed = len(ranges) == array.ndim and all(
                low <= size and (high < 0 or size <= high)
                for size, (low, high) in zip(array.shape, ranges, strict=True)
            )
        else:
            allowed = array.shape == tuple(kind.shape) or array.ndim == 0
        if not allowed:
            raise ValueError(f"{feature.name} must not have the shape {list(array.shape)}")
