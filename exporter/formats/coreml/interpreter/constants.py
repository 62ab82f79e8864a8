"""Compressed constants: palettes, integers with scales, and sparse tensors, decoded as the program says.

coremltools decodes them itself (`materialized_val_inference`); the interpreter does not use it, so that a
fault in what packed the weights is not repeated by what unpacks them.
"""

from __future__ import annotations

import numpy as np

from exporter.formats.coreml.interpreter.mil_call import Call
from exporter.records import Array

BLOCK = 1 << 16
"""Values of a large tensor that are decoded together: a multiple of 8, as blocks start at whole bytes."""


def constant_from_scale(call: Call) -> Array:
    """Decode `constexpr_affine_dequantize`: scale * (stored - zero point), for each index of one axis."""
    stored = call.array("quantized_data")
    shape = [1] * stored.ndim
    shape[call.integer("axis")] = -1
    scale, zero = (call.array(name).reshape(-1) for name in ("scale", "zero_point"))
    scale, zero = (a.reshape(shape) if a.size > 1 else a for a in (scale, zero))
    exact = stored.astype(np.float32)
    exact -= zero.astype(np.float32)  # in place: a large table of words is most of the memory
    exact *= scale.astype(np.float32)
    return exact.astype(scale.dtype)


def constant_from_palette(call: Call) -> Array:
    """Decode `constexpr_lut_to_dense`: positions in one palette, or (from iOS 18 on) in many."""
    palette, positions = call.array("lut"), call.array("indices")
    if palette.ndim > 1:
        return _constant_from_palettes(call, palette, positions)
    shape = call.integers("shape")
    bits = max((palette.size - 1).bit_length(), 1)
    count = int(np.prod(shape))
    values = np.empty(count, palette.dtype)
    packed = positions.reshape(-1).view(np.uint8)
    for start in range(0, count, BLOCK):  # a large tensor's positions as integers take 16 times its memory
        stop = min(start + BLOCK, count)
        block = packed[start * bits // 8 : -(-stop * bits // 8)]
        values[start:stop] = palette[_constant_unpacked(block, bits, stop - start)]
    return values.reshape(shape)


def _constant_unpacked(packed: Array, bits: int, count: int) -> Array:
    """Return `count` numbers of so many bits, lowest bits first."""
    if 8 % bits == 0:  # no number lies in two bytes: 18 times as fast for 4 bits
        parts = packed.reshape(-1).view(np.uint8)[:, None] >> np.arange(0, 8, bits, dtype=np.uint8)
        return np.asarray((parts & (2**bits - 1)).reshape(-1)[:count])
    flat = np.unpackbits(packed.view(np.uint8), bitorder="little")[: bits * count].reshape(count, bits)
    return np.asarray((flat.astype(np.int64) << np.arange(bits)).sum(axis=1))


def _constant_from_palettes(call: Call, palettes: Array, positions: Array) -> Array:
    """Look up scalars, or vectors along one axis, in a palette of its own for each block of the tensor."""
    if palettes.ndim != positions.ndim + 2:
        raise call.refuse(f"a palette of shape {list(palettes.shape)} for {list(positions.shape)}")
    blocks = palettes.shape[:-2]
    owner = np.ix_(
        *(np.arange(size) * count // size for size, count in zip(positions.shape, blocks, strict=True))
    )
    vectors = palettes[(*np.broadcast_arrays(*owner), positions.astype(np.int64))]
    if vectors.shape[-1] == 1:
        return np.asarray(vectors[..., 0])
    axis = call.integer("vector_axis") % positions.ndim
    shape = list(positions.shape)
    shape[axis] *= vectors.shape[-1]
    return np.asarray(np.moveaxis(vectors, -1, axis + 1).reshape(shape))


def constant_from_sparse_palette(call: Call) -> tuple[Array, Array]:
    """Decode `constexpr_lut_to_sparse`: the mask, and the palettes' values where it is set."""
    mask = call.array("indices_mask").astype(bool)
    palettes = call.array("lut")
    positions = _constant_in_place(call.array("indices_nonzero_data"), mask)
    values = _constant_from_palettes(call, palettes, positions)
    if palettes.shape[-1] > 1:
        mask = mask.repeat(palettes.shape[-1], call.integer("vector_axis"))
    return mask, values[mask]


def constant_from_sparse_blocks(call: Call) -> tuple[Array, Array]:
    """Decode `constexpr_sparse_blockwise_shift_scale`: the mask, and the scaled values where it is set."""
    mask = call.array("data_mask").astype(bool)
    return mask, _constant_scaled(call, _constant_in_place(call.array("nonzero_data"), mask))[mask]


def constant_from_blocks(call: Call) -> Array:
    """Decode `constexpr_blockwise_shift_scale`: scale * (stored - offset), for each block."""
    return _constant_scaled(call, call.array("data"))


def _constant_scaled(call: Call, stored: Array) -> Array:
    scale = call.array("scale")
    exact = stored.astype(np.float32)
    if call.has("offset"):
        exact = exact - _constant_spread(call.array("offset"), stored.shape).astype(np.float32)
    return (exact * _constant_spread(scale, stored.shape).astype(np.float32)).astype(scale.dtype)


def _constant_spread(blocks: Array, shape: tuple[int, ...]) -> Array:
    """Repeat a value for each block to the whole tensor's shape."""
    for axis, (size, count) in enumerate(zip(shape, blocks.shape, strict=True)):
        blocks = np.repeat(blocks, size // count, axis)
    return blocks


def constant_from_sparse(call: Call) -> Array:
    """Decode `constexpr_sparse_to_dense`: values where the mask is set, else 0."""
    values, mask = call.array("nonzero_data"), call.array("mask")
    if call.has("shape"):
        shape = call.integers("shape")
        mask = np.unpackbits(mask.view(np.uint8), bitorder="little")[: int(np.prod(shape))].reshape(shape)
    return _constant_in_place(values, mask.astype(bool))


def _constant_in_place(values: Array, mask: Array) -> Array:
    """Put values where the mask is set, in the order of the memory, and 0 elsewhere."""
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask] = values
    return dense


def constant_cast(call: Call) -> Array:
    """Decode `constexpr_cast`, which only makes float32 of float16."""
    if call.text("output_dtype") != "fp32":
        raise call.refuse(f"output_dtype {call.text('output_dtype')!a}")
    return call.array("source_val").astype(np.float32)
