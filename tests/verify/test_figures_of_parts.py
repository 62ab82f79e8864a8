"""Figures of channels against their program, of rounded quantities, of sizes and of parts, known by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exporter.formats import VARIANTS
from exporter.records import (
    Comparison,
    DynamicSize,
    Limits,
    SizeRange,
    Structure,
    TensorSpec,
    Verdict,
)
from exporter.verify import (
    parts_together,
    program_channels,
    rounded_quantities,
    several_sizes,
)
from exporter.verify.channels import Channels
from exporter.verify.gates import exchanged_outputs
from exporter.verify.noise_by_chance import noise_by_chance, noise_ratio_by_chance
from exporter.verify.reference_io import Lowering
from exporter.verify.several_sizes import SizedCall, SizesIO
from exporter.verify.simulation_io import Simulation
from exporter.verify.tolerance import UNLIKE
from tests.verify.observed import made_references


def channels(error: list[float], variation: list[float], **others: Any) -> Channels:
    """Make channels that all move, in groups of their own unless `groups` says otherwise."""
    count = len(error)
    arrays = {
        "movement": variation,
        "artifact_movement": variation,
        "low": [-1.0] * count,
        "high": [1.0] * count,
        "floor": [0.0] * count,
        "groups": list(range(count)),
        "small_by_nature": [False] * count,
        "moving_samples": [16.0] * count,
        **others,
    }
    own = {name: np.array(values) for name, values in arrays.items()}
    return Channels(0, 1, 16, np.array(variation), own.pop("movement"), error=np.array(error), **own)


@pytest.mark.parametrize(
    ("errors", "groups", "noise"),
    [
        ([1.0, 2.0], [0, 0], [2.0, 1.0]),
        ([1.0, 2.0, 5.0], [0, 0, 0], [2.0, 1.0, 1.0]),
        ([5.0, 1.0, 2.0, 9.0], [0, 0, 0, 0], [2.0, 5.0, 5.0, 2.0]),
        ([1.0, 2.0], [0, 1], [0.0, 0.0]),
        ([1.0, 7.0, 2.0], [0, 1, 0], [2.0, 0.0, 1.0]),
    ],
)
def test_a_channels_noise_is_the_median_of_the_others(
    errors: list[float], groups: list[int], noise: list[float]
) -> None:
    """No channel excuses itself, and one alone in its group has no others; the bound holds for all."""
    given = channels(errors, [100.0] * len(errors), groups=groups)
    assert program_channels._program_channel_noise(given, 1.0).tolist() == noise
    bounded = program_channels._program_channel_noise(given, 0.015)
    assert bounded.tolist() == [min(value, 1.5) for value in noise]


def test_each_source_of_error_has_its_limit() -> None:
    """Ties, a constant's steps beside what moves and float32's own error each excuse what they explain."""
    unlike, least = UNLIKE, program_channels.LEAST_SHARE
    quiet, loud = (
        program_channels._program_channel_limits(channels([0.0], [2.0]), floor) for floor in (90.0, 20.0)
    )
    assert quiet.tolist() == pytest.approx([unlike * least * 2.0])
    ties = 10 ** ((program_channels.ROUNDING_MARGIN_DB - 20.0) / 10)
    assert loud.tolist() == pytest.approx([unlike * ties * noise_ratio_by_chance(16, 1) * 2.0])
    beside = channels([0.0, 0.0], [0.0, 2.0], low=[-3.0, -3.0], high=[1.0, 1.0], groups=[0, 1])
    still = program_channels._program_channel_limits(beside, 90.0)
    assert still.tolist() == pytest.approx([(program_channels.STEPS * 3.0) ** 2, unlike * least * 2.0])
    alone = program_channels._program_channel_limits(channels([0.0], [0.0], low=[-3.0], high=[1.0]), 90.0)
    assert alone.tolist() == pytest.approx([(program_channels.EXACT * 3.0) ** 2])
    rounded = program_channels._program_channel_limits(channels([0.0], [2.0], floor=[0.3]), 90.0)
    assert rounded.tolist() == pytest.approx([(program_channels.FLOOR_FACTOR * 0.3) ** 2])
    alike = program_channels._program_channel_limits(channels([0.002] * 2, [2.0] * 2, groups=[0, 0]), 90.0)
    assert alike.tolist() == pytest.approx([unlike * noise_by_chance(16, 2) * 0.002] * 2)


def test_the_nearest_samples_are_judged() -> None:
    """Nine of ten, rounded up, in their order; of complex values both parts count."""
    program = np.zeros((10, 1, 2))
    actual = np.arange(10.0)[::-1].reshape(10, 1, 1) * np.ones((1, 1, 2))
    assert program_channels._judged_program_samples(program, actual).tolist() == list(range(1, 10))
    assert len(program_channels._judged_program_samples(program[:5], actual[:5])) == 5
    turned = np.zeros((10, 1, 2)) + 0j
    turned[3] = 2j
    assert program_channels._judged_program_samples(turned * 0, turned).tolist() == [0, 1, 2, *range(4, 10)]


@pytest.mark.parametrize(
    ("energy", "limit", "decibels"),
    [(0.0, 1.0, -math.inf), (0.0, 0.0, -math.inf), (1.0, 0.0, math.inf), (1.0, 1.0, 0.0), (2.0, 0.02, 20.0)],
)
def test_an_error_is_so_many_decibels_beyond_its_limit(energy: float, limit: float, decibels: float) -> None:
    """No error is within every limit, and any error is beyond one of zero."""
    assert program_channels._program_channel_db(energy, limit) == pytest.approx(decibels)


def test_a_channel_is_described_by_its_decibels() -> None:
    """A constant has no variation, and is described by how far it is off."""
    given = channels([0.02, 0.25], [2.0, 0.0])
    assert program_channels._program_channel_figures(given, 0, 0.2) == (
        "from that of its own quantised program (20.0 dB against its own variation, expected 10.0)"
    )
    constant = "by 0.5 from a constant of its own quantised program"
    assert program_channels._program_channel_figures(given, 1, 0.2) == constant


def observation(program: Any, actual: Any, floor_db: float = 60.0, names: Any = ("a", "b")) -> Any:
    reference = tuple(np.zeros_like(p) for p in program)
    return SimpleNamespace(
        lowering=Lowering(program, floor_db),
        outputs=actual,
        references=SimpleNamespace(
            eager_errors=tuple(np.zeros(p.shape[1:]) for p in program),
            output_names=names,
            reference=reference,
        ),
    )


def test_the_worst_channel_of_all_outputs_is_named() -> None:
    """Whole numbers have none; an output without a name has its number."""
    random = np.random.default_rng(0)
    first, second = random.normal(size=(16, 1, 4)), random.normal(size=(16, 1, 4))
    numbers = np.ones((16, 1, 4), np.int64)
    slightly, badly = first.copy(), second.copy()
    slightly[:, :, 1] += 0.5
    badly[:, :, 2] += 5.0
    fault = program_channels.program_channel_fault
    assert fault(observation((first, second), (first, second))) == ""
    assert "output a" in fault(observation((first, second), (slightly, second)))
    assert fault(observation((first, second), (slightly, badly))).startswith("output b[..., 2] differs from")
    assert "output1[..., 2]" in fault(observation((numbers, second), (numbers + 5, badly), names=()))


LEVELS = np.arange(32)


@pytest.mark.parametrize(
    ("values", "level"),
    [
        (LEVELS, 1.0),
        (LEVELS * 8, 8.0),
        (np.array([3, 7, 15]), 4.0),
        (np.array([5]), 1.0),
        (np.array([], np.int64), 1.0),
        (np.array([2**64 - 1, 2**64 - 3], np.uint64), 2.0),
        (np.array([-6, 0, 9], np.int8), 3.0),
    ],
)
def test_a_level_is_what_all_steps_share(values: np.ndarray, level: float) -> None:
    """A single value, and none, have a level of one; large unsigned numbers keep theirs."""
    if values.dtype == np.uint64:
        values = values % 2**40  # numbers beyond int64 have no difference in it
    assert rounded_quantities.level_of_rounded_quantity(values) == level


@pytest.mark.parametrize(
    ("values", "rounded", "expected"),
    [
        (np.arange(16), True, True),
        (np.arange(15), True, False),
        (np.arange(16) * 8, True, True),
        (np.arange(15) * 8, True, False),
        (np.arange(16), False, False),
        (np.arange(16.0), True, False),
        (np.arange(16, dtype=np.uint8), True, True),
        (np.zeros(0, np.int64), True, False),
    ],
)
def test_a_quantity_has_many_levels(values: np.ndarray, rounded: bool, expected: bool) -> None:
    """Sixteen integers on a line are enough; the graph must say that they were rounded."""
    given = replace(made_references(values.reshape(-1, 1)), rounded=(rounded,))
    assert rounded_quantities.are_rounded_quantities(given) == (expected,)
    assert rounded_quantities.are_rounded_quantities(replace(given, rounded=())) == (False,)


def fault_of(off: list[int], unstable: int, limit: float = 0.0, level: int = 1) -> str:
    reference = np.arange(100) * level
    actual = reference.copy()
    actual[: len(off)] += np.array(off, int) * level
    shaky = np.zeros(100, bool)
    shaky[50 : 50 + unstable] = True
    return rounded_quantities.rounded_quantity_fault(reference, actual, shaky, Limits(fp32_max_error=limit))


@pytest.mark.parametrize(
    ("off", "unstable", "limit", "words"),
    [
        ([], 0, 0.0, ""),
        ([1], 0, 0.0, ""),
        ([-1], 0, 0.0, ""),
        ([1, 1], 0, 0.0, "differs by a level in 2 of 100 values"),
        ([1, 1], 2, 0.0, ""),
        ([1, 1, 1], 2, 0.0, "differs by a level in 3 of 100 values"),
        ([1, 1, -1], 4, 0.0, ""),
        ([2], 0, 0.0, "differs by up to 2 levels"),
        ([-2], 80, 0.0, "differs by up to 2 levels"),
        ([1] * 2, 0, 1.1e-4, ""),
        ([1] * 3, 0, 1.1e-4, "differs by a level in 3"),
    ],
)
def test_rounding_explains_one_level_of_a_few_values(
    off: list[int], unstable: int, limit: float, words: str
) -> None:
    """One more value than half of those that trials turned, and what an inexact float turns."""
    for level in (1, 8):
        problem = fault_of(off, unstable, limit, level)
        assert words in problem
        assert bool(problem) is bool(words)


def test_only_rounded_integers_become_floats() -> None:
    """Masks and floats stay; a number of outputs that does not fit is left to other checks."""
    stacks = np.arange(3), np.ones(3, bool), np.arange(3), np.ones(3)
    floats = rounded_quantities.floats_of_rounded_quantities(stacks, (True, True, False, True))
    assert [a.dtype.name for a in floats] == ["float64", "bool", "int64", "float64"]
    assert rounded_quantities.floats_of_rounded_quantities(stacks, (True,)) is stacks
    lowering = Lowering((np.arange(3),), 5.0, {"edge": (np.arange(2),)})
    wide = rounded_quantities.lowering_of_rounded_quantities(lowering, (True,))
    assert wide.outputs[0].dtype == wide.edges["edge"][0].dtype == np.float64
    simulation = rounded_quantities.simulation_of_rounded_quantities(
        Simulation((np.arange(3),), {"edge": (np.arange(2),)}), (True,)
    )
    assert simulation.outputs[0].dtype == simulation.edges["edge"][0].dtype == np.float64


def test_a_rounded_quantity_may_be_off_by_its_level() -> None:
    """The factor of float32's own error makes a level of what the evidence then says."""
    rows = np.arange(32).reshape(32, 1) * 4
    given = made_references(
        rows, rows + 0.5, edge_names=("zeros",), edge_unstable=[np.zeros((1, 1), bool)] * 2
    )
    limits = Limits(fp32_floor_factor=8.0)
    wide = rounded_quantities.references_of_rounded_quantities(given, (True, False), limits)
    assert wide.reference[0].dtype == np.float64
    assert wide.edge_reference[0].dtype == np.float64
    assert (wide.eager_errors[0].tolist(), wide.edge_unstable[0].tolist()) == ([0.5], [0.5])
    assert wide.eager_errors[1] is given.eager_errors[1]


N = DynamicSize(SizeRange("n", 2, 8, 2), ((0, 0),))
PASSED = Verdict("passed", None, "runtime 1", Comparison(8, 0.0, 40.0, None))
REFERENCE = (np.full(4, 2.0), np.arange(4))


def sized(output: np.ndarray, variant: str, floor: float = 0.0, verdict: Verdict = PASSED) -> str:
    call = SizedCall({"n": 4}, (np.ones(4),), REFERENCE, floor)
    limits = Limits(fp32_max_error=1e-4, fp32_floor_factor=10.0)
    return several_sizes._several_sizes_problem(
        lambda _: (output, np.arange(4)), call, VARIANTS[variant], verdict, limits
    )


@pytest.mark.parametrize(
    ("share", "variant", "floor", "words"),
    [
        (0.99e-4, "onnx-fp32", 0.0, ""),
        (1.01e-4, "onnx-fp32", 0.0, "At n=4 its largest error is 1.0e-04; the limit is 1.0e-04"),
        (0.99e-3, "onnx-fp32", 1e-4, ""),
        (1.01e-3, "onnx-fp32", 1e-4, "the limit is 1.0e-03"),
        (0.0316, "onnx-int8", 0.0, ""),
        (0.0317, "onnx-int8", 0.0, "At n=4 it reaches 30.0 dB SQNR, 40.0 dB on the verification inputs"),
        (0.0317, "onnx-fp16", 0.0, "it reaches 30.0 dB"),
    ],
)
def test_a_point_has_a_limit_of_its_own(share: float, variant: str, floor: float, words: str) -> None:
    """A float32 file has the larger of two limits, another may lose 10 dB of what it usually reaches."""
    problem = sized(REFERENCE[0] * (1 + share), variant, floor)
    assert words in problem
    assert bool(problem) is bool(words)


def test_a_file_without_figures_has_no_point_to_miss() -> None:
    """Its outputs have no decibels to compare with; float32's class numbers must be equal."""
    assert sized(REFERENCE[0] * 2, "onnx-int8", verdict=replace(PASSED, comparison=None)) == ""
    worst = several_sizes.max_error_of_several_sizes
    assert worst(REFERENCE, (REFERENCE[0], np.arange(4) + 1)) == math.inf
    assert worst((np.arange(4),), (np.arange(4),)) == 0.0
    assert worst(REFERENCE, (REFERENCE[0] * 1.5, np.arange(4))) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("low", "high", "step", "middle"), [(2, 8, 2, 4), (2, 10, 2, 6), (1, 4, 1, 2), (3, 4, 1, 3)]
)
def test_a_point_lies_between(low: int, high: int, step: int, middle: int) -> None:
    """The middle is a whole number of steps from the lower end; equal points come once."""
    size = DynamicSize(SizeRange("n", low, high, step), ((0, 0),))
    points = [point["n"] for point in several_sizes.several_size_points((size,))]
    assert points == list(dict.fromkeys([low, high, middle]))


@pytest.mark.parametrize(
    ("low", "step", "beyond"), [(1, 1, [9]), (1, 7, [2, 9]), (2, 1, [1, 9]), (2, 2, [1, 3, 9])]
)
def test_sizes_next_to_a_range_are_not_allowed(low: int, step: int, beyond: list[int]) -> None:
    """A size of nothing is not tried, nor is one between steps of one."""
    size = DynamicSize(SizeRange("n", low, 8, step), ((0, 0),))
    assert [other for _, other in several_sizes.several_sizes_beyond((size,))] == beyond


def test_more_inputs_and_outputs_than_the_models_stay() -> None:
    """Another number of dimensions stays as well; the comparison with the model's refuses both."""
    spec, other = TensorSpec("x", (-1, 3)), TensorSpec("extra", (-1,))
    structure = Structure((spec, other), (spec, TensorSpec("y", (-1, 1)), other), {}, 0, {})
    io = SizesIO((replace(N, places=((0, 0), (1, 0))),), ((0,), (0,)), ())
    settled = several_sizes.several_sizes_structure_at_example(
        structure, io, (TensorSpec("x", (4, 3)),), (TensorSpec("x", (4, 3)), TensorSpec("y", (4,)))
    )
    assert [s.shape for s in settled.inputs] == [(4, 3), (-1,)]
    assert [s.shape for s in settled.outputs] == [(4, 3), (-1, 1), (-1,)]


RANDOM = np.random.default_rng(0)
EXPECTED = RANDOM.normal(size=(8, 1, 40))


def noisy(sqnr_db: float) -> np.ndarray:
    error = RANDOM.normal(size=EXPECTED.shape)
    error *= np.sqrt((EXPECTED**2).sum() / (error**2).sum()) * 10 ** (-sqnr_db / 20)
    noised: np.ndarray = EXPECTED + error
    return noised


@pytest.mark.parametrize(
    ("precision", "least"), [("fp32", 80.0), ("fp16", 42.0), ("int8", 17.0), ("w8", 17.0)]
)
def test_parts_reach_the_limit_of_their_precision(precision: Any, least: float) -> None:
    """Just above it they pass; the measure has the decibels and the number of samples."""
    limits = Limits(fp16_min_sqnr_db=42.0, int8_min_sqnr_db=17.0)
    judge = parts_together.judge_outputs_of_parts_together
    for sqnr_db, status in ((least + 0.03, "passed"), (least - 0.03, "failed")):
        verdict = judge("v", precision, "logits", EXPECTED, noisy(sqnr_db), limits)
        assert (verdict.name, verdict.status) == ("v", status)
        assert verdict.measure == f"logits: {sqnr_db:.1f} dB over 8 samples"
    assert verdict.reason is not None
    assert verdict.reason.endswith(f"at least {least:g} dB expected.")
    assert (
        judge("v", precision, "logits", EXPECTED, EXPECTED, limits).measure
        == "logits: 200.0 dB over 8 samples"
    )


def test_parts_that_hardly_move_prove_nothing() -> None:
    """A share of 1e-6 of the largest value is no movement, and a little more is."""
    judge = parts_together.judge_outputs_of_parts_together
    for spread, status in ((0.9e-6, "failed"), (1.2e-6, "passed")):
        still = np.full((2, 1, 3), -4.0)
        still[1, 0, 1] += 4 * spread
        assert judge("v", "fp32", "state", still, still, Limits()).status == status


def exchange(outputs: Any, reference: Any) -> str:
    names = [f"o{i}" for i in range(len(reference))]
    given: Any = SimpleNamespace(
        references=SimpleNamespace(reference=reference), outputs=outputs, output_name=lambda i: names[i]
    )
    return exchanged_outputs.exchanged_outputs_gate(given)


def test_outputs_are_exchanged_where_that_is_much_nearer() -> None:
    """Four times less error is not enough, a little more is; small outputs and other types are left out."""
    first, second = RANDOM.normal(size=(4, 1, 4)), RANDOM.normal(size=(4, 1, 4))
    assert exchange((second, first), (first, second)) == (
        "Its outputs are exchanged: o0 is the model's o1, o1 is the model's o0."
    )
    assert exchange((first, second), (first, second)) == ""
    assert exchange((second[:3], first[:3]), (first[:3], second[:3])) == ""
    assert exchange((second.astype(int), first.astype(int)), (first.astype(int), second.astype(int))) == ""
    assert exchange((first * 0, first * 0), (first * 0, first * 0)) == ""
    # An artifact between both: at (1 - t) its error is t^2 there and (1 - t)^2 in the other places.
    for share, exchanged in ((0.32, True), (0.35, False)):
        mixed = [(1 - share) * other + share * own for own, other in ((first, second), (second, first))]
        assert bool(exchange(mixed, (first, second))) is exchanged
