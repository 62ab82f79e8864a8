"""Judges an artifact whose inputs may have several sizes, at sizes beside those of the verification inputs.

It must be right at both ends of every range and between. It must refuse a size next to them or between two
steps: it might compute something wrong there in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from exporter.records import (
    Array,
    DynamicSize,
    Limits,
    Runner,
    Sample,
    SizeRange,
    SizesVerdict,
    Structure,
    TensorSpec,
    Variant,
    Verdict,
)
from exporter.verify.compare_outputs import compare_max_error, compare_sqnr_db
from exporter.verify.reference_io import read_reference_io_arrays

Point = Mapping[str, int]
"""Name of a range -> the size."""
SINGLE_DB = 10.0
"""A point's few inputs may reach so many dB less than the verification inputs on average."""


@dataclass(frozen=True, eq=False)
class SizedCall:
    """Holds a call at a point: its inputs, the float64 model's outputs, and eager float32's own error."""

    point: Point
    inputs: Sample
    reference: Sample
    floor: float


@dataclass(frozen=True, eq=False)
class SizesIO:
    """What artifacts of several sizes are judged by."""

    sizes: tuple[DynamicSize, ...]
    varying: tuple[tuple[int, ...], ...]
    """Per output, the axes whose size follows the inputs'."""
    calls: tuple[SizedCall, ...]


def several_size_points(sizes: Sequence[DynamicSize]) -> tuple[Point, ...]:
    """Return the points to verify: all lower ends, all upper ends, the middles, and ends across."""
    ranges = [size.range for size in sizes]
    middles = [r.low + r.step * ((r.high - r.low) // r.step // 2) for r in ranges]
    across = [r.low if index % 2 else r.high for index, r in enumerate(ranges)]
    rows = [[r.low for r in ranges], [r.high for r in ranges], middles, across]
    points = [dict(zip((r.name for r in ranges), row, strict=True)) for row in rows]
    return tuple(point for index, point in enumerate(points) if point not in points[:index])


def several_sizes_beyond(sizes: Sequence[DynamicSize]) -> tuple[tuple[str, int], ...]:
    """Return sizes that no call may have: next to both ends, and between two steps."""
    beyond = []
    for size in (size.range for size in sizes):
        beyond += [(size.name, size.low - 1)] if size.low > 1 else []
        beyond += [(size.name, size.low + 1)] if size.step > 1 else []
        beyond += [(size.name, size.high + 1)]
    return tuple(beyond)


def sample_of_several_sizes(sample: Sample, sizes: Sequence[DynamicSize], point: Point) -> Sample:
    """Cut or repeat a call's arrays to a point's sizes; other axes keep theirs."""
    arrays = list(sample)
    for size in sizes:
        for position, axis in size.places if size.range.name in point else ():
            array = arrays[position]
            places = np.arange(point[size.range.name]) % array.shape[axis]
            arrays[position] = np.ascontiguousarray(np.take(array, places, axis))
    return tuple(arrays)


def several_sizes_structure_at_example(
    structure: Structure, sizes: SizesIO, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Structure:
    """Return the structure with the example's sizes where a file says "any" (-1), or the largest."""
    highest = {place: size.range.high for size in sizes.sizes for place in size.places}
    return replace(
        structure,
        inputs=tuple(
            _several_sizes_spec_at_example(
                spec, given, {axis: most for (place, axis), most in highest.items() if place == i}
            )
            for i, (spec, given) in enumerate(zip(structure.inputs, inputs, strict=False))
        )
        + structure.inputs[len(inputs) :],
        outputs=tuple(
            _several_sizes_spec_at_example(spec, given, dict.fromkeys(axes))
            for spec, given, axes in zip(structure.outputs, outputs, sizes.varying, strict=False)
        )
        + structure.outputs[len(outputs) :],
    )


def _several_sizes_spec_at_example(
    spec: TensorSpec, example: TensorSpec, varying: Mapping[int, int | None]
) -> TensorSpec:
    if len(spec.shape) != len(example.shape):
        return spec
    shape = tuple(
        own if axis in varying and (size == -1 or size == (varying[axis] or max(size, own))) else size
        for axis, (size, own) in enumerate(zip(spec.shape, example.shape, strict=True))
    )
    return replace(spec, shape=shape)


def judge_several_sizes(
    run: Runner, io: SizesIO, example: Sample, variant: Variant, verdict: Verdict, limits: Limits
) -> Verdict:
    """Run an artifact that passed at the points, and next to them; a wrong or a forbidden one fails it.

    Args:
        run: The artifact.
        io: The points.
        example: A verification input, from which those of forbidden sizes are made.
        variant: What the artifact is.
        verdict: Its verdict on the verification inputs.
        limits: The run's limits.
    """
    for call in io.calls:
        if reason := _several_sizes_problem(run, call, variant, verdict, limits):
            return replace(verdict, status="failed", reason=reason)
    beyond = [{name: size} for name, size in several_sizes_beyond(io.sizes)]
    accepted = [
        several_sizes_text(p)
        for p in beyond
        if _runs_at_several_sizes(run, sample_of_several_sizes(example, io.sizes, p))
    ]
    refused = [text for text in map(several_sizes_text, beyond) if text not in accepted]
    points = tuple(dict.fromkeys(several_sizes_text(call.point) for call in io.calls))
    verdict = replace(verdict, sizes=SizesVerdict(points, tuple(refused), tuple(accepted)))
    if not accepted:
        return verdict
    reason = f"It runs without an error at {', '.join(accepted)}, which --dynamic does not allow."
    return replace(verdict, status="failed", reason=reason)


def several_sizes_text(point: Point) -> str:
    """Write a point as a reader names it: "height=224, width=640"."""
    return ", ".join(f"{name}={size}" for name, size in point.items())


def _runs_at_several_sizes(run: Runner, sample: Sample) -> bool:
    try:
        run(sample)
    except Exception:
        return False
    return True


def _several_sizes_problem(
    run: Runner, call: SizedCall, variant: Variant, verdict: Verdict, limits: Limits
) -> str:
    where = f"At {several_sizes_text(call.point)}"
    try:
        outputs = run(call.inputs)
    except Exception as problem:
        text = str(problem).strip() or type(problem).__name__
        return f"{where} it does not run: {text.splitlines()[0]}"
    shapes, expected = [a.shape for a in outputs], [a.shape for a in call.reference]
    if shapes != expected:
        return f"{where} its outputs have shapes {shapes}, the model's {expected}."
    if variant.precision == "fp32":
        limit = max(limits.fp32_max_error, limits.fp32_floor_factor * call.floor)
        error = max_error_of_several_sizes(call.reference, outputs)
        return (
            "" if error <= limit else f"{where} its largest error is {error:.1e}; the limit is {limit:.1e}."
        )
    usual = verdict.comparison.sqnr_db if verdict.comparison else None
    reached = min(
        (compare_sqnr_db(y, a) for y, a in _float_outputs_of_several_sizes(call.reference, outputs)),
        default=np.inf,
    )
    if usual is None or reached >= usual - SINGLE_DB:
        return ""
    return f"{where} it reaches {reached:.1f} dB SQNR, {usual:.1f} dB on the verification inputs."


def max_error_of_several_sizes(reference: Sample, outputs: Sample) -> float:
    """Return the largest error of one call's outputs, as a share of each output's scale."""
    exact = [(y, a) for y, a in zip(reference, outputs, strict=True) if y.dtype.kind not in "fc"]
    if any(not np.array_equal(y, a) for y, a in exact):
        return float("inf")
    return max(
        (compare_max_error(y, a) for y, a in _float_outputs_of_several_sizes(reference, outputs)), default=0.0
    )


def _float_outputs_of_several_sizes(reference: Sample, outputs: Sample) -> list[tuple[Array, Array]]:
    return [(y, a) for y, a in zip(reference, outputs, strict=True) if y.dtype.kind in "fc"]


def save_several_sizes(io: SizesIO, path: Path) -> None:
    """Write what artifacts are judged by as one .npz without pickles."""
    head = {"sizes": [asdict(size) for size in io.sizes], "varying": io.varying}
    arrays: dict[str, Array] = {"head": np.array(json.dumps(head))}
    for number, call in enumerate(io.calls):
        arrays[f"{number}/point"] = np.array(json.dumps(call.point))
        arrays[f"{number}/floor"] = np.array(call.floor)
        arrays |= {f"{number}/input/{i}": array for i, array in enumerate(call.inputs)}
        arrays |= {f"{number}/reference/{i}": array for i, array in enumerate(call.reference)}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def load_several_sizes(path: Path) -> SizesIO:
    """Read what `save_several_sizes` wrote."""
    arrays = read_reference_io_arrays(path)
    head = json.loads(str(arrays["head"]))
    sizes = tuple(
        DynamicSize(SizeRange(**item["range"]), tuple((p, axis) for p, axis in item["places"]))
        for item in head["sizes"]
    )
    calls: list[SizedCall] = []
    while f"{len(calls)}/point" in arrays:
        number = len(calls)
        inputs, reference = (
            _sample_of_numbered_sizes(arrays, f"{number}/{kind}/") for kind in ("input", "reference")
        )
        point = json.loads(str(arrays[f"{number}/point"]))
        calls.append(SizedCall(point, inputs, reference, float(arrays[f"{number}/floor"])))
    return SizesIO(sizes, tuple(tuple(axes) for axes in head["varying"]), tuple(calls))


def _sample_of_numbered_sizes(arrays: Mapping[str, Array], prefix: str) -> Sample:
    count = sum(name.startswith(prefix) for name in arrays)
    return tuple(arrays[f"{prefix}{i}"] for i in range(count))
