"""Artifacts take a photo's bytes, and compute what the network gives on the photo prepared by Pillow."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from exporter.architectures.preprocessing import PRESETS
from exporter.capture import captured_program
from exporter.capture.embedded_preprocessing import EmbeddedPreprocessing, embed_preprocessing
from exporter.data import synthetic
from exporter.data.edge_inputs import edge_inputs
from exporter.data.photo_preprocessing import preprocess_photo
from exporter.errors import LoweringError, UsageError
from exporter.formats import FORMATS, VARIANTS
from exporter.pipeline.format_refusals import refuse_pixels_by_format
from exporter.quantize import int8_recipe
from exporter.records import Captured, Model, Preprocessing, Sample, TensorSpec

SIZE = 16


class Net(nn.Module):
    """A first layer, and a head that reads its mean over the pixels."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


class Standardised(nn.Conv2d):
    """A convolution whose forward computes with other weights than those that it holds."""

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self._conv_forward(input, self.weight - self.weight.mean(), self.bias)
        return output


class ReadTwice(nn.Module):
    """Something beside the convolution reads the planes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x.mean()  # type: ignore[no-any-return]


class CalledTwice(nn.Module):
    """The convolution has a second call, whose input is not normalised pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3)
        self.last = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.layer(x)))  # type: ignore[no-any-return]


def how(preset: str = "imagenet", channels: int = 3) -> Preprocessing:
    scale, mean, std = PRESETS[preset]
    return Preprocessing(
        resize=SIZE,
        crop=(SIZE, SIZE),
        mean=(mean * channels)[:channels],
        std=(std * channels)[:channels],
        scale=scale,
    )


def model(first: nn.Module, prepared: Preprocessing | None, channels: int = 3) -> Model:
    torch.manual_seed(0)
    inputs = (TensorSpec("image", (1, channels, SIZE, SIZE)),)
    return Model(Net(first).eval(), "tests:net", inputs, prepared, 0)


def photo(mode: str, seed: int = 0) -> Image.Image:
    shape = (SIZE, SIZE) if mode == "L" else (SIZE, SIZE, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def prepared(given: Image.Image, preprocessing: Preprocessing | None) -> Tensor:
    assert preprocessing is not None
    return torch.from_numpy(preprocess_photo(given, preprocessing)[None])


def own_answer(net: Model, given: Image.Image) -> np.ndarray:
    """Return the network's output on the photo, prepared outside."""
    with torch.no_grad():
        answer: np.ndarray = net.module(prepared(given, net.preprocessing)).numpy()
    return answer


@pytest.mark.parametrize(
    ("preset", "mode", "pixels", "shape"),
    [
        ("imagenet", "RGB", "rgb", (1, SIZE, SIZE, 3)),
        ("imagenet", "RGB", "rgba", (1, SIZE, SIZE, 4)),
        ("symmetric", "RGB", "rgb", (1, SIZE, SIZE, 3)),
        ("bytes", "RGB", "rgba", (1, SIZE, SIZE, 4)),
        ("unit", "L", "rgb", (1, SIZE, SIZE, 1)),
    ],
)
def test_bytes_give_what_prepared_photos_give(
    preset: str, mode: str, pixels: Literal["rgb", "rgba"], shape: tuple[int, ...]
) -> None:
    """The embedded network, and its folded graph, equal the network on Pillow's prepared photo."""
    channels = len(mode)
    net = model(nn.Conv2d(channels, 8, 3, padding=1), how(preset, channels), channels)
    embedded = embed_preprocessing(net, pixels)
    assert [(s.name, s.shape, s.dtype) for s in embedded.inputs] == [("image", shape, "uint8")]
    assert embedded.preprocessing is not None
    taken = prepared(photo(mode), embedded.preprocessing)
    assert (tuple(taken.shape), taken.dtype) == (shape, torch.uint8)
    captured = captured_program.capture_program(embedded, (taken.numpy(),))
    assert captured.folded
    assert captured.program is not None
    for run in (captured.module, captured.program.module()):
        with torch.no_grad():
            output = run(taken)
        np.testing.assert_allclose(output.numpy(), own_answer(net, photo(mode)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "preset", "steps"),
    [
        (nn.Conv2d(3, 8, 4, stride=4), "imagenet", "none"),
        (nn.Conv2d(3, 8, 4, stride=4, bias=False), "imagenet", "none"),
        (nn.Conv2d(3, 8, 3, padding="valid"), "imagenet", "none"),
        (nn.Conv2d(3, 8, 1, padding="same"), "imagenet", "none"),
        (nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), "imagenet", None),  # its graph pads before
        (nn.Conv2d(3, 8, 3, padding=1), "imagenet", "shift"),
        (nn.Conv2d(3, 8, 3, padding=(0, 1), bias=False), "symmetric", "shift"),
        (nn.Conv2d(3, 8, 3, padding="same"), "imagenet", "shift"),
        (nn.Conv2d(3, 8, 3, padding=1), "unit", "none"),  # without a mean, a padded zero is black
        (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 8, 1)), "imagenet", None),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3)), "imagenet", None),
        (Standardised(3, 8, 3), "imagenet", None),
        (ReadTwice(), "imagenet", None),
        (CalledTwice(), "imagenet", None),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), "imagenet", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_the_normalisation_is_folded_where_that_is_exact(
    first: nn.Module, preset: str, steps: str | None
) -> None:
    """A zero that is padded stays one, and what reads the planes beside a convolution gets them as before."""
    net = model(first, how(preset))
    embedded = embed_preprocessing(net, "rgb")
    taken = prepared(photo("RGB"), embedded.preprocessing)
    captured = captured_program.capture_program(embedded, (taken.numpy(),))
    assert captured.program is not None
    names = {str(node.target) for node in captured.program.graph.nodes}
    divides, subtracts = ("aten.div.Tensor" in names, "aten.sub.Tensor" in names)
    if steps is None:
        assert (captured.folded, divides) == ("", True)
    else:
        assert captured.folded
        assert (divides, subtracts) == (False, steps == "shift")
    with torch.no_grad():
        output = captured.program.module()(taken)
    np.testing.assert_allclose(output.numpy(), own_answer(net, photo("RGB")), rtol=1e-4, atol=1e-5)
    assert isinstance(captured.module, EmbeddedPreprocessing)
    assert captured.module.steps == "normalise"  # the reference computes as the app would have


def test_a_network_without_a_known_photo_is_refused() -> None:
    """Nothing is embedded where it is not known how photos become the input."""
    with pytest.raises(UsageError, match="its preprocessing is not known"):
        embed_preprocessing(model(nn.Conv2d(3, 8, 3), None), "rgb")


def test_grey_photos_have_no_alpha() -> None:
    """RGBA is refused for a network of one channel."""
    with pytest.raises(UsageError, match="takes grey photos"):
        embed_preprocessing(model(nn.Conv2d(1, 8, 3), how("unit", 1), 1), "rgba")


@functools.cache
def captured_net() -> tuple[Model, Captured, tuple[Sample, ...]]:
    """Return a network, its embedded capture, and pixels of photos to calibrate on."""
    net = model(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU()), how())
    embedded = embed_preprocessing(net, "rgba")
    taken = tuple((prepared(photo("RGB", seed), embedded.preprocessing).numpy(),) for seed in range(8))
    return net, captured_program.capture_program(embedded, taken[0]), taken


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("onnx-fp32", 1e-4),
        ("executorch-xnnpack-fp32", 1e-4),
        ("torchscript-lite-fp32", 1e-4),
        ("onnx-fp16", 5e-3),
        ("onnx-int8", 0.05),
        ("executorch-xnnpack-int8", 0.05),
    ],
)
def test_artifacts_take_bytes(name: str, most: float, tmp_path: Path) -> None:
    """Each format's file takes uint8 and gives the network's output within its precision's error."""
    net, captured, taken = captured_net()
    variant = VARIANTS[name]
    assert captured.program is not None
    if variant.precision == "int8":
        quantized = int8_recipe.quantize_by_int8_recipe(captured.program, taken)
        captured = replace(captured, program=quantized.program())
    path = FORMATS[variant.format].emit(captured, variant, tmp_path).path
    (read,) = FORMATS[variant.format].structure(path, variant).inputs
    assert (read.shape, read.dtype) == ((1, SIZE, SIZE, 4), "uint8")
    run, _ = FORMATS[variant.format].load(path, variant, 1)
    expected = own_answer(net, photo("RGB", 3))
    error = np.abs(run(taken[3])[0] - expected).max() / np.abs(expected).max()
    assert error < most


def test_core_ml_is_refused_with_its_own_option() -> None:
    """Core ML packages take photos in another way, which the message names."""
    _, captured, _ = captured_net()
    with pytest.raises(LoweringError, match="--image-input"):
        refuse_pixels_by_format(captured, VARIANTS["coreml-fp16"])
    refuse_pixels_by_format(captured, VARIANTS["onnx-fp32"])


def test_made_up_and_extreme_pixels_are_photos() -> None:
    """Synthetic inputs are opaque bytes, edge inputs a black and a white photo."""
    embedded = embed_preprocessing(model(nn.Conv2d(3, 8, 3), how()), "rgba")
    (pixels,) = synthetic.synthetic_sample(
        embedded.inputs, embedded.preprocessing, {}, np.random.default_rng(0)
    )
    assert (pixels.shape, pixels.dtype.name) == ((1, SIZE, SIZE, 4), "uint8")
    assert pixels[..., 3].min() == 255
    assert 60 < pixels[..., :3].mean() < 170
    assert pixels[..., :3].std() > 20
    edges = edge_inputs(embedded.inputs, embedded.preprocessing, (pixels,))
    assert {name: {*np.unique(edge[0])} for name, edge in edges.items()} == {
        "saturated_low": {0},
        "saturated_high": {255},
    }


@pytest.mark.parametrize(("planes", "pixels"), [(1, "gray"), (3, "rgb")])
def test_a_network_of_one_plane_takes_grey_bytes(planes: int, pixels: str) -> None:
    """One byte a pixel, whatever `--pixels` is by default."""
    how = Preprocessing(resize=SIZE, crop=(SIZE, SIZE), mean=(0.5,) * planes, std=(0.5,) * planes)
    model = Model(nn.Conv2d(planes, 2, 3), "net", (TensorSpec("photo", (1, planes, SIZE, SIZE)),), how, 0)
    embedded = embed_preprocessing(model, "rgb")
    assert embedded.preprocessing is not None
    assert embedded.preprocessing.pixels == pixels
    assert embedded.inputs == (TensorSpec("photo", (1, SIZE, SIZE, planes), "uint8"),)
