"""Bounds how long an artifact may take to run and to be judged, by how much there is to compute."""

from __future__ import annotations

import math
from pathlib import Path

from exporter.files import EVIDENCE, file_size_bytes
from exporter.pipeline.stage_results import ExpectedResult
from exporter.sandbox import confinement_run_seconds

LEAST_BYTES = 4
"""Bytes of a value of the evidence, at the least: more only make the bound larger."""


def seconds_to_verify(folder: Path, file: str, expected: ExpectedResult) -> float:
    """Return the bound in seconds: longer for a large model, many inputs and large outputs.

    Args:
        folder: Holds the artifact and the evidence.
        file: The artifact.
        expected: Shapes and FLOPs of a call.
    """
    evidence = file_size_bytes(folder / EVIDENCE)
    specs = (*expected.inputs, *expected.outputs)
    calls = evidence // max(1, sum(LEAST_BYTES * math.prod(spec.shape) for spec in specs))
    return confinement_run_seconds(file_size_bytes(folder / file), evidence, calls * expected.flops)
