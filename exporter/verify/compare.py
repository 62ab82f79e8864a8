"""Whether an artifact's outputs equal the original model's. Pure: arrays in, verdict out.

All errors are relative to the output's scale, so that a network whose outputs are about 1e-9 cannot pass by
being small. Figures that would mean nothing (NaN, constant outputs) are failures with that reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from exporter.records import Array, Comparison, Limits, Precision, Structure, TensorSpec, Variant, Verdict
from exporter.verify.reference_io import Evidence, Lowering, Stacks

MIN_SCALE = 1e-6
"""Below this the largest output is noise: a trained network's outputs are not (random MobileNetV2: 1e-9)."""
MIN_VARIATION = 1e-3
"""Outputs that vary by less than this share of their scale over all inputs do not depend on the input."""
REPEAT_TOLERANCE = 1e-6
"""A second run in another order may differ by this share of the scale (thread scheduling), not more."""


def max_error(reference: Array, actual: Array) -> float:
    """max|a - y| / max|y| over everything; 0 for equal arrays."""
    y, a = reference.astype(np.float64), actual.astype(np.float64)
    worst, scale = float(np.abs(a - y).max(initial=0.0)), float(np.abs(y).max(initial=0.0))
    return 0.0 if worst == 0 else worst / scale if scale else math.inf


def sqnr_db(reference: Array, actual: Array) -> float:
    """10 log10(sum y² / sum (a - y)²): signal-to-quantisation-noise ratio; inf for equal arrays."""
    y, a = reference.astype(np.float64), actual.astype(np.float64)
    noise, signal = float(((a - y) ** 2).sum()), float((y**2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def agreement(reference: Array, actual: Array) -> float | None:
    """Share of equal argmax over the class axis; None where the output has no classes.

    Args:
        reference: [N, batch, classes, ...] (samples stacked in front).
        actual: The same shape.
    """
    if reference.ndim < 3 or reference.shape[2] < 2 or not np.issubdtype(reference.dtype, np.floating):
        return None
    return float((reference.argmax(axis=2) == actual.argmax(axis=2)).mean())


def compare(reference: Stacks, actual: Stacks) -> Comparison:
    """Compare stacked outputs; the worst output of the model counts for each figure.

    Args:
        reference: Per output [N, *shape], usually float64.
        actual: Per output [N, *shape] from the artifact.
    """
    samples = len(reference[0])
    if problem := _mismatch(reference, actual) or not_finite("The artifact", actual):
        return Comparison(samples, math.inf, -math.inf, None, problem)
    pairs = list(zip(reference, actual, strict=True))
    shares = [share for y, a in pairs if (share := agreement(y, a)) is not None]
    return Comparison(
        samples=samples,
        max_error=max(max_error(y, a) for y, a in pairs),
        sqnr_db=min(sqnr_db(y, a) for y, a in pairs),
        agreement=min(shares, default=None),
    )


def _mismatch(reference: Stacks, actual: Stacks) -> str:
    if len(reference) != len(actual):
        return f"It has {len(actual)} outputs, the model has {len(reference)}."
    for index, (y, a) in enumerate(zip(reference, actual, strict=True)):
        if y.shape != a.shape:
            return f"Output {index} has shape {list(a.shape[1:])}, the model's has {list(y.shape[1:])}."
        if (y.dtype.kind == "f") != (a.dtype.kind == "f"):
            return f"Output {index} is {a.dtype}, the model's is {y.dtype}."
    return ""


def _compare_edges(evidence: Evidence, actual: Stacks) -> Comparison | None:
    """Each edge input on its own scale, because a saturated input would hide an error on zeros."""
    each = [
        compare(tuple(y[i : i + 1] for y in evidence.edge_reference), tuple(a[i : i + 1] for a in actual))
        for i in range(len(evidence.edge_names))
    ]
    if not each:
        return None
    return Comparison(
        samples=len(each),
        max_error=max(c.max_error for c in each),
        sqnr_db=min(c.sqnr_db for c in each),
        agreement=None,
        problem=next((c.problem for c in each if c.problem), ""),
    )


def not_finite(whose: str, outputs: Stacks) -> str:
    """A sentence when an output has NaN or Inf, else an empty string."""
    for index, array in enumerate(outputs):
        bad = int(array.size - np.isfinite(array).sum()) if array.dtype.kind == "f" else 0
        if bad:
            return f"{whose} gives NaN or Inf: {bad} of {array.size} values of output {index}."
    return ""


def degenerate(evidence: Evidence) -> str:
    """Why the reference itself proves nothing; an empty string when it does prove something."""
    if problem := not_finite("The original model", evidence.reference):
        return problem
    for index, (real, edge) in enumerate(zip(evidence.reference, evidence.edge_reference, strict=True)):
        if real.dtype.kind != "f":
            continue
        scale = float(np.abs(real).max(initial=0.0))
        if scale < MIN_SCALE:
            return (
                f"The original model's output {index} is never larger than {scale:.1e}: "
                "it looks randomly initialised, and equality would mean nothing."
            )
        both = np.concatenate([real, edge[np.isfinite(edge).reshape(len(edge), -1).all(axis=1)]])
        variation = float((both.max(axis=0) - both.min(axis=0)).max())
        if variation < MIN_VARIATION * scale:
            return (
                f"The original model's output {index} hardly depends on its input (it varies by "
                f"{variation / scale:.1e} of its scale): equality would mean nothing."
            )
    return ""


def repeats(first: Stacks, again: Stacks) -> str:
    """A sentence when the same inputs in another order gave other outputs, else an empty string."""
    worst = max((max_error(f, a) for f, a in zip(first, again, strict=True)), default=0.0)
    if worst <= REPEAT_TOLERANCE:
        return ""
    return f"The same inputs in another order gave other outputs (by {worst:.1e} of their scale)."


STORED_AS: Mapping[Precision, frozenset[str]] = {
    "fp32": frozenset({"float32"}),
    "fp16": frozenset({"float16"}),
    "int8": frozenset({"int8", "uint8"}),
    "w8": frozenset({"int8", "uint8"}),
    "w4": frozenset({"int4", "uint4"}),
}
"""How a precision's weights must be stored. A mixed artifact says itself which are."""


def check_structure(
    structure: Structure,
    variant: Variant,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    weights: int,
    limits: Limits,
) -> str:
    """What is wrong with the file as read, without running it; an empty string when nothing is.

    Args:
        structure: As read from the artifact.
        variant: What it claims to be.
        inputs: The model's, by position.
        outputs: The model's, by position.
        weights: Elements of the two-or-more-dimensional weights of the model's layers (`matrices.count`).
        limits: Shares that must be reached.
    """
    for kind, want, have in (("input", inputs, structure.inputs), ("output", outputs, structure.outputs)):
        if have and [s.shape for s in have] != [s.shape for s in want]:
            shapes = ", ".join(str(list(s.shape)) for s in have)
            return (
                f"Its {kind} shapes are {shapes}, the model's {', '.join(str(list(s.shape)) for s in want)}."
            )
    total = sum(structure.weight_elements.values())
    if total < limits.min_quantized_weights * weights:
        return f"It holds {total} weight values, the model has {weights}: weights are missing."
    expected = STORED_AS.get(variant.precision)
    stored = sum(n for dtype, n in structure.weight_elements.items() if expected and dtype in expected)
    if expected and total and stored < limits.min_quantized_weights * total:
        found = ", ".join(
            f"{n / total:.0%} {dtype}" for dtype, n in sorted(structure.weight_elements.items())
        )
        return f"It calls itself {variant.precision}, but its weights are stored as {found}."
    if structure.delegated_fraction is not None and structure.delegated_fraction < limits.min_delegated:
        return (
            f"Only {structure.delegated_fraction:.0%} of the compute is delegated to {variant.backend} "
            f"(at least {limits.min_delegated:.0%} expected): it would run slowly."
        )
    return ""


def judge(
    variant: Variant,
    runtime: str,
    evidence: Evidence,
    outputs: Stacks,
    edge_outputs: Stacks,
    lowering: Lowering | None,
    limits: Limits,
) -> Verdict:
    """Compare an artifact's outputs with the float64 model's.

    Args:
        variant: What the artifact claims to be; its precision chooses the limits.
        runtime: "executorch 1.4.1".
        evidence: Inputs and expected outputs.
        outputs: The artifact's, stacked, on `evidence.inputs`.
        edge_outputs: The artifact's on `evidence.edge_inputs`.
        lowering: Its quantised program's own outputs, where it has one.
        limits: When it counts as equal.

    Returns:
        PASSED or FAILED with every figure; never NOT_RUN.
    """
    comparison = compare(evidence.reference, outputs)
    edge = _compare_edges(evidence, edge_outputs)
    tight = compare(lowering.outputs, outputs) if lowering else None
    applied = _applied(variant.precision, limits, evidence)
    if lowering:
        applied["lowering_min_sqnr_db"] = _lowering_limit(lowering, limits)
    reason = (
        comparison.problem
        or degenerate(evidence)
        or (tight.problem if tight else "")
        or _lowering_reason(tight, applied)
        or _reason(variant.precision, comparison, applied)
        or _edge_reason(variant.precision, edge, evidence, applied)
    )
    return Verdict(
        status="failed" if reason else "passed",
        reason=reason or None,
        runtime=runtime,
        comparison=comparison,
        edge=edge,
        lowering=tight,
        limits=applied,
    )


ROUNDING_MARGIN_DB = 3.0
"""How much further than its program's own rounding noise an artifact may be: half the energy again."""


def _lowering_limit(lowering: Lowering, limits: Limits) -> float:
    """The fixed limit, or the program's own rounding noise less a margin where that is louder."""
    return min(limits.lowering_min_sqnr_db, lowering.rounding_floor_db - ROUNDING_MARGIN_DB)


def _applied(precision: Precision, limits: Limits, evidence: Evidence) -> dict[str, float]:
    """The limits that hold for a precision, resolved to figures."""
    if precision == "fp32":
        return _fp32_limit("max_error", limits, evidence.floor) | _fp32_limit(
            "edge_max_error", limits, evidence.edge_floor
        )
    if precision == "fp16":
        return {"min_sqnr_db": limits.fp16_min_sqnr_db, "min_agreement": limits.fp16_min_agreement}
    return {"min_sqnr_db": limits.int8_min_sqnr_db, "min_agreement": limits.int8_min_agreement}


def _fp32_limit(name: str, limits: Limits, floor: float) -> dict[str, float]:
    """The fixed limit, or ten times eager float32's own error where that is larger; both are shown."""
    measured = limits.fp32_floor_factor * floor
    return {name: max(limits.fp32_max_error, measured), f"{name}_from_eager_floor": measured}


def _reason(precision: Precision, found: Comparison, applied: Mapping[str, float]) -> str:
    if precision == "fp32":
        limit = applied["max_error"]
        if found.max_error <= limit:
            return ""
        return f"Its largest error is {found.max_error:.1e} of the output's scale; the limit is {limit:.1e}."
    loud = found.sqnr_db < applied["min_sqnr_db"]
    apart = found.agreement is not None and found.agreement < applied["min_agreement"]
    unknown = found.agreement is None
    # fp16 must keep both; quantised artifacts need one of the two.
    bad = loud or apart if precision == "fp16" else loud and (apart or unknown)
    if not bad and found.sqnr_db >= 0:
        return ""
    if not bad:  # a network that answers one class for nearly everything agrees with any other that does
        return f"Its error is louder than its output ({found.sqnr_db:.1f} dB SQNR), whatever the agreement."
    agrees = "" if found.agreement is None else f" and {found.agreement:.1%} agreement"
    need = "and" if precision == "fp16" else "or"
    return (
        f"It reaches {found.sqnr_db:.1f} dB SQNR{agrees} with the float64 model; the limit is "
        f"{applied['min_sqnr_db']:g} dB {need} {applied['min_agreement']:.0%}."
    )


def _lowering_reason(lowering: Comparison | None, applied: Mapping[str, float]) -> str:
    limit = applied.get("lowering_min_sqnr_db")
    if lowering is None or limit is None or lowering.sqnr_db >= limit:
        return ""
    return (
        f"It differs from its own quantised program ({lowering.sqnr_db:.1f} dB, expected {limit:.1f}):"
        " a fault of the lowering, not of the quantisation."
    )


def _edge_reason(
    precision: Precision, edge: Comparison | None, evidence: Evidence, applied: Mapping[str, float]
) -> str:
    if edge is None:
        return ""
    names = ", ".join(evidence.edge_names)
    if edge.problem:
        return "" if not_finite("", evidence.edge_reference) else f"On edge inputs ({names}): {edge.problem}"
    if precision == "fp32" and edge.max_error > applied["edge_max_error"]:
        return f"On edge inputs ({names}) its largest error is {edge.max_error:.1e} of the output's scale."
    return ""
