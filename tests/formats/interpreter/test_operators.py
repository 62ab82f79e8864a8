"""The interpreter's operators on values, axes, places and pictures compute what PyTorch's do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.formats.interpreter.mil import assert_like_torch, compute_mil, exact_tensor, like, numbers, whole

UNARY: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "abs": (torch.abs, -2, 2),
    "acos": (torch.acos, -0.9, 0.9),
    "asin": (torch.asin, -0.9, 0.9),
    "atan": (torch.atan, -2, 2),
    "atanh": (torch.atanh, -0.9, 0.9),
    "ceil": (torch.ceil, -3, 3),
    "cos": (torch.cos, -3, 3),
    "cosh": (torch.cosh, -2, 2),
    "erf": (torch.erf, -2, 2),
    "exp": (torch.exp, -3, 3),
    "exp2": (torch.exp2, -3, 3),
    "floor": (torch.floor, -3, 3),
    "identity": (lambda x: x, -3, 3),
    "relu": (torch.relu, -3, 3),
    "relu6": (functional.relu6, -3, 9),
    "round": (torch.round, -3, 3),
    "sigmoid": (torch.sigmoid, -9, 9),
    "sign": (torch.sign, -3, 3),
    "silu": (functional.silu, -9, 9),
    "sin": (torch.sin, -3, 3),
    "sinh": (torch.sinh, -2, 2),
    "softplus": (functional.softplus, -19, 19),
    "softsign": (functional.softsign, -9, 9),
    "sqrt": (torch.sqrt, 0.1, 9),
    "square": (torch.square, -9, 9),
    "tan": (torch.tan, -1, 1),
    "tanh": (torch.tanh, -4, 4),
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_value(name: str) -> None:
    """Each is PyTorch's, rounded once in float16."""
    function, low, high = UNARY[name]
    x = numbers(3, 7, low=low, high=high)
    assert_like_torch(lambda mb, x: getattr(mb, name)(x=x), function, x)


BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "real_div": torch.div,
    "sub": torch.sub,
}


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_values(name: str) -> None:
    """Shapes are broadcast, signs and ties are PyTorch's."""
    x = np.array([[-3.5, -1.5, 0.5, 2.0], [7.25, 1.0, -6.0, 3.0]], np.float32)[:, None]
    y = np.array([[1.5], [-2.0], [0.5]], np.float32)
    assert_like_torch(lambda mb, x, y: getattr(mb, name)(x=x, y=y), BINARY[name], x, y)


@pytest.mark.parametrize("name", [name for name in BINARY if name != "real_div"])
def test_functions_of_two_integers(name: str) -> None:
    """Integers divide and wrap as PyTorch's do, also negative ones."""
    x, y = whole(4, 6), np.array([-4, -3, -1, 1, 2, 5], np.int32)
    assert_like_torch(lambda mb, x, y: getattr(mb, name)(x=x, y=y), BINARY[name], x, y)


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_logic(name: str) -> None:
    """Truth tables."""
    x, y = np.array([[True], [False]]), np.array([True, False])
    given = lambda mb, a, b: (getattr(mb, name)(x=a, y=b), mb.logical_not(x=a))  # noqa: E731
    assert_like_torch(given, lambda a, b: (getattr(torch, name)(a, b), ~a), x, y)


EPSILON = 2.0**-7
CONSTANTS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor], float]] = {
    "clip": ({"alpha": -1.0, "beta": 0.5}, lambda x: x.clamp(-1, 0.5), -3),
    "elu": ({"alpha": 0.75}, lambda x: functional.elu(x, 0.75), -3),
    "leaky_relu": ({"alpha": 0.125}, lambda x: functional.leaky_relu(x, 0.125), -3),
    "linear_activation": ({"alpha": 0.5, "beta": 2.0}, lambda x: 0.5 * x + 2, -3),
    "scaled_tanh": ({"alpha": 1.5, "beta": 0.5}, lambda x: 1.5 * torch.tanh(0.5 * x), -3),
    "sigmoid_hard": ({"alpha": 0.25, "beta": 0.5}, lambda x: (0.25 * x + 0.5).clamp(0, 1), -5),
    "threshold": ({"alpha": 0.25}, lambda x: x.clamp(min=0.25), -3),
    "thresholded_relu": ({"alpha": 0.75}, lambda x: torch.where(x >= 0.75, x, 0.0), -3),
    "clamped_relu": (
        {"alpha": 0.25, "beta": 1.5},
        lambda x: torch.where(x >= 0, x, 0.25 * x).clamp(max=1.5),
        -3,
    ),
    "log": ({"epsilon": EPSILON}, lambda x: torch.log(x + EPSILON), 0.1),
    "inverse": ({"epsilon": EPSILON}, lambda x: 1 / (x + EPSILON), 0.1),
    "rsqrt": ({"epsilon": EPSILON}, lambda x: torch.rsqrt(x + EPSILON), 0.1),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_functions_with_constants(name: str) -> None:
    """Slopes, bounds and epsilons take effect."""
    given, function, low = CONSTANTS[name]
    assert_like_torch(
        lambda mb, x: getattr(mb, name)(x=x, **{k: like(x, v) for k, v in given.items()}),
        function,
        numbers(2, 3, 5, low=low, high=4),
    )


@pytest.mark.parametrize("mode", ["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"])
def test_gelu(mode: str) -> None:
    """Three formulas, which differ by more than rounding."""
    functions = {
        "EXACT": functional.gelu,
        "TANH_APPROXIMATION": lambda x: functional.gelu(x, approximate="tanh"),
        "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
    }
    assert_like_torch(lambda mb, x: mb.gelu(x=x, mode=mode), functions[mode], numbers(40, low=-4, high=4))


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (1, 3, 1, 5)])
def test_activations_of_channels(shape: tuple[int, ...]) -> None:
    """Each channel has its own slope."""
    slope, other = numbers(3), numbers(3, low=0.5)
    spread = [1, 3, *[1] * (len(shape) - 2)]
    assert_like_torch(
        lambda mb, x: mb.prelu(x=x, alpha=like(x, slope)),
        lambda x: functional.prelu(x, exact_tensor(slope)),
        numbers(*shape),
    )
    assert_like_torch(
        lambda mb, x: mb.softplus_parametric(x=x, alpha=like(x, slope), beta=like(x, other)),
        lambda x: (
            exact_tensor(slope).reshape(spread) * functional.softplus(x * exact_tensor(other).reshape(spread))
        ),
        numbers(*shape),
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(axis: int) -> None:
    """Along any axis, also of values whose exponentials overflow."""
    x = numbers(3, 4, 5, low=-90, high=90)
    assert_like_torch(lambda mb, x: mb.softmax(x=x, axis=axis), lambda x: x.softmax(axis), x)


@pytest.mark.parametrize("dtype", ["int32", "fp16", "fp32", "bool"])
def test_cast(dtype: str) -> None:
    """Numbers become integers towards zero."""
    kinds = {"int32": torch.int32, "fp16": torch.float16, "fp32": torch.float32, "bool": torch.bool}
    x = np.array([-2.75, -0.5, 0.0, 0.1, 1.5, 3.99], np.float32)
    (actual,) = compute_mil(lambda mb, x: mb.cast(x=x, dtype=dtype), x)
    np.testing.assert_array_equal(actual, torch.from_numpy(x).to(kinds[dtype]).numpy())


def test_select_and_power() -> None:
    """A value where the condition holds, else another; and powers of other signs."""
    condition = np.array([[True, False, True]])
    assert_like_torch(
        lambda mb, c, a, b: mb.select(cond=c, a=a, b=b),
        torch.where,
        condition,
        numbers(2, 3),
        numbers(2, 3),
    )
    assert_like_torch(
        lambda mb, x, y: mb.pow(x=x, y=y), torch.pow, numbers(2, 3, low=0.5), numbers(2, 3, low=-2)
    )


def positions(function: Callable[..., Tensor]) -> Callable[[Tensor, list[int], bool], Tensor]:
    return lambda x, axes, keep: function(x, axes[0], keep).int()


def product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "reduce_argmax": positions(torch.argmax),
    "reduce_argmin": positions(torch.argmin),
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keep),
    "reduce_l2_norm": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "reduce_log_sum_exp": torch.logsumexp,
    "reduce_max": torch.amax,
    "reduce_mean": torch.mean,
    "reduce_min": torch.amin,
    "reduce_prod": product,
    "reduce_sum": torch.sum,
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keep),
}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axes", [[1], [0, -1], [-2]])
@pytest.mark.parametrize("keep", [False, True])
def test_reductions(name: str, axes: list[int], keep: bool) -> None:
    """Axes are kept or dropped; sums do not lose what float16 would."""
    axes = axes[:1] if "arg" in name else axes
    where = {"axis": axes[0]} if "arg" in name else {"axes": axes}
    assert_like_torch(
        lambda mb, x: getattr(mb, name)(x=x, keep_dims=keep, **where),
        lambda x: REDUCTIONS[name](x, axes, keep),
        numbers(3, 4, 5, low=0.25, high=2),
        tolerance=1e-5,
    )


def test_a_long_sum_in_float16_is_summed_in_float32() -> None:
    """4096 ones and a half each are 6144, which float16 alone would never reach from 2048 on."""
    x = np.full((1, 4096), 1.5, np.float16)
    assert compute_mil(lambda mb, x: mb.reduce_sum(x=x, axes=[1]), x)[0] == np.float16(6144)


def test_the_first_of_equal_values() -> None:
    """Positions are those of the first of equal values."""
    x = np.array([[1, 3, 3, 0, 0]], np.float32)
    outputs = compute_mil(
        lambda mb, x: (mb.reduce_argmax(x=x, axis=1), mb.reduce_argmin(x=x, axis=1), mb.argsort(x=x, axis=1)),
        x,
    )
    assert [a.tolist() for a in outputs] == [[1], [3], [[1, 2, 0, 3, 4]]]


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_cumulative_sum(axis: int, reverse: bool, exclusive: bool) -> None:
    """From either end, with or without the value itself."""

    def expected(x: Tensor) -> Tensor:
        x = x.flip(axis) if reverse else x
        sums = x.cumsum(axis) - (x if exclusive else 0)
        return sums.flip(axis) if reverse else sums

    for x in (numbers(3, 4, 5), whole(3, 4, 5)):
        assert_like_torch(
            lambda mb, x: mb.cumsum(x=x, axis=axis, reverse=reverse, exclusive=exclusive),
            lambda x: expected(x).to(x.dtype),
            x,
        )


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("ascending", [False, True])
def test_sorting(axis: int, ascending: bool) -> None:
    """Positions of sorted values, and the first of them with their values."""
    x = np.random.default_rng(1).permutation(20).reshape(4, 5).astype(np.float32)
    assert_like_torch(
        lambda mb, x: (
            mb.argsort(x=x, axis=axis, ascending=ascending),
            *mb.topk(x=x, k=3, axis=axis, ascending=ascending),
        ),
        lambda x: (
            x.argsort(axis, descending=not ascending).int(),
            x.topk(3, axis, largest=not ascending).values,
            x.topk(3, axis, largest=not ascending).indices.int(),
        ),
        x,
    )


@pytest.mark.parametrize(("scores", "label"), [((0.25, 0.5, 0.25), "dog"), ((0.5, 0.0, 0.5), "cat")])
def test_classify(scores: tuple[float, ...], label: str) -> None:
    """The label of the largest probability, the first of equal ones, and the probability of each label."""

    def build(mb: Any, x: Any) -> Any:
        from coremltools.converters.mil.mil import mil_list

        return mb.classify(probabilities=x, classes=mb.const(val=mil_list(["cat", "dog", "owl"])))

    chosen, table = compute_mil(build, np.array(scores, np.float32))
    assert (str(chosen), table.item()) == (label, dict(zip(("cat", "dog", "owl"), scores, strict=True)))


def test_suppression() -> None:
    """A box that overlaps a better one goes, one of another class stays if classes are apart."""
    boxes = np.array([[[5, 5, 4, 4], [5.5, 5, 4, 4], [20, 20, 4, 4], [5, 5, 4.5, 4]]], np.float32)
    scores = np.array([[[0.9, 0], [0.8, 0], [0.3, 0], [0, 0.7]]], np.float32)
    for apart, expected in ((False, [0, 2, -1]), (True, [0, 3, 2])):
        kept, _, chosen, count = compute_mil(
            lambda mb, b, s, apart=apart: mb.non_maximum_suppression(
                boxes=b,
                scores=s,
                iou_threshold=0.5,
                score_threshold=0.2,
                max_boxes=3,
                per_class_suppression=apart,
            ),
            boxes,
            scores,
        )
        assert chosen.tolist() == [expected]
        assert count.tolist() == [sum(i >= 0 for i in expected)]
        np.testing.assert_array_equal(kept[0, : count[0]], boxes[0, [i for i in expected if i >= 0]])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(axis: int) -> None:
    """Slices at positions, also negative ones; and values along an axis."""
    x, where = numbers(4, 5, 6), np.array([[0, 3], [-1, 1]], np.int32)
    assert_like_torch(
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=axis, validate_indices=False),
        lambda x, i: torch.stack(
            [torch.stack([x.select(axis, int(j)) for j in row], axis % 3) for row in i], axis % 3
        ),
        x,
        where,
        target="iOS17",
    )
    along = np.random.default_rng(2).integers(0, 4, (4, 5, 6)).astype(np.int32)
    assert_like_torch(
        lambda mb, x, i: mb.gather_along_axis(x=x, indices=i, axis=axis),
        lambda x, i: torch.take_along_dim(x, i.long(), axis),
        x,
        along,
    )


def test_gather_of_many_dimensions() -> None:
    """The last dimension of the indices is a place in the first dimensions; batches may be shared."""
    x, where = numbers(3, 4, 5), np.array([[0, 1], [2, -1]], np.int32)
    assert_like_torch(
        lambda mb, x, i: mb.gather_nd(x=x, indices=i), lambda x, i: x[i[:, 0], i[:, 1]], x, where
    )
    batch = np.array([[[1], [0]], [[2], [2]], [[3], [1]]], np.int32)
    assert_like_torch(
        lambda mb, x, i: mb.gather_nd(x=x, indices=i, batch_dims=1),
        lambda x, i: torch.stack([row[own[:, 0]] for row, own in zip(x, i, strict=True)]),
        x,
        batch,
    )
    shared = np.array([[1, 0], [2, 2], [3, 1]], np.int32)
    assert_like_torch(
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=1, batch_dims=1),
        lambda x, i: torch.stack([row[own] for row, own in zip(x, i, strict=True)]),
        x,
        shared,
    )


SCATTER: dict[str, Callable[[Tensor, Any, Tensor], Any]] = {
    "update": lambda data, place, updates: data.__setitem__(place, updates),
    "add": lambda data, place, updates: data.__setitem__(place, data[place] + updates),
    "sub": lambda data, place, updates: data.__setitem__(place, data[place] - updates),
    "mul": lambda data, place, updates: data.__setitem__(place, data[place] * updates),
    "div": lambda data, place, updates: data.__setitem__(place, data[place] / updates),
    "max": lambda data, place, updates: data.__setitem__(place, torch.maximum(data[place], updates)),
    "min": lambda data, place, updates: data.__setitem__(place, torch.minimum(data[place], updates)),
}


@pytest.mark.parametrize("mode", SCATTER)
def test_scatter(mode: str) -> None:
    """Slices, values along an axis, and places of many dimensions; the others stay as they are."""

    def changed(data: Tensor, place: Any, updates: Tensor) -> Tensor:
        data = data.clone()
        SCATTER[mode](data, place, updates)
        return data

    data, where = numbers(4, 5), np.array([2, 0], np.int32)
    assert_like_torch(
        lambda mb, d, i, u: mb.scatter(data=d, indices=i, updates=u, axis=1, mode=mode),
        lambda d, i, u: changed(d, (slice(None), i), u),
        data,
        where,
        numbers(4, 2, low=0.5),
    )
    assert_like_torch(
        lambda mb, d, i, u: mb.scatter_nd(data=d, indices=i, updates=u, mode=mode),
        lambda d, i, u: changed(d, (i[:, 0], i[:, 1]), u),
        data,
        np.array([[0, 1], [3, 4]], np.int32),
        numbers(2, low=0.5),
    )
    along = np.array([[1, 0, 3, 2, 0], [2, 3, 0, 1, 1]], np.int32)
    assert_like_torch(
        lambda mb, d, i, u: mb.scatter_along_axis(data=d, indices=i, updates=u, axis=0, mode=mode),
        lambda d, i, u: changed(d, (i, torch.arange(5)[None]), u),
        data,
        along,
        numbers(2, 5, low=0.5),
    )


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis: int) -> None:
    """The new axis stands anywhere; a place out of range marks nothing."""
    (actual,) = compute_mil(
        lambda mb, i: mb.one_hot(
            indices=i, one_hot_vector_size=4, axis=axis, on_value=np.float32(2), off_value=np.float32(-1)
        ),
        np.array([1, 3, 7], np.int32),
    )
    marks = torch.full((3, 4), -1.0)
    marks[0, 1] = marks[1, 3] = 2
    expected = marks if axis in (-1, 1) else marks.T
    np.testing.assert_array_equal(actual, expected.numpy())


BILINEAR = [(5, 7), (3, 4), (10, 8), (1, 1), (5, 4)]


@pytest.mark.parametrize("size", BILINEAR)
@pytest.mark.parametrize(("mode", "aligned"), [("STRICT_ALIGN_CORNERS", True), ("UNALIGN_CORNERS", False)])
def test_bilinear_resizing(size: tuple[int, int], mode: str, aligned: bool) -> None:
    """Up and down, with corners aligned or half pixels."""
    assert_like_torch(
        lambda mb, x: mb.resize_bilinear(
            x=x, target_size_height=size[0], target_size_width=size[1], sampling_mode=mode
        ),
        lambda x: functional.interpolate(x, size, mode="bilinear", align_corners=aligned),
        numbers(1, 2, 5, 4),
    )


@pytest.mark.parametrize("factors", [(2, 3), (1.5, 1.25), (0.5, 0.75)])
@pytest.mark.parametrize("aligned", [False, True])
def test_upsampling(factors: tuple[float, float], aligned: bool) -> None:
    """Pictures grow or shrink by factors, whole or not."""
    given = {
        name: np.float32(factor)
        for name, factor in zip(("scale_factor_height", "scale_factor_width"), factors, strict=True)
    }
    assert_like_torch(
        lambda mb, x: (
            mb.upsample_bilinear(x=x, align_corners=aligned, **given),
            mb.upsample_nearest_neighbor(x=x, **given),
        ),
        lambda x: (
            functional.interpolate(
                x, scale_factor=factors, mode="bilinear", align_corners=aligned, recompute_scale_factor=True
            ),
            functional.interpolate(x, scale_factor=factors, mode="nearest"),
        ),
        numbers(1, 2, 4, 8),
    )


@pytest.mark.parametrize("size", BILINEAR)
def test_nearest_resizing(size: tuple[int, int]) -> None:
    """The value at or before each point."""
    assert_like_torch(
        lambda mb, x: mb.resize_nearest_neighbor(x=x, target_size_height=size[0], target_size_width=size[1]),
        lambda x: functional.interpolate(x, size, mode="nearest"),
        numbers(1, 2, 5, 4),
    )


@pytest.mark.parametrize("interpolation", ["LINEAR", "NEAREST_NEIGHBOR"])
def test_resizing_of_any_dimensions(interpolation: str) -> None:
    """The later operator, whose shape may keep a size by 0."""
    linear = interpolation == "LINEAR"
    assert_like_torch(
        lambda mb, x: mb.resize(
            x=x,
            shape=[6, 0],
            resized_dims=np.uint32(2),
            interpolation_mode=interpolation,
            sampling_mode="UNALIGN_CORNERS" if linear else "DEFAULT",
        ),
        lambda x: functional.interpolate(x, (6, 4), mode="bilinear" if linear else "nearest"),
        numbers(1, 2, 3, 4),
        target="iOS17",
    )


def test_crops() -> None:
    """Boxes of pictures, each resized; beyond the picture there is the padding value."""
    x = numbers(2, 3, 6, 8)
    boxes = np.array([[1.0, 2.0, 4.0, 6.0], [0.0, 0.0, 5.0, 7.0], [-2.0, 1.0, 3.0, 9.0]], np.float32)
    owners = np.array([1, 0, 1], np.int32)

    def expected(x: Tensor, boxes: Tensor, owners: Tensor) -> Tensor:
        crops = []
        for (top, left, bottom, right), owner in zip(boxes.double(), owners, strict=True):
            rows, columns = torch.linspace(top, bottom, 4).double(), torch.linspace(left, right, 5).double()
            grid = torch.stack(torch.meshgrid(columns * 2 / 7 - 1, rows * 2 / 5 - 1, indexing="xy"), -1)
            crop = functional.grid_sample(
                x[owner][None], grid[None].to(x.dtype), padding_mode="border", align_corners=True
            )[0]
            outside = ((rows < 0) | (rows > 5))[:, None] | ((columns < 0) | (columns > 7))[None]
            crops.append(crop.masked_fill(outside, 9.0))
        return torch.stack(crops)

    assert_like_torch(
        lambda mb, x, b, i: mb.crop_resize(
            x=x,
            boxes=b,
            box_indices=i,
            target_height=4,
            target_width=5,
            sampling_mode="ALIGN_CORNERS",
            pad_value=like(x, 9.0),
        ),
        expected,
        x,
        boxes,
        owners,
        target="iOS17",
        tolerance=1e-5,
    )


@pytest.mark.parametrize(
    ("padding", "name", "aligned"),
    [
        ("constant", "zeros", True),
        ("border", "border", True),
        ("reflection", "reflection", True),
        ("symmetric", "reflection", False),
        ("border", "border", False),
    ],
)
@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
def test_sampling_at_coordinates(padding: str, name: str, aligned: bool, sampling: str) -> None:
    """PyTorch's `grid_sample` in every mode that MIL shares with it."""
    points = np.random.default_rng(3).uniform(-1.4, 1.4, (1, 4, 5, 2)).astype(np.float32)
    x = numbers(1, 2, 6, 7)
    (actual,) = compute_mil(
        lambda mb, x, p: mb.resample(
            x=x,
            coordinates=p,
            sampling_mode=sampling,
            padding_mode=padding,
            padding_value=0.0,
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=aligned,
        ),
        x,
        points,
        target="iOS15",
    )
    exact = functional.grid_sample(
        torch.from_numpy(x), torch.from_numpy(points), sampling, name, align_corners=aligned
    )
    np.testing.assert_allclose(actual, exact.numpy(), atol=2e-5)


def test_affine() -> None:
    """PyTorch's affine grid, sampled with zeros outside."""
    matrix = np.array([[0.75, 0.25, 0.125, -0.25, 0.5, 0.25]], np.float32)
    x = numbers(1, 2, 6, 7)
    (actual,) = compute_mil(
        lambda mb, x: mb.affine(
            x=x,
            transform_matrix=matrix,
            output_height=5,
            output_width=4,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=0.0,
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=True,
        ),
        x,
        target="iOS15",
    )
    grid = functional.affine_grid(torch.from_numpy(matrix).reshape(1, 2, 3), [1, 2, 5, 4], align_corners=True)
    exact = functional.grid_sample(torch.from_numpy(x), grid, align_corners=True)
    np.testing.assert_allclose(actual, exact.numpy(), atol=1e-5)
