"""Core ML packages as iOS developers expect them: a picture as the input, and a classifier of the labels."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter.formats.coreml as coreml
from exporter.capture.captured_program import captured_program_matrix_weights
from exporter.data.image_input import image_input_of
from exporter.errors import LoweringError
from exporter.formats import VARIANTS
from exporter.formats.coreml.coreml_classifier import read_coreml_classifier
from exporter.formats.coreml.coreml_contents import tensors_of_coreml_contents
from exporter.formats.coreml.coreml_edit import coreml_edited_block
from exporter.formats.coreml.coreml_image import pixels_of_coreml_image
from exporter.formats.coreml.coreml_package import WEIGHTS, Package, read_coreml_package, write_coreml_package
from exporter.formats.coreml.interpreter.mil_program import Program
from exporter.pipeline.stage_results import ExpectedResult
from exporter.pipeline.verify_stage import verify_artifact_in_stage
from exporter.records import (
    About,
    Captured,
    ImageInput,
    Limits,
    Preprocessing,
    Sample,
    Structure,
    TensorSpec,
    Verdict,
)
from exporter.verify.reference_io import load_reference_io, pictures_of_reference_io
from tests import proof

LABELS = ("tabby cat", "crane", "crane", 'öre, "coin"')
CLASSES = ("tabby cat", "crane", "crane (2)", 'öre, "coin"')
FP16 = VARIANTS["coreml-fp16"]


class Net(nn.Module):
    """A network that tells the channels, the corners and the edges of a picture apart."""

    def __init__(self, channels: int = 3, end: nn.Module | None = None, classes: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 16, 3, padding=1)
        self.head = nn.Linear(64, classes)
        self.end = end or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.first(x).relu(), 2)
        return self.end(self.head(x.flatten(1)))  # type: ignore[no-any-return]


def seeded(channels: int = 3, end: nn.Module | None = None) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Net(channels, end).eval()
    with torch.no_grad():
        net.head.weight.mul_(4)
    return net


def pictures(image: ImageInput, count: int, height: int = 12, width: int = 20) -> list[Sample]:
    """Make prepared pictures of 8 bits: a bright patch of one colour, somewhere."""
    generator = np.random.default_rng(5)
    made: list[Sample] = []
    for _ in range(count):
        pixels = generator.integers(0, 90, (1, len(image.scale), height, width)).astype(np.float64)
        top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
        colour = generator.integers(0, 166, (len(image.scale), 1, 1))
        pixels[0, :, top : top + height // 2, left : left + width // 2] += colour
        scale, bias = (np.array(v)[:, None, None] for v in (image.scale, image.bias))
        made.append(((pixels * scale + bias).astype(np.float32),))
    return made


@dataclass(frozen=True, eq=False)
class Made:
    """A captured network with evidence, and its package."""

    captured: Captured
    path: Path

    def judge(self, path: Path | None = None, **changes: Any) -> tuple[Structure | None, Verdict]:
        """Judge a package as an export does."""
        model = self.captured
        fields = {"labels": model.about.labels, "image": model.image} | changes
        expected = ExpectedResult(
            model.inputs, model.outputs, captured_program_matrix_weights(model), Limits(), **fields
        )
        result = verify_artifact_in_stage(
            path or self.path, FP16, self.path.parent / proof.EVIDENCE, None, expected
        )
        return result.structure, result.verdict


def made_package(
    folder: Path,
    preprocessing: Preprocessing | None,
    labels: tuple[str, ...] = LABELS,
    end: nn.Module | None = None,
    variant: str = "coreml-fp16",
    channels: int = 3,
) -> Made:
    spec = TensorSpec("x0", (1, channels, 12, 20))
    image = image_input_of([spec], preprocessing) if preprocessing else None
    plain = image or ImageInput((1 / 255,) * channels, (0.0,) * channels)
    captured = proof.capture(seeded(channels, end), pictures(plain, 16), folder)
    captured = dataclasses.replace(captured, image=image, about=About(labels=labels))
    return Made(captured, coreml.emit(captured, VARIANTS[variant], folder).path)


IMAGENET = Preprocessing(crop=(12, 20))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made_package(tmp_path_factory.mktemp("apps"), IMAGENET)


def values_of(path: Path, pixels: np.ndarray) -> dict[str, Any]:
    """Compute every output of a package from what an app gives it."""
    return Program.of_package(read_coreml_package(path), path / WEIGHTS.parent).values([pixels])


@pytest.mark.parametrize(
    ("preprocessing", "channels"),
    [
        (IMAGENET, 3),
        (dataclasses.replace(IMAGENET, mean=(0.5,), std=(0.25,)), 1),
        (dataclasses.replace(IMAGENET, mean=(120.0, 110.0, 100.0), std=(9.0, 40.0, 70.0), scale=255.0), 3),
    ],
)
def test_the_package_prepares_the_picture_itself(
    preprocessing: Preprocessing, channels: int, tmp_path: Path
) -> None:
    """Given bytes, it computes what the network does with the prepared picture, to half precision."""
    package = made_package(tmp_path, preprocessing, (), channels=channels)
    picture = read_coreml_package(package.path).spec.description.input[0].type.imageType
    assert (picture.width, picture.height) == (20, 12)
    structure, verdict = package.judge()
    assert verdict.status == "passed", verdict.reason
    assert structure
    assert structure.inputs == (TensorSpec("x0", (1, channels, 12, 20), "uint8"),)
    image = package.captured.image
    assert image
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (1, channels, 12, 20), dtype=np.uint8)
    shape = (1, channels, 1, 1)
    mean, std = (
        np.broadcast_to(np.array(v), channels).reshape(shape) for v in (preprocessing.mean, preprocessing.std)
    )
    prepared = ((pixels / 255 * preprocessing.scale - mean) / std).astype(np.float32)
    np.testing.assert_array_equal(pixels_of_coreml_image(prepared, image), pixels)
    exact = package.captured.module(torch.from_numpy(prepared)).detach().numpy()
    (actual,) = values_of(package.path, pixels).values()
    assert np.abs(actual - exact).max() < 2e-3 * np.abs(exact).max()


def test_edge_inputs_that_are_no_picture_are_left_out(made: Made) -> None:
    """A white picture is judged; half a level, and what is brighter than white, an app cannot give."""
    image = made.captured.image
    assert image
    scale, bias = (np.array(v, np.float32)[:, None, None] for v in (image.scale, image.bias))
    edges = [np.full((1, 3, 12, 20), level) * scale + bias for level in (100.5, 255.0, 256.0)]
    references = load_reference_io(made.path.parent / proof.EVIDENCE)
    three = dataclasses.replace(
        references,
        edge_inputs=(np.stack(edges).astype(np.float32),),
        edge_reference=tuple(stack[:3] for stack in references.edge_reference),
        edge_names=("half", "white", "beyond"),
        edge_floors=(1.0, 2.0, 3.0),
    )
    pictures = pictures_of_reference_io(three, image)
    assert (pictures.edge_names, pictures.edge_floors) == (("white",), (2.0,))
    np.testing.assert_array_equal(pictures.edge_reference[0], references.edge_reference[0][1:2])
    np.testing.assert_array_equal(pictures.edges()[0][0], edges[1].astype(np.float32))


def test_compressed_packages_take_pictures_and_classify(tmp_path: Path) -> None:
    """Weights are compressed as before; the preprocessing and the classifier are not."""
    variant = VARIANTS["coreml-w4"]
    package = made_package(tmp_path, IMAGENET, variant=variant.name)
    contents = coreml.structure(package.path, variant)
    assert contents.image == package.captured.image
    assert contents.classes == CLASSES
    assert contents.quantized_weight_fraction == 1
    run, _ = coreml.load(package.path, variant, 1)
    sample = pictures(contents.image, 1)[0]  # type: ignore[arg-type]
    exact = package.captured.module(torch.from_numpy(sample[0])).detach().numpy()
    assert np.abs(run(sample)[0] - exact).max() < 0.2 * np.abs(exact).max()


def test_a_classifier_gives_label_and_probabilities(made: Made) -> None:
    """The label is that of the largest score, probabilities are their softmax, the scores stay an output."""
    assert made.captured.image
    sample = pictures(made.captured.image, 1)[0]
    values = values_of(made.path, pixels_of_coreml_image(sample[0], made.captured.image))
    assert list(values) == ["logits", "classLabel", "classLabel_probs"]
    scores = torch.from_numpy(values["logits"][0]).double()
    assert values["classLabel"] == CLASSES[int(scores.argmax())]
    assert tuple(values["classLabel_probs"]) == CLASSES
    np.testing.assert_allclose(list(values["classLabel_probs"].values()), scores.softmax(0), atol=1e-5)
    description = read_coreml_package(made.path).spec.description
    assert description.predictedFeatureName == "classLabel"
    assert description.predictedProbabilitiesName == "classLabel_probs"


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid()])
def test_probabilities_are_not_normalised_twice(end: nn.Module, tmp_path: Path) -> None:
    """A network that ends in a softmax or a sigmoid gives its own outputs as probabilities."""
    package = made_package(tmp_path, None, end=end)
    (sample,) = pictures(ImageInput((1 / 255,) * 3, (0.0,) * 3), 1)
    values = values_of(package.path, sample[0])
    scores, label, table = values.values()
    np.testing.assert_allclose(list(table.values()), scores[0], atol=1e-6)
    assert label == CLASSES[int(scores[0].argmax())]
    assert package.judge()[1].status in ("passed", "inconclusive")


def test_labels_of_another_number_classify_nothing(tmp_path: Path) -> None:
    """A package whose labels are not one for each score has the model's own outputs alone."""
    package = made_package(tmp_path, None, ("one", "two"))
    assert [f.name for f in read_coreml_package(package.path).spec.description.output] == ["logits"]
    assert package.judge()[1].status == "passed"


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    """A model whose own output is called classLabel keeps it; the classifier's label has another name."""
    made = made_package(tmp_path, None)
    renamed = dataclasses.replace(
        made.captured, outputs=(dataclasses.replace(made.captured.outputs[0], name="classLabel"),)
    )
    (tmp_path / "again").mkdir()
    spec = read_coreml_package(coreml.emit(renamed, FP16, tmp_path / "again").path).spec
    assert [f.name for f in tensors_of_coreml_contents(spec)] == ["classLabel"]
    classifier = read_coreml_classifier(spec)
    assert classifier
    assert classifier.label == "classLabel_"


def constant_of(spec: Any, ending: str) -> Any:
    (found,) = [o for o in coreml_edited_block(spec).operations if o.outputs[0].name.endswith(ending)]
    return found.attributes["val"].immediateValue.tensor.floats.values


def swapped_scales(spec: Any) -> None:
    scale = constant_of(spec, "_scale")
    scale[0], scale[1] = scale[1], scale[0]


def exchanged_channels(spec: Any) -> None:
    """BGR in place of RGB in the preprocessing alone: the bias of blue for red."""
    bias = constant_of(spec, "_bias")
    bias[0], bias[2] = bias[2], bias[0]


def dropped_bias(spec: Any) -> None:
    constant_of(spec, "_bias")[:] = [0, 0, 0]


def doubled_scale(spec: Any) -> None:
    constant_of(spec, "_scale")[:] = [2 * v for v in constant_of(spec, "_scale")]


def blue_first(spec: Any) -> None:
    space = spec.description.input[0].type.imageType
    space.colorSpace = space.ColorSpace.Value("BGR")


def grey(spec: Any) -> None:
    space = spec.description.input[0].type.imageType
    space.colorSpace = space.ColorSpace.Value("GRAYSCALE")


def turned(spec: Any) -> None:
    picture = spec.description.input[0].type.imageType
    picture.width, picture.height = picture.height, picture.width


def prepared_otherwise(spec: Any) -> None:
    (call,) = [o for o in coreml_edited_block(spec).operations if o.outputs[0].name.endswith("_prepared")]
    call.type = "maximum"


def classes_of(spec: Any) -> Any:
    (call,) = [o for o in coreml_edited_block(spec).operations if o.type == "classify"]
    return call.inputs["classes"].arguments[0].value.immediateValue.list.values


def swapped_labels(spec: Any) -> None:
    one, two = (classes_of(spec)[i].immediateValue.tensor.strings for i in (0, 1))
    one.values[0], two.values[0] = two.values[0], one.values[0]


def repeated_label(spec: Any) -> None:
    classes_of(spec)[2].immediateValue.tensor.strings.values[0] = "crane"


def softmax_over_nothing(spec: Any) -> None:
    """Along the axis of one, every probability is 1, and the label is always the first."""
    (axis,) = [o for o in coreml_edited_block(spec).operations if o.outputs[0].name.endswith("_axis")]
    axis.attributes["val"].immediateValue.tensor.ints.values[0] = 0


def of_another_value(spec: Any) -> None:
    (call,) = [o for o in coreml_edited_block(spec).operations if o.type == "softmax"]
    call.type = "tanh"
    del call.inputs["axis"]


def no_classifier(spec: Any) -> None:
    block = coreml_edited_block(spec)
    del block.operations[-1]
    del block.outputs[-2:]
    del spec.description.output[-2:]
    spec.description.predictedFeatureName = spec.description.predictedProbabilitiesName = ""


def undescribed(spec: Any) -> None:
    spec.description.predictedProbabilitiesName = "logits"


FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "two channels' scales exchanged": (swapped_scales, "It prepares a picture as byte * [0.0175"),
    "the bias of another channel": (exchanged_channels, "It prepares a picture"),
    "no bias": (dropped_bias, "+ [0.0, 0.0, 0.0], the model needs a picture as byte"),
    "scaled twice": (doubled_scale, "It prepares a picture as byte * [0.034"),
    "blue first": (blue_first, "colour space BGR"),
    "grey": (grey, "input shapes"),
    "a picture on its side": (turned, "input shapes"),
    "prepared by another operator": (prepared_otherwise, "does not become add of it and a constant"),
    "exchanged labels": (swapped_labels, "It calls class 0 'crane'"),
    "a label twice": (repeated_label, "It calls class 2 'crane', the model 'crane (2)'"),
    "a softmax along another axis": (softmax_over_nothing, "its classifier gives"),
    "a classifier of another value": (of_another_value, "no output and no softmax of one"),
    "no classifier": (no_classifier, "It predicts no label"),
    "a description of other outputs": (undescribed, "differ about the classifier"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_fails(name: str, made: Made, tmp_path: Path) -> None:
    """A package that prepares or classifies wrongly fails, and the reason is the fault's."""
    damage, words = FAULTS[name]
    package = read_coreml_package(made.path)
    damage(package.spec)
    path = tmp_path / made.path.name
    write_coreml_package(package, path)
    _, verdict = made.judge(path)
    assert verdict.status == "failed", verdict
    assert words in (verdict.reason or ""), verdict.reason


def test_a_picture_is_refused_where_none_was_asked_for(made: Made) -> None:
    """An export without --image-input has no package that takes a picture, and the other way round."""
    assert "the model needs no picture" in (made.judge(image=None)[1].reason or "")
    assert "the model has none" in (made.judge(labels=())[1].reason or "")


def test_a_tensor_is_refused_where_a_picture_was_asked_for(tmp_path: Path) -> None:
    """A package that takes a tensor fails when the export promised a picture."""
    plain = made_package(tmp_path, None)
    image = image_input_of(plain.captured.inputs, IMAGENET)
    assert "It prepares no picture" in (plain.judge(image=image)[1].reason or "")


def exchanged(spec: Any) -> None:
    """Exchange the names of the two inputs or outputs, in the description and in the program alike."""
    names = {"logits": "probs", "probs": "logits"}
    for feature in spec.description.output:
        feature.name = names.get(feature.name, feature.name)
    block = coreml_edited_block(spec)
    for operation in block.operations:
        for output in operation.outputs:
            output.name = names.get(output.name, output.name)
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "name":
                    binding.name = names.get(binding.name, binding.name)
    block.outputs[:] = [names.get(name, name) for name in block.outputs]


class Two(nn.Module):
    """Two outputs of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.net = seeded()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.net(x)
        return {"logits": y, "probs": y.softmax(-1)}


def test_names_exchanged_in_description_and_program_fail(tmp_path: Path) -> None:
    """A package that is consistent, and whose outputs have each other's names, fails by its names."""
    plain = ImageInput((1 / 255,) * 3, (0.0,) * 3)
    captured = proof.capture(Two(), pictures(plain, 16), tmp_path)
    assert [spec.name for spec in captured.outputs] == ["logits", "probs"]
    path = coreml.emit(captured, FP16, tmp_path).path
    assert proof.judge(captured, path, FP16.name).status == "passed"
    package = read_coreml_package(path)
    exchanged(package.spec)
    shutil.rmtree(path)
    write_coreml_package(Package(package.spec, package.weights), path)
    verdict = proof.judge(captured, path, FP16.name)
    assert verdict.status == "failed"
    assert "It names its inputs and outputs x0, probs, logits" in (verdict.reason or "")


def test_a_picture_needs_one_input_of_one_picture(tmp_path: Path) -> None:
    """The program is not touched where the input is no picture of the statement's channels."""
    package = made_package(tmp_path, None)
    wrong = dataclasses.replace(package.captured, image=ImageInput((1.0,), (0.0,)))
    (tmp_path / "again").mkdir()
    with pytest.raises(LoweringError, match="is no picture"):
        coreml.emit(wrong, FP16, tmp_path / "again")
