"""Each thing that a file must have before it runs, at the boundary between right and wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporter.records import ImageInput, Limits, Structure, TensorSpec
from exporter.verify import contract
from exporter.verify.contract import check_epsilons_by_contract, check_structure_by_contract
from tests.variants import FP16, FP32, INT8, W4

COREML = replace(FP16, name="coreml-fp16", format="coreml", backend="coreml")
X, SCORES = TensorSpec("x", (1, 3)), TensorSpec("scores", (1, 2))
FILE = Structure((X,), (SCORES,), {}, 100, {"float32": 100})
HALF = replace(FILE, weight_elements={"float16": 100})
LABELS = ("cat", "dog")
LIMITS = Limits(min_quantized_weights=0.9, min_delegated=0.5)


def checked(file: Structure, variant: Any = FP32, weights: int = 100, **others: Any) -> str:
    given = {"inputs": (X,), "outputs": (SCORES,), **others}
    return check_structure_by_contract(
        file, variant, given.pop("inputs"), given.pop("outputs"), weights, LIMITS, **given
    )


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ((), ()),
        (("a", "b"), ("a", "b")),
        (("crane", "a", "crane"), ("crane", "a", "crane (2)")),
        (("a", "a (2)", "a"), ("a", "a (2)", "a (2)_")),
        (("a (2)", "a (2)_", "a (2)__", "a (2)"), ("a (2)", "a (2)_", "a (2)__", "a (2) (3)")),
        (("b", "b (4)", "b (4)_", "c", "b"), ("b", "b (4)", "b (4)_", "c", "b (4)__")),
    ],
)
def test_every_class_has_a_name_of_its_own(labels: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """A label that occurs again has its number, and what it takes to differ from all others."""
    assert contract.classes_by_contract(labels) == classes


@pytest.mark.parametrize(
    ("outputs", "labels", "place"),
    [
        ((SCORES,), LABELS, 0),
        ((SCORES,), (), None),
        ((SCORES,), ("a", "b", "c"), None),
        ((TensorSpec("y", (1, 5)), SCORES), LABELS, 1),
        ((SCORES, SCORES), LABELS, None),
        ((replace(SCORES, dtype="float16"),), LABELS, None),
        ((replace(SCORES, shape=(2, 2)),), LABELS, None),
        ((replace(SCORES, shape=(2,)),), LABELS, None),
    ],
)
def test_the_output_with_a_score_for_each_label_is_found(
    outputs: tuple[TensorSpec, ...], labels: tuple[str, ...], place: int | None
) -> None:
    """There is one of that shape in float32, or none."""
    spec = contract.classified_by_contract(outputs, labels)
    assert spec == (None if place is None else outputs[place])


PICTURE = ImageInput((0.5,), (0.0,))
CLASSIFIER = replace(HALF, classes=LABELS)


@pytest.mark.parametrize(
    ("file", "variant", "others", "reason"),
    [
        (FILE, FP32, {}, ""),
        (replace(FILE, inputs=()), FP32, {}, "Its input shapes are not in the file, the model's [1, 3]."),
        (replace(FILE, outputs=(X,)), FP32, {}, "Its output shapes are [1, 3], the model's [1, 2]."),
        (replace(FILE, inputs=(replace(X, name="y"),)), FP32, {}, "Its input names are y, the model's x."),
        (
            replace(FILE, outputs=(replace(SCORES, dtype="float64"),)),
            FP32,
            {},
            "Its output types are float64, the model's float32.",
        ),
        (CLASSIFIER, COREML, {"labels": LABELS}, ""),
        (CLASSIFIER, COREML, {}, "It predicts 2 labels, and the model has none."),
        (
            replace(FILE, classes=LABELS),
            FP32,
            {"labels": LABELS},
            "It predicts 2 labels, and the model has none.",
        ),
        (FILE, FP32, {"labels": LABELS}, ""),
        (HALF, COREML, {"labels": LABELS}, "It predicts no label, though the model's labels are known."),
        (replace(HALF, classes=("cat",)), COREML, {"labels": LABELS}, "It predicts 1 labels, the model 2."),
        (
            replace(HALF, classes=("cat", "cow")),
            COREML,
            {"labels": LABELS},
            "It calls class 1 'cow', the model 'dog'.",
        ),
        (replace(HALF, image=PICTURE), COREML, {"image": PICTURE}, ""),
        (
            HALF,
            COREML,
            {"image": PICTURE},
            "It prepares no picture, the model needs a picture as byte * [0.5] + [0.0].",
        ),
        (
            replace(HALF, image=PICTURE),
            COREML,
            {},
            "It prepares a picture as byte * [0.5] + [0.0], the model needs no picture.",
        ),
        (
            replace(HALF, image=PICTURE, inputs=(replace(X, dtype="uint8"),)),
            COREML,
            {"image": PICTURE},
            "",
        ),
        (replace(FILE, inputs=(replace(X, dtype="uint8"),)), FP32, {}, "Its input types are uint8"),
        (FILE, FP32, {"image": PICTURE}, ""),  # only Core ML's files take pictures
        (replace(CLASSIFIER, image=PICTURE), COREML, {}, "It prepares a picture"),
    ],
)
def test_inputs_outputs_and_labels_are_the_models(
    file: Structure, variant: Any, others: dict[str, Any], reason: str
) -> None:
    """The first difference is named, with both sides of it."""
    problem = checked(file, variant, **others)
    assert problem.startswith(reason)
    assert bool(problem) is bool(reason)


@pytest.mark.parametrize(
    ("elements", "variant", "weights", "words"),
    [
        ({"float32": 90}, FP32, 100, ""),
        ({"float32": 89}, FP32, 100, "It holds 89 weight values, the model has 100"),
        ({"float32": 50, "float16": 50}, FP32, 100, "stored as 50% float16, 50% float32"),
        ({"float32": 90, "float16": 10}, FP32, 100, ""),
        ({"float32": 89, "float16": 11}, FP32, 100, "calls itself fp32"),
        ({"complex64": 100}, FP32, 100, ""),
        ({"float16": 100}, FP16, 100, ""),
        ({"float32": 100}, FP16, 100, "calls itself fp16"),
        ({"int8": 50, "uint8": 50}, INT8, 100, ""),
        ({"int4": 95, "float32": 5}, W4, 100, ""),
        ({"int8": 100}, W4, 100, "calls itself w4"),
        ({"float32": 1}, replace(FP32, precision="mixed"), 1, ""),
        ({}, FP32, 0, ""),
    ],
)
def test_weights_are_all_there_and_stored_as_the_precision_says(
    elements: dict[str, int], variant: Any, weights: int, words: str
) -> None:
    """A tenth may be missing or in another type, as the limits of this test say."""
    problem = checked(replace(FILE, weight_elements=elements), variant, weights)
    assert words in problem
    assert bool(problem) is bool(words)


@pytest.mark.parametrize(("share", "enough"), [(None, True), (0.5, True), (0.49, False), (1.0, True)])
def test_enough_of_the_compute_is_delegated(share: float | None, enough: bool) -> None:
    """The limit itself is enough; what has no delegate has no share."""
    problem = checked(replace(FILE, delegated_fraction=share))
    assert (problem == "") is enough
    assert (
        enough or f"Only {share:.0%} of the compute is delegated to {FP32.backend} (at least 50%" in problem
    )


@pytest.mark.parametrize(
    ("dtype", "format_name", "expected"),
    [
        ("float64", "onnx", "float64"),
        ("int64", "coreai", "int32"),
        ("float32", "coreai", "float32"),
        ("float16", "coreml", "float32"),
        ("int64", "coreml", "int32"),
        ("bool", "coreml", "int32"),
        ("int64", "executorch", "int64"),
    ],
)
def test_formats_have_types_of_their_own(dtype: str, format_name: Any, expected: str) -> None:
    """Core ML has float32 and int32, Core AI no int64; the other formats have every type."""
    spec = TensorSpec("y", (1,), dtype)
    right, wrong = np.zeros(1, expected), np.zeros(1, "uint8")
    assert contract.check_outputs_by_contract((right,), (spec,), format_name) == ""
    problem = contract.check_outputs_by_contract((wrong,), (spec,), format_name)
    assert problem == f"Its output types are uint8, the model's {expected}."


def test_names_count_where_the_format_keeps_them() -> None:
    """ExecuTorch's files have only an order; so the second output may be called as the first."""
    other = replace(FILE, outputs=(replace(SCORES, name="other"),))
    assert checked(other, replace(FP32, format="onnx")).startswith("Its output names are other")
    assert checked(other, replace(FP32, format="executorch")) == ""


def test_a_missing_output_is_told_before_its_type() -> None:
    """Two outputs are expected and one is there."""
    specs = (SCORES, X)
    problem = contract.check_outputs_by_contract((np.zeros(1, "uint8"),), specs, "onnx")
    assert problem.startswith("Its output shapes are")


OWN = (1e-5, 2e-5)


@pytest.mark.parametrize(
    ("read", "variant", "words"),
    [
        ((), FP32, ""),
        ((1e-5, 2e-5), FP32, ""),
        ((2e-5, 1e-5), FP32, ""),
        ((1e-5 * (1 + 2.0**-11),), FP32, ""),
        ((1e-5 * (1 + 2.0**-9),), FP32, "It adds 1e-05 to the variance of a norm"),
        ((1e-5, 1e-5), FP32, "the model's own numbers are 1e-05, 2e-05"),
        ((1e-5, 2e-5, 2e-5), FP32, "It adds 2e-05"),
        ((1e-5, 2e-5, 2e-5), FP16, "It adds 2e-05"),
        ((3e-5,), FP32, "It adds 3e-05"),
        ((0.0,), FP32, "It adds 0"),
        ((0.5,), FP32, "It adds 0.5"),
        ((0.51, -1e-5, 1.0), FP32, ""),
        ((1e-5 + 2.0**-23,), FP16, ""),
        ((1e-5 + 2.0**-22,), FP16, "It adds 1.02e-05"),
    ],
)
def test_a_norms_epsilon_is_one_of_the_programs(read: tuple[float, ...], variant: Any, words: str) -> None:
    """Each number of the program excuses one of the file, exactly but for the precision's steps."""
    problem = check_epsilons_by_contract(replace(FILE, epsilons=read), variant.precision, OWN)
    assert words in problem
    assert bool(problem) is bool(words)


def test_a_program_without_epsilons_excuses_none() -> None:
    """A program whose numbers are not known says nothing; one that has none says so."""
    file = replace(FILE, epsilons=(1e-5,))
    assert check_epsilons_by_contract(file, "fp32", None) == ""
    assert check_epsilons_by_contract(file, "fp32", ()).endswith("the model's own numbers are nothing.")
    many = tuple(float(k) for k in range(1, 20))
    assert check_epsilons_by_contract(file, "fp32", many).endswith("1, 2, 3, 4, 5, 6, 7, 8.")
