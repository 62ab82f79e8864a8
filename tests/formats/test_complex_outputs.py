"""Formats without complex numbers are refused for networks that give them, with the way out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from exporter.errors import LoweringError
from exporter.formats import FORMATS, VARIANTS
from exporter.pipeline.format_refusals import GIVES_COMPLEX, refuse_complex_by_format
from exporter.records import TensorSpec


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_a_complex_output_is_refused_by_its_name(name: str, dtype: str) -> None:
    """The reason names the complex output alone; TorchScript gives complex numbers as they are."""
    specs = (TensorSpec("scores", (1, 3)), TensorSpec("spectrum", (1, 4), dtype))
    captured: Any = SimpleNamespace(outputs=specs)
    variant = VARIANTS[name]
    if variant.format == "torchscript":
        refuse_complex_by_format(captured, variant)
        return
    with pytest.raises(LoweringError, match=r"but spectrum is complex: return torch\.view_as_real") as caught:
        refuse_complex_by_format(captured, variant)
    assert caught.value.cause.startswith(f"{variant.format} files have no complex outputs")


@pytest.mark.parametrize("name", VARIANTS)
def test_real_outputs_are_refused_nowhere(name: str) -> None:
    """A last axis of real and imaginary parts is a real output."""
    captured: Any = SimpleNamespace(
        outputs=(TensorSpec("spectrum", (1, 4, 2)), TensorSpec("n", (1,), "int64"))
    )
    refuse_complex_by_format(captured, VARIANTS[name])


def test_every_format_says_whether_it_gives_complex_numbers() -> None:
    """A new format gets a line of the table."""
    assert set(GIVES_COMPLEX) == set(FORMATS)
