"""More work for the worker processes: answers to labelled samples, int8 from few calibration samples."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from exporter.jobs import Facts, load_data
from exporter.records import Array, CurvePoint, Sample, Variant

LABELLED = "labelled.pkl"
"""In the work folder."""


@dataclass(frozen=True)
class Labels:
    """What was found, as far as the caller's process needs it."""

    kind: Literal["photos", "arrays"]
    classes: int
    labels: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Ranked:
    """The most likely classes of every sample; kept in the cache."""

    rows: tuple[tuple[int, ...], ...]

    def array(self) -> Array:
        return np.array(self.rows, np.int32)


def find_labelled(
    evaluation: Path, calibration: Path | None, samples: int, max_drop: float, facts: Facts, work: Path
) -> Labels:
    """Find the labelled samples, check that they may judge, and leave them in the work folder.

    Args:
        evaluation: What `--eval` names.
        calibration: What `--calibration` names; none of it may be in the evaluation.
        samples: Calibration samples asked for.
        max_drop: Points that must be measurable.
        facts: The model's inputs, outputs, preprocessing and class names.
        work: Where `LABELLED` is written.

    Raises:
        CalibrationError: The data cannot be used, is too little, or was calibrated on.
    """
    from exporter import accuracy, data, labelled

    found = labelled.find(evaluation, facts.inputs, facts.outputs, facts.preprocessing, facts.labels)
    accuracy.check_enough(len(found.labels), max_drop)
    if calibration is not None:
        used = data.load(calibration, facts.inputs, facts.preprocessing, samples)
        labelled.check_apart(found, used.origins, calibration)
    (work / LABELLED).write_bytes(pickle.dumps(found))
    return Labels(found.kind, found.classes, tuple(int(label) for label in found.labels), found.notes)


def predict_float(work: Path, output: int) -> Ranked:
    """What the captured model answers, in eager float32.

    Args:
        work: Holds the captured model and `LABELLED`.
        output: Position of the output that says the class.
    """
    import torch

    from exporter import capture

    module = capture.load(work).module

    def run(sample: Sample) -> Array:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(array) for array in sample))
        chosen = outputs if isinstance(outputs, torch.Tensor) else outputs[output]
        found: Array = chosen.numpy()
        return found

    return _ranked(run, work)


def predict_artifact(path: Path, variant: Variant, work: Path, output: int) -> Ranked:
    """What the written file answers in its own runtime."""
    from exporter.formats import FORMATS

    run, _ = FORMATS[variant.format].load(path, variant, 1)
    return _ranked(lambda sample: run(sample)[output], work)


def calibration_curve(work: Path, evidence_path: Path) -> tuple[CurvePoint, ...]:
    """Quantise with 1, 2, 4, … calibration samples and compare each program with float64.

    The quantised program itself is compared, as XNNPACK computes it: lowering it changes no figure.

    Args:
        work: Holds the captured model and the data.
        evidence_path: Verification inputs and the float64 model's outputs.

    Raises:
        LoweringError: There is no program to quantise.
    """
    from exporter import capture, curve, evidence, verify
    from exporter.errors import LoweringError
    from exporter.quantize import int8

    captured = capture.load(work)
    if captured.program is None:
        raise LoweringError(captured.program_error, captured.program_source)
    data = load_data(work)
    found = evidence.load(evidence_path)
    points = []
    for count in curve.counts(len(data.calibration)):
        run = int8.runner(int8.quantize(captured.program, data.calibration[:count]).module)
        outputs = evidence.stack([run(sample) for sample in found.samples()])
        compared = verify.compare(found.reference, outputs)
        points.append(CurvePoint(count, compared.sqnr_db, compared.agreement))
    return tuple(points)


def _ranked(run: Callable[[Sample], Array], work: Path) -> Ranked:
    from exporter import accuracy

    found = pickle.loads((work / LABELLED).read_bytes())  # our own file, in our own folder
    rows: list[tuple[int, ...]] = []
    for sample, read in found.batches():
        for ranked, usable in zip(accuracy.rank(run(sample)), read, strict=True):
            rows.append(tuple(int(c) if usable else accuracy.UNREAD for c in ranked))
    return Ranked(tuple(rows[: len(found.labels)]))
