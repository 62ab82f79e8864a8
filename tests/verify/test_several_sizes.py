"""An artifact of several sizes must be right at both ends of every range, across them and between."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from exporter.formats import VARIANTS
from exporter.records import (
    Comparison,
    DynamicSize,
    Limits,
    Runner,
    Sample,
    SizeRange,
    Structure,
    TensorSpec,
    Verdict,
)
from exporter.verify.several_sizes import (
    SizedCall,
    SizesIO,
    judge_several_sizes,
    load_several_sizes,
    sample_of_several_sizes,
    save_several_sizes,
    several_size_points,
    several_sizes_beyond,
    several_sizes_structure_at_example,
)

HEIGHT = DynamicSize(SizeRange("height", 4, 12, 4), ((0, 1),))
WIDTH = DynamicSize(SizeRange("width", 1, 6), ((0, 2), (1, 0)))
SIZES = (HEIGHT, WIDTH)
EXAMPLE: Sample = (
    np.arange(8 * 6, dtype=np.float32).reshape(1, 8, 6) % 7,
    np.arange(6, dtype=np.int64),
)
PASSED = Verdict("passed", None, "runtime 1", Comparison(8, 0.0, 40.0, None))


def network(sample: Sample) -> Sample:
    picture, columns = sample
    return (picture.sum(axis=1) + columns, np.array([picture.shape[1]]))


def made_references() -> SizesIO:
    calls = []
    for point in several_size_points(SIZES):
        inputs = sample_of_several_sizes(EXAMPLE, SIZES, point)
        calls.append(SizedCall(point, inputs, network(inputs), 0.0))
    return SizesIO(SIZES, ((1,), ()), tuple(calls))


def guarded(run: Runner, heights: frozenset[int] = frozenset({4, 8, 12}), width: int = 6) -> Runner:
    """Refuse what is not in the ranges, or in those that are given."""

    def refuse_or_run(sample: Sample) -> Sample:
        if sample[0].shape[1] not in heights or sample[0].shape[2] > width:
            raise RuntimeError("no such size")
        return run(sample)

    return refuse_or_run


def judged(run: Runner, variant: str = "onnx-fp32") -> Verdict:
    return judge_several_sizes(run, made_references(), EXAMPLE, VARIANTS[variant], PASSED, Limits())


def test_points_are_the_ends_the_middle_and_across() -> None:
    """Each range is verified at both ends and between, and two ranges at opposite ends."""
    assert several_size_points(SIZES) == (
        {"height": 4, "width": 1},
        {"height": 12, "width": 6},
        {"height": 8, "width": 3},
        {"height": 12, "width": 1},
    )
    assert several_size_points((DynamicSize(SizeRange("n", 1, 2), ((0, 0),)),)) == ({"n": 1}, {"n": 2})


def test_forbidden_sizes_are_next_to_the_ranges() -> None:
    """One less, one more, and one off a step; a size of 0 is not tried."""
    assert several_sizes_beyond(SIZES) == (("height", 3), ("height", 5), ("height", 13), ("width", 7))


def test_inputs_are_cut_and_repeated_in_every_place_of_a_range() -> None:
    """A range's places get one size; other axes keep theirs."""
    picture, columns = sample_of_several_sizes(EXAMPLE, SIZES, {"height": 12, "width": 2})
    assert (picture.shape, columns.shape) == ((1, 12, 2), (2,))
    np.testing.assert_array_equal(picture[:, 8:], EXAMPLE[0][:, :4, :2])


def test_a_right_artifact_keeps_its_verdict_and_gets_its_sizes() -> None:
    """What it refuses beyond its ranges is recorded."""
    verdict = judged(guarded(network))
    assert verdict.status == "passed"
    assert verdict.sizes is not None
    assert verdict.sizes.verified[0] == "height=4, width=1"
    assert verdict.sizes.refused == ("height=3", "height=5", "height=13", "width=7")
    assert verdict.sizes.accepted == ()


@pytest.mark.parametrize(
    ("heights", "width", "accepted"),
    [
        ({3, 4, 8, 12}, 6, "height=3"),
        ({4, 8, 12, 13}, 6, "height=13"),
        (set(range(4, 13)), 6, "height=5"),
        ({4, 8, 12}, 7, "width=7"),
        (set(range(20)), 20, "height=3, height=5, height=13, width=7"),
    ],
)
def test_a_forbidden_size_that_runs_fails(heights: set[int], width: int, accepted: str) -> None:
    """An app would get an output there that nothing was compared with."""
    verdict = judged(guarded(network, frozenset(heights), width))
    assert verdict.status == "failed"
    assert verdict.reason == f"It runs without an error at {accepted}, which --dynamic does not allow."


def baked(sample: Sample) -> Sample:
    total, _ = network(sample)
    return total, np.array([8])


def fails_when_small(sample: Sample) -> Sample:
    if sample[0].shape[1] < 8:
        raise RuntimeError("Reshape: 48 values\nmore")
    return network(sample)


def wrong_across(sample: Sample) -> Sample:
    total, rows = network(sample)
    return (total * 1.001 if sample[0].shape[1:] == (12, 1) else total), rows


def padded(sample: Sample) -> Sample:
    total, rows = network(sample)
    return np.pad(total, ((0, 0), (0, 6 - total.shape[1]))), rows


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (baked, "At height=4, width=1 its largest error is inf"),
        (fails_when_small, "At height=4, width=1 it does not run: Reshape: 48 values"),
        (wrong_across, "At height=12, width=1 its largest error is 1.0e-03"),
        (padded, r"At height=4, width=1 its outputs have shapes \[\(1, 6\)"),
    ],
)
def test_a_wrong_point_fails(run: Runner, words: str) -> None:
    """Each point is judged and named, whatever the verification inputs showed."""
    verdict = judged(run)
    assert verdict.status == "failed"
    assert verdict.reason is not None
    assert re.match(words, verdict.reason)


@pytest.mark.parametrize(("noise", "status"), [(0.02, "passed"), (0.3, "failed")])
def test_int8_is_judged_by_what_it_reaches_on_the_verification_inputs(noise: float, status: str) -> None:
    """A point may be 10 dB worse than 40 dB: 34 dB is within that, 10 dB is not."""

    def run(sample: Sample) -> Sample:
        total, rows = network(sample)
        return total * (1 + noise), rows

    assert judged(guarded(run), "onnx-int8").status == status


def test_evidence_is_read_back(tmp_path: Path) -> None:
    """Ranges, places, points, inputs, outputs and floors survive the file."""
    save_several_sizes(made_references(), tmp_path / "sizes.npz")
    read = load_several_sizes(tmp_path / "sizes.npz")
    assert (read.sizes, read.varying) == (SIZES, ((1,), ()))
    for mine, theirs in zip(made_references().calls, read.calls, strict=True):
        assert (mine.point, mine.floor) == (theirs.point, theirs.floor)
        for a, b in zip((*mine.inputs, *mine.reference), (*theirs.inputs, *theirs.reference), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("height", "width", "settled"),
    [(-1, -1, (1, 8, 6)), (12, 6, (1, 8, 6)), (8, 6, (1, 8, 6)), (9, -1, (1, 9, 6)), (-1, 5, (1, 8, 5))],
)
def test_a_file_may_leave_a_range_open_or_have_its_largest_size(
    height: int, width: int, settled: tuple[int, ...]
) -> None:
    """Any other size stays as it is, which the comparison with the model's shapes then refuses."""
    given = (TensorSpec("picture", (1, 8, 6)), TensorSpec("columns", (6,), "int64"))
    inputs = (TensorSpec("picture", (1, height, width)), TensorSpec("columns", (-1,), "int64"))
    outputs = (TensorSpec("sum", (1, -1)), TensorSpec("rows", (1,), "int64"))
    structure = Structure(inputs, outputs, {}, 0, {})
    model_outputs = (TensorSpec("sum", (1, 6)), TensorSpec("rows", (1,), "int64"))
    at_example = several_sizes_structure_at_example(structure, made_references(), given, model_outputs)
    assert at_example.inputs[0].shape == settled
    assert at_example.inputs[1].shape == (6,)
    assert at_example.outputs == model_outputs
