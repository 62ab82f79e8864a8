"""Image sizes of vision transformers, by the length of their table of position embeddings.

Such a network is built for one image size, and its table has a row for each patch, after rows for other
tokens. Where a file's table is longer or shorter than the known network's, and all else is equal, the file's
images have another size. Nothing is resampled: the network is built for that size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from exporter.architectures.network_index import Shape
from exporter.architectures.packaged_index import PackagedEntry, entries_with_names, entries_with_tensors

TABLE = "pos_embed"
USUAL_LENGTHS = tuple(
    sorted({side**2 + others for side in (*range(5, 25), 27, 28, 32, 37, 40) for others in (0, 1, 2, 4, 5)})
)
"""Lengths of tables of known networks: square images in patches, and a few tokens of class or registers."""


def position_table(shapes: Mapping[str, Shape]) -> str:
    """Return the name of the table [1, length, width]; empty without exactly one."""
    names = [
        name
        for name, shape in shapes.items()
        if name.rpartition(".")[2] == TABLE and len(shape) == 3 and shape[0] == 1
    ]
    return names[0] if len(names) == 1 else ""


def entries_of_other_image_sizes(shapes: Mapping[str, Shape]) -> tuple[PackagedEntry, ...]:
    """Return the indexed networks that have these tensors but for the length of the position table."""
    name = position_table(shapes)
    if not name or not entries_with_names(shapes):
        return ()
    return tuple(
        entry for other in _shapes_with_usual_tables(shapes, name) for entry in entries_with_tensors(other)
    )


def _shapes_with_usual_tables(shapes: Mapping[str, Shape], name: str) -> Iterator[Mapping[str, Shape]]:
    _, own, width = shapes[name]
    for length in USUAL_LENGTHS:
        if length != own:
            yield {**shapes, name: (1, length, width)}


def image_side_by_position_table(
    usual: Shape, own: Shape, grid: Sequence[int], image: Sequence[int]
) -> int | None:
    """Return the side of the square images that a table is for; None where its rows make no square.

    Args:
        usual: The shape of the known network's table.
        own: The shape of the file's.
        grid: The known network's patches, (rows, columns).
        image: The known network's image, (height, width).
    """
    others = usual[1] - grid[0] * grid[1]
    patches = own[1] - others
    side = math.isqrt(max(patches, 0))
    if side < 1 or side**2 != patches or image[0] % grid[0] or len(usual) != len(own) or usual[2] != own[2]:
        return None
    return side * (image[0] // grid[0])
