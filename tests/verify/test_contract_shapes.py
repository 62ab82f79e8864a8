"""Which shapes of a file fit a model whose outputs' sizes depend on the data."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.records import Limits, Structure, TensorSpec
from exporter.verify.contract import check_structure_by_contract
from tests.variants import FP32

Shape = tuple[int, ...]


def checked(have: tuple[Shape, ...], sizes: tuple[list[list[int]], ...], inputs: Shape = (1, 3)) -> str:
    model = (TensorSpec("boxes", (5, 4)), TensorSpec("scores", (5,)))[: max(len(sizes), 1)]
    structure = Structure(
        inputs=(TensorSpec("x", inputs),),
        outputs=tuple(TensorSpec(spec.name, shape) for spec, shape in zip(model, have, strict=False)),
        operators={},
        weight_bytes=0,
        weight_elements={},
    )
    stacks = tuple(np.array(rows) for rows in sizes)
    return check_structure_by_contract(
        structure, FP32, (TensorSpec("x", (1, 3)),), model, 0, Limits(), stacks
    )


BOTH = ([[5, 4], [7, 4]], [[5], [7]])


@pytest.mark.parametrize(
    ("have", "sizes", "fits"),
    [
        (((5, 4),), (), True),
        (((-1, 4),), (), False),
        (((7, 4),), (), False),
        (((5, 4), (5,)), BOTH, True),
        (((-1, 4), (-1,)), BOTH, True),
        (((7, 4), (7,)), BOTH, True),
        (((100, 4), (100,)), BOTH, True),
        (((6, 4), (7,)), BOTH, False),
        (((7, 4), (6,)), BOTH, False),
        (((7, 3), (7,)), BOTH, False),
        (((7,), (7,)), BOTH, False),
        (((7, 4),), BOTH, False),
    ],
)
def test_a_file_has_no_size_or_the_most_it_can_give(
    have: tuple[Shape, ...], sizes: tuple[list[list[int]], ...], fits: bool
) -> None:
    """A size is the model's, unknown, or at least the largest that was seen; each output for itself."""
    reason = checked(have, sizes)
    assert (reason == "") is fits
    assert fits or reason.startswith("Its output shapes are ")


def test_inputs_have_one_size_whatever_the_outputs_do() -> None:
    """The shapes of inputs are compared as they are."""
    assert checked(((7, 4), (7,)), BOTH, (-1, 3)) == "Its input shapes are [-1, 3], the model's [1, 3]."
