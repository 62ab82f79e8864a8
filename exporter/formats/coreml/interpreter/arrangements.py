"""Rearrangements of channels, space and batch that coremltools does not infer."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional

from exporter.formats.coreml.interpreter.mil_call import Call
from exporter.records import Array


def arrange_pixel_shuffle(call: Call) -> Tensor:
    """Compute `pixel_shuffle`, as PyTorch does."""
    return functional.pixel_shuffle(call.tensor("x"), call.integer("upscale_factor"))


def arrange_pixel_unshuffle(call: Call) -> Tensor:
    """Compute `pixel_unshuffle`, as PyTorch does."""
    return functional.pixel_unshuffle(call.tensor("x"), call.integer("downscale_factor"))


def arrange_depth_to_space(call: Call) -> Array:
    """Compute `depth_to_space`: the place within a block is the slower part of the channel's number."""
    x, b = call.array("x"), call.integer("block_size")
    n, c, h, w = x.shape
    blocks = x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // b**2, h * b, w * b)


def arrange_space_to_depth(call: Call) -> Array:
    """Compute `space_to_depth`, the inverse of `depth_to_space`."""
    x, b = call.array("x"), call.integer("block_size")
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * b**2, h // b, w // b)


def arrange_space_to_batch(call: Call) -> Array:
    """Compute `space_to_batch`: the place within a block is the slower part of the sample's number."""
    (top, bottom), (left, right) = call.array("paddings").tolist()
    x = np.pad(call.array("x"), [(0, 0), (0, 0), (top, bottom), (left, right)])
    (p, q), (n, c, h, w) = call.integers("block_shape"), x.shape
    blocks = x.reshape(n, c, h // p, p, w // q, q).transpose(3, 5, 0, 1, 2, 4)
    return blocks.reshape(n * p * q, c, h // p, w // q)


def arrange_batch_to_space(call: Call) -> Array:
    """Compute `batch_to_space`, the inverse of `space_to_batch`."""
    (p, q), x = call.integers("block_shape"), call.array("x")
    (top, bottom), (left, right) = call.array("crops").tolist()
    n, c, h, w = x.shape
    whole = x.reshape(p, q, n // (p * q), c, h, w).transpose(2, 3, 4, 0, 5, 1)
    return whole.reshape(n // (p * q), c, h * p, w * q)[:, :, top : h * p - bottom, left : w * q - right]


def arrange_crop(call: Call) -> Array:
    """Compute `crop` of the last two dimensions."""
    x = call.array("x")
    (top, bottom), (left, right) = call.integers("crop_height"), call.integers("crop_width")
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def arrange_concatenation(call: Call) -> Array:
    """Compute `concat`, one after the other or in turns. coremltools' own inference knows no turns."""
    values, axis = call.members("values"), call.integer("axis")
    if not call.flag("interleave"):
        return np.concatenate(values, axis)
    axis %= values[0].ndim
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, axis + 1).reshape(shape)


def arrange_reversed_sequences(call: Call) -> Array:
    """Compute `reverse_sequence`: the first values of each sample, as many as its length says."""
    x = call.array("x").copy()
    along, across = (call.integer(name) % x.ndim for name in ("seq_axis", "batch_axis"))
    rows = np.moveaxis(x, (across, along), (0, 1))
    for row, length in zip(rows, call.integers("lengths"), strict=True):
        row[:length] = row[:length][::-1].copy()
    return x


def arrange_reshape_like(call: Call) -> Array:
    """Compute `reshape_like`: to sizes of other tensors."""
    shape: list[int] = []
    parts = (call.members(name) for name in ("ref_tensors", "begins", "ends", "end_masks"))
    for reference, begin, end, to_the_end in zip(*parts, strict=True):
        shape += reference.shape[int(begin) : None if to_the_end else int(end)]
    return call.array("x").reshape(shape)


def arrange_windows(call: Call) -> Array:
    """Compute `sliding_windows`: a dimension of windows, and behind it one of the values in each."""
    x, size, stride = call.array("x"), call.integer("size"), call.integer("stride", 1)
    axis = call.integer("axis") % x.ndim
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    return np.moveaxis(windows, -1, axis + 1).take(range(0, windows.shape[axis], stride), axis)
