"""Judges whether an artifact's outputs equal the original model's. Pure: arrays in, verdict out.

An artifact passes when no gate of `GATES` has a reason against it. To add a gate, write `gates/<name>.py`
with a `check` and add a line to the table; what it needs to know is in `Observation`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from exporter.records import Comparison, Executor, Limits, Precision, Variant, Verdict, WorstChannel
from exporter.verify.compare_outputs import compare_not_finite, compare_outputs, compare_typical_sqnr_db
from exporter.verify.discrete import compare_discrete, is_discrete
from exporter.verify.gates import (
    channels_gate,
    choices,
    comparable,
    edges_gate,
    exchanged_outputs,
    lookalikes_gate,
    lowering_gate,
    reference_gate,
    simulated,
    whole_output,
)
from exporter.verify.gates import task as task_gate
from exporter.verify.infinite import (
    different_infinite,
    lowering_without_infinite,
    references_without_infinite,
    simulation_without_infinite,
    without_infinite,
)
from exporter.verify.limits_to_judge_by import (
    limits_to_judge_by,
    tie_widths_to_judge_by,
    tolerance_to_judge_by,
)
from exporter.verify.observation import Gate, Observation
from exporter.verify.reference_io import Lowering, ReferenceIO, Stacks
from exporter.verify.rounded_quantities import (
    are_rounded_quantities,
    floats_of_rounded_quantities,
    lowering_of_rounded_quantities,
    references_of_rounded_quantities,
    simulation_of_rounded_quantities,
)
from exporter.verify.simulation_io import Simulation
from exporter.verify.tasks import measure_task
from exporter.verify.tasks.measured_outputs import MeasuredOutputs
from exporter.verify.ties import undo_ties_of_outputs
from exporter.verify.worst_channel import worst_channel

GATES: Mapping[str, Gate] = {
    "comparable": comparable.comparable_gate,
    "reference": reference_gate.reference_gate,
    "exchanged": exchanged_outputs.exchanged_outputs_gate,
    "lowering": lowering_gate.lowering_gate,
    "choices": choices.choices_gate,
    "whole": whole_output.whole_output_gate,
    "channels": channels_gate.channels_gate,
    "edges": edges_gate.edges_gate,
    "simulated": simulated.simulated_gate,
    "lookalikes": lookalikes_gate.lookalikes_gate,
    "task": task_gate.task_gate,
}
"""Name -> gate, in the order in which their reasons are useful: the first reason is shown."""


def judge_artifact(
    variant: Variant,
    runtime: str,
    references: ReferenceIO,
    outputs: Stacks,
    edge_outputs: Stacks,
    program: Lowering | None,
    limits: Limits,
    labels: Sequence[str] = (),
    simulation: Simulation | None = None,
    task: str = "",
    executor: Executor = "runtime",
    on_device: bool = False,
) -> Verdict:
    """Compare an artifact's outputs with the float64 model's.

    Args:
        variant: What the artifact claims to be; its precision chooses the limits.
        runtime: "executorch 1.4.1".
        references: Inputs and expected outputs.
        outputs: The artifact's, stacked, on `references.inputs`.
        edge_outputs: The artifact's on `references.edge_inputs`.
        program: Its quantised program's own outputs, where it has one.
        limits: When it counts as equal.
        labels: Of the model's classes, where they have names.
        simulation: What its precision makes of the model, where that was simulated.
        task: The model's, where the user named it; empty leaves it to the outputs.
        executor: What executed the artifact.
        on_device: Whether it ran on a device.

    Returns:
        PASSED, FAILED or, when the scenes are too few to tell, INCONCLUSIVE, with every figure.
    """
    if problem := different_infinite(references, outputs, edge_outputs):
        nothing = Comparison(len(references.reference[0]), math.inf, -math.inf, None, problem)
        return Verdict("failed", problem, runtime, nothing, executor=executor)
    outputs = without_infinite(references.reference, outputs)
    edge_outputs = without_infinite(references.edge_reference, edge_outputs)
    program = program and lowering_without_infinite(references, program)
    simulation = simulation and simulation_without_infinite(references, simulation)
    references = references_without_infinite(references)
    rounded = are_rounded_quantities(references)
    if any(rounded) and variant.precision != "fp32":
        references = references_of_rounded_quantities(references, rounded, limits)
        outputs, edge_outputs = (floats_of_rounded_quantities(o, rounded) for o in (outputs, edge_outputs))
        program = program and lowering_of_rounded_quantities(program, rounded)
        simulation = simulation and simulation_of_rounded_quantities(simulation, rounded)
    tolerances = tie_widths_to_judge_by(references, limits, variant.precision)
    outputs = _undo_ties_to_judge(references.reference, outputs, tolerances)
    comparison = compare_outputs(
        references.reference, outputs, references.eager_errors, tolerances, references.scene_of
    )
    edge_ordered = _undo_edge_ties_to_judge(references, edge_outputs, tolerances)
    applied = limits_to_judge_by(variant, limits, references, program)
    observation = Observation(
        variant=variant,
        references=references,
        outputs=outputs,
        edge_outputs=edge_outputs,
        edge_ordered=edge_ordered,
        lowering=program,
        simulation=simulation
        or (Simulation(program.outputs, {}, program.rounding_floor_db) if program else None),
        comparison=comparison,
        edges=_judge_edges(references, edge_ordered, tolerances),
        tied_within=tolerances,
        edge_limits=edges_gate.edges_gate_limits(references, limits),
        against_program=compare_outputs(program.outputs, outputs) if program else None,
        choices=()
        if comparison.problem
        else compare_discrete(references.reference, outputs, references.eager_errors, tolerances),
        worst_channel=_judge_worst_channel(
            variant.precision, references, outputs, comparison, limits, labels
        ),
        task=None
        if comparison.problem
        else measure_task(
            MeasuredOutputs(
                references.output_names,
                references.inputs,
                floats_of_rounded_quantities(references.reference, rounded),
                floats_of_rounded_quantities(outputs, rounded),
                variant.precision,
            ),
            task,
        ),
        executor=executor,
        on_device=on_device,
        task_named=task,
        limits=applied,
        rounded=rounded,
        given_limits=limits,
    )
    observation = replace(observation, limits=observation.limits | simulated.simulated_limit_db(observation))
    reason = first_judged_reason(observation)
    doubt = "" if reason else whole_output.whole_output_doubt(observation)
    return Verdict(
        status="failed" if reason else "inconclusive" if doubt else "passed",
        reason=reason or doubt or None,
        runtime=runtime,
        comparison=observation.comparison,
        edge=_worst_edge_judged(observation.decided_edges),
        lowering=observation.against_program,
        limits=observation.limits,
        worst_channel=observation.worst_channel,
        task=observation.task,
        executor=executor,
    )


def first_judged_reason(observation: Observation) -> str:
    """Return the first gate's reason against the artifact; an empty string when it passes them all."""
    return next((reason for gate in GATES.values() if (reason := gate(observation))), "")


def _judge_worst_channel(
    precision: Precision,
    references: ReferenceIO,
    outputs: Stacks,
    comparison: Comparison,
    limits: Limits,
    labels: Sequence[str],
) -> WorstChannel | None:
    if comparison.problem or compare_not_finite("", references.reference):
        return None
    allowed = tolerance_to_judge_by(
        precision, comparison, limits, _typical_sqnr_to_judge(references.reference, outputs)
    )
    names = references.output_names
    return worst_channel(
        references.reference,
        outputs,
        references.eager_errors,
        allowed,
        names,
        labels,
        references.resting,
        references.positions,
    )


def _typical_sqnr_to_judge(reference: Stacks, outputs: Stacks) -> float:
    """Return the worst float output's SQNR, as its median channel has it."""
    floats = [(y, a) for y, a in zip(reference, outputs, strict=True) if not is_discrete(y)]
    return min((compare_typical_sqnr_db(y, a) for y, a in floats), default=math.inf)


def _undo_ties_to_judge(reference: Stacks, actual: Stacks, tolerances: tuple[float, ...]) -> Stacks:
    same = [y.shape for y in reference] == [a.shape for a in actual]
    return undo_ties_of_outputs(reference, actual, tolerances) if same else actual


def _undo_edge_ties_to_judge(
    references: ReferenceIO, actual: Stacks, tolerances: tuple[float, ...]
) -> Stacks:
    """Put the rows of equal scores of each edge input, on its own, into the model's order."""
    edges = [
        _undo_ties_to_judge(_row_to_judge(references.edge_reference, i), _row_to_judge(actual, i), tolerances)
        for i in range(len(references.edge_names))
    ]
    return tuple(map(np.concatenate, zip(*edges, strict=True))) if edges else actual


def _row_to_judge(stacks: Stacks, index: int) -> Stacks:
    return tuple(stack[index : index + 1] for stack in stacks)


def _judge_edges(
    references: ReferenceIO, actual: Stacks, tolerances: tuple[float, ...]
) -> dict[str, Comparison]:
    """Compare each edge input on its own scale, because a saturated input would hide an error on zeros."""
    return {
        name: _judge_edge(references, actual, i, tolerances) for i, name in enumerate(references.edge_names)
    }


def _judge_edge(
    references: ReferenceIO, actual: Stacks, index: int, tolerances: tuple[float, ...]
) -> Comparison:
    reference = _row_to_judge(references.edge_reference, index)
    unstable = edges_gate.edges_gate_unstable_rows(references, index)
    return compare_outputs(reference, _row_to_judge(actual, index), unstable, tolerances)


def _worst_edge_judged(edges: Mapping[str, Comparison]) -> Comparison | None:
    if not edges:
        return None
    return Comparison(
        samples=len(edges),
        max_error=max(c.max_error for c in edges.values()),
        sqnr_db=min(c.sqnr_db for c in edges.values()),
        agreement=None,
        problem=next((c.problem for c in edges.values() if c.problem), ""),
    )
