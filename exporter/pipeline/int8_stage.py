"""Makes, judges and caches the int8 program of a run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import files
from exporter.errors import LoweringError
from exporter.pipeline import cache, stage_results
from exporter.pipeline.cached_steps import Step
from exporter.pipeline.context import TORCH, Context, Event, Source
from exporter.pipeline.stage_results import QuantizationResult
from exporter.pipeline.workers.jobs import Job
from exporter.quantize import int8_recipe
from exporter.records import QUANTIZED, Preprocessing, Runner, Sample

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from exporter.records import Array
    from exporter.verify.reference_io import Lowering

QUANTIZERS = (
    *TORCH,
    "executorch.backends.xnnpack.quantizer.xnnpack_quantizer",
    "torchao.quantization.pt2e.quantize_pt2e",
)


def is_int8_wanted_in_stage(context: Context) -> bool:
    """Tell whether any artifact of the run is made from the program."""
    return any(variant.precision in QUANTIZED for variant in context.variants)


def int8_stage_job(context: Context) -> Job:
    """Return the job that makes the program in the work folder, from the captured model there."""
    arguments = (context.folders.work, context.request.limits.min_quantized_weights)
    return Job("int8", quantize_in_int8_stage, arguments, preload=QUANTIZERS, cost_s=30)


def ensure_int8_program_in_stage(context: Context) -> None:
    """Make the program now if it is not in the work folder, as the artifacts came from the cache.

    The captured model must be there.
    """
    if not (context.folders.work / int8_recipe.PROGRAM).exists():
        context.observer(Event("search", "making the int8 program", 0, 0))
        (outcome,) = context.workers.run([int8_stage_job(context)])
        outcome.result()


def is_int8_judged_in_stage(context: Context) -> bool:
    """Tell whether the program is run on the verification inputs."""
    return context.request.verify and is_int8_wanted_in_stage(context)


def int8_stage_judge_step(context: Context, source: Source, quantize: Job) -> Step:
    """Return the step that runs the program after it is made, and measures what each operator costs."""
    lowering = context.folders.out / files.lowering_file("int8")
    job = Job(
        "what int8 costs",
        judge_int8_in_stage,
        (context.folders.work, lowering, source.facts.preprocessing),
        preload=QUANTIZERS,
        cost_s=9,
        after=quantize,
    )
    return Step(
        "quantization",
        int8_stage_key(context, source),
        QuantizationResult,
        lambda _: job,
        folder=context.folders.out,
        files=lambda _: (lowering.name,),
        failed=lambda _: None,
    )


def int8_stage_key(context: Context, source: Source) -> str:
    """Return the cache key of what follows from the program; empty when there is none."""
    facts = source.facts
    return (
        cache.cache_key(
            cache.cache_toolchain_key(),
            facts.digest,
            (context.request.dynamic, context.request.photo_sizes),
            context.request.limits.min_quantized_weights,
            int8_stage_data_digest(context, source),
        )
        if facts.digest
        else ""
    )


def int8_stage_data_digest(context: Context, source: Source) -> str:
    """Hash everything that calibration inputs depend on."""
    content = context.calibration_digest or "synthetic"
    return source.key or cache.cache_key(
        content,
        context.request.samples,
        context.request.choosing,
        source.facts.preprocessing,
        source.facts.image,
        source.facts.inputs,  # their names and types say what synthetic values mean
    )


NUDGED = 16
"""Calls that show how much a quantised program amplifies rounding ties."""
LOUDEST_FLOOR_DB = -300.0
"""Stands for the ratio of outputs that are NaN or overflow, which a manifest cannot hold."""


def quantize_in_int8_stage(work: Path, least: float) -> None:
    """Quantise the captured program; the result, which every int8 artifact is made from, lands in `work`.

    Args:
        work: Holds what `read_and_capture` wrote.
        least: The share of the weights that an int8 artifact must have in 8 bits.

    Raises:
        LoweringError: There is no program, it cannot be quantised, or too little of it can.
    """
    from exporter.capture.captured_program import load_captured_program
    from exporter.capture.control_flow import control_flow_of_program
    from exporter.capture.dynamic_shapes import torch_dynamic_shapes
    from exporter.capture.lowering_errors import lowering_error
    from exporter.capture.matmul_weights import count_matmul_weights
    from exporter.quantize import int8_recipe

    captured = load_captured_program(work)
    if captured.program is None:
        raise LoweringError(captured.program_error, captured.program_source)
    if captured.state:
        raise LoweringError(
            f"calibration would change what forward keeps ({', '.join(captured.state)}): --state explicit "
            "makes inputs and outputs of it"
        )
    try:
        data = stage_results.load_stage_data(work)
        quantized = int8_recipe.quantize_by_int8_recipe(
            captured.program,
            data.calibration,
            data.scene_of.get("calibration", ()),
            math.ceil(least * count_matmul_weights(captured.program)),
        )
    except OSError:
        raise  # a full disk is not the model's fault
    except Exception as error:
        if holders := control_flow_of_program(captured.program):
            raise LoweringError(
                f"PyTorch's quantiser does not know what is within {', '.join(holders)}: "
                f"{lowering_error(error).cause}"
            ) from error
        raise lowering_error(error, captured.program) from error
    refuse_mostly_float_in_int8_stage(captured.program, quantized.module, least)
    shapes = torch_dynamic_shapes(quantized.module, captured.dynamic, len(captured.inputs))
    int8_recipe.save_int8_recipe(replace(quantized, dynamic_shapes=shapes), work)


def refuse_mostly_float_in_int8_stage(program: ExportedProgram, quantized: GraphModule, least: float) -> None:
    """Refuse what has most of its weights in float: its artifacts would be int8 by name alone.

    Args:
        program: The float program.
        quantized: What was made of it.
        least: The share of the weights that must be stored in 8 bits.

    Raises:
        LoweringError: Fewer are.
    """
    from exporter.capture import matmul_weights

    counts = matmul_weights.matmul_weights_by_operator(program)
    total = sum(counts.values())
    share = 1 - int8_recipe.stored_weights_of_int8_recipe(quantized) / total if total else 0.0
    if share <= 1 - least:
        return
    readers = ", ".join(sorted(counts))
    raise LoweringError(
        f"int8 would leave {share:.0%} of the weights in float32: recurrent layers but for LSTM and GRU, "
        f"3-D convolutions and a few others are not quantised. (The weights are read by {readers}.) "
        "A lower --limits min_quantized_weights allows it"
    )


def judge_int8_in_stage(work: Path, target: Path, preprocessing: Preprocessing | None) -> QuantizationResult:
    """Run the quantised program on the verification inputs into `target`, and find what costs how much."""
    from exporter.quantize import int8_recipe, sensitivity
    from exporter.verify import reference_io

    quantized, data = int8_recipe.load_int8_recipe(work), stage_results.load_stage_data(work)
    lowering = run_program_in_int8_stage(
        quantized.module, data.verification, edges_for_int8_stage(work, preprocessing)
    )
    reference_io.save_reference_io_lowering(lowering, target)
    samples = [int8_recipe.int8_recipe_tensors(sample) for sample in data.calibration]
    return QuantizationResult(
        sensitivity.measure_sensitivity(quantized.module, quantized.float_weights, samples)
    )


def edges_for_int8_stage(work: Path, preprocessing: Preprocessing | None) -> Mapping[str, Sample]:
    """Return the edge inputs that artifacts are judged on, and those that the float model refuses."""
    from exporter.capture.captured_program import load_captured_program
    from exporter.data import edge_inputs

    data = stage_results.load_stage_data(work)
    return edge_inputs(
        load_captured_program(work).inputs, preprocessing, data.verification[0], data.calibration
    )


def run_program_in_int8_stage(
    module: GraphModule, samples: Sequence[Sample], edges: Mapping[str, Sample]
) -> Lowering:
    """Run a quantised module on samples and edge inputs, and as other right kernels may."""
    from exporter.quantize import int8_recipe, rounding_ties

    program, other = int8_recipe.int8_recipe_runner(module), rounding_ties.rounding_ties_runner(module, 0)
    return run_lowering_in_int8_stage(program, samples, edges, other)


def run_lowering_in_int8_stage(
    program: Runner, samples: Sequence[Sample], edges: Mapping[str, Sample], other: Runner | None = None
) -> Lowering:
    """Run a quantised program on samples and, where it accepts them, on edge inputs.

    Args:
        program: Runs it.
        samples: The verification inputs.
        edges: By their names.
        other: Runs it as another right kernel may; the program itself when left out.
    """
    from exporter.verify.infinite import without_infinite
    from exporter.verify.reference_io import Lowering, stack_reference_io

    outputs = stack_reference_io([program(sample) for sample in samples])
    on_edges: dict[str, Sample] = {}
    for name, edge in edges.items():
        with contextlib.suppress(Exception):  # the model's own code may refuse an edge
            on_edges[name] = program(edge)
    rerun = other or program
    calls = [index % len(samples) for index in range(min(NUDGED, 2 * len(samples)))]
    nudged = stack_reference_io([rerun(_nudge_inputs_in_int8_stage(samples[index])) for index in calls])
    same = tuple(stack[calls] for stack in outputs)
    pairs = list(zip(without_infinite(same, same), without_infinite(same, nudged), strict=True))
    floor = _rounding_floor_in_int8_stage(pairs)
    return Lowering(outputs, floor, on_edges, tuple(_ties_in_int8_stage(o, n) for o, n in pairs))


def _rounding_floor_in_int8_stage(pairs: Sequence[tuple[Array, Array]]) -> float:
    """Return the worst output's SQNR between two runs."""
    from exporter.verify.compare_outputs import compare_sqnr_db

    # Integers alone may be a picture; of class numbers, whose floor means nothing, the gate asks for none.
    kinds = "fc" if any(o.dtype.kind in "fc" for o, _ in pairs) else "iu"
    floors = [compare_sqnr_db(o, n) for o, n in pairs if o.dtype.kind in kinds]
    floor = min((-math.inf if math.isnan(floor) else floor for floor in floors), default=math.inf)
    return max(floor, LOUDEST_FLOOR_DB)


def _ties_in_int8_stage(outputs: Array, nudged: Array) -> Array:
    """Return the mean square of the difference of two runs, per element; zero for what is no number."""
    import numpy as np

    wide = np.complex128 if outputs.dtype.kind == "c" else np.float64
    with np.errstate(invalid="ignore", over="ignore"):
        energies = (np.abs(nudged.astype(wide) - outputs.astype(wide)) ** 2).mean(axis=0)
    finite: Array = np.nan_to_num(energies, nan=0.0, posinf=0.0).astype(np.float32)
    return finite


def _nudge_inputs_in_int8_stage(sample: Sample) -> Sample:
    """Inputs changed by less than any quantisation step: only what sits on a rounding tie moves."""
    return tuple(a * a.dtype.type(1 + 1e-5) if a.dtype.kind == "f" else a for a in sample)
