"""The interpreter's convolutions, pooling, norms, products and recurrent layers compute what PyTorch's do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.formats.interpreter.mil import assert_like_torch, compute_mil, exact_tensor, like, numbers

CONV = (functional.conv1d, functional.conv2d, functional.conv3d)
TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
AVERAGE = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
LARGEST = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)


def padded(x: Tensor, pad: list[int], value: float = 0.0) -> Tensor:
    """Pad spatial dimensions by pairs that begin with the first one."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    return functional.pad(x, [side for pair in reversed(pairs) for side in pair], value=value)


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((1, 3, 9), (4, 3, 3), {}),
        ((2, 3, 9), (4, 3, 3), {"strides": [2], "pad": [1, 1]}),
        ((1, 4, 12), (4, 1, 3), {"dilations": [2], "groups": 4, "pad": [2, 2]}),
        ((1, 3, 8, 9), (5, 3, 3, 2), {}),
        ((2, 4, 8, 9), (6, 2, 3, 3), {"groups": 2, "strides": [2, 1], "pad": [1, 1, 2, 2]}),
        ((1, 6, 7, 7), (6, 1, 5, 5), {"groups": 6, "pad": [2, 2, 2, 2]}),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"dilations": [2, 3]}),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"pad": [0, 1, 2, 0]}),
        ((1, 2, 5, 6, 7), (3, 2, 3, 2, 3), {"strides": [1, 2, 2], "pad": [1, 1, 0, 0, 1, 1]}),
    ],
)
@pytest.mark.parametrize("with_bias", [False, True])
def test_convolution(
    x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any], with_bias: bool
) -> None:
    """Strides, dilations, groups, biases and uneven padding are those of PyTorch."""
    weight, bias = numbers(*w, low=-0.5, high=0.5), numbers(w[0])
    given = options | ({"pad_type": "custom"} if "pad" in options else {})
    pad = options.get("pad", [0] * (2 * len(w) - 4))
    how = (options.get("strides", 1), 0, options.get("dilations", 1), options.get("groups", 1))
    assert_like_torch(
        lambda mb, x: mb.conv(
            x=x, weight=like(x, weight), **given, **({"bias": like(x, bias)} if with_bias else {})
        ),
        lambda x: CONV[len(w) - 3](
            padded(x, pad), exact_tensor(weight), exact_tensor(bias) if with_bias else None, *how
        ),
        numbers(*x),
    )


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(7, 3, 1), (8, 3, 2), (9, 4, 2), (8, 2, 3), (6, 5, 4)]
)
@pytest.mark.parametrize("kind", ["same", "same_lower"])
def test_same_padding(size: int, kernel: int, stride: int, kind: str) -> None:
    """As many outputs as strides fit; the odd zero is after the values, or before them with "same_lower"."""
    weight = numbers(2, 1, kernel)
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    pad = [total // 2, total - total // 2]
    assert_like_torch(
        lambda mb, x: mb.conv(x=x, weight=like(x, weight), strides=[stride], pad_type=kind),
        lambda x: functional.conv1d(
            functional.pad(x, pad if kind == "same" else pad[::-1]), exact_tensor(weight), None, stride
        ),
        numbers(1, 1, size),
    )


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((1, 3, 6), (3, 4, 3), {"strides": [2], "pad": [1, 1]}),
        ((2, 4, 5, 6), (4, 2, 3, 3), {}),
        ((1, 4, 5, 6), (4, 1, 4, 4), {"strides": [2, 2], "pad": [1, 1, 1, 1], "groups": 4}),
        ((1, 4, 5, 5), (4, 3, 3, 3), {"strides": [2, 3], "dilations": [2, 1], "groups": 2}),
        ((1, 2, 3, 4, 4), (2, 2, 2, 3, 3), {"strides": [1, 2, 2], "pad": [0, 0, 1, 1, 1, 1]}),
    ],
)
def test_transposed_convolution(x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any]) -> None:
    """Strides, dilations, groups, padding and biases are those of PyTorch."""
    weight = numbers(*w, low=-0.5, high=0.5)
    bias = numbers(w[1] * options.get("groups", 1))
    given = options | ({"pad_type": "custom"} if "pad" in options else {})
    pad = options.get("pad", [0] * (2 * len(w) - 4))[::2]
    how = (options.get("strides", 1), pad, 0, options.get("groups", 1), options.get("dilations", 1))
    assert_like_torch(
        lambda mb, x: mb.conv_transpose(x=x, weight=like(x, weight), bias=like(x, bias), **given),
        lambda x: TRANSPOSED[len(w) - 3](x, exact_tensor(weight), exact_tensor(bias), *how),
        numbers(*x),
    )


def test_transposed_convolution_of_a_given_size() -> None:
    """An output's shape beyond the whole (PyTorch's `output_padding`) is filled with the bias."""
    weight, bias = numbers(3, 2, 3, 3), numbers(2)
    assert_like_torch(
        lambda mb, x: mb.conv_transpose(
            x=x,
            weight=like(x, weight),
            bias=like(x, bias),
            strides=[3, 3],
            pad_type="custom",
            pad=[0, 0, 0, 0],
            output_shape=[1, 2, 14, 13],
        ),
        lambda x: functional.conv_transpose2d(
            x, exact_tensor(weight), exact_tensor(bias), 3, 0, output_padding=(2, 1)
        ),
        numbers(1, 3, 4, 4),
    )


POOLING = [
    ((1, 3, 9), [3], [2], [0], False),
    ((1, 3, 10), [3], [2], [1], True),
    ((2, 3, 8, 9), [2, 2], [2, 2], [0, 0], False),
    ((2, 3, 8, 9), [3, 3], [2, 2], [1, 1], False),
    ((1, 3, 7, 8), [3, 3], [2, 2], [0, 0], True),
    ((1, 3, 7, 8), [3, 3], [2, 2], [1, 1], True),
    ((1, 3, 6, 6), [3, 2], [3, 2], [1, 1], True),
    ((1, 2, 5, 5), [2, 2], [3, 3], [1, 1], True),
    ((1, 2, 5, 6, 6), [2, 3, 2], [2, 2, 1], [1, 1, 0], False),
]


@pytest.mark.parametrize(("shape", "kernel", "strides", "pad", "ceil"), POOLING)
@pytest.mark.parametrize("excludes", [False, True])
def test_average_pooling(
    shape: tuple[int, ...], kernel: list[int], strides: list[int], pad: list[int], ceil: bool, excludes: bool
) -> None:
    """Rounding up, padding, and whether padding counts are those of PyTorch."""
    assert_like_torch(
        lambda mb, x: mb.avg_pool(
            x=x,
            kernel_sizes=kernel,
            strides=strides,
            pad_type="custom",
            pad=[side for side in pad for _ in range(2)],
            ceil_mode=ceil,
            exclude_padding_from_average=excludes,
        ),
        lambda x: AVERAGE[len(kernel) - 1](x, kernel, strides, pad, ceil, not excludes),
        numbers(*shape),
    )


@pytest.mark.parametrize(("shape", "kernel", "strides", "pad", "ceil"), POOLING)
def test_largest_pooling(
    shape: tuple[int, ...], kernel: list[int], strides: list[int], pad: list[int], ceil: bool
) -> None:
    """Padding is never the largest, also where all values are negative."""
    assert_like_torch(
        lambda mb, x: mb.max_pool(
            x=x,
            kernel_sizes=kernel,
            strides=strides,
            pad_type="custom",
            pad=[side for side in pad for _ in range(2)],
            ceil_mode=ceil,
        ),
        lambda x: LARGEST[len(kernel) - 1](x, kernel, strides, pad, 1, ceil),
        numbers(*shape, low=-4, high=-1),
    )


@pytest.mark.parametrize("pad", [[0, 0, 0, 0], [1, 0, 0, 2]])
def test_l2_pooling_with_uneven_padding(pad: list[int]) -> None:
    """The root of the sum of squares, over uneven padding."""
    assert_like_torch(
        lambda mb, x: mb.l2_pool(x=x, kernel_sizes=[3, 2], strides=[2, 1], pad_type="custom", pad=pad),
        lambda x: functional.lp_pool2d(padded(x, pad), 2.0, (3, 2), (2, 1)),
        numbers(1, 2, 6, 5, low=0.1),
    )


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 3), (1, 4, 3, 3, 2)])
@pytest.mark.parametrize("affine", [False, True])
def test_norms_of_channels(shape: tuple[int, ...], affine: bool) -> None:
    """Batch norm by stored statistics, and instance norm by each sample's own."""
    mean, variance, gamma, beta = numbers(4), numbers(4, low=0.5), numbers(4), numbers(4)
    given = (gamma, beta) if affine else (None, None)
    weight, bias = (exact_tensor(gamma), exact_tensor(beta)) if affine else (None, None)
    epsilon = 2.0**-10

    def build(mb: Any, x: Any) -> Any:
        names = {n: like(x, v) for n, v in zip(("gamma", "beta"), given, strict=True) if v is not None}
        eps = like(x, epsilon)
        norm = mb.batch_norm(x=x, mean=like(x, mean), variance=like(x, variance), epsilon=eps, **names)
        return norm, mb.instance_norm(x=x, epsilon=eps, **names) if len(shape) < 5 else mb.relu(x=x)

    def expected(x: Tensor) -> Any:
        norm = functional.batch_norm(x, exact_tensor(mean), exact_tensor(variance), weight, bias, eps=epsilon)
        return norm, functional.instance_norm(x, None, None, weight, bias, eps=epsilon) if len(
            shape
        ) < 5 else x.relu()

    assert_like_torch(build, expected, numbers(*shape))


@pytest.mark.parametrize("axes", [[-1], [1, 2], [2, 3], [1, 2, 3]])
def test_layer_norm(axes: list[int]) -> None:
    """Any axes; a large mean does not harm the variance."""
    shape = (2, 3, 4, 5)
    sizes = [shape[a] for a in axes]
    gamma, beta = numbers(*sizes), numbers(*sizes)
    spread = [shape[a] if a in [i % 4 for i in axes] else 1 for a in range(4)]

    def expected(x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, [a % 4 for a in axes], correction=0, keepdim=True)
        scale, shift = (exact_tensor(v).reshape(spread) for v in (gamma, beta))
        return (x - mean) / torch.sqrt(variance + 2.0**-12) * scale + shift

    assert_like_torch(
        lambda mb, x: mb.layer_norm(
            x=x, axes=axes, gamma=like(x, gamma), beta=like(x, beta), epsilon=like(x, 2.0**-12)
        ),
        expected,
        numbers(*shape, low=6, high=10),
        tolerance=2e-5,
    )


@pytest.mark.parametrize("size", [1, 3, 4])
def test_norms_of_neighbours(size: int) -> None:
    """Local response norm over channels, and L2 norm over the last three dimensions."""
    assert_like_torch(
        lambda mb, x: (
            mb.local_response_norm(x=x, size=size, alpha=like(x, 0.5), k=like(x, 2)),
            mb.l2_norm(x=x, epsilon=like(x, 2.0**-12)),
        ),
        lambda x: (
            functional.local_response_norm(x, size, 0.5, 0.75, 2.0),
            x / torch.sqrt(x.square().sum((1, 2, 3), keepdim=True) + 2.0**-12),
        ),
        numbers(2, 6, 3, 3),
    )


@pytest.mark.parametrize(
    ("x", "y", "turned"),
    [
        ((3, 4), (4, 5), (False, False)),
        ((2, 3, 4), (2, 5, 4), (False, True)),
        ((2, 1, 4, 3), (5, 4, 2), (True, False)),
        ((4, 3), (5, 4), (True, True)),
    ],
)
def test_matrix_product(x: tuple[int, ...], y: tuple[int, ...], turned: tuple[bool, bool]) -> None:
    """Broadcast batches, and either factor transposed."""
    assert_like_torch(
        lambda mb, a, b: mb.matmul(x=a, y=b, transpose_x=turned[0], transpose_y=turned[1]),
        lambda a, b: (a.mT if turned[0] else a) @ (b.mT if turned[1] else b),
        numbers(*x),
        numbers(*y),
    )


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4)])
def test_linear(shape: tuple[int, ...]) -> None:
    """Any number of leading dimensions."""
    weight, bias = numbers(5, 4), numbers(5)
    assert_like_torch(
        lambda mb, x: mb.linear(x=x, weight=like(x, weight), bias=like(x, bias)),
        lambda x: functional.linear(x, exact_tensor(weight), exact_tensor(bias)),
        numbers(*shape),
    )


@pytest.mark.parametrize("equation", ["nchw,nwhu->nchu", "chw,whu->chu"])
def test_einsum(equation: str) -> None:
    """The equations that MIL allows."""
    sizes = {"n": 2, "c": 3, "h": 4, "w": 5, "u": 6}
    x, y = (numbers(*(sizes[c] for c in term)) for term in equation.partition("->")[0].split(","))
    assert_like_torch(
        lambda mb, a, b: mb.einsum(values=(a, b), equation=equation),
        lambda a, b: torch.einsum(equation, a, b),
        x,
        y,
    )


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention(mask: str | None) -> None:
    """Scaled dot products with no mask, one of truth values, and one that is added."""
    q, k, v = numbers(2, 3, 4, 8), numbers(2, 3, 5, 8), numbers(2, 3, 5, 6)
    keep = np.array([[1, 1, 0, 1, 0]] * 4, bool)
    added = numbers(4, 5)

    def build(mb: Any, q: Any, k: Any, v: Any) -> Any:
        given = {} if mask is None else {"attn_mask": keep if mask == "bool" else like(q, added)}
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, **given)

    masks = {None: None, "bool": torch.from_numpy(keep), "float": exact_tensor(added)}
    assert_like_torch(
        build,
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, masks[mask]),
        q,
        k,
        v,
        target="iOS18",
    )


def torch_gates(array: Tensor, order: list[int], size: int) -> np.ndarray:
    """Return PyTorch's gates in MIL's order, as float32."""
    return np.concatenate([array.detach().numpy()[i * size : (i + 1) * size] for i in order])


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("sequence", [False, True])
def test_lstm(direction: str, sequence: bool) -> None:
    """Gates in MIL's order, both directions, whole sequences or the last step."""
    torch.manual_seed(0)
    both = direction == "bidirectional"
    net = nn.LSTM(3, 4, bidirectional=both)
    weights = net.state_dict()
    order = [0, 1, 3, 2]
    given = {}
    for suffix, ours in (("", ""), ("_reverse", "_back"))[: 1 + both]:
        given[f"weight_ih{ours}"] = torch_gates(weights[f"weight_ih_l0{suffix}"], order, 4)
        given[f"weight_hh{ours}"] = torch_gates(weights[f"weight_hh_l0{suffix}"], order, 4)
        bias = weights[f"bias_ih_l0{suffix}"] + weights[f"bias_hh_l0{suffix}"]
        given[f"bias{ours}"] = torch_gates(bias, order, 4)
    x, h, c = numbers(5, 2, 3), numbers(2, 4 * (1 + both)), numbers(2, 4 * (1 + both))
    outputs = compute_mil(
        lambda mb, x, h, c: mb.lstm(
            x=x, initial_h=h, initial_c=c, direction=direction, output_sequence=sequence, **given
        ),
        x,
        h,
        c,
    )
    sides = [torch.from_numpy(np.stack(np.split(a, 1 + both, 1)).copy()) for a in (h, c)]
    inputs = torch.from_numpy(x)
    steps, (last_h, last_c) = net(inputs.flip(0) if direction == "reverse" else inputs, tuple(sides))
    last = torch.cat(list(last_h), -1)
    whole = (steps.flip(0) if direction == "reverse" else steps) if sequence else last[None]
    expected = (whole, last, torch.cat(list(last_c), -1))
    for actual, exact in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(actual, exact.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("sequence", [False, True])
def test_gru_and_rnn(direction: str, sequence: bool) -> None:
    """Gates in MIL's order. A GRU of PyTorch whose new gate has one bias only is MIL's."""
    torch.manual_seed(0)
    nets: tuple[nn.Module, ...] = (nn.GRU(3, 4), nn.RNN(3, 4))
    gru, rnn = (net.state_dict() for net in nets)
    gru["bias_hh_l0"][8:] = 0
    x, h = numbers(5, 2, 3), numbers(2, 4)
    given = {"direction": direction, "output_sequence": sequence}
    order = [0, 2, 1]

    def build(mb: Any, x: Any, h: Any) -> Any:
        first = mb.gru(
            x=x,
            initial_h=h,
            weight_ih=torch_gates(gru["weight_ih_l0"], order, 4),
            weight_hh=torch_gates(gru["weight_hh_l0"], order, 4),
            bias=torch_gates(gru["bias_ih_l0"] + gru["bias_hh_l0"], order, 4),
            **given,
        )
        second = mb.rnn(
            x=x,
            initial_h=h,
            weight_ih=rnn["weight_ih_l0"].numpy(),
            weight_hh=rnn["weight_hh_l0"].numpy(),
            bias=(rnn["bias_ih_l0"] + rnn["bias_hh_l0"]).numpy(),
            **given,
        )
        return (*first, *second)

    outputs = compute_mil(build, x, h)
    inputs = torch.from_numpy(x)
    inputs = inputs.flip(0) if direction == "reverse" else inputs
    for net, (steps, last) in zip(nets, (outputs[:2], outputs[2:]), strict=True):
        exact, final = net(inputs, torch.from_numpy(h)[None])
        whole = (exact.flip(0) if direction == "reverse" else exact) if sequence else final
        np.testing.assert_allclose(steps, whole.detach().numpy(), atol=1e-6)
        np.testing.assert_allclose(last, final[0].detach().numpy(), atol=1e-6)
