"""`--calibration-sweep`: measures int8 quality against the number of calibration samples."""

from __future__ import annotations

from pathlib import Path

from exporter.formats import FORMATS
from exporter.pipeline import cache, search_evidence
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import TORCH, Context, Source
from exporter.pipeline.read_stage import ensure_read_stage_ran
from exporter.pipeline.stage_results import ExtraResults, load_stage_data
from exporter.pipeline.workers.jobs import Job
from exporter.records import CurvePoint
from exporter.verify.sweep_decision import sweep_decision_counts, sweep_decision_warning


def run_calibration_sweep(context: Context, source: Source) -> ExtraResults:
    """Measure int8 against the number of calibration samples; a warning where it cannot be measured."""
    job = Job(
        "calibration samples",
        measure_calibration_sweep,
        (context.folders.work, search_evidence.make_search_evidence(context, source)),
        preload=(*TORCH, *FORMATS["executorch"].PRELOAD),
    )
    step = Step(
        "sweep",
        cache.cache_key("sweep", cache.cache_toolchain_key(), source.key) if source.key else "",
        tuple[CurvePoint, ...],
        lambda _: job,
        failed=str,
    )
    (points,) = cached_steps(
        context.run, context.cache, "sweep", [step], lambda: ensure_read_stage_ran(context, source)
    )
    if isinstance(points, str):
        return ExtraResults(warnings=(f"--calibration-sweep could not be measured: {points}",))
    more = sweep_decision_warning(points)
    return ExtraResults(curve=points, warnings=(more,) if more else ())


def measure_calibration_sweep(work: Path, evidence_path: Path) -> tuple[CurvePoint, ...]:
    """Quantise with 1, 2, 4, … calibration samples and compare each program with float64.

    The quantised program itself is compared, as XNNPACK computes it: lowering it changes no figure.

    Args:
        work: Holds the captured model and the data.
        evidence_path: Inputs that choose, and the float64 model's outputs.

    Raises:
        LoweringError: There is no program to quantise.
    """
    from exporter.capture import captured_program
    from exporter.errors import LoweringError
    from exporter.quantize import int8_recipe
    from exporter.verify import compare_outputs, reference_io

    captured = captured_program.load_captured_program(work)
    if captured.program is None:
        raise LoweringError(captured.program_error, captured.program_source)
    data = load_stage_data(work)
    references = reference_io.load_reference_io(evidence_path)
    points = []
    for count in sweep_decision_counts(len(data.calibration)):
        scenes = data.scene_of.get("calibration", ())[:count]
        quantized = int8_recipe.quantize_by_int8_recipe(captured.program, data.calibration[:count], scenes)
        run = int8_recipe.int8_recipe_runner(quantized.module)
        outputs = reference_io.stack_reference_io([run(sample) for sample in references.samples()])
        compared = compare_outputs.compare_outputs(references.reference, outputs)
        points.append(CurvePoint(count, compared.sqnr_db, compared.agreement))
    return tuple(points)
