"""The read stage: checkpoint, network, data and captured model, from the cache or a worker process."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.config.request import ModelRequest
from exporter.files import digest_path
from exporter.pipeline import cache, expectations, results
from exporter.pipeline.context import TORCH, Context, Source, preload_of
from exporter.pipeline.results import DATA, Facts
from exporter.pipeline.steps import Step, cached
from exporter.pipeline.workers.pool import Job
from exporter.records import TensorSpec

if TYPE_CHECKING:
    import torch

    from exporter.records import Checkpoint, Model


def read_checkpoint(request: ModelRequest) -> Checkpoint:
    """Read the file; runs nothing in it but what `trust` allows."""
    from exporter import checkpoints

    return checkpoints.read(request.checkpoint, trust=request.trust)


def read_network(request: ModelRequest, checkpoint: Checkpoint) -> Model:
    """Find the checkpoint's network, or make the one that `arch` names."""
    from exporter import architectures

    return architectures.build(
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
        weights_from_arch=request.weights_from_arch,
    )


def capture_model(request: ModelRequest, work: Path) -> Facts:
    """Read, infer, load the data, capture; everything the builders need lands in `work`."""
    from exporter import data
    from exporter.capture import program

    checkpoint = read_checkpoint(request)
    model = read_network(request, checkpoint)
    answered = expectations.check(model, request.expect)
    samples = data.load(request.calibration, model.inputs, model.preprocessing, request.samples)
    captured = program.capture(model, samples.verification[0], request.torchscript, samples.verification[1:])
    program.save(captured, work)
    (work / DATA).write_bytes(pickle.dumps(samples))
    return Facts(
        source_sha256=checkpoint.sha256,
        source_kind=checkpoint.kind,
        architecture=model.architecture,
        parameters=model.parameters,
        matrix_weights=program.matrix_weights(captured),
        flops=count_flops(captured.module, captured.inputs),
        inputs=captured.inputs,
        outputs=captured.outputs,
        preprocessing=model.preprocessing,
        labels=model.labels,
        data_kind=samples.kind,
        calibration_count=len(samples.calibration),
        verification_count=len(samples.verification),
        notes=(*checkpoint.notes, *model.notes, *answered, *samples.notes),
        warnings=(*model.warnings, *samples.warnings),
        digest=program.digest(captured),
    )


def count_flops(module: torch.nn.Module, inputs: tuple[TensorSpec, ...]) -> int | None:
    """FLOPs of one call; None where they cannot be counted: a figure for people only."""
    import torch

    from exporter.capture import flops

    example = tuple(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in inputs)
    try:
        return flops.count(module, example)
    except Exception:
        return None


def read(context: Context) -> Source:
    """Read the checkpoint, infer its network, load the data and capture, or find all that in the cache."""
    key = _source_key(context)
    step = Step("model", key, results.Facts, lambda _: _capture_job(context))
    (facts,) = cached(context.run, context.cache, "read", [step], lambda: _warm(context))
    return Source(facts, key)


def ensure_captured(context: Context) -> None:
    """Capture the model now if it is not in the work folder, as the cache keeps its facts only."""
    if not (context.folders.work / results.DATA).exists():
        _warm(context)
        (outcome,) = context.run("read", [_capture_job(context)])
        outcome.result()


def _capture_job(context: Context) -> Job:
    arguments = (context.request.model, context.folders.work)
    return Job("reading the checkpoint", capture_model, arguments, preload=TORCH)


def _warm(context: Context) -> None:
    """Import what the longest build needs in the other workers while one reads the checkpoint."""
    context.workers.warm(preload_of(max(context.variants, key=lambda variant: variant.cost_s)))


def _source_key(context: Context) -> str:
    request = context.request.model
    if request.trust or (request.arch and not request.arch.startswith("torchvision/")):
        return ""  # the user's own code decides what comes out, and code cannot be hashed with its imports
    if request.expect:
        return ""  # asked again in every run: the photos may have changed
    anywhere = replace(request, checkpoint=Path(), calibration=None)
    return cache.key(cache.toolchain(), digest_path(request.checkpoint), anywhere, context.calibration_digest)
