"""Write example inputs and expected outputs for an app's own tests: raw values and a JSON index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from exporter.records import Array
from exporter.report.manifest.schema import Manifest
from exporter.verify import reference_io

FOLDER = "examples"
MOST = 8
MOST_BYTES = 4 << 20
"""The most bytes of all examples together, if more than one: six photos of 224 x 224."""
HOW = (
    "Each file holds one array: raw values, little-endian, row by row, without a header; dtype and shape are "
    "in this index. `expected` is the original model's output in float64, rounded to float32. Compare over "
    "all examples together: max_error is max|a-y| / max|y|; sqnr_db is 10 log10(sum y^2 / sum (a-y)^2); "
    "agreement is the share of equal argmax over axis 1. An artifact was checked by its limits over all of "
    "verification.npz."
)


def example_files(path: Path, listed: Manifest) -> dict[str, bytes]:
    """Return the first verification samples as files, name -> bytes.

    Args:
        path: `verification.npz`.
        listed: The bundle's manifest: names, shapes, limits.

    Raises:
        VerificationError: It is not the evidence of an export.
    """
    references = reference_io.load_reference_io(path)
    count = _example_count(references)
    contents: dict[str, bytes] = {}
    rows = []
    for index in range(count):
        inputs = [
            _keep_example(contents, f"{index}.input.{i}", a[index]) for i, a in enumerate(references.inputs)
        ]
        outputs = [
            _keep_example(contents, f"{index}.expected.{i}", _narrow_example(a[index]))
            for i, a in enumerate(references.reference)
        ]
        rows.append({"inputs": inputs, "expected": outputs})
    index_text = json.dumps(
        {
            "how": HOW,
            "inputs": [spec.name for spec in listed.inputs],
            "outputs": [spec.name for spec in listed.outputs],
            "limits": {a.name: a.verification.limits for a in listed.artifacts if a.verification},
            "examples": rows,
        },
        indent=2,
    )
    return contents | {f"{FOLDER}/index.json": f"{index_text}\n".encode()}


def _example_count(references: reference_io.ReferenceIO) -> int:
    stacks = (*references.inputs, *(_narrow_example(a) for a in references.reference))
    each = sum(int(a[0].nbytes) for a in stacks)
    return max(1, min(MOST, len(references.inputs[0]), MOST_BYTES // max(each, 1)))


def _narrow_example(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _keep_example(contents: dict[str, bytes], name: str, array: Array) -> dict[str, Any]:
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    file = f"{FOLDER}/{name}.bin"
    contents[file] = little.tobytes()
    return {"file": Path(file).name, "dtype": str(array.dtype), "shape": list(array.shape)}
