"""A photo whose class is known is asked for before anything is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from exporter.errors import ArchitectureError, CalibrationError, UsageError
from exporter.pipeline import expectations
from exporter.records import Model, Preprocessing, TensorSpec


class Brightest(nn.Module):
    """Gives each channel's mean: the class is the photo's strongest colour."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))


@pytest.fixture
def green(tmp_path: Path) -> str:
    """A photo that is mostly green."""
    noise = np.random.default_rng(0).integers(0, 60, (16, 16, 3), dtype=np.uint8)
    noise[..., 1] += 150
    Image.fromarray(noise).save(tmp_path / "green.png")
    return str(tmp_path / "green.png")


def model(preprocessing: Preprocessing | None, labels: tuple[str, ...] = ("Red", "Green", "Blue")) -> Model:
    specs = (TensorSpec("image", (1, 3, 8, 8)),)
    return Model(Brightest().eval(), "test", specs, preprocessing, 0, labels=labels)


PLAIN = Preprocessing(8, (8, 8), (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("wanted", ["1", "Green", "green"])
def test_the_expected_class_is_noted(green: str, wanted: str) -> None:
    """A number and a label are as good, and the answer is in the notes."""
    assert expectations.check_expectations(model(PLAIN), ((green, wanted),)) == (
        "green.png is 'Green' (1) to the network, as expected",
    )


def test_another_class_is_refused(green: str) -> None:
    """Preprocessing that swaps the answer is found out, with what the network says instead."""
    shifted = Preprocessing(8, (8, 8), (0.0, 0.9, 0.0), (1.0,) * 3)
    with pytest.raises(
        ArchitectureError, match=r"green\.png is 'Blue' \(2\)|green\.png is 'Red' \(0\)"
    ) as caught:
        expectations.check_expectations(model(shifted), ((green, "green"),))
    assert "expected 'Green' (1) (in place 3 of 3)" in caught.value.message


@pytest.mark.parametrize("wanted", ["3", "Yellow", "-1", ""])
def test_an_unknown_class_is_refused(green: str, wanted: str) -> None:
    """A class that the network does not have is no question of its answer."""
    with pytest.raises(UsageError, match=rf"no class '{wanted}'"):
        expectations.check_expectations(model(PLAIN), ((green, wanted),))


def test_what_cannot_be_asked_is_said(green: str, tmp_path: Path) -> None:
    """No photo, no preprocessing, and no row of scores are each refused for what they are."""
    with pytest.raises(CalibrationError, match=r"missing\.png is no photo"):
        expectations.check_expectations(model(PLAIN), ((str(tmp_path / "missing.png"), "1"),))
    with pytest.raises(UsageError, match="networks that take one photo"):
        expectations.check_expectations(model(None), ((green, "1"),))
    whole = Model(nn.Identity(), "test", (TensorSpec("image", (1, 3, 8, 8)),), PLAIN, 0)
    with pytest.raises(UsageError, match="for classifiers"):
        expectations.check_expectations(whole, ((green, "1"),))


def test_several_photos_are_all_asked(green: str) -> None:
    """One wrong answer among several is enough."""
    assert len(expectations.check_expectations(model(PLAIN), ((green, "1"), (green, "green")))) == 2
    with pytest.raises(ArchitectureError):
        expectations.check_expectations(model(PLAIN), ((green, "1"), (green, "2")))
    assert torch.is_grad_enabled()
