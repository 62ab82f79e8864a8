"""A network of which each size is exported for itself: a folder and a verdict each, and one choice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporter.config.options import parse_dynamic_options
from exporter.config.request import Request
from exporter.errors import FixedSizesError, LoweringError, UsageError
from exporter.formats import VARIANTS
from exporter.formats.executorch import merged_methods
from exporter.pipeline import run_pipeline
from exporter.pipeline.buckets import (
    BucketFile,
    buckets_in_place_of_ranges,
    buckets_of_request,
    merge_bucket_files,
)
from exporter.pipeline.parts_record import load_parts, remove_earlier_parts
from exporter.records import DynamicShape
from exporter.release.sha256sums import sha256sums_problems
from tests.command import exit_code

RANGES = parse_dynamic_options(["x=1x3x{s=8..16:8}x{s}"])
LISTS = parse_dynamic_options(["1x{8,12,16}"])
MANY = parse_dynamic_options(["x=1x3x{224..640:32}x{224..640:32}"])


class Halved(nn.Module):
    """Computes with the height as a Python number, which a graph holds fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        height = int(x.shape[2]) // 2
        return self.head(nn.functional.interpolate(self.body(x), (height, height)).mean((2, 3)))  # type: ignore[no-any-return]


def request(dynamic: tuple[DynamicShape, ...] = (), checkpoint: Path = Path("net.pth")) -> Request:
    return Request(checkpoint=checkpoint, target="snapdragon865", dynamic=dynamic)


@pytest.mark.parametrize(
    ("dynamic", "variants", "count"),
    [
        ((), (), 0),
        (RANGES, (), 0),
        (RANGES, ("executorch", "fp16"), 2),
        (RANGES, ("executorch", "fp32"), 0),
        (LISTS, (), 3),
    ],
)
def test_buckets_are_for_lists_and_for_formats_without_ranges(
    dynamic: tuple[DynamicShape, ...], variants: tuple[str, ...], count: int
) -> None:
    """Ranges stay in one file where any format that is asked for can have them; Vulkan's cannot."""
    asked = replace(request(dynamic), formats=variants[:1], precisions=variants[1:])
    assert len(buckets_of_request(asked)) == count


def test_what_does_not_go_with_lists_is_refused() -> None:
    """A shape within ranges has no meaning, and an export in Python has one file for all sizes."""
    shapes = tuple(shape.largest for shape in LISTS)
    with pytest.raises(UsageError, match="--input-shape chooses a shape within ranges"):
        buckets_of_request(replace(request(LISTS), input_shapes=shapes))
    with pytest.raises(UsageError, match="--dynamic lists sizes"):
        run_pipeline(request(LISTS, Path(__file__)))


def test_ranges_of_a_fixed_graph_become_buckets_where_they_are_few() -> None:
    """More are refused, with an option that lists two."""
    error = FixedSizesError("no ranges", "")
    assert [b.name for b in buckets_in_place_of_ranges(request(RANGES), error)] == ["8x8", "16x16"]
    with pytest.raises(FixedSizesError, match=r"--dynamic 'x=1x3x\{224,640\}x\{224,640\}'"):
        buckets_in_place_of_ranges(request(MANY), error)


@pytest.mark.slow
def test_one_file_has_a_method_for_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges that the graph cannot have become methods of one `.pte`; weights are in it once."""
    torch.manual_seed(0)
    torch.save(Halved().state_dict(), tmp_path / "net.pth")
    out = tmp_path / "out"
    options = ["--arch", "tests.pipeline.test_buckets:Halved", "--target", "snapdragon865", "--no-cache"]
    options += ["--formats", "executorch", "--precisions", "fp32", "--samples", "4"]
    dynamic = ["--dynamic", "x=1x3x{s=8..16:8}x{s}", "-o", str(out)]
    assert exit_code(tmp_path / "net.pth", *options, *dynamic) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pth", "out"]
    listed = json.loads((out / "parts.json").read_text())
    assert [part["name"] for part in listed["parts"]] == ["8x8", "16x16"]
    assert listed["merged"]["methods"] == {"8x8": "forward_8x8", "16x16": "forward_16x16"}
    weights = 4 * (64 * 27 + 64 + 64 * 64 * 9 + 64 + 640 + 10)
    assert listed["merged"]["separate_bytes"] > 2 * weights
    assert listed["merged"]["size_bytes"] < 1.1 * weights
    assert [verdict["status"] for verdict in listed["together"]] == ["passed"]
    own = json.loads((out / "16x16" / "manifest.json").read_text())["artifacts"][0]
    assert own["verification"]["sizes"] == {"verified": ["s=16"], "refused": ["s=15", "s=17"], "accepted": []}
    assert "intArrayOf(8, 8)" in (out / "Sizes.kt").read_text()
    assert "forward_" in (out / "Sizes.swift").read_text()

    variant = VARIANTS["executorch-xnnpack-fp32"]
    files = [BucketFile(name, out / name / f"{variant.name}.pte") for name in ("8x8", "16x16")]
    whole = merged_methods.merge_pte_methods
    swapped = {"8x8": "16x16", "16x16": "8x8"}
    monkeypatch.setattr(
        merged_methods, "merge_pte_methods", lambda given: whole({swapped[k]: v for k, v in given.items()})
    )
    with pytest.raises((LoweringError, RuntimeError)):
        merge_bucket_files(files, variant, tmp_path)

    assert exit_code("verify", out, "--jobs", "1") == 0
    release = ["release", out, "--version", "1.0.0", "--allow-unmeasured", "-o"]
    assert exit_code(*release, tmp_path / "signed", "--key", tmp_path / "net.pth") == 2
    assert exit_code(*release, tmp_path / "shipped") == 0
    assert sorted(path.name for path in (tmp_path / "shipped").iterdir()) == ["16x16", "8x8", "sizes"]
    assert (tmp_path / "shipped" / "8x8" / "halved_8x8-1.0.0.zip").exists()
    assert (tmp_path / "shipped" / "sizes" / "sizes.pte").read_bytes() == (out / "sizes.pte").read_bytes()
    assert sha256sums_problems(tmp_path / "shipped" / "sizes") == ()
    data = (out / "sizes.pte").read_bytes()
    (out / "sizes.pte").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "sizes.pte is not the file" in load_parts(out)["8x8"][1]
    assert exit_code(*release, tmp_path / "changed") == 9
    assert not (tmp_path / "changed").exists()


@pytest.mark.slow
def test_other_formats_have_a_file_for_each_size(tmp_path: Path) -> None:
    """Listed sizes become files that are named by them, and code names them, too."""
    torch.manual_seed(0)
    torch.save(Halved().state_dict(), tmp_path / "net.pth")
    out = tmp_path / "out"
    options = ["--arch", "tests.pipeline.test_buckets:Halved", "--target", "snapdragon865", "--no-cache"]
    options += ["--formats", "torchscript", "--samples", "4", "-o", str(out)]
    assert exit_code(tmp_path / "net.pth", *options, "--dynamic", "1x3x{s=8,12}x{s}") == 0
    listed = json.loads((out / "parts.json").read_text())
    assert [part["file"] for part in listed["parts"]] == ["8x8.ptl", "12x12.ptl"]
    assert listed["merged"] is None
    assert '+ ".ptl"' in (out / "Sizes.kt").read_text()
    remove_earlier_parts(out)
    assert sorted(path.name for path in out.iterdir()) == ["12x12", "8x8"]
