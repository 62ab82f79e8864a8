"""The int8 program as jobs of worker processes: made, judged, and put back into float in parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import jobs
from exporter.errors import LoweringError
from exporter.quantize.search import Mix
from exporter.records import OperatorCost, Runner, Sample

if TYPE_CHECKING:
    from exporter.evidence import Lowering

NUDGED = 16
"""Samples that tell how much a quantised program amplifies rounding ties."""


@dataclass(frozen=True)
class Quantization:
    """What is known of a quantised program beside what it computes."""

    costs: tuple[OperatorCost, ...] = ()
    """In the order the operators run."""


def quantize_model(work: Path) -> None:
    """Quantise the captured program; the result, which every int8 artifact is made from, lands in `work`.

    Raises:
        LoweringError: There is no program, or it cannot be quantised.
    """
    from exporter import capture
    from exporter.formats.lowering_errors import lowering_error
    from exporter.quantize import int8

    captured = capture.load(work)
    if captured.program is None:
        raise LoweringError(captured.program_error, captured.program_source)
    try:
        found = int8.quantize(captured.program, jobs.load_data(work).calibration)
        int8.save(found, work)
    except OSError:
        raise  # a full disk is not the model's fault
    except Exception as error:
        raise lowering_error(error, captured.program) from error


def judge_quantized(work: Path, target: Path) -> Quantization:
    """Run the quantised program on the verification inputs into `target`, and find what costs how much."""
    from exporter import evidence
    from exporter.quantize import int8, sensitivity

    found, data = int8.load(work), jobs.load_data(work)
    evidence.save_lowering(_lowering(int8.runner(found.module), data.verification), target)
    samples = [int8.tensors(sample) for sample in data.calibration]
    return Quantization(sensitivity.measure(found.module, found.float_weights, samples))


def mixed_candidates(work: Path) -> tuple[Mix, ...]:
    """Operators to keep in float, candidate by candidate, the fewest first."""
    from exporter.quantize import int8, search

    found = int8.load(work)
    samples = [int8.tensors(sample) for sample in jobs.load_data(work).calibration]
    activations, prices = search.measure(found.module, found.float_weights, samples)
    return search.candidates(activations, prices)


def mix(work: Path, kept: tuple[str, ...], names: tuple[str, ...], folder: Path) -> None:
    """Put operators of the int8 program back into float.

    Args:
        work: Of the run.
        kept: Names of the operators.
        names: Of the artifacts that are made from it.
        folder: What `build` and `verify` need lands here.
    """
    from exporter import capture, evidence
    from exporter.quantize import int8, mixed

    found = int8.load(work)
    module = mixed.keep_float(found.module, found.float_weights, kept)
    int8.save(replace(found, module=module), folder)
    capture.save(capture.load(work), folder)
    lowering = _lowering(int8.runner(module), jobs.load_data(work).verification)
    for name in names:
        evidence.save_lowering(lowering, folder / jobs.lowering_file("mixed", name))


def _lowering(program: Runner, samples: tuple[Sample, ...]) -> Lowering:
    from exporter.evidence import Lowering, stack
    from exporter.verify import sqnr_db

    outputs = stack([program(sample) for sample in samples])
    nudged = stack([program(_nudged(sample)) for sample in samples[:NUDGED]])
    floor = min(sqnr_db(o[:NUDGED], n) for o, n in zip(outputs, nudged, strict=True))
    return Lowering(outputs, floor)


def _nudged(sample: Sample) -> Sample:
    """Inputs changed by less than any quantisation step: only what sits on a rounding tie moves."""
    return tuple(a * a.dtype.type(1 + 1e-5) if a.dtype.kind == "f" else a for a in sample)
