"""`--dynamic` declares fixed sizes, ranges with steps, and names that tie sizes together."""

from __future__ import annotations

import pytest

from exporter.config.options import parse_dynamic_options
from exporter.errors import UsageError
from exporter.records import SizeList, SizeRange


def test_sizes_ranges_steps_and_types() -> None:
    """An option has fixed sizes, ranges in braces, and perhaps a name and a type."""
    image, ids = parse_dynamic_options(["x=1x3x{224..640:32}x{width=1..9}", "{2..4},{length=8..128}:int64"])
    assert (image.name, image.dtype) == ("x", "float32")
    assert image.sizes == (1, 3, SizeRange("", 224, 640, 32), SizeRange("width", 1, 9))
    assert image.largest.shape == (1, 3, 640, 9)
    assert (ids.name, ids.dtype, ids.sizes) == (
        "",
        "int64",
        (SizeRange("", 2, 4), SizeRange("length", 8, 128)),
    )


def test_a_name_means_the_same_size() -> None:
    """A range that was named before is written by its name alone, in any later place."""
    ids, mask = parse_dynamic_options(
        ["ids={batch=1..4}x{length=8..64}:int64", "mask={batch}x{length}:int64"]
    )
    assert ids.sizes == mask.sizes


def test_sizes_are_listed() -> None:
    """A list is in braces with commas, ascends, and may be named and used again."""
    (image,) = parse_dynamic_options(["1x3x{320,224}x{w=64,96}"])
    assert image.sizes == (1, 3, SizeList("", (224, 320)), SizeList("w", (64, 96)))
    assert image.largest.shape == (1, 3, 320, 96)
    (square,) = parse_dynamic_options(["1x3x{s=224,320}x{s}"])
    assert square.sizes[2] == square.sizes[3] == SizeList("s", (224, 320))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x=1x{8,8}", "lists a size twice"),
        ("x=1x{0,8}", "lists a size twice, or 0"),
        ("x=1x{8,}", "is no range"),
        ("x=1x{n=4..8}x{n=4,8}", "has two ranges"),
        ("x=1x3x224x224", "has no range"),
        ("x=1x{224..}", "is no range"),
        ("x=1x{a..b}", "is no range"),
        ("x=1x{8..4}", "is no range"),
        ("x=1x{0..4}", "is no range"),
        ("x=1x{4..4}", "is no range"),
        ("x=1x{4..9:2}", "is no range"),
        ("x=1x{4..8:0}", "is no range"),
        ("x=1x{length}", "names no range given before"),
        ("x=1x{n=1..4}x{n=1..8}", "has two ranges"),
        ("x=1x{4..8", "expected x=1x3x"),
        ("x=", "expected x=1x3x"),
        ("x=1xx{4..8}", "expected x=1x3x"),
        ("x=1x{4..8}:complex64", "dtype"),
    ],
)
def test_what_is_no_shape_is_refused(text: str, words: str) -> None:
    """The message quotes the option and says what is wrong."""
    with pytest.raises(UsageError, match=words):
        parse_dynamic_options([text])
