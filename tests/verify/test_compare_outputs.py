from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from exporter.records import Limits, Structure, TensorSpec, Variant
from exporter.verify import compare_outputs, contract
from exporter.verify.judge import judge_artifact
from exporter.verify.reference_io import Lowering, ReferenceIO
from tests.variants import FP16, FP32, INT8, W4

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(32, 1, 10))


def made_references(
    reference: np.ndarray = LOGITS, floor: float = 5e-7, edge_floor: float = 5e-7
) -> ReferenceIO:
    edges = RNG.normal(size=(3, *reference.shape[1:]))
    return ReferenceIO(
        inputs=(np.zeros((len(reference), 1, 4), np.float32),),
        reference=(reference,),
        edge_inputs=(np.zeros((3, 1, 4), np.float32),),
        edge_reference=(edges,),
        edge_names=("zeros", "saturated", "tiny"),
        floor=floor,
        edge_floor=edge_floor,
        reference_dtype="float64",
    )


def judged(
    variant: Variant,
    outputs: np.ndarray,
    references: ReferenceIO | None = None,
    edges: np.ndarray | None = None,
    lowering: Lowering | None = None,
    limits: Limits | None = None,
) -> tuple[str, str]:
    references = references or made_references()
    edge_outputs = references.edge_reference[0] if edges is None else edges
    verdict = judge_artifact(
        variant, "rt 1", references, (outputs,), (edge_outputs,), lowering, limits or Limits()
    )
    return verdict.status, verdict.reason or ""


def noisy(decibels: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=LOGITS.shape)
    level = math.sqrt((LOGITS**2).sum() / (noise**2).sum()) * 10 ** (-decibels / 20)
    return LOGITS + noise * level


def test_max_error_is_relative_to_the_outputs_scale() -> None:
    """max|a-y| / max|y|: the same error on outputs a billion times smaller counts the same."""
    y = np.array([1.0, -4.0])
    assert compare_outputs.compare_max_error(y, y + 0.4) == pytest.approx(0.1)
    assert compare_outputs.compare_max_error(y * 1e-9, (y + 0.4) * 1e-9) == pytest.approx(0.1)


def test_sqnr_of_a_known_noise() -> None:
    """10 log10(signal / noise) in energy: noise of a tenth of the amplitude is 20 dB."""
    y = np.ones(100)
    assert compare_outputs.compare_sqnr_db(y, y * 1.1) == pytest.approx(20.0)


def test_figures_of_equal_arrays() -> None:
    """Equality is an error of 0 and an infinite ratio, also for arrays of zeros."""
    for y in (LOGITS, np.zeros((2, 1, 3))):
        assert (compare_outputs.compare_max_error(y, y), compare_outputs.compare_sqnr_db(y, y)) == (
            0.0,
            math.inf,
        )


def test_an_error_on_a_silent_reference_is_infinite() -> None:
    """There is no scale to hide behind."""
    silent = np.zeros((2, 1, 3))
    assert compare_outputs.compare_max_error(silent, silent + 1) == math.inf
    assert compare_outputs.compare_sqnr_db(silent, silent + 1) == -math.inf


def test_agreement_counts_equal_winners() -> None:
    """Three of four samples keep their class."""
    y = np.eye(4)[:, None]
    a = y.copy()
    a[3] = np.eye(4)[0]
    assert compare_outputs.compare_agreement(y, a) == pytest.approx([1, 1, 1, 0])


def test_two_classes_have_an_agreement_and_one_has_none() -> None:
    """Yes and no are classes; a single score is none, and neither are whole numbers."""
    y = np.array([[[1.0, -1.0]], [[-1.0, 1.0]], [[1.0, -1.0]]])
    assert compare_outputs.compare_agreement(y, y * [[[1.0]], [[1.0]], [[-1.0]]]) == pytest.approx([1, 1, 0])
    assert compare_outputs.compare_agreement(y[:, :, :1], y[:, :, :1]) is None
    assert compare_outputs.compare_agreement(y.astype(int), y.astype(int)) is None


def test_an_embedding_has_no_agreement() -> None:
    """The largest number of a vector of length one is no class; that of probabilities and of logits is."""
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(8, 1, 32))
    unit = logits / np.linalg.norm(logits, axis=2, keepdims=True)
    certain = np.eye(32)[chance.integers(0, 32, 8)][:, None]
    assert compare_outputs.compare_agreement(unit, unit) is None
    assert compare_outputs.compare_agreement(np.abs(unit), np.abs(unit)) is None
    for classes in (logits, certain, unit[:, :, :2]):
        assert compare_outputs.compare_agreement(classes, classes) == pytest.approx([1] * 8)


def test_agreement_of_a_segmentation_counts_pixels() -> None:
    """Axis 1 of the model's output holds the classes, per pixel."""
    y = RNG.normal(size=(2, 1, 5, 8, 8))
    a = y.copy()
    a[0, 0, :, 0, 0] = -a[0, 0, :, 0, 0]
    assert compare_outputs.compare_agreement(y, a) == pytest.approx([63 / 64, 1])


@pytest.mark.parametrize("shape", [(8, 1), (8, 1, 1), (8, 4)])
def test_outputs_without_classes_have_no_agreement(shape: tuple[int, ...]) -> None:
    """A single number per sample has no winner; agreeing 100 % there would be a check that is always true."""
    y = RNG.normal(size=shape)
    assert compare_outputs.compare_agreement(y, y) is None


def test_the_worst_output_counts() -> None:
    """A perfect first output does not excuse the second."""
    bad = noisy(10)
    comparison = compare_outputs.compare_outputs((LOGITS, LOGITS), (LOGITS, bad))
    assert comparison.sqnr_db == pytest.approx(10)
    assert comparison.max_error == compare_outputs.compare_max_error(LOGITS, bad)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ((), "0 outputs"),
        ((LOGITS, LOGITS), "2 outputs"),
        ((LOGITS[:, :, :9],), "shape"),
        ((LOGITS.astype(np.int64),), "int64"),
        ((np.where(LOGITS > 2, np.nan, LOGITS),), "NaN or Inf"),
        ((np.where(LOGITS > 2, np.inf, LOGITS),), "NaN or Inf"),
    ],
)
def test_outputs_that_cannot_be_compared_are_a_problem(outputs: tuple[np.ndarray, ...], words: str) -> None:
    """Wrong count, shape, type or value gives no figure that could pass."""
    comparison = compare_outputs.compare_outputs((LOGITS,), outputs)
    assert words in comparison.problem
    assert comparison.max_error == math.inf


@pytest.mark.parametrize(("error", "status"), [(0.9e-5, "passed"), (1.1e-5, "failed")])
def test_the_fp32_limit(error: float, status: str) -> None:
    """fp32 must be within 1e-5 of the output's scale."""
    outputs = LOGITS.copy()
    outputs[0, 0, 0] += error * np.abs(LOGITS).max()
    assert judged(FP32, outputs)[0] == status


def test_the_fp32_limit_follows_the_eager_floor_and_says_so() -> None:
    """Where eager float32 itself is off by 4e-6, ten times that is the limit."""
    outputs = LOGITS.copy()
    outputs[0, 0, 0] += 3e-5 * np.abs(LOGITS).max()
    references = made_references(floor=4e-6)
    verdict = judge_artifact(FP32, "rt", references, (outputs,), references.edge_reference, None, Limits())
    assert verdict.status == "passed"
    assert verdict.limits["max_error"] == verdict.limits["max_error_from_eager_floor"] == pytest.approx(4e-5)


@pytest.mark.parametrize(
    ("variant", "decibels", "status"),
    [
        (INT8, 22, "passed"),
        (INT8, 20.1, "inconclusive"),
        (INT8, 5, "failed"),
        (FP16, 42, "passed"),
        (FP16, 35.1, "inconclusive"),
        (FP16, 20, "failed"),
    ],
)
def test_the_sqnr_limits(variant: Variant, decibels: float, status: str) -> None:
    """int8 needs 20 dB (or agreement), fp16 needs 35 dB and agreement; what is near may be either."""
    assert judged(variant, noisy(decibels))[0] == status


def test_int8_may_pass_on_agreement_alone() -> None:
    """Outputs scaled by 0.8 are 14 dB off, but every class is right: 64 scenes prove it, 32 do not."""
    many = np.tile(LOGITS, (2, 1, 1))
    assert judged(INT8, many * 0.8, made_references(many)) == ("passed", "")
    status, reason = judged(INT8, LOGITS * 0.8)
    assert status == "inconclusive"
    assert "100.0% agreement (91.1 to 100.0)" in reason
    assert "About 27 more scenes like these would decide." in reason


def test_int8_may_not_drown_its_output() -> None:
    """Scaled by 2.5 every class is right, and the error is one and a half times the output."""
    status, reason = judged(INT8, LOGITS * 2.5)
    assert status == "failed"
    assert "Its error is louder than its output (-3.5 dB SQNR)" in str(reason)


def test_fp16_may_not_pass_on_agreement_alone() -> None:
    """Half precision must be close as well as right."""
    assert judged(FP16, LOGITS * 0.8)[0] == "failed"


def test_int8_without_classes_must_reach_the_sqnr() -> None:
    """The SQNR alone decides where there is no agreement."""
    plain = RNG.normal(size=(16, 4))
    references = made_references(plain)
    assert judged(INT8, plain * 0.8, references)[0] == "failed"


def test_a_lowering_fault_fails_though_the_quality_would_pass() -> None:
    """Compared with its own quantised program, an artifact may not add a second loss."""
    status, reason = judged(INT8, noisy(25), lowering=Lowering((LOGITS,), 60.0))
    assert status == "failed"
    assert "lowering" in reason


def test_a_program_that_amplifies_rounding_ties_allows_as_much() -> None:
    """Where the program differs from itself by 26 dB, 25 dB is no fault of the lowering; 21 dB is."""
    program = Lowering(
        (LOGITS + 10 ** (-25 / 20) * LOGITS.std() * np.random.default_rng(5).normal(size=LOGITS.shape),), 26.0
    )
    assert judged(INT8, program.outputs[0] + noisy(25) - LOGITS, lowering=program)[0] == "passed"
    assert judged(INT8, program.outputs[0] + noisy(21) - LOGITS, lowering=program)[0] == "failed"


def test_ties_draw_no_more_than_a_programs_own_rounding_anew() -> None:
    """A program as exact as the model has no rounding that ties could draw, however loud they seem."""
    assert judged(INT8, noisy(25), lowering=Lowering((LOGITS,), 26.0))[0] == "failed"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (np.zeros_like(LOGITS), "hardly depends"),
        (np.broadcast_to(LOGITS[:1], LOGITS.shape) + 1e-9 * LOGITS, "hardly depends"),
        (np.where(LOGITS > 2, np.nan, LOGITS), "NaN"),
    ],
)
def test_a_meaningless_reference_passes_nothing(reference: np.ndarray, words: str) -> None:
    """Random, constant or broken originals make every comparison pass: so it fails, with that reason."""
    references = replace(made_references(reference.copy()), edge_reference=(reference[:3].copy(),))
    status, reason = judged(FP32, reference.copy(), references)
    assert status == "failed"
    assert words in reason


def test_edge_inputs_count_each_on_its_own_scale() -> None:
    """An error on zeros does not hide behind the large outputs of saturated inputs."""
    references = made_references()
    edges = references.edge_reference[0].copy()
    edges[1] *= 1e6
    references = replace(references, edge_reference=(edges,))
    wrong = edges.copy()
    wrong[0, 0, 0] += 1e-3
    status, reason = judged(FP32, LOGITS, references, wrong)
    assert status == "failed"
    assert "edge" in reason


def test_nan_on_an_edge_input_fails_every_precision() -> None:
    """fp16 that overflows on a saturated photo is not shippable."""
    references = made_references()
    wrong = references.edge_reference[0].copy()
    wrong[1, 0, 0] = np.nan
    assert judged(FP16, LOGITS, references, wrong)[0] == "failed"


def test_carrying_state_from_call_to_call_is_found() -> None:
    """The same inputs in reverse order must give the same outputs."""
    assert compare_outputs.compare_repeats((LOGITS,), (LOGITS,)) == ""
    assert "another order" in compare_outputs.compare_repeats((LOGITS,), (LOGITS * 1.001,))


SPEC_IN = (TensorSpec("x", (1, 3, 8, 8)),)
SPEC_OUT = (TensorSpec("logits", (1, 10)),)


def structure(elements: dict[str, int], delegated: float | None = None) -> Structure:
    return Structure(SPEC_IN, SPEC_OUT, {"conv": 1}, 100, elements, delegated)


@pytest.mark.parametrize(
    ("variant", "contents", "words"),
    [
        (INT8, structure({"int8": 990, "float32": 10}, 0.98), ""),
        (INT8, structure({"float32": 1000}, 0.98), "calls itself int8"),
        (INT8, structure({"int8": 500, "float32": 500}), "50% int8"),
        (INT8, structure({"int8": 1000}, 0.3), "30% of the compute"),
        (FP32, structure({"float32": 1000}), ""),
        (FP32, structure({"float16": 1000}), "calls itself fp32"),
        (FP32, structure({"float32": 300}), "weights are missing"),
        (FP16, structure({"float16": 1000}), ""),
        (FP16, structure({"float32": 1000}), "calls itself fp16"),
        (W4, structure({"uint4": 1000}), ""),
        (W4, structure({"int8": 1000}), "calls itself w4"),
    ],
)
def test_a_file_must_be_what_it_is_called(variant: Variant, contents: Structure, words: str) -> None:
    """Stored types and delegation are read from the artifact and gated."""
    problem = contract.check_structure_by_contract(contents, variant, SPEC_IN, SPEC_OUT, 1000, Limits())
    assert (words in problem) if words else problem == ""


def test_other_shapes_than_the_models_are_found() -> None:
    """A file that takes other inputs is another model's."""
    contents = replace(structure({"float32": 1000}), inputs=(TensorSpec("x", (1, 3, 9, 9)),))
    assert "input shapes" in contract.check_structure_by_contract(
        contents, FP32, SPEC_IN, SPEC_OUT, 1000, Limits()
    )


TWO = (TensorSpec("left", (1, 8)), TensorSpec("right", (1, 8)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ((TensorSpec("left", (1, 8), "float64"), TWO[1]), "types are float64, float32, the model's float32"),
        ((TWO[0], TensorSpec("right", (1, 8), "float16")), "types are float32, float16"),
        ((TensorSpec("x", (1, 8)), TWO[1]), "names are x, right, the model's left, right"),
        ((TWO[1], TWO[0]), "names are right, left"),
        (TWO[:1], "shapes are [1, 8], the model's [1, 8], [1, 8]"),
        ((), "shapes are not in the file"),
    ],
)
@pytest.mark.parametrize("kind", ["input", "output"])
def test_inputs_and_outputs_must_be_the_models(
    changed: tuple[TensorSpec, ...], words: str, kind: str
) -> None:
    """Whoever loads the file calls it by names, order, types and shapes."""
    right = replace(structure({"float32": 1000}), inputs=TWO, outputs=TWO)
    assert contract.check_structure_by_contract(right, FP32, TWO, TWO, 1000, Limits()) == ""
    wrong = replace(right, inputs=changed) if kind == "input" else replace(right, outputs=changed)
    assert f"Its {kind} {words}" in contract.check_structure_by_contract(
        wrong, FP32, TWO, TWO, 1000, Limits()
    )


def test_a_format_is_held_to_what_it_can_say() -> None:
    """ExecuTorch keeps no names; Core ML has no 64-bit integers, but no other float than float32 either."""
    tokens = (TensorSpec("tokens", (1, 8), "int64"),)
    nameless = replace(structure({"int8": 1000}, 1.0), inputs=(TensorSpec("input0", (1, 8), "int64"),))
    assert contract.check_structure_by_contract(nameless, INT8, tokens, SPEC_OUT, 1000, Limits()) == ""
    narrow = replace(structure({"uint4": 1000}), inputs=(TensorSpec("tokens", (1, 8), "int32"),))
    assert contract.check_structure_by_contract(narrow, W4, tokens, SPEC_OUT, 1000, Limits()) == ""
    half = replace(narrow, outputs=(TensorSpec("logits", (1, 10), "float16"),))
    assert "output types are float16" in contract.check_structure_by_contract(
        half, W4, tokens, SPEC_OUT, 1000, Limits()
    )


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_the_types_that_really_come_out_are_checked(dtype: str) -> None:
    """A TorchScript file only says what its outputs are; what it gives counts."""
    outputs = [np.zeros((4, 1, 8), np.float32), np.zeros((4, 1, 8), dtype)]
    assert contract.check_outputs_by_contract([outputs[0]] * 2, TWO, "torchscript") == ""
    assert f"output types are float32, {dtype}" in contract.check_outputs_by_contract(
        outputs, TWO, "torchscript"
    )
