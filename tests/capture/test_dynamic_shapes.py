"""A network is captured with ranges of sizes, and its artifacts are right at the ends and between."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import captured_program
from exporter.capture.dynamic_shapes import (
    dynamic_shapes_of_pixels,
    resolve_dynamic_shapes,
    run_reference_of_dynamic_shapes,
    torch_dynamic_shapes,
)
from exporter.capture.float64_reference import run_float64_reference
from exporter.config.buckets import buckets_of_dynamic_shapes
from exporter.config.options import parse_dynamic_options
from exporter.errors import CaptureError, LoweringError, UsageError
from exporter.files import EVIDENCE, SIZES
from exporter.formats import FORMATS, VARIANTS
from exporter.pipeline.format_refusals import refuse_sizes_by_format
from exporter.pipeline.stage_results import ExpectedResult
from exporter.pipeline.verify_stage import verify_artifact_in_stage
from exporter.quantize import int8_recipe
from exporter.records import (
    Captured,
    DynamicSize,
    ImageInput,
    Limits,
    Model,
    Sample,
    SizeRange,
    TensorSpec,
    Verdict,
)
from exporter.verify import reference_io
from exporter.verify.several_sizes import save_several_sizes


class Pictures(nn.Module):
    """Two convolutions with a shortcut around a third, and an average over any size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.around = nn.Conv2d(8, 8, 3, 1, 1)
        self.head = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head((x + self.around(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Texts(nn.Module):
    """Tokens with positions, and attention of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(30, 16), nn.Embedding(12, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        scores = x @ x.transpose(-2, -1) + (1.0 - mask.float())[:, None] * -1e4
        return self.head(torch.softmax(scores, -1) @ x).sum(1)  # type: ignore[no-any-return]


class Fixed(nn.Module):
    """A position table for one size only, as vision transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 3, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class Scaled(nn.Module):
    """The height is a factor of the output: the call's, or always the example's."""

    def __init__(self, height: int = 0) -> None:
        super().__init__()
        self.height = height

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * (self.height or x.shape[2])


DYNAMIC = {
    "pictures": ["x=1x3x{16..48:16}x{width=16..48:16}"],
    "texts": ["ids={batch=1..3}x{length=4..12}:int64", "mask={batch}x{length}:int64"],
}


def pictures(count: int = 4) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((1, 3, 48, 48)).astype(np.float32),) for _ in range(count)]


def texts(count: int = 4) -> list[Sample]:
    rng = np.random.default_rng(0)
    ones = np.ones((3, 12), np.int64)
    return [(rng.integers(0, 30, (3, 12)), ones) for _ in range(count)]


def model(module: nn.Module, samples: list[Sample], names: tuple[str, ...] = ("x",)) -> Model:
    specs = tuple(TensorSpec(n, a.shape, a.dtype.name) for n, a in zip(names, samples[0], strict=True))
    return Model(module.eval(), "tests:net", specs, None, 0)


@functools.cache
def captured(kind: str) -> tuple[Captured, Path]:
    """Capture a network, and write what its artifacts are judged by."""
    torch.manual_seed(0)
    samples = pictures() if kind == "pictures" else texts()
    net = model(Pictures(), samples) if kind == "pictures" else model(Texts(), samples, ("ids", "mask"))
    sizes = resolve_dynamic_shapes(parse_dynamic_options(DYNAMIC[kind]), net.inputs)
    made = captured_program.capture_program(net, samples[0], others=samples[1:], sizes=sizes)
    folder = Path(tempfile.mkdtemp(prefix="export-mobile-tests-"))
    reference_io.save_reference_io(run_float64_reference(made, samples, {})[0], folder / EVIDENCE)
    save_several_sizes(run_reference_of_dynamic_shapes(made, samples), folder / SIZES)
    return made, folder


@functools.cache
def emitted(kind: str, name: str) -> Path:
    """Make an artifact from the program that workers read from a file."""
    made, _ = captured(kind)
    folder = Path(tempfile.mkdtemp(prefix="export-mobile-tests-"))
    captured_program.save_captured_program(made, folder)
    return (
        FORMATS[VARIANTS[name].format]
        .emit(captured_program.load_captured_program(folder), VARIANTS[name], folder)
        .path
    )


def proven(made: Captured, folder: Path, name: str, path: Path | None = None) -> Verdict:
    variant = VARIANTS[name]
    path = path or FORMATS[variant.format].emit(made, variant, folder).path
    limits = Limits(min_delegated=0.0)
    expected = ExpectedResult(
        made.inputs, made.outputs, captured_program.captured_program_matrix_weights(made), limits
    )
    return verify_artifact_in_stage(path, variant, folder / EVIDENCE, None, expected).verdict


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("pictures", "onnx-fp32"),
        ("pictures", "ort-fp32"),
        ("pictures", "executorch-xnnpack-fp32"),
        ("pictures", "torchscript-lite-fp32"),
        ("texts", "onnx-fp32"),
        ("texts", "ort-fp32"),
        ("texts", "executorch-xnnpack-fp32"),
        ("texts", "torchscript-lite-fp32"),
        ("pictures", "coreml-fp16"),
        ("pictures", "coreml-w8"),
        ("texts", "coreml-fp16"),
    ],
)
def test_artifacts_are_right_at_the_ends_and_between(kind: str, name: str) -> None:
    """One file takes every size of the ranges, after the program went through the workers' file."""
    made, folder = captured(kind)
    verdict = proven(made, folder, name, emitted(kind, name))
    assert (verdict.status, verdict.reason) == ("passed", None)
    assert verdict.sizes is not None
    ends = ("x[2]=16, width=16", "x[2]=48, width=48", "x[2]=32, width=32", "x[2]=48, width=16")
    texts_ends = ("batch=1, length=4", "batch=3, length=12", "batch=2, length=8", "batch=3, length=4")
    assert verdict.sizes.verified == (ends if kind == "pictures" else texts_ends)
    beyond = ("x[2]=15", "x[2]=17", "x[2]=49", "width=15", "width=17", "width=49")
    texts_beyond = ("batch=4", "length=3", "length=13")
    assert verdict.sizes.refused == (beyond if kind == "pictures" else texts_beyond)


REFUSALS = {
    "coreml": "must not have the shape",
    "onnx": "Name:'refuse_sizes_of_|INVALID_ARGUMENT",
    "executorch": "numel|resizing tensor",
    "torchscript": "axis . of input . must be",
}
FORBIDDEN: dict[str, list[tuple[tuple[int, ...], ...]]] = {
    # Some have no more values than allowed sizes: 15 x 64, 24 x 32, 64 x 16.
    "pictures": [
        ((1, 3, 15, 64),),
        ((1, 3, 24, 32),),
        ((1, 3, 31, 33),),
        ((1, 3, 64, 48),),
        ((1, 3, 48, 1),),
        ((1, 3, 64, 16),),
    ],
    "texts": [((1, 3), (1, 3)), ((4, 12), (4, 12)), ((2, 8), (1, 8)), ((2, 8), (2, 4)), ((2, 8), (4, 4))],
}


@pytest.mark.parametrize(
    "name", ["onnx-fp32", "onnx-fp16", "executorch-xnnpack-fp32", "torchscript-lite-fp32", "coreml-fp16"]
)
@pytest.mark.parametrize("kind", FORBIDDEN)
def test_the_file_itself_refuses_other_sizes(kind: str, name: str) -> None:
    """It refuses two wrong sizes at once, and a name's two places that differ; allowed sizes run between.

    Core ML checks each input on its own.
    """
    made, _ = captured(kind)
    variant = VARIANTS[name]
    run, _ = FORMATS[variant.format].load(emitted(kind, name), variant, 1)
    allowed = [(1, 3, 32, 48)] if kind == "pictures" else [(2, 8), (2, 8)]
    dtypes = [spec.dtype for spec in made.inputs]
    for shapes in FORBIDDEN[kind]:
        if name == "coreml-fp16" and len({*shapes}) > 1:
            continue
        with pytest.raises(Exception, match=REFUSALS[variant.format]):
            run(tuple(np.ones(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)))
        run(tuple(np.ones(shape, dtype) for shape, dtype in zip(allowed, dtypes, strict=True)))


def test_a_size_that_a_trace_holds_fails(tmp_path: Path) -> None:
    """An artifact that computes with the example's size is right there, and wrong elsewhere."""
    samples = pictures()
    net = model(Scaled(), samples)
    sizes = resolve_dynamic_shapes(parse_dynamic_options(DYNAMIC["pictures"]), net.inputs)
    made = captured_program.capture_program(net, samples[0], others=samples[1:], sizes=sizes)
    reference_io.save_reference_io(run_float64_reference(made, samples, {})[0], tmp_path / EVIDENCE)
    save_several_sizes(run_reference_of_dynamic_shapes(made, samples), tmp_path / SIZES)
    verdict = proven(replace(made, module=Scaled(48)), tmp_path, "torchscript-lite-fp32")
    assert verdict.status == "failed"
    assert verdict.reason is not None
    assert verdict.reason.startswith("At x[2]=16, width=16 its largest error is")


def input_sizes(program: torch.export.ExportedProgram) -> list[str]:
    """Write the sizes of the inputs, open ones by their symbols."""
    nodes = {node.name: node for node in program.graph.nodes}
    return [str(nodes[name].meta["val"].shape) for name in program.graph_signature.user_inputs]


def test_int8_keeps_the_ranges(tmp_path: Path) -> None:
    """The quantised program takes every size, and its file's outputs are near the network's."""
    made, folder = captured("pictures")
    assert made.program is not None
    before = input_sizes(made.program)
    quantized = int8_recipe.quantize_by_int8_recipe(made.program, pictures())
    assert input_sizes(made.program) == before, "quantising fixes no size of the float program"
    shapes = torch_dynamic_shapes(quantized.module, made.dynamic, 1)
    int8_recipe.save_int8_recipe(replace(quantized, dynamic_shapes=shapes), tmp_path)
    low = replace(made, program=int8_recipe.load_int8_recipe_program(tmp_path))
    variant = VARIANTS["onnx-int8"]
    path = FORMATS["onnx"].emit(low, variant, tmp_path).path
    run, _ = FORMATS["onnx"].load(path, variant, 1)
    for size in (16, 32, 48):
        x = np.ascontiguousarray(pictures(1)[0][0][:, :, :size])
        with torch.no_grad():
            expected = made.module(torch.from_numpy(x)).numpy()
        assert np.abs(run((x,))[0] - expected).max() < 0.1 * np.abs(expected).max()
    assert (folder / SIZES).exists()


class Halved(Pictures):
    """Computes with the height as a Python number, which fixes it in a graph, but not in a call."""

    def forward(self, x: Tensor) -> Tensor:
        height = int(x.shape[2]) // 2
        return super().forward(nn.functional.interpolate(x, (height, height)))


@pytest.mark.parametrize(
    "name",
    ["onnx-fp32", "ort-fp32", "onnx-fp16", "executorch-xnnpack-fp32", "torchscript-lite-fp32"],
)
def test_a_bucket_refuses_the_sizes_beside_it(name: str, tmp_path: Path) -> None:
    """A file of one size, of a network whose graph has no ranges, is right there and refuses the next."""
    samples: list[Sample] = [(sample[0][:, :, :16, :16].copy(),) for sample in pictures()]
    net = model(Halved(), samples)
    (bucket, *_) = buckets_of_dynamic_shapes(parse_dynamic_options(["1x3x{side=16,32}x{side}"]))
    sizes = resolve_dynamic_shapes(bucket.shapes, net.inputs)
    made = captured_program.capture_program(net, samples[0], others=samples[1:], sizes=sizes)
    reference_io.save_reference_io(run_float64_reference(made, samples, {})[0], tmp_path / EVIDENCE)
    save_several_sizes(run_reference_of_dynamic_shapes(made, samples), tmp_path / SIZES)
    refuse_sizes_by_format(made, VARIANTS["executorch-vulkan-fp16"])
    verdict = proven(made, tmp_path, name)
    assert (verdict.status, verdict.reason) == ("passed", None)
    assert verdict.sizes is not None
    assert (verdict.sizes.verified, verdict.sizes.refused) == (("side=16",), ("side=15", "side=17"))
    if name.startswith("torchscript"):  # a trace without its check takes any size
        unchecked = FORMATS["torchscript"].emit(replace(made, dynamic=()), VARIANTS[name], tmp_path).path
        verdict = proven(made, tmp_path, name, unchecked)
        assert verdict.status == "failed"
        assert "side=15" in str(verdict.reason)


def test_a_network_of_one_size_is_refused() -> None:
    """The message has the way out: an export for each size."""
    net = model(Fixed(), [(np.zeros((1, 3, 16, 16), np.float32),)])
    sizes = resolve_dynamic_shapes(parse_dynamic_options(["1x3x{8..16}x16"]), net.inputs)
    with pytest.raises(CaptureError, match="cannot have the ranges of --dynamic") as caught:
        captured_program.capture_program(net, (np.zeros((1, 3, 16, 16), np.float32),), sizes=sizes)
    assert caught.value.code == "EM-DYNAMIC"


SPECS = (TensorSpec("x", (1, 3, 32, 32)), TensorSpec("y", (1,)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["z=1x3x{16..48}x32"], "names z; the inputs are x, y"),
        (["x=1x3x{16..48}"], "gives x 3 sizes"),
        (["x=1x4x{16..48}x32"], "gives x 4 on axis 1; the example has 3"),
        (["x=1x3x{48..64}x32"], "48 to 64 in steps of 1 on axis 2; the example has 32"),
        (["x=1x3x{16..64:12}x32"], "in steps of 12 on axis 2; the example has 32"),
        (["1x3x{16..48}x32", "{1..2}", "{1..2}"], "names input 2"),
    ],
)
def test_ranges_must_fit_the_example(options: list[str], words: str) -> None:
    """The example that everything else is measured at is one of the sizes."""
    with pytest.raises(UsageError, match=words):
        resolve_dynamic_shapes(parse_dynamic_options(options), SPECS)


def test_pixels_have_the_planes_ranges() -> None:
    """Height and width are the axes before the channels, with the preprocessing embedded."""
    planes = (DynamicSize(SizeRange("h", 1, 2), ((0, 2),)), DynamicSize(SizeRange("w", 1, 2), ((0, 3),)))
    assert [size.places for size in dynamic_shapes_of_pixels(planes)] == [((0, 1),), ((0, 2),)]


@pytest.mark.parametrize("name", ["coreml-fp16", "coreai-fp16", "executorch-vulkan-fp16"])
def test_formats_of_one_size_are_refused(name: str) -> None:
    """What cannot have ranges says why, and the others are made."""
    made, _ = captured("pictures")
    if name == "coreml-fp16":
        made = replace(made, image=ImageInput((1.0,) * 3, (0.0,) * 3))
    with pytest.raises(LoweringError, match="list the sizes"):
        refuse_sizes_by_format(made, VARIANTS[name])
    refuse_sizes_by_format(replace(made, dynamic=()), VARIANTS[name])


class Named(nn.Module):
    """Takes its input by name, as a caller's network does that hands further arguments on."""

    def forward(self, x: Tensor, *args: Tensor, **options: bool) -> Tensor:
        return x.relu() + sum(y.mean() for y in args)


class Positional(nn.Module):
    def forward(self, *args: Tensor) -> Tensor:
        return args[0].relu() + sum(y.mean() for y in args[1:])


@pytest.mark.parametrize("module", [Named(), Positional()], ids=["named", "positional"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_ranges_reach_the_inputs_of_a_forward_with_further_arguments(module: nn.Module, count: int) -> None:
    """Each input has its own range, whether forward names it or takes it among `*args`."""
    sizes = [DynamicSize(SizeRange(f"n{i}", 2, 9 + i), ((i, 1),)) for i in range(count)]
    example = tuple(torch.rand(1, 4) for _ in range(count))
    shapes = torch_dynamic_shapes(module, sizes, count)
    program = torch.export.export(module, example, dynamic_shapes=shapes)
    assert {bound.upper for bound in program.range_constraints.values()} == {9 + i for i in range(count)}
