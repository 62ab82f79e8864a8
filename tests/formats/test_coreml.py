from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter.formats.coreml as coreml
from exporter.capture.captured_program import captured_program_matrix_weights
from exporter.errors import CannotRunHere, LoweringError
from exporter.formats.coreml.coreml_compress import (
    coreml_operations_to_compress,
    load_coreml_program_to_compress,
)
from exporter.formats.coreml.coreml_convert import convert_to_coreml
from exporter.formats.coreml.coreml_package import (
    NAMES_KEY,
    coremltools_quietly_for_package,
    read_coreml_package,
    write_coreml_package,
)
from exporter.formats.coreml.interpreter import mil_program, table
from exporter.formats.coreml.package_description import check_package_description
from exporter.records import About, Captured, TensorSpec, Variant
from tests.nets import NETS, captured, samples

VARIANTS: dict[str, Variant] = {variant.precision: variant for variant in coreml.VARIANTS}
WEIGHTS = Path("Data", "com.apple.CoreML", "weights", "weight.bin")
SPEC = Path("Data", "com.apple.CoreML", "model.mlmodel")


def capture(module: nn.Module, *example: Tensor, names: tuple[str, ...] = (), out: str = "y") -> Captured:
    output = module.eval()(*example)
    specs = tuple(
        TensorSpec(name, tuple(t.shape), str(t.dtype).removeprefix("torch."))
        for name, t in zip(names or ("a", "b", "c"), example, strict=False)
    )
    program = torch.export.export(module, example)
    return Captured(module, program, "", example, specs, (TensorSpec(out, tuple(output.shape)),))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("attention")
    net = captured("attention")
    return {v.precision: coreml.emit(net, v, directory).path for v in coreml.VARIANTS}


@pytest.fixture
def package(packages: dict[str, Path], tmp_path: Path) -> Path:
    """Return a copy of the package, to be damaged."""
    return Path(shutil.copytree(packages["w8"], tmp_path / "copy.mlpackage"))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("precision", "stored"), [("fp16", "float16"), ("w8", "int8"), ("w4", "uint4")])
def test_weights_are_stored_as_said(name: str, precision: str, stored: str, tmp_path: Path) -> None:
    """The file holds inputs, outputs and all weights, nearly all in the variant's type."""
    net = captured(name)
    contents = coreml.structure(coreml.emit(net, VARIANTS[precision], tmp_path).path, VARIANTS[precision])
    assert (contents.inputs, contents.outputs) == (net.inputs, net.outputs)
    total = captured_program_matrix_weights(net)
    assert sum(contents.weight_elements.values()) == total
    assert contents.weight_elements[stored] >= 0.94 * total
    assert contents.quantized_weight_fraction == (0 if precision == "fp16" else 1)


def test_file_sizes(packages: dict[str, Path]) -> None:
    """8 bits halve the weights, 4 bits halve them again."""
    sizes = {p: coreml.structure(path, VARIANTS[p]).weight_bytes for p, path in packages.items()}
    assert sizes["fp16"] == 2 * sizes["w8"] == 4 * sizes["w4"]


def test_operators(packages: dict[str, Path]) -> None:
    """The graph is what coremltools optimised, with one unpacking operator for each compressed weight."""
    plain = coreml.structure(packages["fp16"], VARIANTS["fp16"]).operators
    packed = coreml.structure(packages["w4"], VARIANTS["w4"]).operators
    assert plain["linear"] == 4
    assert packed == {**plain, "constexpr_lut_to_dense": 5}


@pytest.mark.parametrize(("precision", "limit_db"), [("w8", 40), ("w4", 18)])
def test_weights_stay_close(precision: str, limit_db: float, packages: dict[str, Path]) -> None:
    """Each weight, unpacked by coremltools from the written file, is the network's own, less the rounding."""
    exact = {tuple(p.shape): p.detach().numpy() for p in captured("attention").module.parameters()}
    unpacked = [
        operation.materialized_val_inference()
        for operation in coreml_operations_to_compress(
            load_coreml_program_to_compress(read_coreml_package(packages[precision]))
        )
        if operation.op_type.startswith("constexpr_")
    ]
    assert len(unpacked) == 5
    for weight in unpacked:
        noise = ((weight - exact[weight.shape]) ** 2).sum()
        assert 10 * np.log10((exact[weight.shape] ** 2).sum() / noise) > limit_db


def test_note_gives_the_weights_quality(tmp_path: Path) -> None:
    """A note says what compression cost the weights, and 8 bits cost less than 4."""
    net = captured("attention")
    decibels = [float(coreml.emit(net, VARIANTS[p], tmp_path).notes[-1].split()[2]) for p in ("w8", "w4")]
    assert 40 < decibels[0] < 60
    assert 18 < decibels[1] < 30


def test_bytes_are_reproducible(tmp_path: Path) -> None:
    """A second conversion in the same process writes the same bytes: no random ids, no dates."""
    net = captured("cnn")
    first = coreml.emit(net, VARIANTS["w4"], tmp_path).path
    again = dataclasses.replace(net)
    assert convert_to_coreml(net)[0] is not convert_to_coreml(again)[0]
    (tmp_path / "again").mkdir()
    second = coreml.emit(again, VARIANTS["w4"], tmp_path / "again").path
    files = [f.relative_to(first) for f in sorted(first.rglob("*")) if f.is_file()]
    assert len(files) == 3
    assert [(first / f).read_bytes() for f in files] == [(second / f).read_bytes() for f in files]


def test_coremltools_loads_the_package(packages: dict[str, Path]) -> None:
    """The folder that we lay out ourselves is a package to Core ML's own library."""
    ct = coremltools_quietly_for_package()
    model = ct.models.MLModel(str(packages["w4"]), skip_model_load=True)
    assert [feature.name for feature in model.get_spec().description.output] == ["logits"]
    assert Path(model.weights_dir).joinpath("weight.bin").stat().st_size > 2464


def test_conversion_is_shared() -> None:
    """The variants of one captured model convert it once."""
    net = captured("two_in_two_out")
    assert convert_to_coreml(net)[0] is convert_to_coreml(net)[0]


def test_odd_names_map_back(tmp_path: Path) -> None:
    """Names that Core ML refuses are changed in the file, noted, and given back by the reader."""
    net = capture(nn.Linear(8, 16), torch.ones(1, 8), names=("0.pixel-values",), out="0_pixel_values")
    emission = coreml.emit(net, VARIANTS["w8"], tmp_path)
    spec = read_coreml_package(emission.path).spec
    assert spec.description.input[0].name == "_0_pixel_values"
    assert "'0.pixel-values' is '_0_pixel_values'" in emission.notes[1]
    contents = coreml.structure(emission.path, VARIANTS["w8"])
    assert (contents.inputs[0].name, contents.outputs[0].name) == ("0.pixel-values", "0_pixel_values")


class Tokens(nn.Module):
    """A network of an embedding and attention, which coremltools reads from the exported program only."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, mask: Tensor, tokens: Tensor) -> Tensor:
        return self.block(self.embed(tokens) * mask.unsqueeze(-1)).mean(1)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """A network with an LSTM, which coremltools reads from a trace only."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]  # type: ignore[no-any-return]


def test_integer_inputs(tmp_path: Path) -> None:
    """int64 tokens become int32, and the notes say so; swapped names don't swap the inputs."""
    net = capture(Tokens(), torch.ones(1, 7), torch.ones(1, 7, dtype=torch.int64), names=("tokens", "mask"))
    emission = coreml.emit(net, VARIANTS["fp16"], tmp_path)
    assert "mask: int32, because Core ML has no 64-bit integers." in emission.notes
    description = read_coreml_package(emission.path).spec.description
    assert [feature.name for feature in description.input] == ["tokens", "mask"]
    assert "TorchExport" in description.metadata.userDefined["com.github.apple.coremltools.source_dialect"]
    inputs = coreml.structure(emission.path, VARIANTS["fp16"]).inputs
    assert inputs == (TensorSpec("tokens", (1, 7), "float32"), TensorSpec("mask", (1, 7), "int32"))


def test_recurrent_layers(tmp_path: Path) -> None:
    """What the exported program's reader lacks is converted from the trace."""
    emission = coreml.emit(capture(Recurrent(), torch.ones(1, 5, 8)), VARIANTS["fp16"], tmp_path)
    assert coreml.structure(emission.path, VARIANTS["fp16"]).operators["lstm"] == 1


class Positive(nn.Module):
    """Returns as many values as are above 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_a_size_that_depends_on_the_data_is_any(tmp_path: Path) -> None:
    """The description has no shape for such an output; the program does, with a size for each call."""
    x = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
    emission = coreml.emit(capture(Positive(), x), VARIANTS["fp16"], tmp_path)
    assert coreml.structure(emission.path, VARIANTS["fp16"]).outputs == (TensorSpec("y", (-1,), "float32"),)
    run, _ = coreml.load(emission.path, VARIANTS["fp16"], 1)
    assert run((x.numpy(),))[0].tolist() == [1, 3, 4]
    assert run((-x.numpy(),))[0].tolist() == [2]


class Svd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[1]  # type: ignore[no-any-return]


def test_unsupported_operator(tmp_path: Path) -> None:
    """The cause names the operator, and the line of the user's model."""
    with pytest.raises(LoweringError, match="linalg_svd") as raised:
        coreml.emit(capture(Svd(), torch.eye(4)), VARIANTS["fp16"], tmp_path)
    assert "test_coreml.py:" in str(raised.value.source)
    assert not list(tmp_path.iterdir())


def test_no_program(tmp_path: Path) -> None:
    """The error is the export's own when there is no graph."""
    net = dataclasses.replace(captured("cnn"), program=None, program_error="data-dependent branch in f.py:3")
    with pytest.raises(LoweringError, match=r"branch in f\.py:3"):
        coreml.emit(net, VARIANTS["fp16"], tmp_path)


def test_nothing_to_compress(tmp_path: Path) -> None:
    """A file that would be fp16 is not named w8."""
    with pytest.raises(LoweringError, match="no weight to compress"):
        coreml.emit(capture(nn.ReLU(), torch.ones(1, 4)), VARIANTS["w8"], tmp_path)


@pytest.mark.parametrize("precision", ["w8", "w4"])
@pytest.mark.parametrize(("inputs", "width", "share"), [(4, 9, "20%"), (8, 3, "11%")])
def test_too_little_to_compress(inputs: int, width: int, share: str, precision: str, tmp_path: Path) -> None:
    """Coremltools compresses no tensor of fewer than ten values: such a file would stay float16."""
    net = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, 1))
    with pytest.raises(LoweringError, match=f"fewer than 10 values, and these hold {share} of the weights"):
        coreml.emit(capture(net, torch.ones(1, inputs)), VARIANTS[precision], tmp_path)


def test_one_tensor_too_small_to_compress(tmp_path: Path) -> None:
    """Beside larger ones it stays in float16, and the rest is compressed."""
    net = nn.Sequential(nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 1))
    path = coreml.emit(capture(net, torch.ones(1, 16)), VARIANTS["w8"], tmp_path).path
    assert coreml.structure(path, VARIANTS["w8"]).weight_elements == {"int8": 144, "float16": 9}


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
@pytest.mark.parametrize(("precision", "limit_db"), [("fp16", 50), ("w8", 30), ("w4", 10)])
def test_the_interpreter_runs_it_here(precision: str, limit_db: float, packages: dict[str, Path]) -> None:
    """Off a Mac the reference interpreter computes the network, as well as the stored weights allow."""
    net = captured("attention")
    run, runtime = coreml.load(packages[precision], VARIANTS[precision], 1)
    assert runtime.startswith("reference interpreter")
    rows = samples("attention", 1400, 8)
    exact = np.concatenate([net.module(*map(torch.from_numpy, row)).detach().numpy() for row in rows])
    actual = np.concatenate([run(row)[0] for row in rows])
    assert 10 * np.log10((exact**2).sum() / ((actual - exact) ** 2).sum()) > limit_db


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_an_operator_that_the_interpreter_does_not_know(
    packages: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package does not run here, and the reason names the operator."""
    monkeypatch.setattr(
        mil_program, "OPERATORS", {n: f for n, f in table.OPERATORS.items() if n != "layer_norm"}
    )
    with pytest.raises(CannotRunHere, match=r"macOS and iOS only.*operator layer_norm"):
        coreml.load(packages["fp16"], VARIANTS["fp16"], 1)


def _cut_weights(path: Path) -> None:
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(data[: len(data) - 200])


def _half_weights(path: Path) -> None:
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(data[: len(data) // 2])


def _blank_weights(path: Path) -> None:
    (path / WEIGHTS).write_bytes(bytes((path / WEIGHTS).stat().st_size))


def _no_weights(path: Path) -> None:
    (path / WEIGHTS).unlink()


def _linked_weights(path: Path) -> None:
    target = (path / WEIGHTS).rename(path.with_suffix(".elsewhere"))
    (path / WEIGHTS).symlink_to(target)


def _cut_spec(path: Path) -> None:
    data = (path / SPEC).read_bytes()
    (path / SPEC).write_bytes(data[: len(data) // 2])


def _empty_spec(path: Path) -> None:
    (path / SPEC).write_bytes(b"")


def _no_manifest(path: Path) -> None:
    (path / "Manifest.json").unlink()


def _manifest_elsewhere(path: Path) -> None:
    manifest = json.loads((path / "Manifest.json").read_text())
    for item in manifest["itemInfoEntries"].values():
        item["path"] = "../../../etc/passwd"
    (path / "Manifest.json").write_text(json.dumps(manifest))


def _wrong_shape(path: Path) -> None:
    package = read_coreml_package(path)
    package.spec.description.output[0].type.multiArrayType.shape[1] = 11
    shutil.rmtree(path)
    write_coreml_package(package, path)


def _missing_name(path: Path) -> None:
    package = read_coreml_package(path)
    package.spec.description.metadata.userDefined[NAMES_KEY] = '{"inputs": []}'
    shutil.rmtree(path)
    write_coreml_package(package, path)


def _a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"not a folder")


FAULTS: dict[Callable[[Path], None], str] = {
    _cut_weights: "cut off",
    _half_weights: "cut off",
    _blank_weights: "weight.bin",
    _no_weights: "weight.bin",
    _linked_weights: "no file .*weight.bin",
    _cut_spec: "malformed",
    _empty_spec: "no ML Program",
    _no_manifest: r"no file Manifest\.json",
    _manifest_elsewhere: "passwd",
    _wrong_shape: r"\[1, 11\]",
    _missing_name: "malformed",
    _a_file: "not a Core ML package",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_damage_is_found(fault: Callable[[Path], None], package: Path) -> None:
    """A package that is not whole is refused with what is wrong."""
    coreml.structure(package, VARIANTS["w8"])
    fault(package)
    with pytest.raises(LoweringError, match=FAULTS[fault]):
        coreml.structure(package, VARIANTS["w8"])


ABOUT = About(
    "Tells digits apart", "The lab", "BSD-3-Clause", "2.1", tuple("0123456789"), "values 0 to 1, 8 x 8 pixels"
)


@pytest.mark.parametrize("precision", ["fp16", "w8"])
def test_a_package_tells_people_about_its_model(precision: str, tmp_path: Path) -> None:
    """Author, licence, version, labels and preparation are in the written file, compressed or not."""
    net = dataclasses.replace(captured("cnn"), about=ABOUT)
    path = coreml.emit(net, VARIANTS[precision], tmp_path).path
    description = read_coreml_package(path).spec.description
    metadata = description.metadata
    assert (metadata.shortDescription, metadata.author) == ("Tells digits apart", "The lab")
    assert (metadata.license, metadata.versionString) == ("BSD-3-Clause", "2.1")
    assert json.loads(metadata.userDefined["classes"]) == list("0123456789")
    assert "values 0 to 1" in description.input[0].shortDescription
    assert "Scores of 10 classes" in description.output[0].shortDescription
    contents = coreml.structure(path, VARIANTS[precision])
    assert (contents.inputs, contents.outputs) == (net.inputs, net.outputs)


def test_labels_of_other_outputs_are_left_out(tmp_path: Path) -> None:
    """Labels are for an output that has a score for each; nothing said leaves no text."""
    net = dataclasses.replace(captured("cnn"), about=About(labels=("cat", "dog")))
    metadata = read_coreml_package(
        coreml.emit(net, VARIANTS["fp16"], tmp_path).path
    ).spec.description.metadata
    assert "classes" not in metadata.userDefined
    assert (metadata.author, metadata.license, metadata.versionString) == ("", "", "")


@pytest.mark.parametrize(
    "change",
    [
        lambda description: setattr(description.metadata, "author", "Another"),
        lambda description: description.metadata.userDefined.update(classes="[]"),
        lambda description: description.metadata.userDefined.pop("classes"),
        lambda description: setattr(description.input[0], "shortDescription", ""),
    ],
)
def test_texts_that_are_not_the_models_are_refused(change: Callable[[Any], object], tmp_path: Path) -> None:
    """What was read back must be what was to be written."""
    net = dataclasses.replace(captured("cnn"), about=ABOUT)
    spec = read_coreml_package(coreml.emit(net, VARIANTS["fp16"], tmp_path).path).spec
    check_package_description(spec, net)
    change(spec.description)
    with pytest.raises(LoweringError, match="the model"):
        check_package_description(spec, net)
