"""`export-mobile inspect`: what is in a checkpoint, without exporting anything."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.records import Preprocessing, TensorSpec
from exporter.request import ModelRequest


@dataclass(frozen=True)
class Inspection:
    file: str
    sha256: str
    kind: str
    size_bytes: int
    contents: tuple[tuple[str, str], ...]
    """Everything at the top of the file: (key, short description)."""
    architecture: str
    parameters: int
    flops: int | None
    """Of one call at the inputs' shapes, a multiply-accumulate counted as two; None when it cannot run."""
    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    notes: tuple[str, ...]


def inspect_checkpoint(request: ModelRequest) -> Inspection:
    """Read a checkpoint and infer its network.

    Raises:
        CheckpointError: It cannot be read safely.
        ArchitectureError: No known network fits.
    """
    from exporter import jobs

    model, checkpoint = jobs.read_model(request)
    return Inspection(
        file=request.checkpoint.name,
        sha256=checkpoint.sha256,
        kind=checkpoint.kind,
        size_bytes=request.checkpoint.stat().st_size,
        contents=checkpoint.contents,
        architecture=model.architecture,
        parameters=model.parameters,
        flops=jobs.count_flops(model.module, model.inputs),
        inputs=model.inputs,
        preprocessing=model.preprocessing,
        notes=(*checkpoint.notes, *model.notes),
    )
