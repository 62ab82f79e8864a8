"""The keys of artifacts and of int8 programs have everything that can change them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter.config.request import Request
from exporter.formats import VARIANTS
from exporter.pipeline import build_stage, int8_stage
from exporter.records import About, DynamicShape, ImageInput, Limits, Preprocessing, SizeRange, TensorSpec

FACTS: dict[str, Any] = {
    "digest": "abc",
    "inputs": (TensorSpec("x", (1, 3)),),
    "outputs": (TensorSpec("y", (1, 2)),),
    "labels": ("cat", "dog"),
    "preprocessing": None,
    "image": None,
}
RANGE = DynamicShape("x", (1, SizeRange("width", 1, 4)))
PHOTO = Preprocessing(resize=8, crop=(8, 8), mean=(0.5,), std=(0.5,))
NAMED = DynamicShape("x", (1, SizeRange("height", 1, 4)))


def key(name: str, source_key: str, facts: dict[str, Any], data: str = "", **asked: Any) -> str:
    """Return the key of an int8 program, or of an artifact, for changed facts and options."""
    request = replace(Request(Path("net.pt")), **{"dynamic": (RANGE,), **asked})
    context: Any = SimpleNamespace(request=request, calibration_digest=data)
    source: Any = SimpleNamespace(facts=SimpleNamespace(**{**FACTS, **facts}), key=source_key)
    if name == "program":
        return int8_stage.int8_stage_key(context, source)
    return build_stage._build_stage_key_of_artifact(context, source, VARIANTS[name])


QUANTIZED = {"limits": Limits(min_quantized_weights=0.5)}
EVERY: list[dict[str, Any]] = [{"digest": "abd"}, {"dynamic": (NAMED,)}, {"dynamic": ()}]
ARTIFACT = [
    *EVERY,
    {"inputs": (TensorSpec("z", (1, 3)),)},
    {"outputs": (TensorSpec("z", (1, 2)),)},
    {"labels": ("dog", "cat")},
    {"preprocessing": PHOTO},
    {"image": ImageInput((1.0,), (0.0,))},
    {"torchscript": "script"},
    {"about": About(author="me")},
]
DATA: list[dict[str, Any]] = [{"data": "photos"}, {"samples": 65}, {"search": True}]
"""What calibration depends on; a key of the source has it already."""


@pytest.mark.parametrize(
    ("name", "source_key", "changes"),
    [
        ("onnx-fp32", "", ARTIFACT),
        ("onnx-fp32", "read", ARTIFACT),
        ("torchscript-lite-fp32", "read", ARTIFACT),
        ("onnx-int8", "", [*ARTIFACT, *DATA, QUANTIZED]),
        ("program", "", [*EVERY, *DATA, QUANTIZED, {"inputs": FACTS["outputs"]}, {"preprocessing": PHOTO}]),
        ("program", "read", [*EVERY, QUANTIZED]),
    ],
)
def test_every_change_changes_the_key(name: str, source_key: str, changes: list[dict[str, Any]]) -> None:
    """Each alone gives a key that no other gives."""
    facts = [{k: v for k, v in change.items() if k in FACTS} for change in changes]
    asked = [{k: v for k, v in change.items() if k not in FACTS} for change in changes]
    keys = [key(name, source_key, own, **others) for own, others in zip(facts, asked, strict=True)]
    assert len({key(name, source_key, {}), *keys} - {""}) == len(changes) + 1


@pytest.mark.parametrize("name", ["onnx-int8", "program"])
def test_quantised_files_have_the_sources_key(name: str) -> None:
    """The key of a source covers its checkpoint and its data."""
    assert key(name, "read", {}) != key(name, "read again", {})


@pytest.mark.parametrize(
    ("name", "source_key", "digest"),
    [
        ("onnx-fp32", "read", ""),
        ("onnx-int8", "", ""),
        ("program", "read", ""),
        ("torchscript-lite-fp32", "", "abc"),
    ],
)
def test_what_no_digest_covers_has_no_key(name: str, source_key: str, digest: str) -> None:
    """TorchScript is made from the network's own code: without a key of the source it is made anew."""
    assert key(name, source_key, {"digest": digest}) == ""
