"""Operators that move values, and compressed constants, give what PyTorch and the specification say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from exporter.formats.coreml.interpreter import constants
from exporter.formats.coreml.interpreter.mil_call import Call
from tests.formats.interpreter.mil import assert_like_torch, compute_mil, numbers, whole

MOVES: dict[str, tuple[Callable[..., Any], Callable[[Tensor], Any]]] = {
    "band_part": (lambda mb, x: mb.band_part(x=x, lower=1, upper=0), lambda x: x.tril() - x.tril(-2)),
    "concat": (lambda mb, x: mb.concat(values=(x, x), axis=1), lambda x: torch.cat([x, x], 1)),
    "concat, interleaved": (
        lambda mb, x: mb.concat(values=(x, x), axis=1, interleave=True),
        lambda x: torch.stack([x, x], 2).flatten(1, 2),
    ),
    "crop": (lambda mb, x: mb.crop(x=x, crop_height=[1, 0], crop_width=[0, 2]), lambda x: x[..., 1:, :-2]),
    "expand_dims": (lambda mb, x: mb.expand_dims(x=x, axes=[0, -1]), lambda x: x[None, ..., None]),
    "fill_like": (
        lambda mb, x: mb.fill_like(ref_tensor=x, value=np.int32(3)),
        lambda x: torch.full(x.shape, 3),
    ),
    "flatten2d": (lambda mb, x: mb.flatten2d(x=x, axis=2), lambda x: x.reshape(8, 24)),
    "pad, constant": (
        lambda mb, x: mb.pad(x=x, pad=[1, 0, 0, 2], mode="constant"),
        lambda x: functional.pad(x, (0, 2, 1, 0)),
    ),
    "pad, reflect": (
        lambda mb, x: mb.pad(x=x, pad=[1, 0, 2, 1], mode="reflect"),
        lambda x: functional.pad(x, (2, 1, 1, 0), mode="reflect"),
    ),
    "pad, replicate": (
        lambda mb, x: mb.pad(x=x, pad=[1, 0, 0, 2], mode="replicate"),
        lambda x: functional.pad(x, (0, 2, 1, 0), mode="replicate"),
    ),
    "pixel_shuffle": (
        lambda mb, x: mb.pixel_shuffle(x=x, upscale_factor=2),
        lambda x: functional.pixel_shuffle(x, 2),
    ),
    "pixel_unshuffle": (
        lambda mb, x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)),
        lambda x: functional.pixel_unshuffle(x, 2),
    ),
    "reshape": (lambda mb, x: mb.reshape(x=x, shape=[4, -1]), lambda x: x.reshape(4, -1)),
    "reshape_like": (
        lambda mb, x: mb.reshape_like(
            x=mb.reshape(x=x, shape=[-1]),
            ref_tensors=(x, x),
            begins=(0, 2),
            ends=(2, 0),
            end_masks=(False, True),
        ),
        lambda x: x,
    ),
    "reverse": (lambda mb, x: mb.reverse(x=x, axes=[1, 3]), lambda x: x.flip(1, 3)),
    "reverse_sequence": (
        lambda mb, x: mb.reverse_sequence(x=x, lengths=[1, 3], seq_axis=1, batch_axis=0),
        lambda x: torch.stack([x[0], torch.cat([x[1, :3].flip(0), x[1, 3:]])]),
    ),
    "shape": (lambda mb, x: mb.shape(x=x), lambda x: torch.tensor(x.shape, dtype=torch.int32)),
    "slice_by_index": (
        lambda mb, x: mb.slice_by_index(
            x=x,
            begin=[1, 3, 0, -1],
            end=[2, 0, 3, 0],
            stride=[1, -2, 2, 1],
            end_mask=[False, True, False, True],
            squeeze_mask=[True, False, False, False],
        ),
        lambda x: x[1].flip(0)[::2][:, 0:3:2, -1:],
    ),
    "slice_by_size": (
        lambda mb, x: mb.slice_by_size(x=x, begin=[0, 1, 0, 2], size=[-1, 2, 3, -1]),
        lambda x: x[:, 1:3, :3, 2:],
    ),
    "sliding_windows": (
        lambda mb, x: mb.sliding_windows(x=mb.reshape(x=x, shape=[2, 16, 6]), axis=1, size=5, stride=3),
        lambda x: x.reshape(2, 16, 6).unfold(1, 5, 3).permute(0, 1, 3, 2),
    ),
    "split": (
        lambda mb, x: mb.split(x=x, split_sizes=[1, 3], axis=1),
        lambda x: torch.split(x, [1, 3], 1),
    ),
    "squeeze": (
        lambda mb, x: mb.squeeze(x=mb.expand_dims(x=x, axes=[1]), axes=[1]),
        lambda x: x,
    ),
    "stack": (lambda mb, x: mb.stack(values=(x, x), axis=2), lambda x: torch.stack([x, x], 2)),
    "tile": (lambda mb, x: mb.tile(x=x, reps=[1, 2, 1, 3]), lambda x: x.repeat(1, 2, 1, 3)),
    "transpose": (lambda mb, x: mb.transpose(x=x, perm=[0, 2, -1, 1]), lambda x: x.permute(0, 2, 3, 1)),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str) -> None:
    """What moves values gives the very values of PyTorch."""
    build, function = MOVES[name]
    assert_like_torch(build, function, numbers(2, 4, 4, 6), tolerance=0)


def test_later_slices_can_be_replaced() -> None:
    """`slice_update` writes into a slice."""
    x, update = numbers(3, 4), numbers(2, 2)

    def expected(x: Tensor, update: Tensor) -> Tensor:
        x = x.clone()
        x[1:3, 0:4:2] = update
        return x

    assert_like_torch(
        lambda mb, x, u: mb.slice_update(x=x, update=u, begin=[1, 0], end=[3, 4], stride=[1, 2]),
        expected,
        x,
        update,
        target="iOS18",
    )


def test_values_that_make_shapes() -> None:
    """Ranges, fills and places of what is not zero, from values of the run."""
    outputs = compute_mil(
        lambda mb, x, end: (
            mb.non_zero(x=x),
            mb.range_1d(start=np.int32(1), end=mb.squeeze(x=end), step=np.int32(3)),
            mb.fill(shape=end, value=2.5),
        ),
        np.array([[0, 3, 0], [1, 0, 2]], np.float32),
        np.array([8], np.int32),
    )
    assert outputs[0].tolist() == [[0, 1], [1, 0], [1, 2]]
    assert outputs[1].tolist() == [1, 4, 7]
    assert outputs[2].tolist() == [2.5] * 8


def test_space_and_depth_and_batch() -> None:
    """Blocks go to channels or samples, the place in the block being the slower part, and back."""
    x = numbers(2, 3, 4, 6)

    def to_depth(x: Tensor) -> Tensor:
        blocks = [x[:, :, i::2, j::2] for i in range(2) for j in range(2)]
        return torch.cat(blocks, 1)

    def to_batch(x: Tensor) -> Tensor:
        wide = functional.pad(x, (0, 0, 1, 1))
        return torch.cat([wide[:, :, i::2, j::3] for i in range(2) for j in range(3)], 0)

    assert_like_torch(lambda mb, x: mb.space_to_depth(x=x, block_size=2), to_depth, x)
    assert_like_torch(
        lambda mb, x: mb.depth_to_space(x=mb.space_to_depth(x=x, block_size=2), block_size=2), lambda x: x, x
    )
    given = {"block_shape": [2, 3]}
    assert_like_torch(lambda mb, x: mb.space_to_batch(x=x, paddings=[[1, 1], [0, 0]], **given), to_batch, x)
    assert_like_torch(
        lambda mb, x: mb.batch_to_space(
            x=mb.space_to_batch(x=x, paddings=[[1, 1], [0, 0]], **given), crops=[[1, 1], [0, 0]], **given
        ),
        lambda x: x,
        x,
    )


def constant(function: Callable[[Call], np.ndarray], **arguments: Any) -> np.ndarray:
    return function(Call("constexpr", arguments))


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_palettes(bits: int) -> None:
    """Positions of any width are packed from the lowest bit on, across bytes."""
    positions = np.random.default_rng(bits).integers(0, 2**bits, (3, 5, 7))
    palette = np.linspace(-1, 1, 2**bits).astype(np.float16)
    spread = (positions.reshape(-1, 1) >> np.arange(bits)) & 1
    packed = np.packbits(spread.reshape(-1).astype(np.uint8), bitorder="little")
    shape = np.array(positions.shape, np.uint32)
    decoded = constant(constants.constant_from_palette, lut=palette, indices=packed, shape=shape)
    np.testing.assert_array_equal(decoded, palette[positions])


def test_palettes_of_blocks() -> None:
    """Each block of channels has a palette of its own (from iOS 18 on)."""
    positions = np.random.default_rng(0).integers(0, 4, (6, 2)).astype(np.uint8)
    palettes = np.arange(12, dtype=np.float16).reshape(3, 1, 4, 1)
    decoded = constant(constants.constant_from_palette, lut=palettes, indices=positions)
    expected = [[palettes[i // 2, 0, positions[i, j], 0] for j in range(2)] for i in range(6)]
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_scales(axis: int, dtype: type) -> None:
    """Integers are shifted and scaled along one axis, or all by one scale."""
    stored: np.ndarray = whole(2, 3, 4, low=0, high=100).astype(dtype)
    size = stored.shape[axis]
    scale = numbers(size, low=0.5).astype(np.float16)
    zero: np.ndarray = whole(size, low=0, high=9).astype(dtype)
    shape = [1, 1, 1]
    shape[axis] = size
    given = {"quantized_data": stored, "axis": np.int32(axis)}
    decoded = constant(constants.constant_from_scale, **_arrays(given), scale=scale, zero_point=zero)
    exact = (stored.astype(float) - zero.reshape(shape).astype(float)) * scale.reshape(shape)
    np.testing.assert_array_equal(decoded, exact.astype(np.float16))
    alone = constant(
        constants.constant_from_scale,
        **_arrays(given),
        scale=scale[:1].reshape(()),
        zero_point=np.array(0, dtype),
    )
    np.testing.assert_array_equal(alone, (stored * scale[0].astype(float)).astype(np.float16))


def _arrays(given: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in given.items()}


def test_scales_of_blocks() -> None:
    """`constexpr_blockwise_shift_scale`: a scale and an offset for each block (from iOS 18 on)."""
    stored = whole(4, 6, low=0, high=9).astype(np.int8)
    scale, offset = numbers(2, 3, low=0.5).astype(np.float16), whole(2, 3).astype(np.int8)
    decoded = constant(constants.constant_from_blocks, data=stored, scale=scale, offset=offset)
    wide_scale, wide_offset = (a.astype(float).repeat(2, 0).repeat(2, 1) for a in (scale, offset))
    np.testing.assert_array_equal(decoded, ((stored - wide_offset) * wide_scale).astype(np.float16))


def test_sparse_constants() -> None:
    """Values stand where the mask's bits are set, from the lowest bit on."""
    dense = np.where(np.random.default_rng(0).random((3, 5)) < 0.4, numbers(3, 5), 0).astype(np.float16)
    mask = np.packbits((dense != 0).reshape(-1), bitorder="little")
    decoded = constant(
        constants.constant_from_sparse,
        nonzero_data=dense[dense != 0],
        mask=mask,
        shape=np.array([3, 5], np.uint32),
    )
    np.testing.assert_array_equal(decoded, dense)


def test_cast_constants() -> None:
    """float16 becomes float32."""
    stored = np.array([1.5, -2], np.float16)
    decoded = constant(constants.constant_cast, source_val=stored, output_dtype="fp32")
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, stored)
