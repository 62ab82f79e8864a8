"""Convolutions. Products are summed in float32 and rounded once, which is more exact than most hardware."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from exporter.formats.coreml.interpreter.mil_call import Call

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def convolution(call: Call) -> Tensor:
    """Compute `conv`: of 1 to 3 spatial dimensions, grouped, dilated, with any padding."""
    x, weight = call.tensor("x"), call.tensor("weight")
    rank = x.dim() - 2
    strides, dilations = call.integers("strides", [1] * rank), call.integers("dilations", [1] * rank)
    kernel = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    pad = padding_for_convolution(call, x.shape[2:], kernel, strides)
    return _CONVOLUTIONS[rank](
        functional.pad(x, _convolution_pad_order(pad)),
        weight,
        call.optional("bias"),
        strides,
        0,
        dilations,
        call.integer("groups", 1),
    )


def padding_for_convolution(
    call: Call, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """Return the zeros before and after each spatial dimension, by `pad_type`.

    "same" and "same_lower" give ceil(size / stride) outputs. An odd number of zeros has one more after the
    values, with "same_lower" one more before them.
    """
    kind = call.text("pad_type", "valid").lower()
    if kind == "valid":
        return [0] * (2 * len(sizes))
    if kind == "custom":
        return call.integers("pad", [0] * (2 * len(sizes)))
    if kind not in ("same", "same_lower"):
        raise call.refuse(f"pad_type {kind!a}")
    pad = []
    for size, width, stride in zip(sizes, kernel, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        less, more = total // 2, total - total // 2
        pad += [less, more] if kind == "same" else [more, less]
    return pad


def _convolution_pad_order(pad: Sequence[int]) -> list[int]:
    """PyTorch pads the last dimension first, MIL lists the first one first."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    return [size for pair in reversed(pairs) for size in pair]


def transposed_convolution(call: Call) -> Tensor:
    """Compute `conv_transpose`: whole, then cut to the output's shape, or filled up with zeros to it."""
    x, weight = call.tensor("x"), call.tensor("weight")
    rank = x.dim() - 2
    strides, dilations = call.integers("strides", [1] * rank), call.integers("dilations", [1] * rank)
    whole = _TRANSPOSED[rank](x, weight, None, strides, 0, 0, call.integer("groups", 1), dilations)
    first, sizes = _cut_of_convolution(call, x.shape[2:], whole.shape[2:], strides)
    for axis, (begin, size) in enumerate(zip(first, sizes, strict=True), start=2):
        missing = max(begin + size - whole.shape[axis], 0)
        fill = [0, 0] * (whole.dim() - 1 - axis) + [0, missing]
        whole = functional.pad(whole, fill).narrow(axis, begin, size)
    bias = call.optional("bias")
    return whole if bias is None else whole + bias.reshape(-1, *[1] * rank)


def _cut_of_convolution(
    call: Call, sizes: Sequence[int], whole: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return where the output begins in the whole transposed convolution, and its sizes."""
    kind = call.text("pad_type", "valid").lower()
    pad = call.integers("pad", [0] * (2 * len(sizes))) if kind == "custom" else [0] * (2 * len(sizes))
    if kind not in ("valid", "custom", "same"):
        raise call.refuse(f"pad_type {kind!a}")
    outputs = [w - a - b for w, a, b in zip(whole, pad[::2], pad[1::2], strict=True)]
    if kind == "same":
        outputs = [size * stride for size, stride in zip(sizes, strides, strict=True)]
        pad = [side for w, o in zip(whole, outputs, strict=True) for side in (max(w - o, 0) // 2, 0)]
    if call.has("output_shape"):
        outputs = call.integers("output_shape")[2:]
    return pad[::2], outputs
