"""ONNX and ORT artifacts of the three small networks are equal, small, reproducible, and safe to read."""

from __future__ import annotations

import copy
import functools
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import exporter.formats.onnx as onnx_format
from benchmarks.zoo import Does
from exporter.errors import LoweringError
from exporter.formats.onnx import onnx_export, ort_convert
from exporter.quantize.int8_recipe import int8_recipe_runner
from exporter.records import Array, Emission, Sample, TensorSpec
from tests import nets, proof
from tests.onnx_bytes import whole_onnx

VARIANTS = {v.name: v for v in onnx_format.VARIANTS if v.precision != "mixed"}
FLOAT = [v.name for v in onnx_format.VARIANTS if v.precision == "fp32"]
INT8 = [v.name for v in onnx_format.VARIANTS if v.precision == "int8"]


@functools.cache
def emitted(net: str, name: str, folder: Path) -> Emission:
    return onnx_format.emit(nets.captured_for(net, VARIANTS[name]), VARIANTS[name], folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a folder per network, so that each artifact is made once."""
    folders = {net: tmp_path_factory.mktemp(net) for net in nets.NETS}
    return lambda net: folders[net]


def held_out(net: str) -> tuple[Sample, ...]:
    return nets.samples(net, 1500, 64)


@functools.cache
def exact(net: str) -> list[Array]:
    """Return the float64 network's outputs."""
    module = copy.deepcopy(nets.trained(net)).double()

    def run(sample: Sample) -> tuple[Array, ...]:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(a).double() for a in sample))
        return tuple(o.numpy() for o in (outputs if isinstance(outputs, tuple) else (outputs,)))

    return stacked(run, held_out(net))


def stacked(run: Callable[[Sample], tuple[Array, ...]], samples: tuple[Sample, ...]) -> list[Array]:
    return [np.concatenate(column) for column in zip(*(run(s) for s in samples), strict=True)]


def max_error(expected: Array, actual: Array) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def sqnr_db(expected: Array, actual: Array) -> float:
    noise = ((actual.astype(np.float64) - expected) ** 2).sum()
    return float(10 * np.log10((expected.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))


@pytest.mark.parametrize("net", nets.NETS)
@pytest.mark.parametrize("name", FLOAT)
def test_float32_files_equal_the_float64_network(net: str, name: str, folders: Callable[[str], Path]) -> None:
    """An fp32 artifact, run from the written file, is within 1e-5 of the output's scale."""
    run, _ = onnx_format.load(emitted(net, name, folders(net)).path, VARIANTS[name], 1)
    for expected, actual in zip(exact(net), stacked(run, held_out(net)), strict=True):
        assert max_error(expected, actual) <= 1e-5


@pytest.mark.parametrize("net", nets.NETS)
def test_fp16_stays_close_and_takes_float32(net: str, folders: Callable[[str], Path]) -> None:
    """The fp16 artifact reads and gives float32, stores float16, and is at least 45 dB from float64."""
    path = emitted(net, "onnx-fp16", folders(net)).path
    run, _ = onnx_format.load(path, VARIANTS["onnx-fp16"], 1)
    structure = onnx_format.structure(path, VARIANTS["onnx-fp16"])
    assert {s.dtype for s in (*structure.inputs, *structure.outputs)} == {"float32"}
    assert set(structure.weight_elements) == {"float16"}
    for expected, actual in zip(exact(net), stacked(run, held_out(net)), strict=True):
        assert sqnr_db(expected, actual) >= 45


def test_fp16_keeps_sensitive_operators_in_float32(folders: Callable[[str], Path]) -> None:
    """Layer norm, softmax and the mean of the fp16 attention block read float32 values."""
    model = onnx.load(emitted("attention", "onnx-fp16", folders("attention")).path)
    types = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    sensitive = [n for n in model.graph.node if n.op_type in ("LayerNormalization", "Softmax", "ReduceMean")]
    assert [types[n.input[0]] for n in sensitive] == [TensorProto.FLOAT] * 3


@pytest.mark.parametrize("net", nets.NETS)
@pytest.mark.parametrize("name", INT8)
def test_int8_files_are_int8_and_good(net: str, name: str, folders: Callable[[str], Path]) -> None:
    """Every weight is stored as int8, and held-out digits come out at 20 dB or better."""
    path = emitted(net, name, folders(net)).path
    assert onnx_format.structure(path, VARIANTS[name]).quantized_weight_fraction == 1.0
    run, _ = onnx_format.load(path, VARIANTS[name], 1)
    for expected, actual in zip(exact(net), stacked(run, held_out(net)), strict=True):
        assert sqnr_db(expected, actual) >= 20


@pytest.mark.parametrize("net", nets.NETS)
@pytest.mark.parametrize("name", INT8)
def test_int8_files_do_what_their_program_does(net: str, name: str, folders: Callable[[str], Path]) -> None:
    """The artifact and the quantised program, in XNNPACK's rounding, differ by rounding ties only."""
    emission = emitted(net, name, folders(net))
    run, _ = onnx_format.load(emission.path, VARIANTS[name], 1)
    program = stacked(int8_recipe_runner(nets.quantized(net).module), held_out(net))
    for expected, actual in zip(program, stacked(run, held_out(net)), strict=True):
        assert sqnr_db(expected, actual) >= 30


@pytest.mark.parametrize("name", VARIANTS)
def test_names_and_shapes_are_the_models(name: str, folders: Callable[[str], Path]) -> None:
    """The file's inputs and outputs are named, ordered and shaped as the captured model's."""
    captured = nets.captured("two_in_two_out")
    path = emitted("two_in_two_out", name, folders("two_in_two_out")).path
    structure = onnx_format.structure(path, VARIANTS[name])
    assert (structure.inputs, structure.outputs) == (captured.inputs, captured.outputs)


@pytest.mark.parametrize("name", VARIANTS)
def test_structure_counts_matrix_weights_only(name: str, folders: Callable[[str], Path]) -> None:
    """Convolution and matrix weights are counted; biases, scales and constants are not."""
    structure = onnx_format.structure(emitted("cnn", name, folders("cnn")).path, VARIANTS[name])
    assert sum(structure.weight_elements.values()) == 16 * 9 + 16 * 9 + 16 * 16 + 160
    item_bytes = {"fp32": 4, "fp16": 2, "int8": 1}[VARIANTS[name].precision]
    assert structure.weight_bytes == 704 * item_bytes


def test_batch_norms_are_folded(folders: Callable[[str], Path]) -> None:
    """The fp32 CNN holds three convolutions and no batch norm."""
    operators = onnx_format.structure(
        emitted("cnn", "onnx-fp32", folders("cnn")).path, VARIANTS["onnx-fp32"]
    ).operators
    assert (operators["Conv"], operators.get("BatchNormalization", 0)) == (3, 0)


EMIT_HASHES = """
import hashlib, sys
from pathlib import Path
from exporter.formats import onnx
from tests import nets, proof
for variant in (v for v in onnx.VARIANTS if v.precision != "mixed"):
    path = onnx.emit(nets.captured_for("attention", variant), variant, Path(sys.argv[1])).path
    print(hashlib.sha256(path.read_bytes()).hexdigest())
"""
SOURCES = re.compile(rb"\.py\b|pkg\.torch|site-packages")


@pytest.mark.slow
def test_bytes_are_reproducible_and_say_nothing_of_this_machine(
    tmp_path: Path, folders: Callable[[str], Path]
) -> None:
    """Another process, with other hash seeds, writes the same bytes, without any source path."""
    files = [emitted("attention", name, folders("attention")).path.read_bytes() for name in VARIANTS]
    command = [sys.executable, "-W", "ignore", "-c", EMIT_HASHES, str(tmp_path)]
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert again == [hashlib.sha256(data).hexdigest() for data in files]
    assert [name for name, data in zip(VARIANTS, files, strict=True) if SOURCES.search(data)] == []


def test_converting_twice_gives_the_same_ort_file(tmp_path: Path) -> None:
    """ONNX Runtime's own writer orders a table at random; ours does not show it."""
    model = tmp_path / "model.onnx"
    model.write_bytes(whole_onnx(onnx_export.translate_fp32_to_onnx(nets.captured("cnn"))))
    files = [tmp_path / str(i) for i in range(4)]
    for file in files:
        ort_convert.convert_to_ort(model, file)
    assert len({file.read_bytes() for file in files}) == 1


def test_nothing_else_is_left_in_the_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """int8 emission leaves one file, and prints nothing to stdout."""
    onnx_format.emit(nets.captured_int8("cnn"), VARIANTS["ort-int8"], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["ort-int8.ort"]
    assert capfd.readouterr().out == ""


def test_an_output_may_be_named_like_an_inner_value(tmp_path: Path) -> None:
    """Renaming an output to a name the graph already uses inside still gives a valid, equal file."""
    captured = nets.captured("cnn")
    inner = {n.name for n in captured.program.graph.nodes if n.op == "call_function"}  # type: ignore[union-attr]
    assert "add_1" in inner or "add" in inner
    name = "add" if "add" in inner else "add_1"
    clashing = replace(captured, outputs=(TensorSpec(name, captured.outputs[0].shape),))
    path = onnx_format.emit(clashing, VARIANTS["onnx-fp32"], tmp_path).path
    run, _ = onnx_format.load(path, VARIANTS["onnx-fp32"], 1)
    assert onnx_format.structure(path, VARIANTS["onnx-fp32"]).outputs[0].name == name
    assert max_error(exact("cnn")[0], stacked(run, held_out("cnn"))[0]) <= 1e-5


def test_a_model_without_a_program_says_why(tmp_path: Path) -> None:
    """Control flow that torch.export cannot keep is a LoweringError in torch's words."""
    captured = replace(nets.captured("cnn"), program=None, program_error="data-dependent branch")
    with pytest.raises(LoweringError, match="data-dependent branch"):
        onnx_format.emit(captured, VARIANTS["onnx-fp32"], tmp_path)


def test_weights_that_exceed_one_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above protobuf's limit the message gives both sizes."""
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)
    with pytest.raises(LoweringError, match="one file holds up to"):
        onnx_format.emit(replace(nets.captured("cnn")), VARIANTS["ort-fp32"], tmp_path)


CORRUPTIONS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "all but the last byte": lambda data: data[:-1],
    "all but the last 100 bytes": lambda data: data[:-100],
    "random bytes": lambda data: np.random.default_rng(0).bytes(4096),
    "random bytes behind the mark": lambda data: data[:8] + np.random.default_rng(1).bytes(4096),
    "zeros": lambda data: bytes(len(data)),
    "ones": lambda data: data[:8] + b"\xff" * 4096,
    "text": lambda data: b"<html>404 not found</html>",
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-int8", "ort-fp32", "ort-int8"])
def test_corrupted_files_are_lowering_errors(
    name: str, corruption: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """Reading and loading a broken file raise LoweringError and nothing else."""
    broken = tmp_path / emitted("cnn", name, folders("cnn")).path.name
    broken.write_bytes(CORRUPTIONS[corruption](emitted("cnn", name, folders("cnn")).path.read_bytes()))
    with pytest.raises(LoweringError):
        onnx_format.structure(broken, VARIANTS[name])
    with pytest.raises(LoweringError):
        onnx_format.load(broken, VARIANTS[name], 1)


@pytest.mark.parametrize("name", ["onnx-int8", "ort-int8"])
def test_flipped_bytes_never_raise_anything_else(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """A file with a few bytes changed is read, or refused as LoweringError."""
    data = emitted("cnn", name, folders("cnn")).path.read_bytes()
    path = tmp_path / f"flipped{VARIANTS[name].suffix}"
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        changed = bytearray(data)
        for position in rng.integers(0, len(data), 8):
            changed[position] = rng.integers(256)
        path.write_bytes(changed)
        try:
            onnx_format.structure(path, VARIANTS[name])
        except LoweringError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_references_to_other_files_are_refused(place: str, tmp_path: Path) -> None:
    """A tensor that names another file is never followed."""
    outside = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[2, 2], data_location=TensorProto.EXTERNAL
    )
    outside.external_data.add(key="location", value="../../etc/passwd")
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if place == "attribute":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=outside))
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 2])],
        [value("y", TensorProto.FLOAT, [1, 2])],
        [outside] if place == "initializer" else [],
    )
    path = tmp_path / "hostile.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    for read in (onnx_format.structure, lambda p, v: onnx_format.load(p, v, 1)):
        with pytest.raises(LoweringError, match="another file"):
            read(path, VARIANTS["onnx-fp32"])


def test_a_missing_file_is_a_lowering_error(tmp_path: Path) -> None:
    """Reading a missing file says that it is missing."""
    with pytest.raises(LoweringError, match="cannot be read"):
        onnx_format.structure(tmp_path / "gone.onnx", VARIANTS["onnx-fp32"])


def loudest(path: Path) -> None:
    """Make an int8 matrix product whose every sum of two products is beyond 16 bits; its result is 64."""
    scales = {"x_scale": 1 / 255, "w_scale": 1 / 127, "y_scale": 64 / 255}
    constants = [onnx.numpy_helper.from_array(np.array(v, np.float32), n) for n, v in scales.items()]
    constants.append(onnx.numpy_helper.from_array(np.array(0, np.uint8), "zero"))
    constants.append(onnx.numpy_helper.from_array(np.full((64, 8), 127, np.int8), "w"))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "x_scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "y_scale", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "y_scale", "zero"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 64]), ("y", [1, 8]))
    ]
    graph = helper.make_graph(nodes, "loudest", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def test_sums_do_not_saturate_on_x86(tmp_path: Path) -> None:
    """The session adds in 32 bits, as a phone does, though x86 without VNNI adds in 16."""
    loudest(tmp_path / "loudest.onnx")
    run, _ = onnx_format.load(tmp_path / "loudest.onnx", VARIANTS["onnx-int8"], 1)
    (product,) = run((np.ones((1, 64), np.float32),))
    np.testing.assert_allclose(product, 64, rtol=0.01)


@pytest.mark.parametrize("alpha", [1, 2])
def test_masks_of_integers_are_subtracted_from_floats(alpha: int, tmp_path: Path) -> None:
    """`1.0 - mask` of integers is float32, for which PyTorch's exporter finds no operator."""

    def masked(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        mask = (x > 0).to(torch.int64)
        return net.layer(x) * torch.rsub(mask.sum(-1, keepdim=True), 1.5, alpha=alpha)  # type: ignore[operator, no-any-return]

    generator = np.random.default_rng(0)
    rows = [(generator.normal(size=(1, 4)).astype(np.float32),) for _ in range(6)]
    captured = proof.capture(Does(masked, layer=nn.Linear(4, 3)), rows, tmp_path)
    assert proof.prove(captured, "onnx-fp32", tmp_path).reason is None


@pytest.mark.parametrize("bounds", [(0, 0.2), (-0.1, 1), (None, 0.2), (0, 1)])
def test_bounds_of_two_types_are_exported(bounds: tuple[float | None, float], tmp_path: Path) -> None:
    """`clamp(0, 0.2)` has an integer and a float, which PyTorch's exporter refuses."""
    net = Does(lambda net, x: net.layer(x).clamp(*bounds), layer=nn.Linear(4, 3))
    generator = np.random.default_rng(0)
    rows = [(generator.normal(size=(1, 4)).astype(np.float32),) for _ in range(6)]
    captured = proof.capture(net, rows, tmp_path)
    assert proof.prove(captured, "onnx-fp32", tmp_path).reason is None
