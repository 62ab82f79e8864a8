"""`--calibration-sweep`: int8 quality against the number of calibration samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporter.formats import FORMATS
from exporter.pipeline import cache
from exporter.pipeline.context import TORCH, Context, Source
from exporter.pipeline.read import ensure_captured
from exporter.pipeline.results import Extras, load_data
from exporter.pipeline.workers.pool import Job
from exporter.records import CurvePoint
from exporter.verify import calibration_sweep


@dataclass(frozen=True)
class Curve:
    """As the cache keeps it."""

    points: tuple[CurvePoint, ...]


def calibration_curve(context: Context, source: Source) -> Extras:
    """Int8 against the number of calibration samples; a warning where it could not be measured."""
    key = cache.key("curve", cache.toolchain(), source.key) if source.key else ""
    if (kept := context.cache.get("curve", key, Curve)) is not None:
        return _curved(kept.points)
    ensure_captured(context)
    job = Job(
        "calibration samples",
        measure_curve,
        (context.folders.work, context.evidence),
        preload=(*TORCH, *FORMATS["executorch"].PRELOAD),
    )
    (outcome,) = context.run("curve", [job])
    if outcome.error is not None:
        return Extras(warnings=(f"--calibration-curve could not be measured: {outcome.error}",))
    context.cache.put("curve", key, Curve(outcome.value))
    return _curved(outcome.value)


def _curved(points: tuple[CurvePoint, ...]) -> Extras:
    more = calibration_sweep.warning(points)
    return Extras(curve=points, warnings=(more,) if more else ())


def measure_curve(work: Path, evidence_path: Path) -> tuple[CurvePoint, ...]:
    """Quantise with 1, 2, 4, … calibration samples and compare each program with float64.

    The quantised program itself is compared, as XNNPACK computes it: lowering it changes no figure.

    Args:
        work: Holds the captured model and the data.
        evidence_path: Verification inputs and the float64 model's outputs.

    Raises:
        LoweringError: There is no program to quantise.
    """
    from exporter.capture import program
    from exporter.errors import LoweringError
    from exporter.quantize import int8
    from exporter.verify import calibration_sweep, compare, reference_io

    captured = program.load(work)
    if captured.program is None:
        raise LoweringError(captured.program_error, captured.program_source)
    data = load_data(work)
    found = reference_io.load(evidence_path)
    points = []
    for count in calibration_sweep.counts(len(data.calibration)):
        run = int8.runner(int8.quantize(captured.program, data.calibration[:count]).module)
        outputs = reference_io.stack([run(sample) for sample in found.samples()])
        compared = compare.compare(found.reference, outputs)
        points.append(CurvePoint(count, compared.sqnr_db, compared.agreement))
    return tuple(points)
