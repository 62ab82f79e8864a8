"""Resizing: a grid of points along each dimension, and the values at these points.

The names of the grids and their formulas are those of MIL's `resize_bilinear`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from exporter.formats.coreml.interpreter.mil_call import Call

Grid: TypeAlias = Callable[[Tensor, float, int], Tensor]
"""Positions 0, 1, ... of the outputs, values in the interval, number of outputs -> points from its start."""

_GRIDS: Mapping[str, Grid] = {
    "STRICT_ALIGN_CORNERS": lambda i, size, count: i * ((size - 1) / max(count - 1, 1)),
    "ALIGN_CORNERS": lambda i, size, count: (
        i * ((size - 1) / (count - 1)) if count > 1 else torch.full_like(i, (size - 1) / 2)
    ),
    "DEFAULT": lambda i, size, count: i * (size / count),
    "OFFSET_CORNERS": lambda i, size, count: (i + 0.5) * (max(1.0, size - 1) / count),
    "UNALIGN_CORNERS": lambda i, size, count: (i + 0.5) * (size / count) - 0.5,
}


def resize_grid(call: Call, mode: str, start: float, end: float, count: int) -> Tensor:
    """Return where the outputs are between two positions of the input."""
    if mode not in _GRIDS:
        raise call.refuse(f"sampling_mode {mode!a}")
    points = _GRIDS[mode](torch.arange(count, dtype=torch.float64), end - start + 1, count)
    return start + points.clamp(0, max(end - start, 0))


def resize_to_grid(x: Tensor, axis: int, points: Tensor) -> Tensor:
    """Interpolate linearly at points of one axis, which are within it."""
    low = points.floor().long().clamp(0, x.shape[axis] - 1)
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    shape = [1] * x.dim()
    shape[axis] = -1
    share = (points - low).to(x.dtype if x.is_floating_point() else torch.float64).reshape(shape)
    first, second = x.index_select(axis, low), x.index_select(axis, high)
    return first + (second - first) * share


def resize_nearest_grid(x: Tensor, axis: int, points: Tensor) -> Tensor:
    """Take the values at or before points of one axis."""
    return x.index_select(axis, points.floor().long().clamp(0, x.shape[axis] - 1))


def resize_nearest_by_factor(call: Call) -> Tensor:
    """Compute `upsample_nearest_neighbor`."""
    x = call.tensor("x")
    for axis, name in ((-2, "scale_factor_height"), (-1, "scale_factor_width")):
        factor = call.number(name, 1.0)
        points = torch.arange(math.floor(factor * x.shape[axis]), dtype=torch.float64) / factor
        x = resize_nearest_grid(x, axis % x.dim(), points)
    return x


def resize_nearest(call: Call) -> Tensor:
    """Compute `resize_nearest_neighbor`."""
    x = call.tensor("x")
    for axis, name in ((-2, "target_size_height"), (-1, "target_size_width")):
        count = call.integer(name)
        points = torch.arange(count, dtype=torch.float64) * x.shape[axis] / count
        x = resize_nearest_grid(x, axis % x.dim(), points)
    return x


def resize_bilinear_by_factor(call: Call) -> Tensor:
    """Compute `upsample_bilinear`; the factor only gives the size, as with `recompute_scale_factor`."""
    half_pixel = call.flag("half_pixel_centers", not call.flag("align_corners", True))
    mode = "UNALIGN_CORNERS" if half_pixel else "DEFAULT"
    mode = "STRICT_ALIGN_CORNERS" if call.flag("align_corners", True) else mode
    x = call.tensor("x")
    for axis, name in ((-2, "scale_factor_height"), (-1, "scale_factor_width")):
        count = math.floor(call.number(name, 1.0) * x.shape[axis])
        points = resize_grid(call, mode, 0, x.shape[axis] - 1, count)
        x = resize_to_grid(x, axis % x.dim(), points)
    return x


def resize_bilinear(call: Call) -> Tensor:
    """Compute `resize_bilinear`."""
    x, mode = call.tensor("x"), call.text("sampling_mode", "DEFAULT")
    for axis, name in ((-2, "target_size_height"), (-1, "target_size_width")):
        points = resize_grid(call, mode, 0, x.shape[axis] - 1, call.integer(name, 1))
        x = resize_to_grid(x, axis % x.dim(), points)
    return x


def resize_any(call: Call) -> Tensor:
    """Compute `resize`: the last dimensions, in either interpolation."""
    x, mode = call.tensor("x"), call.text("sampling_mode", "DEFAULT")
    interpolation, count = call.text("interpolation_mode", "LINEAR"), call.integer("resized_dims")
    if interpolation == "NEAREST_NEIGHBOR" and mode != "DEFAULT":
        raise call.refuse(f"nearest neighbours with sampling_mode {mode!a}")
    if interpolation not in ("LINEAR", "NEAREST_NEIGHBOR"):
        raise call.refuse(f"interpolation_mode {interpolation!a}")
    resample = resize_to_grid if interpolation == "LINEAR" else resize_nearest_grid
    for axis, size in enumerate(call.integers("shape")[-count:], start=x.dim() - count):
        points = resize_grid(call, mode, 0, x.shape[axis] - 1, size or x.shape[axis])
        x = resample(x, axis, points)
    return x


_BOXES: Mapping[str, Callable[[float, float, float, float], tuple[float, float, float, float]]] = {
    "CORNERS_HEIGHT_FIRST": lambda a, b, c, d: (a, b, c, d),
    "CORNERS_WIDTH_FIRST": lambda a, b, c, d: (b, a, d, c),
    "CENTER_SIZE_HEIGHT_FIRST": lambda a, b, c, d: (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    "CENTER_SIZE_WIDTH_FIRST": lambda a, b, c, d: (b - d / 2, a - c / 2, b + d / 2, a + c / 2),
}
"""Convention -> top, left, bottom and right of the four numbers of a box."""


def resize_crops(call: Call) -> Tensor:
    """Compute `crop_resize`: boxes of pictures, each resized to one size.

    Until iOS 16 boxes are `roi`, and the result has a dimension for the pictures; from iOS 17 on they are
    `boxes`, each of one picture.
    """
    x = call.tensor("x")
    if call.has("boxes"):
        boxes = call.tensor("boxes").double()
        owners = call.integers("box_indices", range(len(boxes)))
        return torch.stack([_resize_crop(call, x[i], box) for i, box in zip(owners, boxes, strict=True)])
    rois = call.tensor("roi").double().flatten(1)
    if rois.shape[1] == 5:
        return torch.stack([_resize_crop(call, x[int(r[0])], r[1:])[None] for r in rois])
    return torch.stack([torch.stack([_resize_crop(call, picture, r) for picture in x]) for r in rois])


def _resize_crop(call: Call, picture: Tensor, box: Tensor) -> Tensor:
    convention = call.text("box_coordinate_mode", "CORNERS_HEIGHT_FIRST")
    if convention not in _BOXES:
        raise call.refuse(f"box_coordinate_mode {convention!a}")
    scaled = (box * call.number("spatial_scale", 1.0)).tolist()
    top, left, bottom, right = _BOXES[convention](*scaled)
    outside = torch.zeros((), dtype=torch.bool)
    for axis, first, last, name in ((1, top, bottom, "target_height"), (2, left, right, "target_width")):
        size = picture.shape[axis]
        unit = size - 1 if call.flag("normalized_coordinates") else 1
        mode = call.text("sampling_mode", "DEFAULT")
        points = resize_grid(call, mode, first * unit, last * unit, call.integer(name, 1))
        beyond = (points < 0) | (points > size - 1)
        outside = outside | (beyond[:, None] if axis == 1 else beyond[None, :])
        picture = resize_to_grid(picture, axis, points.clamp(0, size - 1))
    return picture.masked_fill(outside, call.number("pad_value", 0.0)) if call.has("pad_value") else picture


_PADDINGS: Mapping[str, tuple[str, bool]] = {
    "constant": ("zeros", True),
    "border": ("border", True),
    "reflection": ("reflection", True),
    "symmetric": ("reflection", False),
}
"""MIL's padding mode -> PyTorch's, and whether it mirrors at the centre of the outermost pixel."""


def resize_at_coordinates(call: Call) -> Tensor:
    """Compute `resample`: values of a picture at given coordinates (x, y)."""
    padding, coordinates = call.text("padding_mode"), call.text("coordinates_mode")
    if padding not in _PADDINGS or (padding == "constant" and call.number("padding_value", 0.0) != 0):
        raise call.refuse(
            f"padding_mode {padding!a} with padding_value {call.number('padding_value', 0.0):g}"
        )
    x, points = call.tensor("x"), call.tensor("coordinates").float()
    mode, aligned = _PADDINGS[padding]
    sizes = torch.tensor([x.shape[3], x.shape[2]], dtype=torch.float32)
    pixels = _pixels_to_resize(call, coordinates, points, sizes)
    # PyTorch's two conventions differ in what -1 and 1 stand for, and in where reflections turn.
    grid = 2 * pixels / (sizes - 1).clamp(min=1) - 1 if aligned else (2 * pixels + 1) / sizes - 1
    return functional.grid_sample(x, grid, call.text("sampling_mode"), mode, align_corners=aligned)


def _pixels_to_resize(call: Call, mode: str, points: Tensor, sizes: Tensor) -> Tensor:
    if mode == "unnormalized":
        return points
    if mode not in ("normalized_minus_one_to_one", "normalized_zero_to_one"):
        raise call.refuse(f"coordinates_mode {mode!a}")
    share = (points + 1) / 2 if mode == "normalized_minus_one_to_one" else points
    return share * (sizes - 1) if call.flag("align_corners") else share * sizes - 0.5


def resize_affine(call: Call) -> Tensor:
    """Compute `affine`, as far as coremltools allows it: bilinear, with corners aligned and zeros outside."""
    if not call.flag("align_corners"):
        raise call.refuse("align_corners False")
    x, matrix = call.tensor("x"), call.tensor("transform_matrix").reshape(-1, 2, 3)
    shape = [*x.shape[:2], call.integer("output_height"), call.integer("output_width")]
    grid = functional.affine_grid(matrix.expand(len(x), 2, 3), shape, align_corners=True)
    return functional.grid_sample(x, grid, "bilinear", "zeros", align_corners=True)
