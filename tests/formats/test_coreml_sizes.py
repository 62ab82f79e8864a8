"""Tests of the sizes that a Core ML package allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporter.errors import LoweringError
from exporter.formats.coreml import coreml_convert
from exporter.formats.coreml.coreml_sizes import check_coreml_sizes, coreml_sizes_of_inputs
from exporter.records import DynamicSize, SizeRange
from tests.capture.test_dynamic_shapes import captured


@pytest.mark.parametrize("traced", [True, False])
def test_steps_are_listed_shape_by_shape(traced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The description has the nine shapes, from the trace and from the exported program."""
    made, _ = captured("pictures")
    if not traced:
        monkeypatch.setattr(coreml_convert, "trace_instead_of_scripting", lambda _: None)
    coreml_convert._attempt_coreml_convert.cache_clear()
    package, notes = coreml_convert.convert_to_coreml(made)
    coreml_convert._attempt_coreml_convert.cache_clear()
    kind = package.spec.description.input[0].type.multiArrayType
    listed = {tuple(shape.shape) for shape in kind.enumeratedShapes.shapes}
    assert listed == {(1, 3, height, width) for height in (16, 32, 48) for width in (16, 32, 48)}
    assert not any("does not check" in note for note in notes)


def test_a_size_of_two_inputs_is_one_range_and_a_note() -> None:
    """Each input has the ranges, and the report says that Core ML compares no inputs."""
    made, _ = captured("texts")
    package, notes = coreml_convert.convert_to_coreml(made)
    for feature in package.spec.description.input:
        ranges = feature.type.multiArrayType.shapeRange.sizeRanges
        assert [(r.lowerBound, r.upperBound) for r in ranges] == [(1, 3), (4, 12)]
    assert "Core ML does not check that inputs have the same batch, length: the app must." in notes


@pytest.mark.parametrize(
    ("kind", "size", "problem"),
    [
        ("pictures", SizeRange("x[2]", 16, 48, 4), ""),
        ("pictures", SizeRange("x[2]", 0, 48 * 43, 48), "there are 132 shapes"),
        ("texts", SizeRange("length", 4, 12, 4), "2 inputs have ranges"),
    ],
)
def test_more_than_core_ml_can_list_is_refused(kind: str, size: SizeRange, problem: str) -> None:
    """At most 128 shapes of one input can be listed."""
    made, _ = captured(kind)
    sizes = [s if s.range.name != size.name else DynamicSize(size, s.places) for s in made.dynamic]
    if not problem:
        assert len(coreml_sizes_of_inputs(replace(made, dynamic=tuple(sizes)))[0].shapes) == 27
        return
    with pytest.raises(LoweringError, match=problem):
        coreml_sizes_of_inputs(replace(made, dynamic=tuple(sizes)))


def described(**flexible: Any) -> Any:
    """Return a description of one input of shape [1, 4]."""
    import coremltools

    spec = coremltools.proto.Model_pb2.Model()
    feature = spec.description.input.add(name="x")
    kind = feature.type.multiArrayType
    kind.shape.extend([1, 4])
    for low, high in flexible.get("ranges", ()):
        kind.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    for shape in flexible.get("shapes", ()):
        kind.enumeratedShapes.shapes.add().shape.extend(shape)
    return spec


@pytest.mark.parametrize(
    ("flexible", "allowed", "refused"),
    [
        ({}, [(1, 4)], [(1, 5), (4,), (1, 4, 1)]),
        ({"ranges": [(1, 2), (4, -1)]}, [(1, 4), (2, 99)], [(3, 4), (1, 3), (0, 4), (1,)]),
        ({"shapes": [(1, 4), (2, 8)]}, [(1, 4), (2, 8)], [(1, 8), (2, 4), (1,)]),
    ],
)
def test_the_description_decides(
    flexible: dict[str, Any], allowed: list[tuple[int, ...]], refused: list[tuple[int, ...]]
) -> None:
    """A call of another shape than the description allows is refused by the input's name."""
    spec = described(**flexible)
    for shape in allowed:
        check_coreml_sizes(spec, [np.zeros(shape, np.float32)])
    for shape in refused:
        with pytest.raises(ValueError, match="x must not have the shape"):
            check_coreml_sizes(spec, [np.zeros(shape, np.float32)])
