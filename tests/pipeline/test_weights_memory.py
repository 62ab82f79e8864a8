"""The memory that weights take is known before any of them is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from exporter.pipeline.weights_memory import weights_memory_bytes

ELEMENTS = 1 << 18
WRITERS: dict[str, Callable[[dict[str, torch.Tensor], Path], object]] = {
    "safetensors": save_file,
    "pth": torch.save,
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_of_any_width_count_as_float32(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """The network is float32, whatever the file stores."""
    path = tmp_path / f"weights.{kind}"
    WRITERS[kind]({"weight": torch.zeros(ELEMENTS, dtype=dtype)}, path)
    assert weights_memory_bytes(path) == pytest.approx(4 * ELEMENTS, rel=0.01)


def test_halves_among_other_types_count_twice(tmp_path: Path) -> None:
    """A safetensors header tells each tensor's type."""
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(ELEMENTS), "b": torch.zeros(ELEMENTS).half()}, path)
    assert weights_memory_bytes(path) == 8 * ELEMENTS


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 40, b"\2" + bytes(7) + b"[]", b"\x08" + bytes(7) + b'{"a": 1}', b"PK\x03\x04 cut"],
)
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_damaged_file_counts_as_it_is(content: bytes, name: str, tmp_path: Path) -> None:
    """The reader refuses such a file later, in its own words."""
    (tmp_path / name).write_bytes(content)
    assert weights_memory_bytes(tmp_path / name) == len(content)


def test_a_folder_counts_its_largest_kind_of_file(tmp_path: Path) -> None:
    """Shards add up; the same weights in another format do not."""
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"weight": torch.zeros(ELEMENTS)}, tmp_path / name)
    torch.save({"weight": torch.zeros(ELEMENTS)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    assert weights_memory_bytes(tmp_path) == 8 * ELEMENTS
