from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import pytest

from exporter.records import Report, Structure, TensorSpec
from exporter.report.snippets import Snippet, make_snippets
from tests.report import sample


def chosen(name: str, **changes: object) -> Report:
    return replace(sample.report(), selected=name, **changes)  # type: ignore[arg-type]


def with_tensors(name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Report:
    """Return the sample with another network in the chosen artifact, and no photos."""
    artifacts = tuple(
        replace(a, structure=Structure(inputs, outputs, {}, 0, {})) if a.structure else a
        for a in sample.artifacts()
    )
    return chosen(name, artifacts=artifacts, inputs=inputs, outputs=outputs, preprocessing=None)


def titles(report: Report) -> list[tuple[str, str, str]]:
    return [(s.title, s.file, s.status) for s in make_snippets(report)]


def code(report: Report) -> str:
    return make_snippets(report)[0].code


def balanced(snippet: Snippet) -> bool:
    return all(snippet.code.count(a) == snippet.code.count(b) for a, b in ("()", "[]", "{}"))


TWO_IN = (TensorSpec("top", (1, 32)), TensorSpec("bottom", (1, 32), "int64"))
TWO_OUT = (TensorSpec("digit", (1, 10)), TensorSpec("odd", (1, 2)))


def test_the_chosen_artifact_gets_both_platforms_and_core_ml_is_added() -> None:
    """ExecuTorch loads on both; the Core ML sibling is shown with the status it has."""
    assert titles(sample.report()) == [
        ("Android · Kotlin · ExecuTorch", "executorch-xnnpack-int8.pte", "passed"),
        ("iOS · Swift · ExecuTorch", "executorch-xnnpack-int8.pte", "passed"),
        ("iOS · Swift · Core ML", "coreml-fp16.mlpackage", "not run"),
    ]


def test_nothing_chosen_has_no_code() -> None:
    """Code is not shown for what must not be shipped."""
    assert make_snippets(sample.nothing_passed()) == ()


def test_vulkan_is_for_android_only() -> None:
    """No Swift code for a backend that iOS does not have; Android needs another package."""
    report = chosen("executorch-vulkan-fp16")
    assert [t for t, *_ in titles(report)] == ["Android · Kotlin · ExecuTorch", "iOS · Swift · Core ML"]
    assert "executorch-android-vulkan:1.4.1" in code(report)


EXECUTORCH = 'Module.load(File(context.filesDir, "executorch-xnnpack-int8.pte")'
ONNX = "com.microsoft.onnxruntime:onnxruntime-android:1.32.0"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("executorch-xnnpack-int8", [EXECUTORCH, "org.pytorch:executorch-android:1.4.1"]),
        ("onnx-fp32", [ONNX, '"x" to OnnxTensor.createTensor', "FloatBuffer.wrap(xValues)"]),
        ("torchscript-lite-fp32", ["LiteModuleLoader.load(", "IValue.from(Tensor.fromBlob(xValues"]),
    ],
)
def test_android_code_has_the_models_own_facts(name: str, expected: list[str]) -> None:
    """File, shapes, mean, std, crop and the runtime's version are the report's."""
    written = code(chosen(name))
    facts = [
        "longArrayOf(1, 3, 224, 224)",
        "floatArrayOf(0.485f, 0.456f, 0.406f)",
        "256f / minOf",
        "// [1, 1000]",
    ]
    assert [fact for fact in expected + facts if fact not in written] == []


@pytest.mark.parametrize("name", ["executorch-xnnpack-int8", "onnx-fp32", "torchscript-lite-fp32"])
def test_two_inputs_and_outputs_keep_their_order_and_types(name: str) -> None:
    """Each tensor has its own variable, in the model's order, of its own type; no photo code."""
    written = code(with_tensors(name, TWO_IN, TWO_OUT))
    order = [written.index(f"val {t}Values") for t in ("top", "bottom", "digit", "odd")]
    assert order == sorted(order)
    assert "val bottomValues = LongArray(32)" in written
    assert "preprocess" not in written
    assert "Bitmap" not in written


def test_core_ml_uses_the_names_in_the_file() -> None:
    """A converter may rename outputs: the code asks for what the file has."""
    renamed = with_tensors(
        "executorch-xnnpack-int8", (TensorSpec("x", (1, 3, 8, 8)),), (TensorSpec("linear_0", (1, 10)),)
    )
    assert 'featureValue(for: "linear_0")' in make_snippets(renamed)[2].code


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_values_are_scaled_as_trained(scale: float) -> None:
    """Models trained on raw bytes are not divided by 255."""
    how = sample.report().preprocessing
    assert how is not None
    written = code(chosen("onnx-fp32", preprocessing=replace(how, scale=scale)))
    assert ("(value / 255f - mean[c])" in written) == (scale == 1)
    assert ("(value * 1.0f - mean[c])" in written) == (scale == 255)


def test_squashed_photos_are_not_cut_first() -> None:
    """Squashed photos are resized on both sides, so there is no ratio."""
    how = sample.report().preprocessing
    assert how is not None
    assert "createScaledBitmap(photo, 256, 256, true)" in code(
        chosen("onnx-fp32", preprocessing=replace(how, squash=True))
    )


@pytest.mark.parametrize("pixels", ["rgb", "rgba"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("executorch-xnnpack-int8", "Tensor.fromBlobUnsigned(imageValues, longArrayOf(1, 224, 224, {}))"),
        ("onnx-fp32", "ByteBuffer.wrap(imageValues), longArrayOf(1, 224, 224, {}), OnnxJavaType.UINT8)"),
        ("torchscript-lite-fp32", "Tensor.fromBlobUnsigned(imageValues, longArrayOf(1, 224, 224, {}))"),
    ],
)
def test_embedded_preprocessing_sends_bytes(name: str, expected: str, pixels: Literal["rgb", "rgba"]) -> None:
    """The app resizes and crops, and sends the bytes in the artifact's order, without mean and std."""
    how = sample.report().preprocessing
    assert how is not None
    inputs = (TensorSpec("image", (1, 224, 224, len(pixels)), "uint8"),)
    report = with_tensors(name, inputs, (TensorSpec("logits", (1, 1000)),))
    snippets = make_snippets(replace(report, preprocessing=replace(how, pixels=pixels)))
    written = snippets[0].code
    assert expected.format(len(pixels)) in written
    assert "val imageValues = preprocess(bitmap)" in written
    assert f"intArrayOf(16, 8, 0{', 24' if pixels == 'rgba' else ''})" in written
    assert "0.485" not in "".join(s.code for s in snippets)
    assert all(balanced(snippet) for snippet in snippets)


def test_a_dtype_without_an_array_has_no_code() -> None:
    """Half-precision inputs have no Kotlin array: no code is better than wrong code."""
    assert make_snippets(with_tensors("onnx-fp32", (TensorSpec("x", (1, 4), "float16"),), TWO_OUT)) == ()


def test_hostile_names_stay_inside_their_quotes() -> None:
    """A tensor's name cannot end its string literal, interpolate or start a statement."""
    evil = TensorSpec('a"); evil() //\n${x} \\(y) ü\N{PILE OF POO}', (1, 2))
    report = with_tensors(
        "onnx-fp32", (evil, TensorSpec(evil.name + "!", (1, 2))), (TensorSpec("9val", (1, 2)),)
    )
    written = code(report)
    assert "evil()" not in written
    assert "${" not in written
    assert "\\u0022" in written
    assert "\\ud83d\\udca9" in written
    assert len(set(re.findall(r"val (\w+) =", written))) == len(re.findall(r"val (\w+) =", written))
    assert all(balanced(snippet) for snippet in make_snippets(report))


@pytest.mark.parametrize("name", [a.variant.name for a in sample.artifacts() if a.file])
def test_brackets_are_balanced(name: str) -> None:
    """Whatever is chosen, one input or several, the code's brackets close."""
    for report in (chosen(name), with_tensors(name, TWO_IN, TWO_OUT)):
        written = make_snippets(report)
        assert written
        assert all(balanced(snippet) for snippet in written)
