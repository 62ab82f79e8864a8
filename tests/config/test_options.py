from __future__ import annotations

import pytest

from exporter.config import options
from exporter.errors import UsageError
from exporter.records import TensorSpec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1x3x224x224", TensorSpec("", (1, 3, 224, 224))),
        ("1,3,224,224", TensorSpec("", (1, 3, 224, 224))),
        ("tokens=1x16:int64", TensorSpec("tokens", (1, 16), "int64")),
        ("7", TensorSpec("", (7,))),
    ],
)
def test_shapes(text: str, spec: TensorSpec) -> None:
    """The name and the type are optional."""
    assert options.parse_shapes_option([text]) == (spec,)


@pytest.mark.parametrize("text", ["", "x", "1x", "1x-3", "1x0x3", "1x3:object", "=1x3", "1x3x", "a b=1"])
def test_bad_shapes_are_usage_errors(text: str) -> None:
    """The message has the bad value."""
    with pytest.raises(UsageError, match="--input-shape"):
        options.parse_shapes_option([text])


def test_limits_are_changed_by_name() -> None:
    """Other limits keep their defaults."""
    changed = options.parse_limits_option("int8_min_sqnr_db=15, int8_min_agreement=0.9")
    assert (changed.int8_min_sqnr_db, changed.int8_min_agreement) == (15, 0.9)
    assert changed.fp32_max_error == 1e-5


@pytest.mark.parametrize(
    "text", ["sqnr=3", "int8_min_sqnr_db=high", "int8_min_sqnr_db", "=3", "fp32_max_error=nan"]
)
def test_bad_limits_are_usage_errors(text: str) -> None:
    """A limit that is not a number is refused."""
    with pytest.raises(UsageError, match="--limits"):
        options.parse_limits_option(text)


def test_sides_of_photos() -> None:
    """The least and the greatest side; empty is none."""
    assert options.parse_photo_sizes_option("64..1280") == (64, 1280)
    assert options.parse_photo_sizes_option("") is None


@pytest.mark.parametrize(
    "text", ["64", "64..", "0..8", "8..8", "9..8", "1..4097", "64..640:32", "a..b", "-1..8"]
)
def test_bad_sides_of_photos_are_usage_errors(text: str) -> None:
    """The message has the value and the bound."""
    with pytest.raises(UsageError, match="--photo-sizes is") as caught:
        options.parse_photo_sizes_option(text)
    assert "4096" in caught.value.hint


def test_numbers_and_names() -> None:
    """Blanks around commas do not matter."""
    assert options.parse_numbers_option("--mean", "0.5, 0.25") == (0.5, 0.25)
    assert options.parse_names_option(" onnx , coreml,") == ("onnx", "coreml")
    assert options.parse_numbers_option("--mean", None) is None


def test_a_choice_that_does_not_exist_lists_the_choices() -> None:
    """The message lists the choices."""
    with pytest.raises(UsageError, match="auto, trace"):
        options.parse_choice_option("--torchscript", "frozen", ("auto", "trace"))
