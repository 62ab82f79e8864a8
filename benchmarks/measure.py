"""Run one method or measure one file of the quantisation benchmark, each in its own process.

The exporter's own definitions are used for everything that is compared: which samples calibrate and which
verify, the float64 reference, SQNR, agreement, and how a runtime is loaded.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import alternatives, pairing
from benchmarks.pairing import Paired
from benchmarks.subjects import Subject
from exporter import data
from exporter.formats import FORMATS, VARIANTS
from exporter.records import Preprocessing, Runner, Sample, TensorSpec
from exporter.verify import compare_outputs, reference_io

TIMED_SAMPLES = 8


@dataclass(frozen=True)
class Row:
    """A way to shrink a model, and its results. Figures are None where there are none."""

    model: str
    method: str
    runtime: str
    """The runtime: executorch or onnxruntime."""
    precision: str
    settings: str = ""
    status: str = "error"
    reason: str = ""
    file: str = ""
    size_bytes: int | None = None
    quantized: float | None = None
    """The share of weights that are stored in 8 bits."""
    sqnr_db: float | None = None
    agreement: float | None = None
    quantise_s: float | None = None
    """Seconds from the float module to the written file."""
    total_s: float | None = None
    """Seconds of the whole process: imports, quantisation, and the run on the verification samples."""
    latency: Paired | None = None
    """Its latency against our full int8 of the same runtime."""


@dataclass(frozen=True)
class Evidence:
    """The evidence that our export of the same model left."""

    out: Path
    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    samples: int

    def read(self) -> reference_io.ReferenceIO:
        return reference_io.load_reference_io(self.out / "verification.npz")


def log_to(path: str) -> None:
    """Send what libraries print, in Python or below, to a file, so that tables stay readable."""
    with Path(path).open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)


def calibration(subject: Subject, evidence: Evidence) -> tuple[Sample, ...]:
    """Return the samples that our export calibrated on.

    Raises:
        RuntimeError: The verification samples that go with them are not those of the export, or not unseen.
    """
    split = data.load_data(subject.calibration, evidence.inputs, evidence.preprocessing, evidence.samples)
    ours = evidence.read().samples()
    if [_bytes(s) for s in split.verification] != [_bytes(s) for s in ours]:
        raise RuntimeError(f"{subject.name}: the export verified on other samples than the benchmark's")
    if {_bytes(s) for s in split.calibration} & {_bytes(s) for s in ours}:
        raise RuntimeError(f"{subject.name}: a sample is both calibrated and verified on")
    return split.calibration


def _bytes(sample: Sample) -> bytes:
    return b"".join(array.tobytes() for array in sample)


def quantise(subject: Subject, name: str, evidence: Evidence, path: Path) -> Row:
    """Run a method, run its file, and compare; a failing method is a row with its message."""
    import torch

    began = time.monotonic()
    method = next(m for m in alternatives.METHODS if m.name == name)
    row = Row(subject.name, name, VARIANTS[method.variant].backend, "int8", method.settings)
    samples = calibration(subject, evidence)
    torch.manual_seed(0)
    try:
        seconds = alternatives.quantise(method, subject.load, samples, subject.kind, path)
        row = replace(row, quantise_s=seconds)
        row = judge(row, path, method.variant, evidence)
    except Exception as error:  # whatever another library says of a model is a result
        words = next(iter(str(error).strip().splitlines()), "")
        return replace(row, reason=f"{type(error).__name__}: {words}"[:300])
    return replace(row, total_s=time.monotonic() - began)


def judge(row: Row, path: Path, variant_name: str, evidence: Evidence) -> Row:
    """Fill in the file's facts and its error against the float64 model."""
    variant = VARIANTS[variant_name]
    module = FORMATS[variant.format]
    run, _ = module.load(path, variant, 1)
    known = evidence.read()
    outputs = reference_io.stack_reference_io([run(sample) for sample in known.samples()])
    comparison = compare_outputs.compare_outputs(known.reference, outputs)
    return replace(
        row,
        status="ran",
        reason=comparison.problem,
        file=str(path),
        size_bytes=path.stat().st_size,
        quantized=module.structure(path, variant).quantized_weight_fraction,
        sqnr_db=comparison.sqnr_db,
        agreement=comparison.agreement,
    )


def latency(
    path: Path, other: Path, variant_name: str, evidence: Evidence, pairs: int, threads: int
) -> Paired:
    """Time a file against another of the same runtime, on the same samples in the same order."""
    variant = VARIANTS[variant_name]
    samples = evidence.read().samples()[:TIMED_SAMPLES]
    calls = [_cycling(FORMATS[variant.format].load(p, variant, threads)[0], samples) for p in (path, other)]
    return pairing.compare(calls[0], calls[1], pairs, threads)


def _cycling(run: Runner, samples: Sequence[Sample]) -> Callable[[], object]:
    turn = itertools.cycle(samples)
    return lambda: run(next(turn))
