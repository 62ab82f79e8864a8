"""`--dynamic` is split into buckets, one for each combination of sizes."""

from __future__ import annotations

import pytest

from exporter.config.buckets import buckets_of_dynamic_shapes, listed_example_of_buckets, lists_sizes
from exporter.config.options import parse_dynamic_options
from exporter.errors import UsageError


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["x=1x3x{224,320}x{64,96}"], ["224x64", "224x96", "320x64", "320x96"]),
        (["x=1x3x{side=320,224}x{side}"], ["224x224", "320x320"]),
        (["1x{8..16:4}"], ["8", "12", "16"]),
        (["1x3x{h=8,16}x{w=4..5}"], ["8x4", "8x5", "16x4", "16x5"]),
        (["ids={b=1,4}x{l=32,64}:int64", "mask={b}x{l}:int64"], ["1x32", "1x64", "4x32", "4x64"]),
        (["a=1x{5,7}", "b={2,3}x9"], ["5x2", "5x3", "7x2", "7x3"]),
    ],
)
def test_every_combination_is_a_bucket(texts: list[str], names: list[str]) -> None:
    """A bucket is named by the sizes of the open axes; a named size counts once over several inputs."""
    buckets = buckets_of_dynamic_shapes(parse_dynamic_options(texts))
    assert [bucket.name for bucket in buckets] == names
    assert [list(bucket.sizes) for bucket in buckets] == [list(map(int, n.split("x"))) for n in names]


def test_a_bucket_has_one_size_on_each_axis() -> None:
    """Ties hold, fixed axes and types stay."""
    shapes = parse_dynamic_options(["ids=1x{l=32,64}:int64", "mask=1x{l}:int64"])
    for bucket, size in zip(buckets_of_dynamic_shapes(shapes), (32, 64), strict=True):
        assert [shape.largest.shape for shape in bucket.shapes] == [(1, size), (1, size)]
        assert [shape.dtype for shape in bucket.shapes] == ["int64", "int64"]


def test_too_many_are_refused_before_any_is_made() -> None:
    """The message has the number, the bound, and how to tie axes; a billion sizes take no time."""
    shapes = parse_dynamic_options(["1x3x{224..640:32}x{224..640:32}"])
    with pytest.raises(UsageError, match="196 combinations of sizes; at most 16") as caught:
        buckets_of_dynamic_shapes(shapes)
    assert caught.value.code == "EM-BUCKETS"
    with pytest.raises(UsageError, match="999999999 combinations"):
        buckets_of_dynamic_shapes(parse_dynamic_options(["1x{1..999999999}"]))
    assert len(buckets_of_dynamic_shapes(parse_dynamic_options(["1x{1..16}"]))) == 16


def test_the_example_can_be_pasted() -> None:
    """A refusal shows the user's own shape with lists in place of ranges, which parse."""
    text = "x=1x3x{s=224..640:32}x{224..640}:int32"
    example = listed_example_of_buckets(parse_dynamic_options([text]))
    assert example == "x=1x3x{s=224,640}x{224,640}:int32"
    assert lists_sizes(parse_dynamic_options([example]))
    assert not lists_sizes(parse_dynamic_options([text]))
