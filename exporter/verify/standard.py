"""Judges the outputs of calls, wherever an artifact ran: in its runtime here, or on a device.

`judge.py` compares stacked arrays. What comes before is here: the number, sizes and types of the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.records import (
    Executor,
    Limits,
    Sample,
    TaskName,
    TensorSpec,
    Variant,
    Verdict,
)
from exporter.verify.contract import check_outputs_by_contract
from exporter.verify.judge import judge_artifact
from exporter.verify.reference_io import (
    Lowering,
    ReferenceIO,
    Stacks,
    first_reference_io_rows,
    load_reference_io_lowering,
    stack_like_reference_io,
)
from exporter.verify.simulation_io import Simulation, first_of_simulation, load_simulation


@dataclass(frozen=True, eq=False)
class Standard:
    """Everything that an artifact's outputs are judged by."""

    references: ReferenceIO
    outputs: tuple[TensorSpec, ...]
    """The model's outputs: their names and types."""
    limits: Limits
    lowering: Lowering | None = None
    """What its quantised program computes, where it has one."""
    simulation: Simulation | None = None
    """What its precision makes of the model, where that was simulated."""
    labels: tuple[str, ...] = ()
    task: TaskName = ""


@dataclass(frozen=True, eq=False)
class StackedCalls:
    """An artifact's outputs, stacked as the reference is; empty where there is a problem."""

    samples: Stacks = ()
    edges: Stacks = ()
    problem: str = ""
    """Why they cannot be compared with the model's."""


def read_programs_of_standard(
    lowering_path: Path | None, simulation_path: Path | None, samples: int | None
) -> tuple[Lowering | None, Simulation | None]:
    """Read what the quantised program, and the precision's simulation, give on the first samples.

    Args:
        lowering_path: Where the program's outputs are; None where there are none.
        simulation_path: Where the simulation's are; None where there are none.
        samples: How many samples; None for all.
    """
    lowering = load_reference_io_lowering(lowering_path) if lowering_path else None
    simulation = load_simulation(simulation_path) if simulation_path else None
    return (
        lowering and replace(lowering, outputs=first_reference_io_rows(lowering.outputs, samples)),
        simulation and first_of_simulation(simulation, samples),
    )


def judge_by_standard(
    standard: Standard,
    variant: Variant,
    runtime: str,
    calls: Sequence[Sample],
    edge_calls: Sequence[Sample],
    executor: Executor = "runtime",
    on_device: bool = False,
) -> Verdict:
    """Judge what an artifact gave for the inputs of the references.

    Args:
        standard: What it is judged by.
        variant: What the artifact claims to be.
        runtime: "executorch 1.4.1".
        calls: Its outputs for each input.
        edge_calls: Its outputs for each edge input.
        executor: What executed it.
        on_device: Whether a device did, whose processor may compute in half precision what this machine's
            computes in float32.
    """
    stacked = stack_by_standard(standard, variant, calls, edge_calls)
    if stacked.problem:
        return Verdict("failed", stacked.problem, runtime, None, executor=executor)
    return judge_artifact(
        variant,
        runtime,
        standard.references,
        stacked.samples,
        stacked.edges,
        standard.lowering,
        standard.limits,
        standard.labels,
        standard.simulation,
        standard.task,
        executor,
        on_device,
    )


def stack_by_standard(
    standard: Standard, variant: Variant, calls: Sequence[Sample], edge_calls: Sequence[Sample] = ()
) -> StackedCalls:
    """Stack an artifact's outputs; the problem says where number, sizes or types are not the model's."""
    references, names = standard.references, [spec.name for spec in standard.outputs]
    shapes = tuple(sizes[: len(calls)] for sizes in references.shapes)
    samples, problem = stack_like_reference_io(calls, references.reference, shapes, names)
    edges, edge_problem = stack_like_reference_io(
        edge_calls, references.edge_reference, references.edge_shapes, names, references.edge_names
    )
    problem = problem or edge_problem or check_outputs_by_contract(samples, standard.outputs, variant.format)
    return StackedCalls(problem=problem) if problem else StackedCalls(samples, edges)
