"""Whether an artifact's outputs equal the original model's. Pure: arrays in, verdict out.

An artifact passes when no gate of `GATES` has a reason against it. To add a gate, write `gates/<name>.py`
with a `check` and add a line to the table; what it needs to know is in `Observation`.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.records import Comparison, Limits, Precision, Variant, Verdict
from exporter.verify.compare import compare
from exporter.verify.gates import comparable, edges, lowering, reference, whole
from exporter.verify.observation import Gate, Observation
from exporter.verify.reference_io import Evidence, Lowering, Stacks

GATES: Mapping[str, Gate] = {
    "comparable": comparable.check,
    "reference": reference.check,
    "lowering": lowering.check,
    "whole": whole.check,
    "edges": edges.check,
}
"""Name -> gate, in the order in which their reasons are of use: the first reason is shown."""


def judge(
    variant: Variant,
    runtime: str,
    evidence: Evidence,
    outputs: Stacks,
    edge_outputs: Stacks,
    program: Lowering | None,
    limits: Limits,
) -> Verdict:
    """Compare an artifact's outputs with the float64 model's.

    Args:
        variant: What the artifact claims to be; its precision chooses the limits.
        runtime: "executorch 1.4.1".
        evidence: Inputs and expected outputs.
        outputs: The artifact's, stacked, on `evidence.inputs`.
        edge_outputs: The artifact's on `evidence.edge_inputs`.
        program: Its quantised program's own outputs, where it has one.
        limits: When it counts as equal.

    Returns:
        PASSED or FAILED with every figure; never NOT_RUN.
    """
    observation = Observation(
        variant=variant,
        evidence=evidence,
        outputs=outputs,
        edge_outputs=edge_outputs,
        lowering=program,
        comparison=compare(evidence.reference, outputs),
        edges=_compare_edges(evidence, edge_outputs),
        against_program=compare(program.outputs, outputs) if program else None,
        limits=_applied(variant.precision, limits, evidence, program),
    )
    return Verdict(
        status="failed" if (reason := first_reason(observation)) else "passed",
        reason=reason or None,
        runtime=runtime,
        comparison=observation.comparison,
        edge=_worst(observation.edges),
        lowering=observation.against_program,
        limits=observation.limits,
    )


def first_reason(observation: Observation) -> str:
    """Return the first gate's reason against the artifact; an empty string when it passes them all."""
    return next((reason for gate in GATES.values() if (reason := gate(observation))), "")


def _compare_edges(evidence: Evidence, actual: Stacks) -> dict[str, Comparison]:
    """Compare each edge input on its own scale, because a saturated input would hide an error on zeros."""
    return {
        name: compare(
            tuple(y[i : i + 1] for y in evidence.edge_reference), tuple(a[i : i + 1] for a in actual)
        )
        for i, name in enumerate(evidence.edge_names)
    }


def _worst(edges: Mapping[str, Comparison]) -> Comparison | None:
    if not edges:
        return None
    return Comparison(
        samples=len(edges),
        max_error=max(c.max_error for c in edges.values()),
        sqnr_db=min(c.sqnr_db for c in edges.values()),
        agreement=None,
        problem=next((c.problem for c in edges.values() if c.problem), ""),
    )


def _applied(
    precision: Precision, limits: Limits, evidence: Evidence, program: Lowering | None
) -> dict[str, float]:
    """Resolve the limits that hold for an artifact to figures."""
    own = {"lowering_min_sqnr_db": lowering.limit(program, limits)} if program else {}
    if precision == "fp32":
        return (
            own
            | _fp32_limit("max_error", limits, evidence.floor)
            | _fp32_limit("edge_max_error", limits, evidence.edge_floor)
        )
    if precision == "fp16":
        return own | {"min_sqnr_db": limits.fp16_min_sqnr_db, "min_agreement": limits.fp16_min_agreement}
    return own | {"min_sqnr_db": limits.int8_min_sqnr_db, "min_agreement": limits.int8_min_agreement}


def _fp32_limit(name: str, limits: Limits, floor: float) -> dict[str, float]:
    """Return the fixed limit, or ten times eager float32's own error where that is larger; both are shown."""
    measured = limits.fp32_floor_factor * floor
    return {name: max(limits.fp32_max_error, measured), f"{name}_from_eager_floor": measured}
