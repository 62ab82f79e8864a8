"""`export-mobile inspect`: shows what is in a checkpoint, without exporting anything."""

from __future__ import annotations

from dataclasses import dataclass, replace

from exporter import checkpoints, temporary_files
from exporter.checkpoints import checkpoint_folder
from exporter.checkpoints.checkpoint_source import check_regular_checkpoint_source
from exporter.config.request import ModelRequest
from exporter.errors import ArchitectureError, OverBoundsError, SeveralPartsError
from exporter.files import file_size_bytes
from exporter.pipeline import expectations, job_rights, read_stage
from exporter.pipeline.context import TORCH
from exporter.pipeline.workers.jobs import Job
from exporter.pipeline.workers.pool import WorkerPool
from exporter.records import Checkpoint, Preprocessing, TensorSpec


@dataclass(frozen=True)
class Inspection:
    file: str
    sha256: str
    kind: str
    size_bytes: int
    contents: tuple[tuple[str, str], ...]
    """Everything at the top of the file: (key, short description)."""
    architecture: str | None
    """None when no known network fits; `problem` says why."""
    problem: str
    parameters: int
    """Number of the network's parameters; without a network, of all values in the file's weights."""
    flops: int | None
    """FLOPs of a call at the inputs' shapes, two per multiply-accumulate; None when it cannot run."""
    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What the weights cannot prove about the network."""


def inspect_network_or_parts(request: ModelRequest) -> dict[str, Inspection]:
    """Inspect what an export of the same request would export.

    Returns:
        By the part's name: one inspection named "" for a network in one piece or for one part, else one for
        each part, of which the first alone has the file's contents.

    Raises:
        UsageError: A part is named twice, or the network does not have it.
        CheckpointError: The checkpoint cannot be read safely, or not within its bounds.
    """
    names = request.several_parts
    try:
        if not names:
            return {"": inspect_checkpoint(request)}
    except SeveralPartsError as error:
        if not error.parts:
            raise
        names = error.parts
    inspections = {name: inspect_checkpoint(replace(request, part=name)) for name in names}
    return {
        name: inspection if name == names[0] else replace(inspection, contents=())
        for name, inspection in inspections.items()
    }


def inspect_checkpoint(request: ModelRequest) -> Inspection:
    """Read a checkpoint and infer its network, in a confined process of its own.

    Raises:
        CheckpointError: It cannot be read safely, or not within its bounds.
    """
    request = replace(request, checkpoint=checkpoint_folder.find_checkpoint_folder(request.checkpoint))
    if not checkpoints.is_folder(request.checkpoint):
        check_regular_checkpoint_source(request.checkpoint)
    job = Job("reading the checkpoint", inspect_checkpoint_here, (request,), preload=TORCH)
    with (
        temporary_files.temporary_scratch("inspect") as scratch,
        temporary_files.temporary_scratch("inspect-job") as job_scratch,
        WorkerPool(1, scratch / "log", job_rights.job_rights_to_inspect(request, job_scratch)) as pool,
    ):
        (outcome,) = pool.run([job])
    if isinstance(outcome.error, OverBoundsError):
        raise read_stage.read_stage_bounds_error(request, outcome.error)
    inspection: Inspection = outcome.result()
    return inspection


def inspect_checkpoint_here(request: ModelRequest) -> Inspection:
    """Read a checkpoint and infer its network, in this process."""
    checkpoint = read_stage.read_checkpoint_in_stage(request)
    try:
        model = read_stage.find_network_in_read_stage(request, checkpoint)
    except ArchitectureError as error:
        return _inspect_checkpoint_without_network(request, checkpoint, error)
    answered = expectations.check_expectations(model, request.expect)
    return Inspection(
        file=request.checkpoint.name,
        sha256=checkpoint.sha256,
        kind=checkpoint.kind,
        size_bytes=file_size_bytes(request.checkpoint),
        contents=checkpoint.contents,
        architecture=model.architecture,
        problem="",
        parameters=model.parameters,
        flops=read_stage.count_flops_in_read_stage(model.module, model.inputs),
        inputs=model.inputs,
        preprocessing=model.preprocessing,
        notes=(*checkpoint.notes, *model.notes, *answered),
        warnings=model.warnings,
    )


def _inspect_checkpoint_without_network(
    request: ModelRequest, checkpoint: Checkpoint, error: ArchitectureError
) -> Inspection:
    """Describe a file whose network is unknown: its contents, and the nearest candidates."""
    return Inspection(
        file=request.checkpoint.name,
        sha256=checkpoint.sha256,
        kind=checkpoint.kind,
        size_bytes=file_size_bytes(request.checkpoint),
        contents=checkpoint.contents,
        architecture=None,
        problem=str(error),
        parameters=sum(tensor.numel() for tensor in (checkpoint.tensors or {}).values()),
        flops=None,
        inputs=(),
        preprocessing=None,
        notes=checkpoint.notes,
    )
