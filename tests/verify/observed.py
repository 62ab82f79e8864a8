"""Made-up references and what artifacts make of them, judged: for tests of the gates, without a framework."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.records import Array, Limits, Variant, Verdict
from exporter.verify.judge import judge_artifact
from exporter.verify.reference_io import Lowering, ReferenceIO
from exporter.verify.simulation_io import Simulation


def made_references(
    *reference: Array,
    edges: Sequence[Array] | None = None,
    edge_names: Sequence[str] = (),
    eager_errors: Sequence[Array] | None = None,
    edge_unstable: Sequence[Array] | None = None,
    names: Sequence[str] = (),
    resting: bool = False,
    positions: Sequence[int] = (),
) -> ReferenceIO:
    """Return evidence with one output per reference; float32's errors are those of rounding it."""
    count = len(edge_names)
    edge_reference = tuple(edges) if edges is not None else tuple(y[:count] for y in reference)
    return ReferenceIO(
        inputs=(np.zeros((len(reference[0]), 1), np.float32),),
        reference=reference,
        edge_inputs=(np.zeros((count, 1), np.float32),),
        edge_reference=edge_reference,
        edge_names=tuple(edge_names),
        floor=2e-7,
        edge_floor=2e-7,
        reference_dtype="float64",
        edge_floors=(2e-7,) * count,
        eager_errors=tuple(eager_errors) if eager_errors is not None else tuple(map(rounding, reference)),
        edge_unstable=tuple(edge_unstable or ()),
        resting=(resting,) * len(reference),
        positions=(np.array(positions, np.int64),) * len(reference),
        output_names=tuple(names) or tuple(f"out{i}" for i in range(len(reference))),
    )


def rounding(reference: Array) -> Array:
    """Return float32's largest error per element of an output; no value of any other output is unstable."""
    if reference.dtype.kind not in "fc":
        return np.zeros(reference.shape, bool)
    narrow = np.complex64 if reference.dtype.kind == "c" else np.float32
    errors: Array = np.abs(reference - reference.astype(narrow)).max(axis=0)
    return errors


def judged(
    variant: Variant,
    references: ReferenceIO,
    *outputs: Array,
    edges: Sequence[Array] | None = None,
    program: Lowering | None = None,
    labels: Sequence[str] = (),
    simulation: Simulation | None = None,
) -> Verdict:
    edge_outputs = tuple(edges) if edges is not None else references.edge_reference
    return judge_artifact(
        variant, "rt", references, outputs, edge_outputs, program, Limits(), labels, simulation
    )


def int8(array: Array, axis: int | None = None) -> Array:
    """Round as a tensor of 8 bits does: one range for all of it, or one per index of an axis."""
    rest = None if axis is None else tuple(i for i in range(array.ndim) if i != axis)
    low = np.minimum(array.min(rest, keepdims=True), 0)
    step = (np.maximum(array.max(rest, keepdims=True), 0) - low) / 255
    step = np.where(step > 0, step, 1)
    rounded: Array = np.round(array / step) * step
    return rounded


def fp16(array: Array) -> Array:
    narrow: Array = array.astype(np.float16).astype(np.float64)
    return narrow
