"""What is measured of each channel, and how the worst one is named, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.records import Array
from exporter.verify import channel_groups, channels, worst_channel
from exporter.verify.channels import Channels, measure_channels
from exporter.verify.tolerance import Tolerance

LOOSE = Tolerance(20.0, 10.0, 1e-4)


def along(axis: int, y: Array, a: Array, floors: Array | None = None) -> Channels:
    return next(
        c for c in measure_channels((y,), (a,), (floors,) if floors is not None else ()) if c.axis == axis
    )


def test_energies_are_means_over_samples_and_positions() -> None:
    """Variation is around the channel's mean, movement around that of each position."""
    y = np.array([[[1.0, 3.0], [10.0, 10.0]], [[3.0, 5.0], [10.0, 10.0]]])
    a = y + np.array([[0.0, 2.0], [1.0, 1.0]])
    found = along(0, y, a, np.array([[1e-7, 2e-7], [0, 0]]))
    assert (found.output, found.samples) == (0, 2)
    assert found.variation.tolist() == [2.0, 0.0]  # 1, 3, 3, 5 around 3
    assert found.movement.tolist() == [1.0, 0.0]  # each position moves by 1 around its own mean
    assert found.artifact_movement.tolist() == [1.0, 0.0]
    assert found.error.tolist() == [2.0, 1.0]
    assert found.low.tolist() == [1.0, 10.0]
    assert found.high.tolist() == [5.0, 10.0]
    assert found.floor.tolist() == [2e-7, 0.0]
    assert found.scale.tolist() == [5.0, 10.0]
    assert found.constant.tolist() == [False, True]
    assert found.groups.shape == found.small_by_nature.shape == (2,)


def test_every_axis_has_channels_and_a_single_number_is_one() -> None:
    """Axes of one index have none; complex numbers have their parts along one axis more."""
    y = np.random.default_rng(0).normal(size=(3, 1, 2, 4))
    assert [(c.axis, len(c.error)) for c in measure_channels((y,), (y,), ())] == [(1, 2), (2, 4)]
    single = y[:, :, :1, :1]
    assert [(c.axis, c.error.tolist()) for c in measure_channels((single,), (single + 2,), ())] == [
        (-1, [4.0])
    ]
    complex_y = y[..., 0] + 1j * y[..., 1]
    parts = [c for c in measure_channels((complex_y,), (complex_y.conj(),), ()) if c.axis == 2]
    assert parts[0].error.tolist() == pytest.approx([0.0, 4 * float((y[..., 1] ** 2).mean())])
    assert [c.output for c in measure_channels((y > 0, y), (y > 0, y), ())] == [1, 1]
    assert list(measure_channels((y[:1],), (y[:1],), ())) == []
    assert list(measure_channels((y[:2],), (y[:2],), ())) != []


@pytest.mark.parametrize(
    ("movement", "floor", "scale", "still"),
    [
        (399e-14, 1e-7, 0.0, True),
        (401e-14, 1e-7, 0.0, False),
        (0.99e-10, 0.0, 10.0, True),
        (1.1e-10, 0.0, 10.0, False),
        (0.0, 0.0, 0.0, True),
    ],
)
def test_a_constant_moves_by_less_than_rounding(
    movement: float, floor: float, scale: float, still: bool
) -> None:
    """Twenty of float32's errors, or a millionth of the largest value."""
    own = channels._constant_channel(np.array([movement]), np.array([floor]), np.array([scale]))
    assert own.tolist() == [still]


def test_resting_outputs_are_small_by_nature() -> None:
    """Only those that are said to rest."""
    y = np.random.default_rng(0).normal(size=(4, 1, 5))
    rests = [c.small_by_nature.all() for c in measure_channels((y, y), (y, y), (), (True, False))]
    assert rests == [True, False]


def test_the_worst_channel_is_named_with_its_figures() -> None:
    """The fault follows where the error is beyond what its own variation allows."""
    generator = np.random.default_rng(1)
    y = generator.normal(size=(64, 1, 3))
    a = y + generator.normal(size=y.shape) * np.array([0.001, 0.5, 0.001])
    own = worst_channel.worst_channel((y,), (a,), (), LOOSE, ("scores",), ("cat", "dog", "eel"))
    assert own is not None
    assert (own.output, own.channel, own.label) == ("scores", "scores[..., 1]", "dog")
    variation, error = float(y[:, 0, 1].var()), float(((a - y)[:, 0, 1] ** 2).mean())
    assert own.sqnr_db == pytest.approx(10 * np.log10(variation / error))
    assert own.sqnr_db < own.limit_db <= 20.0
    assert own.fault.startswith("Its output scores[..., 1], class 'dog',")
    unnamed = worst_channel.worst_channel((y,), (a,), (), LOOSE, (), ("cat", "dog"))
    assert unnamed is not None
    assert (unnamed.output, unnamed.channel, unnamed.label) == ("output0", "output0[..., 1]", "")
    right = worst_channel.worst_channel((y,), (y + 1e-4 * (a - y),), (), LOOSE)
    assert right is not None
    assert right.fault == ""
    assert right.sqnr_db > right.limit_db
    assert worst_channel.worst_channel((y,), (y,), (), LOOSE) is None


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_dead_channel_is_named_before_a_louder_one(outputs: int) -> None:
    """A channel that stands still comes first, in its own axis and among the outputs."""
    generator = np.random.default_rng(4)
    y = generator.normal(size=(64, 1, 3))
    dead, loud = y.copy(), y.copy()
    dead[..., 1] = 0.5
    loud[..., 0] += 1000 * generator.normal(size=(64, 1))
    both = np.concatenate([loud[..., :1], dead[..., 1:]], axis=2)
    reference, actual = ((y,), (both,)) if outputs == 1 else ((y, y), (loud, dead))
    own = worst_channel.worst_channel(reference, actual, (), LOOSE)
    assert own is not None
    assert own.channel == f"output{outputs - 1}[..., 1]"
    assert "is dead: it varies by" in own.fault


@pytest.mark.parametrize(
    ("shape", "axis", "name"),
    [
        ((4, 1, 5), 1, "y[..., 2]"),
        ((4, 3, 5), 0, "y[2, :]"),
        ((4, 1, 5, 6), 1, "y[:, 2, :]"),
        ((4, 1, 5, 6), 2, "y[..., 2]"),
        ((4, 5), 0, "y[2]"),
        ((4, 5), -1, "y"),
    ],
)
def test_a_channel_is_written_as_numpy_indexes_it(shape: tuple[int, ...], axis: int, name: str) -> None:
    """The last axis is short; complex parts have names."""
    y = np.zeros(shape)
    flat = np.zeros((2, *shape[1:])) + np.arange(2).reshape(2, *[1] * (len(shape) - 1))
    own = next(iter(measure_channels((flat,), (flat,), ())))
    own = Channels(**{**own.__dict__, "axis": axis})
    assert worst_channel.worst_channel_expression("y", own, 2, y) == name


def test_complex_parts_have_names() -> None:
    """The wrong sign of the imaginary part is one of `imag`."""
    generator = np.random.default_rng(2)
    y = generator.normal(size=(32, 1, 1)) + 1j * generator.normal(size=(32, 1, 1))
    own = worst_channel.worst_channel((y,), (y.conj(),), (), LOOSE, ("spectrum",))
    assert own is not None
    assert own.channel == "spectrum.imag"


@pytest.mark.parametrize(
    ("steps", "values", "coarse"),
    [(3, 100, True), (4, 100, True), (5, 100, False), (3, 5, False), (4, 8, True), (4, 7, False)],
)
def test_few_values_of_many_are_counted(steps: int, values: int, coarse: bool) -> None:
    """At most four are left of twice as many and eight or more."""
    y = (np.arange(1000) % values).astype(float)[:, None]
    a = (np.arange(1000) % steps).astype(float)[:, None]
    assert worst_channel._is_worst_channel_coarse(y, a) is coarse


@pytest.mark.parametrize(
    ("signal", "noise", "decibels"),
    [
        (1.0, 0.01, 20.0),
        (0.0, 1.0, -300.0),
        (1.0, 0.0, 300.0),
        (0.0, 0.0, -300.0),
        (1e40, 1e-40, 300.0),
        (1e-40, 1e40, -300.0),
    ],
)
def test_ratios_are_bounded(signal: float, noise: float, decibels: float) -> None:
    """A manifest holds no infinity."""
    assert worst_channel._worst_channel_db(signal, noise) == pytest.approx(decibels)


def test_values_of_a_channel_are_a_row_per_sample() -> None:
    """Along any axis, of the whole, and of complex parts."""
    y = np.arange(24.0).reshape(2, 3, 4)
    assert worst_channel._worst_channel_values(y, 0, 1).tolist() == y[:, 1].tolist()
    assert worst_channel._worst_channel_values(y, 1, 2).tolist() == y[:, :, 2].tolist()
    assert worst_channel._worst_channel_values(y, -1, 0).shape == (2, 12)
    assert worst_channel._worst_channel_values(y + 1j, 2, 1).tolist() == [[1.0] * 12] * 2


def test_a_constant_is_measured_against_its_own_size() -> None:
    """A constant's error is a share of the value itself, as it does not vary; what is wrong is counted."""
    generator = np.random.default_rng(3)
    y = np.concatenate([np.full((32, 1, 2), 8.0), generator.normal(size=(32, 1, 2))], axis=2)
    a = y + np.array([0.08, 0.8, 0.0, 0.0])
    own = worst_channel.worst_channel((y,), (a,), (), LOOSE, ("priors",))
    assert own is not None
    assert own.channel == "priors[..., 1]"
    assert own.sqnr_db == pytest.approx(20.0)
    assert "is a constant in the model and is off by 0.8 here (2 of 4 such channels are wrong)" in own.fault


@pytest.mark.parametrize(
    ("low", "high", "rare"),
    [
        ([0, 0, 0, 0, 0], [1, 0.125, 0.126, 0.01, 0.5], [False, True, False, True, False]),
        ([0, 0, 0, 0], [1, 0.125, 0.126, 0.01], [False] * 4),
        ([0.5, 0.99, 0, 0, 0, 0], [0.9, 1, 0.4, 0.4, 0.05, 0.06], [False, True, False, False, True, False]),
        ([-0.1, 0, 0, 0, 0], [1, 0.125, 0.126, 0.01, 0.5], [False] * 5),
        ([-0.1, 0, 0, 0, 0, 0], [1, 0.04, 0.1, 0.01, 0.5, 0.5], [False, True, False, True, False, False]),
        ([0, 0, 0, 0, 0, 0], [1.5, 0.04, 0.1, 0.01, 0.5, 0.5], [False, True, False, True, False, False]),
    ],
)
def test_rare_classes_are_probabilities_of_small_range(
    low: list[float], high: list[float], rare: list[bool]
) -> None:
    """An eighth of the largest probability's range or less, among more than four of them."""
    ends = np.array(low, float), np.array(high, float)
    assert channel_groups.rare_classes_of_channel_groups(*ends).tolist() == rare
