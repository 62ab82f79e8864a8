"""Simulates, from a model's float program, what a precision costs it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.files import simulation_file
from exporter.pipeline import cache
from exporter.pipeline.cached_steps import Step
from exporter.pipeline.context import TORCH, Context, Source
from exporter.pipeline.workers.jobs import Job
from exporter.records import SIMULATED, Precision, Runner, Sample

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from exporter.records import Array
    from exporter.verify.reference_io import Stacks


def simulation_steps(context: Context, source: Source, reference: Job) -> list[Step]:
    """Return a step for each precision of the run that is simulated.

    Args:
        context: The run.
        source: The checkpoint.
        reference: Writes the references, whose inputs are run.
    """
    if not context.request.verify:
        return []
    precisions = dict.fromkeys(variant.precision for variant in context.variants)
    return [
        _simulation_step(context, source, reference, precision)
        for precision in precisions
        if precision in SIMULATED
    ]


def _simulation_step(context: Context, source: Source, reference: Job, precision: Precision) -> Step:
    target = context.folders.out / simulation_file(precision)
    arguments = (context.folders.work, context.evidence, target, precision)

    def job(_: object) -> Job:
        # The references are there already when it came from the cache.
        after = None if context.evidence.exists() else reference
        return Job(
            f"what {precision} costs", simulate_precision, arguments, preload=TORCH, cost_s=6, after=after
        )

    return Step(
        "simulation",
        cache.cache_key(source.key, precision) if source.key else "",
        tuple[str, ...],
        job,
        folder=context.folders.out,
        files=lambda _: (target.name,),
        failed=lambda error: _simulation_notes(precision, error),
        keep=lambda notes: not notes,
    )


def _simulation_notes(precision: Precision, error: Exception) -> tuple[str, ...]:
    return (f"What {precision} costs could not be simulated ({error}): fixed limits alone judge it.",)


def simulate_precision(work: Path, references: Path, target: Path, precision: Precision) -> tuple[str, ...]:
    """Run the captured program as the precision rounds it, on every verification and edge input.

    Args:
        work: Holds what `capture_in_read_stage` wrote.
        references: Holds the inputs.
        target: Where the outputs are written.
        precision: What is simulated.

    Returns:
        Notes for the user: none.
    """
    from exporter.capture import captured_program
    from exporter.formats import simulation
    from exporter.verify import reference_io, simulation_io

    captured = captured_program.load_captured_program(work)
    if captured.program is None:
        return ()  # nothing of a precision below fp32 is made without a graph
    inputs = reference_io.load_reference_io(references)
    run = simulation.format_simulation_runner(captured.program, precision)
    outputs = reference_io.stack_reference_io([run(sample) for sample in inputs.samples()])
    if captured.program.graph_signature.buffers_to_mutate:
        # Edges are run with the state that the model starts from.
        run = simulation.format_simulation_runner(captured.program, precision)
    edges = dict(zip(inputs.edge_names, inputs.edges(), strict=True))
    simulation_io.save_simulation(
        simulation_io.Simulation(
            outputs,
            _simulated_edge_outputs(run, edges),
            lookalikes=simulate_lookalikes(captured.program, inputs.samples()),
        ),
        target,
    )
    return ()


def simulate_lookalikes(program: ExportedProgram, samples: Sequence[Sample]) -> dict[str, Stacks]:
    """Return by how much the outputs of similar networks differ from the program's."""
    from exporter.formats import lookalike_runners
    from exporter.verify.reference_io import stack_reference_io

    runners = lookalike_runners.lookalike_runners(program)
    if not runners:
        return {}
    own = lookalike_runners.lookalike_module_runner(program.module())
    expected = stack_reference_io([own(sample) for sample in samples])
    others = {what: stack_reference_io([run(s) for s in samples]) for what, run in runners.items()}
    return {
        what: tuple(_simulated_difference(y, other) for y, other in zip(expected, stacks, strict=True))
        for what, stacks in others.items()
    }


def _simulated_difference(expected: Array, other: Array) -> Array:
    """Return nothing for an output that is compared by equality, or whose size differs."""
    import numpy as np

    comparable = expected.dtype.kind == "f" and expected.shape == other.shape
    return other - expected if comparable else np.zeros(0)


def _simulated_edge_outputs(run: Runner, edges: dict[str, Sample]) -> dict[str, Stacks]:
    from exporter.verify.reference_io import stack_reference_io

    outputs = {}
    for name, sample in edges.items():
        with contextlib.suppress(Exception):  # the model's own code refuses it: the reference says so
            outputs[name] = stack_reference_io([run(sample)])
    return outputs
