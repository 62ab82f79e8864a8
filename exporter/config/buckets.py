"""Splits `--dynamic` into buckets: the combinations of its sizes, each of which is exported for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from exporter.errors import UsageError
from exporter.records import DynamicShape, SizeList, SizeRange

MOST_BUCKETS = 16
"""Each bucket is an export of its own, with its time, and its files."""


@dataclass(frozen=True)
class Bucket:
    """One combination of sizes."""

    name: str
    """The sizes, such as "224x320": of every axis that has several, in order."""
    shapes: tuple[DynamicShape, ...]
    """The inputs; every axis that has several sizes has a range of this one."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(int, self.name.split("x")))


def lists_sizes(shapes: Sequence[DynamicShape]) -> bool:
    """Tell whether a shape lists sizes, so that each is to be exported for itself."""
    return any(isinstance(size, SizeList) for shape in shapes for size in shape.sizes)


def buckets_of_dynamic_shapes(shapes: Sequence[DynamicShape]) -> tuple[Bucket, ...]:
    """Return a bucket for every combination of the sizes, the smallest first; ranges give all theirs.

    Raises:
        UsageError: There are more than `MOST_BUCKETS`.
    """
    counts = {_bucket_axis(i, axis, size): _count_sizes(size) for i, axis, size in _open_axes(shapes)}
    if (count := prod(counts.values())) > MOST_BUCKETS:
        raise UsageError(
            f"--dynamic has {count} combinations of sizes; at most {MOST_BUCKETS} are made, as each is an "
            "export of its own.",
            "List fewer, and name an axis whose size another shares: 1x3x{side=224,320}x{side}.",
            code="EM-BUCKETS",
        )
    listed = {_bucket_axis(i, axis, size): _list_sizes(size) for i, axis, size in _open_axes(shapes)}
    points = (dict(zip(listed, sizes, strict=True)) for sizes in product(*listed.values()))
    return tuple(_bucket_at_point(shapes, point) for point in points)


def listed_example_of_buckets(shapes: Sequence[DynamicShape]) -> str:
    """Write the first shape with two sizes in place of each range, as `--dynamic` takes it."""
    shape = shapes[0]
    sizes = [_example_of_size(size) for size in shape.sizes]
    dtype = "" if shape.dtype == "float32" else f":{shape.dtype}"
    return (f"{shape.name}=" if shape.name else "") + "x".join(sizes) + dtype


def _example_of_size(size: int | SizeRange | SizeList) -> str:
    if isinstance(size, int):
        return str(size)
    ends = (size.low, size.high) if isinstance(size, SizeRange) else size.sizes
    return "{" + (f"{size.name}=" if size.name else "") + ",".join(map(str, ends)) + "}"


def _open_axes(shapes: Sequence[DynamicShape]) -> list[tuple[int, int, SizeRange | SizeList]]:
    return [
        (position, axis, size)
        for position, shape in enumerate(shapes)
        for axis, size in enumerate(shape.sizes)
        if not isinstance(size, int)
    ]


def _bucket_axis(position: int, axis: int, size: SizeRange | SizeList) -> str:
    """Return what tells an axis from others: its name, which may tie several, or its place."""
    return size.name or f"{position}[{axis}]"


def _count_sizes(size: SizeRange | SizeList) -> int:
    return len(size.sizes) if isinstance(size, SizeList) else (size.high - size.low) // size.step + 1


def _list_sizes(size: SizeRange | SizeList) -> Sequence[int]:
    return size.sizes if isinstance(size, SizeList) else range(size.low, size.high + 1, size.step)


def _bucket_at_point(shapes: Sequence[DynamicShape], point: Mapping[str, int]) -> Bucket:
    fixed, words = [], []
    inputs_of: dict[str, int] = {}
    for position, shape in enumerate(shapes):
        sizes: list[int | SizeRange | SizeList] = list(shape.sizes)
        for axis, size in enumerate(shape.sizes):
            if isinstance(size, int):
                continue
            key = _bucket_axis(position, axis, size)
            sizes[axis] = SizeRange(size.name, point[key], point[key])
            if inputs_of.setdefault(key, position) == position:  # not again for each further input
                words.append(str(point[key]))
        fixed.append(replace(shape, sizes=tuple(sizes)))
    return Bucket("x".join(words), tuple(fixed))
