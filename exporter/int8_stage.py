"""The int8 program of a run: when it is made and judged, and what of it the cache keeps."""

from __future__ import annotations

from pathlib import Path

from exporter import cache, jobs, quantizing
from exporter.context import TORCH, Context, Event, Source
from exporter.quantize import int8
from exporter.records import QUANTIZED
from exporter.workers import Job

QUANTIZERS = (
    *TORCH,
    "executorch.backends.xnnpack.quantizer.xnnpack_quantizer",
    "torchao.quantization.pt2e.quantize_pt2e",
)


def wanted(context: Context) -> bool:
    """Whether any artifact of the run is made from the program."""
    return any(variant.precision in QUANTIZED for variant in context.variants)


def quantize_job(context: Context) -> Job:
    """Makes the program in the work folder, from the captured model there."""
    return Job("int8", quantizing.quantize_model, (context.folders.work,), preload=QUANTIZERS, cost_s=30)


def ensure(context: Context) -> None:
    """Make the program now if it is not in the work folder, as the artifacts came from the cache.

    The captured model must be there.
    """
    if not (context.folders.work / int8.PROGRAM).exists():
        context.observer(Event("search", "making the int8 program", 0, 0))
        (outcome,) = context.workers.run([quantize_job(context)])
        outcome.result()


def judge_job(context: Context, quantize: Job) -> Job:
    """Runs the program after it was made, and finds what of it costs how much."""
    arguments = (context.folders.work, _lowering(context))
    return Job(
        "what int8 costs", quantizing.judge_quantized, arguments, preload=QUANTIZERS, cost_s=9, after=quantize
    )


def _lowering(context: Context) -> Path:
    return context.folders.out / jobs.lowering_file("int8")


def key(context: Context, source: Source) -> str:
    """The cache's, for what follows from the program; empty when there is none."""
    facts = source.facts
    return cache.key(cache.toolchain(), facts.digest, data_digest(context, source)) if facts.digest else ""


def cached(context: Context, source: Source) -> quantizing.Quantization | None:
    """What was found out before, its outputs put into OUT; None where that is unknown, or not asked for."""
    if not (context.request.verify and wanted(context)):
        return None
    return context.cache.get(
        "quantization", key(context, source), quantizing.Quantization, context.folders.out
    )


def keep(context: Context, source: Source) -> None:
    """For `cached` of a later run."""
    lowering = _lowering(context)
    context.cache.put("quantization", key(context, source), source.quantization, {lowering.name: lowering})


def data_digest(context: Context, source: Source) -> str:
    """Of everything that calibration inputs depend on."""
    content = context.calibration_digest or "synthetic"
    return source.key or cache.key(content, context.request.samples, source.facts.preprocessing)
