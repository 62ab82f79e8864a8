"""Labels, licence and the like travel in each file, where an app reads them by the runtime's own call."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.formats import FORMATS, VARIANTS
from exporter.formats.metadata import metadata_as_json, model_metadata
from exporter.records import About
from tests import proof

ABOUT = About("Tells mushrooms.", "Ada", "CC-BY-4.0", "1.2", ("Pilz é", 'a "b"', "雨"), "crop 8 × 8")  # noqa: RUF001
TOLD = {
    "description": "Tells mushrooms.",
    "author": "Ada",
    "licence": "CC-BY-4.0",
    "version": "1.2",
    "preparation": "crop 8 × 8",  # noqa: RUF001
    "classes": ["Pilz é", 'a "b"', "雨"],
}


def told_by_onnxruntime(path: Path) -> dict[str, Any]:
    import onnxruntime

    told: dict[str, Any] = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    return told | ({"classes": json.loads(told["classes"])} if "classes" in told else {})


def told_by_torchscript(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/extra/metadata.json")]
        told: dict[str, Any] = json.loads(archive.read(names[0])) if names else {}
    return told


def told_by_executorch(path: Path) -> dict[str, Any]:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    if "metadata" not in program.method_names:
        return {}
    method = program.load_method("metadata")
    assert method is not None
    (text,) = method.execute([])
    told: dict[str, Any] = json.loads(text)
    return told


READERS = {
    "onnx-fp32": told_by_onnxruntime,
    "onnx-fp16": told_by_onnxruntime,
    "ort-fp32": told_by_onnxruntime,
    "torchscript-lite-fp32": told_by_torchscript,
    "executorch-xnnpack-fp32": told_by_executorch,
}


@pytest.mark.parametrize("name", READERS)
def test_every_file_tells_what_is_known_of_the_model(name: str, tmp_path: Path) -> None:
    """Its outputs are those of the file without; a model that nothing is known of has no such field."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((1, 4)).astype(np.float32)
    captured = proof.capture(nn.Linear(4, 3), [(x,)], tmp_path)
    variant = VARIANTS[name]
    outputs = []
    for about, told in ((ABOUT, TOLD), (About(), {})):
        folder = tmp_path / (about.author or "none")
        folder.mkdir()
        path = FORMATS[variant.format].emit(replace(captured, about=about), variant, folder).path
        assert READERS[name](path) == told
        FORMATS[variant.format].structure(path, variant)
        outputs.append(FORMATS[variant.format].load(path, variant, 1)[0]((x,))[0])
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_texts_that_were_not_given_are_left_out() -> None:
    """An empty text is no text."""
    assert model_metadata(About(author="Ada")) == {"author": "Ada"}
    assert metadata_as_json(About()) == ""
