"""The evidence that a search chooses by. Its scenes neither calibrate nor judge what was chosen."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from exporter import files
from exporter.files import EVIDENCE
from exporter.pipeline import build_stage, cache, int8_stage, read_stage, stage_results, verify_stage
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import TORCH, Context, Source
from exporter.pipeline.stage_results import CheckedArtifactResult
from exporter.pipeline.workers.jobs import Job
from exporter.records import Preprocessing


def search_evidence_folder(context: Context) -> Path:
    """Return the folder of the evidence, in the work folder."""
    return context.folders.work / "choice"


def make_search_evidence(context: Context, source: Source) -> Path:
    """Run the float64 model on the scenes that choose, once in a run; return the evidence's file."""
    folder = search_evidence_folder(context)
    folder.mkdir(exist_ok=True)
    if (folder / EVIDENCE).exists():
        return folder / EVIDENCE
    arguments = (context.folders.work, folder / EVIDENCE, source.facts.preprocessing, "choice")
    job = Job(
        "the reference to choose by",
        build_stage.run_reference_in_build_stage,
        arguments,
        preload=TORCH,
        cost_s=8,
    )
    step = Step(
        "choice",
        cache.cache_key("choice", source.key) if source.key else "",
        tuple[str, ...],
        lambda _: job,
        folder=folder,
        files=lambda _: (EVIDENCE,),
    )
    cached_steps(
        context.run_silently,
        context.cache,
        "search",
        [step],
        lambda: read_stage.ensure_read_stage_ran(context, source),
    )
    return folder / EVIDENCE


def check_int8_on_search_evidence(
    context: Context, source: Source, built: Sequence[stage_results.BuildResult]
) -> Mapping[str, CheckedArtifactResult]:
    """Judge the int8 artifacts in OUT on the scenes that choose; by name."""
    if not built:
        return {}
    make_search_evidence(context, source)
    folder = search_evidence_folder(context)
    lowering = files.lowering_file("int8")
    arguments = (context.folders.work, folder / lowering, source.facts.preprocessing)
    job = Job(
        "int8 to choose by", lower_for_search_evidence, arguments, preload=int8_stage.QUANTIZERS, cost_s=9
    )
    step = Step(
        "choice-int8",
        int8_stage.int8_stage_key(context, source),
        bool,
        lambda _: job,
        folder=folder,
        files=lambda _: (lowering,),
    )

    def prepare() -> None:
        read_stage.ensure_read_stage_ran(context, source)
        int8_stage.ensure_int8_program_in_stage(context)

    cached_steps(context.run_silently, context.cache, "search", [step], prepare)
    for item in built:
        shutil.copy2(context.folders.out / str(item.file), folder)
    return verify_stage.verify_files_in_stage(
        folder,
        [(item.variant, str(item.file)) for item in built],
        verify_stage.expected_by_verify_stage(context, source),
        context.run_silently,
        context.cache,
    )


def lower_for_search_evidence(work: Path, target: Path, preprocessing: Preprocessing | None) -> bool:
    """Run the int8 program on the scenes that choose, into `target`."""
    from exporter.quantize import int8_recipe as quantized_program
    from exporter.verify import reference_io

    quantized = quantized_program.load_int8_recipe(work)
    lowering = int8_stage.run_program_in_int8_stage(
        quantized.module,
        stage_results.load_stage_data(work).choice,
        int8_stage.edges_for_int8_stage(work, preprocessing),
    )
    reference_io.save_reference_io_lowering(lowering, target)
    return True
