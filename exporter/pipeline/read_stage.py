"""The read stage: checkpoint, network, data and captured model, from the cache or a worker process."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.config.request import ModelRequest
from exporter.errors import BoundsError, CheckpointError, OverBoundsError
from exporter.files import digest_file_or_folder, file_size_bytes
from exporter.pipeline import cache, expectations, stage_results
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import TORCH, Context, Source, preload_of_context
from exporter.pipeline.job_rights import job_rights_of_own_code
from exporter.pipeline.stage_results import DATA, ReadResult
from exporter.pipeline.workers.jobs import Job
from exporter.records import About, TensorSpec
from exporter.report.text import preprocessing_text
from exporter.sandbox import confinement_seconds, resource_limit_of_seconds_anew
from exporter.sandbox.confinement import RUN_SECONDS

if TYPE_CHECKING:
    import torch

    from exporter.records import Captured, Checkpoint, Model


def read_checkpoint_in_stage(request: ModelRequest) -> Checkpoint:
    """Read the file; nothing in it runs except what `trust` allows."""
    from exporter import checkpoints
    from exporter.checkpoints import checkpoint_folder, lora

    if request.base is None:
        return checkpoints.read_checkpoint(request.checkpoint, trust=request.trust)
    adapter = checkpoints.read_checkpoint(lora.find_lora_weights(request.checkpoint))
    network = checkpoint_folder.find_checkpoint_folder(lora.find_lora_weights(request.base))
    base = checkpoints.read_checkpoint(network, trust=request.trust)
    merged = lora.merge_lora(adapter, base)
    return replace(merged, sha256=digest_file_or_folder(request.checkpoint))


def find_network_in_read_stage(request: ModelRequest, checkpoint: Checkpoint) -> Model:
    """Find the checkpoint's network, or make the one that `arch` names."""
    from exporter import architectures

    return architectures.build_architecture(
        checkpoint,
        arch=request.arch,
        arch_args=dict(request.arch_args),
        input_shapes=request.input_shapes,
        preprocess=request.preprocess,
        mean=request.mean,
        std=request.std,
        whole=request.preprocessing,
        labels=request.labels,
        ignore_keys=request.ignore_keys,
        input_values=dict(request.input_values),
        weights_from_arch=request.weights_from_arch,
        part=request.part,
        trust=request.trust,
        rows=_calibration_rows_of_read_stage(request.calibration),
    )


def _calibration_rows_of_read_stage(calibration: Path | None) -> Path | None:
    """Return the calibration data where it is a `.npz` of arrays."""
    return calibration if calibration and calibration.suffix.lower() == ".npz" else None


def capture_in_read_stage(
    request: ModelRequest, work: Path, calibration_digest: str, choosing: bool = False
) -> ReadResult:
    """Read, infer, load the data, capture; everything the builders need lands in `work`.

    Args:
        request: What the user said about the model.
        work: Where the captured model and the data are written.
        calibration_digest: What the calibration data was hashed to before: every cache key has it.
        choosing: Whether candidates will be chosen among, which needs samples of its own.

    Raises:
        ExportError: The checkpoint or the data cannot be read, or the data was changed meanwhile.
    """
    from exporter import data
    from exporter.capture import (
        captured_program,
        dynamic_shapes,
        embedded_preprocessing,
        explicit_state,
        scripted,
    )
    from exporter.data import image_input

    if request.dynamic and not request.input_shapes:
        request = replace(request, input_shapes=tuple(shape.largest for shape in request.dynamic))
    checkpoint = read_checkpoint_in_stage(request)
    model = find_network_in_read_stage(request, checkpoint)
    checkpoint = replace(checkpoint, tensors=None)  # the network has them
    sizes = dynamic_shapes.resolve_dynamic_shapes(request.dynamic, model.inputs)
    if checkpoint.module is None:
        resource_limit_of_seconds_anew(
            RUN_SECONDS
        )  # the network is ours; what follows takes what its size takes
    answered = expectations.check_expectations(model, request.expect)
    if request.embed_preprocessing:
        model = embedded_preprocessing.embed_preprocessing(
            model, request.embed_preprocessing, request.photo_sizes
        )
        sizes = dynamic_shapes.dynamic_shapes_of_pixels(sizes)
        sizes = (*sizes, *dynamic_shapes.dynamic_shapes_of_photos(request.photo_sizes))
    samples = data.load_data(
        request.calibration,
        (model.earlier or model).inputs,
        (model.earlier or model).preprocessing,
        request.samples,
        choosing=choosing,
        codes=model.codes,
        reader=model.reader,
    )
    if model.earlier:
        samples = data.data_after_earlier_part(samples, model.earlier)
    data.check_data_unchanged(request.calibration, calibration_digest)
    model = scripted.model_without_branches(model, samples.verification[0])
    if request.state == "explicit":
        explicit = explicit_state.make_state_explicit(
            model, samples.calibration, samples.verification, samples.choice
        )
        model = explicit.model
        samples = replace(
            samples,
            calibration=explicit.calibration,
            verification=explicit.verification,
            choice=explicit.choice,
        )
    image = image_input.image_input_of(model.inputs, model.preprocessing) if request.image_input else None
    if image:
        samples = image_input.image_inputs_of_data(samples, image)
    captured = captured_program.capture_program(
        model, samples.verification[0], request.torchscript, samples.verification[1:], sizes
    )
    embedding = _notes_on_embedding_in_read_stage(request, model, captured)
    resource_limit_of_seconds_anew(RUN_SECONDS)
    captured_program.save_captured_program(
        replace(captured, about=read_facts_in_read_stage(request, model), image=image), work
    )
    (work / DATA).write_bytes(pickle.dumps(samples))
    return ReadResult(
        source_sha256=checkpoint.sha256,
        source_kind=checkpoint.kind,
        architecture=model.architecture,
        parameters=model.parameters,
        matrix_weights=captured_program.captured_program_matrix_weights(captured),
        flops=count_flops_in_read_stage(captured.module, captured.inputs),
        inputs=captured.inputs,
        outputs=captured.outputs,
        preprocessing=model.preprocessing,
        labels=model.labels,
        data_kind=samples.kind,
        calibration_count=len(samples.calibration),
        verification_count=len(samples.verification),
        scenes=samples.scenes,
        notes=(*checkpoint.notes, *model.notes, *answered, *samples.notes, *embedding),
        warnings=(*model.warnings, *samples.warnings),
        digest=captured_program.captured_program_digest(captured),
        image=image,
        activation_bytes=_activation_memory_in_read_stage(captured),
    )


def _activation_memory_in_read_stage(captured: Captured) -> int:
    """Return what a call's values take; 0 where the graph does not say, as the figure is an estimate."""
    from exporter.capture.activation_memory import activation_memory_bytes

    if captured.program is None:
        return 0
    try:
        return activation_memory_bytes(captured.program)
    except Exception:  # an operator whose arguments are unlike PyTorch's own
        return 0


def _notes_on_embedding_in_read_stage(
    request: ModelRequest, model: Model, captured: Captured
) -> tuple[str, ...]:
    """Say how the normalisation is embedded, and what Android's resize changes; nothing where it is not."""
    from exporter.capture import embedded_preprocessing
    from exporter.capture.calls import call_runner
    from exporter.data.android_resize import note_on_android_resize, notes_on_resize_inside

    if not request.embed_preprocessing or model.preprocessing is None:
        return ()
    own = captured.folded or "the normalisation is computed before the network: no convolution alone reads it"
    embedded = embedded_preprocessing.embedded_preprocessing_of(captured.module)
    if embedded is None or embedded.resize is None:
        run = call_runner(captured.module)
        note = note_on_android_resize(request.calibration, model.inputs[0], model.preprocessing, run)
        return (own, note) if note else (own,)
    return (own, *notes_on_resize_inside(request.calibration, model.inputs[0], model.preprocessing, embedded))


def read_facts_in_read_stage(request: ModelRequest, model: Model) -> About:
    """Return what the user said about the model, with its labels and how a photo becomes its input."""
    prepared = preprocessing_text(model.preprocessing) if model.preprocessing else ""
    return replace(request.about, labels=model.labels, preparation=prepared)


def count_flops_in_read_stage(module: torch.nn.Module, inputs: tuple[TensorSpec, ...]) -> int | None:
    """Return the FLOPs of one call; None where they cannot be counted, as the figure is only shown."""
    import torch

    from exporter.capture import flops

    example = tuple(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in inputs)
    try:
        return flops.count_flops(module, example)
    except Exception:
        return None


def run_read_stage(context: Context) -> Source:
    """Read the checkpoint, infer its network, load the data and capture, or find all that in the cache."""
    sha256 = digest_file_or_folder(context.request.checkpoint)
    step = Step(
        "model",
        _read_stage_key(context, sha256),
        stage_results.ReadResult,
        lambda _: _read_stage_job(context),
        keep=lambda facts: facts.source_sha256 == sha256,  # not where the file was replaced meanwhile
    )
    try:
        (facts,) = cached_steps(
            context.run, context.cache, "read", [step], lambda: _warm_up_in_read_stage(context)
        )
    except OverBoundsError as error:
        raise read_stage_bounds_error(context.request, error) from error
    return Source(facts, _read_stage_key(context, facts.source_sha256))


def read_stage_bounds_error(request: ModelRequest, error: OverBoundsError) -> BoundsError:
    """Return the checkpoint's refusal when the job that reads it was stopped."""
    return BoundsError(
        f"{request.checkpoint} is not read. {error.message}",
        "Save the weights alone: torch.save(model.state_dict(), …).",
    )


def ensure_read_stage_ran(context: Context, source: Source) -> None:
    """Capture the model now if it is not in the work folder, as the cache keeps its facts only.

    Raises:
        CheckpointError: The file was replaced since the facts in the cache were read.
    """
    if (context.folders.work / stage_results.DATA).exists():
        return
    _warm_up_in_read_stage(context)
    (outcome,) = context.run("read", [_read_stage_job(context)])
    if outcome.result().source_sha256 != source.facts.source_sha256:
        raise CheckpointError(
            f"{context.request.checkpoint} was replaced while it was exported.",
            "Export a copy that nothing writes to.",
        )


def _read_stage_job(context: Context) -> Job:
    request = context.request.model
    return Job(
        "reading the checkpoint",
        capture_in_read_stage,
        (request, context.folders.work, context.calibration_digest, context.request.choosing),
        preload=TORCH,
        seconds=confinement_seconds(file_size_bytes(request.checkpoint)),
    )


def _warm_up_in_read_stage(context: Context) -> None:
    """Import what the longest build needs in the other workers while one reads the checkpoint."""
    context.workers.warm(preload_of_context(max(context.variants, key=lambda variant: variant.cost_s)))


def _read_stage_key(context: Context, sha256: str) -> str:
    """Return the cache key of what was read from the checkpoint with that hash."""
    request = context.request.model
    if job_rights_of_own_code(request):
        return ""  # the user's own code decides what comes out, and code cannot be hashed with its imports
    if request.expect or request.base:
        return ""  # asked again in every run: the photos may have changed
    anywhere = replace(request, checkpoint=Path(), calibration=None)
    return cache.cache_key(
        cache.cache_toolchain_key(), sha256, anywhere, context.calibration_digest, context.request.choosing
    )
