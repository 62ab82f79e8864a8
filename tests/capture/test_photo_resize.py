"""Photos of any size are resized and cropped within a network, to what Pillow makes of them."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from exporter.capture import captured_program
from exporter.capture.dynamic_shapes import dynamic_shapes_of_photos, run_reference_of_dynamic_shapes
from exporter.capture.embedded_preprocessing import embed_preprocessing
from exporter.capture.float64_reference import run_float64_reference
from exporter.capture.photo_resize import PhotoResize
from exporter.data.photo_preprocessing import preprocess_photo
from exporter.errors import UsageError
from exporter.files import EVIDENCE, SIZES
from exporter.formats import FORMATS, VARIANTS
from exporter.pipeline.stage_results import ExpectedResult
from exporter.pipeline.verify_stage import verify_artifact_in_stage
from exporter.quantize import float_head, int8_recipe
from exporter.records import Captured, Limits, Model, Preprocessing, Sample, TensorSpec
from exporter.verify import reference_io
from exporter.verify.several_sizes import save_several_sizes

HOW = Preprocessing(resize=32, crop=(28, 28))
SIDES = (24, 600)
KINDS = {
    "crop": HOW,
    "wide": replace(HOW, crop=(20, 30)),
    "beyond": replace(HOW, crop=(40, 37)),
    "squash": replace(HOW, squash=True),
    "cubic": replace(HOW, interpolation="bicubic"),
    "cubic of an odd side": replace(HOW, resize=33, crop=(28, 27), interpolation="bicubic"),
}
PHOTOS = [(64, 64), (100, 60), (37, 51), (17, 40), (32, 32), (333, 200), (31, 65), (28, 900)]
"""(height, width) of photos that become smaller or larger, or stay."""


def photo(height: int, width: int, noise: bool) -> Image.Image:
    rng = np.random.default_rng(height)
    small = (height, width) if noise else (height // 5 + 2, width // 5 + 2)
    pixels = rng.integers(0, 256, (*small, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_planes_are_pillows_but_for_its_rounding(kind: str, noise: bool) -> None:
    """No value is further away than the two roundings to bytes, of photos and of noise, at any size."""
    how = KINDS[kind]
    resize = PhotoResize(how)
    for height, width in PHOTOS:
        image = photo(height, width, noise)
        expected = preprocess_photo(image, replace(how, pixels="rgb")).transpose(2, 0, 1).astype(np.float32)
        planes = resize(torch.from_numpy(np.array(image, np.float32))[None])[0].numpy()
        assert planes.shape == expected.shape
        assert np.abs(planes - expected).max() < 1.25, (height, width)
        assert np.abs(planes - expected).mean() < 0.5


def test_large_photos_are_resized_in_single_precision() -> None:
    """The places in the largest photo keep their fractions in float32."""
    how = replace(HOW, resize=232, crop=(224, 224))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 4096, 300, 1)).astype(np.float64))
    wide, single = PhotoResize(how).double()(pixels), PhotoResize(how)(pixels.float())
    assert (wide - single).abs().max() < 0.05


class Net(nn.Module):
    """Two convolutions and the largest of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1))
        self.head = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).amax((2, 3)))  # type: ignore[no-any-return]


def samples(count: int = 4) -> list[Sample]:
    side = replace(HOW, photo_sizes=SIDES).taken.crop[0]
    return [(np.array(photo(side, side, False).rotate(90 * i)).astype(np.uint8)[None],) for i in range(count)]


def captured_with_sides(sides: tuple[int, int]) -> Captured:
    torch.manual_seed(0)
    net = Model(Net().eval(), "tests:net", (TensorSpec("x", (1, 3, 28, 28)),), HOW, 0)
    model = embed_preprocessing(net, "rgb", sides)
    sizes = dynamic_shapes_of_photos(sides)
    return captured_program.capture_program(model, samples()[0], others=samples()[1:], sizes=sizes)


@functools.cache
def captured() -> tuple[Captured, Path]:
    """Capture the network with its resize, and write what its artifacts are judged by."""
    made = captured_with_sides(SIDES)
    folder = Path(tempfile.mkdtemp(prefix="export-mobile-tests-"))
    reference_io.save_reference_io(run_float64_reference(made, samples(), {})[0], folder / EVIDENCE)
    save_several_sizes(run_reference_of_dynamic_shapes(made, samples()), folder / SIZES)
    return made, folder


@pytest.mark.parametrize(
    "name", ["onnx-fp32", "onnx-fp16", "executorch-xnnpack-fp32", "torchscript-lite-fp32"]
)
def test_artifacts_take_photos_of_any_size(name: str) -> None:
    """They are right at the ends and between, also in half precision, and refuse what is beside."""
    made, folder = captured()
    variant = VARIANTS[name]
    path = FORMATS[variant.format].emit(made, variant, folder).path
    expected = ExpectedResult(
        made.inputs,
        made.outputs,
        captured_program.captured_program_matrix_weights(made),
        Limits(min_delegated=0.0),
    )
    verdict = verify_artifact_in_stage(path, variant, folder / EVIDENCE, None, expected).verdict
    assert (verdict.status, verdict.reason) == ("passed", None)
    assert verdict.sizes is not None
    assert verdict.sizes.verified == (
        "height=24, width=24",
        "height=600, width=600",
        "height=312, width=312",
        "height=600, width=24",
    )
    assert verdict.sizes.refused == ("height=23", "height=601", "width=23", "width=601")


def test_half_precision_counts_the_rows_of_a_large_photo(tmp_path: Path) -> None:
    """float16 has no odd numbers above 2,048; what counts rows stays in float32."""
    made = captured_with_sides((24, 4096))
    variant = VARIANTS["onnx-fp16"]
    run, _ = FORMATS["onnx"].load(FORMATS["onnx"].emit(made, variant, tmp_path).path, variant, 1)
    pixels = np.array(photo(4095, 40, True), np.uint8)[None]
    with torch.no_grad():
        exact = made.module(torch.from_numpy(pixels)).numpy()
    assert np.abs(run((pixels,))[0] - exact).max() < 2e-3 * np.abs(exact).max()


def test_the_resize_stays_in_float() -> None:
    """int8 has too few values to count a photo's rows: no operator that resizes is quantised."""
    made, _ = captured()
    assert made.program is not None
    assert f"{PhotoResize.__module__}.{PhotoResize.__qualname__}" == float_head.RESIZE
    names = float_head.float_head(made.program.module())
    quantized = int8_recipe.quantize_by_int8_recipe(made.program, samples()).module
    nodes = [node for node in quantized.graph.nodes if node.name in names]
    assert len(nodes) > 20
    read = {source for node in nodes for source in node.all_input_nodes}
    assert not [source for source in read if "quantize" in str(source.target)]
    (x,) = (torch.from_numpy(array) for array in samples()[1])
    with torch.no_grad():
        exact, rounded = made.module(x), quantized(x)
    assert (exact - rounded).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize(
    ("spec", "how", "words"),
    [
        (TensorSpec("x", (2, 3, 28, 28)), HOW, "one photo a call"),
        (TensorSpec("x", (1, 3, 28, 28)), replace(HOW, interpolation="nearest"), "nearest pixel"),
    ],
)
def test_what_cannot_be_resized_within_is_refused(spec: TensorSpec, how: Preprocessing, words: str) -> None:
    """The message says that the app can do it."""
    model = Model(Net().eval(), "tests:net", (spec,), how, 0)
    with pytest.raises(UsageError, match=words):
        embed_preprocessing(model, "rgb", SIDES)


@pytest.mark.parametrize(("resize", "sides", "side"), [(256, (64, 2000), 384), (256, (64, 300), 300)])
def test_verification_photos_are_square_and_show_the_same(
    resize: int, sides: tuple[int, int], side: int
) -> None:
    """Their side is within the range, and is not the one that they are resized to."""
    taken = Preprocessing(resize=resize, pixels="rgb", photo_sizes=sides).taken
    assert (taken.resize, taken.crop, taken.photo_sizes) == (side, (side, side), None)
    image = photo(500, 400, False)
    assert preprocess_photo(image, replace(HOW, pixels="rgb", photo_sizes=(16, 99))).shape == (48, 48, 3)
    assert taken.taken == taken
