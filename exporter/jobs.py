"""The stages as functions that run in worker processes; frameworks are imported here and nowhere above.

They hand results on as files in the run's private work folder:

    captured.pt module.pt program.pt2   the model, for the builders
    int8.pt2                            its quantised program
    data.pkl                            calibration and verification samples

and, for `verify` to find again, in OUT:

    verification.npz                    verification inputs and the float64 model's outputs
    *.lowering.npz                      a quantised program's own outputs, before lowering
"""

from __future__ import annotations

import errno
import pickle
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import CannotRunHere, LoweringError
from exporter.records import (
    QUANTIZED,
    DataKind,
    Latency,
    Limits,
    Precision,
    Preprocessing,
    Runner,
    Structure,
    TensorSpec,
    Variant,
    Verdict,
)
from exporter.request import ModelRequest

if TYPE_CHECKING:
    import torch

    from exporter.data import Data
    from exporter.evidence import Evidence, Lowering
    from exporter.records import Array, Captured, Checkpoint, Model

DATA = "data.pkl"
"""In the work folder: written last, when a model is captured."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
REPEATED = 4
"""Samples that run a second time, in reverse: a runtime must not carry anything from call to call."""
HISTOGRAM_VALUES = 4096


@dataclass(frozen=True)
class Facts:
    """What reading and capturing found out: everything later stages need that is not a tensor."""

    source_sha256: str
    source_kind: str
    architecture: str
    parameters: int
    matrix_weights: int
    flops: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]
    data_kind: DataKind
    calibration_count: int
    verification_count: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    digest: str
    """sha256 of the graph and its weights; empty when there is no graph."""


@dataclass(frozen=True)
class Built:
    """One variant after its build: `file` is None when it could not be made."""

    variant: Variant
    file: str | None
    notes: tuple[str, ...] = ()
    error: str | None = None
    source_line: str | None = None
    seconds: float = 0.0


def read_checkpoint(request: ModelRequest) -> Checkpoint:
    """Read the file; runs nothing in it but what `trust` allows."""
    from exporter import checkpoints

    return checkpoints.read(request.checkpoint, trust=request.trust)


def read_network(request: ModelRequest, checkpoint: Checkpoint) -> Model:
    """Find the checkpoint's network, or make the one that `arch` names."""
    from exporter import architectures

    return architectures.build(
        checkpoint,
        arch=request.arch,
        arch_args=dict(request.arch_args),
        input_shapes=request.input_shapes,
        preprocess=request.preprocess,
        mean=request.mean,
        std=request.std,
        whole=request.preprocessing,
        labels=request.labels,
    )


def capture_model(request: ModelRequest, work: Path) -> Facts:
    """Read, infer, load the data, capture; everything the builders need lands in `work`."""
    from exporter import capture, data

    checkpoint = read_checkpoint(request)
    model = read_network(request, checkpoint)
    samples = data.load(request.calibration, model.inputs, model.preprocessing, request.samples)
    captured = capture.capture(model, samples.verification[0], request.torchscript)
    capture.save(captured, work)
    (work / DATA).write_bytes(pickle.dumps(samples))
    return Facts(
        source_sha256=checkpoint.sha256,
        source_kind=checkpoint.kind,
        architecture=model.architecture,
        parameters=model.parameters,
        matrix_weights=capture.matrix_weights(captured),
        flops=count_flops(captured.module, captured.inputs),
        inputs=captured.inputs,
        outputs=captured.outputs,
        preprocessing=model.preprocessing,
        labels=model.labels,
        data_kind=samples.kind,
        calibration_count=len(samples.calibration),
        verification_count=len(samples.verification),
        notes=(*checkpoint.notes, *model.notes, *samples.notes),
        warnings=samples.warnings,
        digest=capture.digest(captured),
    )


def count_flops(module: torch.nn.Module, inputs: tuple[TensorSpec, ...]) -> int | None:
    """FLOPs of one call; None where they cannot be counted: a figure for people only."""
    import torch

    from exporter import flops

    example = tuple(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in inputs)
    try:
        return flops.count(module, example)
    except Exception:
        return None


def make_reference(work: Path, target: Path, preprocessing: Preprocessing | None) -> tuple[str, ...]:
    """Run the float64 model on every verification input into `target`; returns notes on how."""
    from exporter import capture, data, evidence

    captured = capture.load(work)
    samples = load_data(work).verification
    edges = data.edge_inputs(captured.inputs, preprocessing, samples[0])
    found, notes = capture.reference(captured, samples, edges)
    evidence.save(found, target)
    return notes


def build(work: Path, variants: tuple[Variant, ...], directory: Path) -> list[Built]:
    """Make the variants of one group, one after the other, in `directory`.

    Args:
        work: Holds what `capture_model` wrote, and `quantize_model` where the group is quantised.
        variants: They share intermediate results within this process.
        directory: Where the artifacts go.
    """
    from exporter import capture
    from exporter.quantize import int8

    captured = capture.load(work)
    notes: tuple[str, ...] = ()
    if any(variant.precision in QUANTIZED for variant in variants):
        captured = replace(captured, program=int8.load_program(work))
        notes = tuple(note for note in [int8.load_note(work)] if note)
    built = [_build_one(captured, variant, directory) for variant in variants]
    return [replace(b, notes=(*b.notes, *notes)) for b in built]


def _build_one(captured: Captured, variant: Variant, directory: Path) -> Built:
    from exporter.formats import FORMATS
    from exporter.formats.lowering_errors import lowering_error

    started = time.monotonic()
    try:
        emission = FORMATS[variant.format].emit(captured, variant, directory)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise  # ends the run: the siblings could not be written either
        return _not_built(variant, lowering_error(error), started)
    except Exception as error:
        cause = error if isinstance(error, LoweringError) else lowering_error(error)
        return _not_built(variant, cause, started)
    return Built(variant, emission.path.name, emission.notes, seconds=time.monotonic() - started)


def _not_built(variant: Variant, cause: LoweringError, started: float) -> Built:
    return Built(variant, None, (), cause.cause, cause.source, time.monotonic() - started)


def lowering_file(precision: Precision, name: str = "") -> str:
    """In OUT: what an artifact's quantised program computes.

    Args:
        precision: The artifact's. All of int8 come from one program.
        name: The artifact's: each mixed one has a program of its own.
    """
    return f"{name if precision == 'mixed' else precision}.lowering.npz"


@dataclass(frozen=True)
class Expected:
    """What an artifact is checked against, besides the evidence."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    matrix_weights: int
    limits: Limits


@dataclass(frozen=True, eq=False)
class Checked:
    """One artifact after verification."""

    structure: Structure | None
    verdict: Verdict
    outputs: Array | None = None
    """Some of its output values, flat, for the report's histogram."""


def verify_artifact(
    path: Path, variant: Variant, evidence_path: Path, lowering_path: Path | None, expected: Expected
) -> Checked:
    """Read the written file, run it in its own runtime on the evidence, and judge it.

    A file that crashes its runtime kills only the process this runs in.
    """
    from exporter import evidence, verify
    from exporter.formats import FORMATS

    module = FORMATS[variant.format]
    try:
        structure = module.structure(path, variant)
    except LoweringError as error:
        return Checked(None, _failed(f"It cannot be read: {error.cause}"))
    problem = verify.check_structure(
        structure, variant, expected.inputs, expected.outputs, expected.matrix_weights, expected.limits
    )
    if problem:
        return Checked(structure, _failed(problem))
    found = evidence.load(evidence_path)
    try:
        run, runtime = module.load(path, variant, 1)
    except CannotRunHere as error:
        return Checked(structure, Verdict("not_run", _unrun(error), "", None))
    except Exception as error:
        return Checked(structure, _failed(f"Its runtime refuses it: {error}"))
    lowering = evidence.load_lowering(lowering_path) if lowering_path else None
    return _run_and_judge(variant, run, runtime, found, lowering, expected.limits, structure)


def _run_and_judge(
    variant: Variant,
    run: Runner,
    runtime: str,
    found: Evidence,
    lowering: Lowering | None,
    limits: Limits,
    structure: Structure,
) -> Checked:
    from exporter.evidence import stack
    from exporter.verify import judge, repeats

    try:
        outputs = stack([run(sample) for sample in found.samples()])
        edges = stack([run(sample) for sample in found.edges()])
        again = stack([run(sample) for sample in reversed(found.samples()[:REPEATED])])
    except Exception as error:
        return Checked(structure, _failed(f"It does not run on the model's inputs: {error}", runtime))
    verdict = judge(variant, runtime, found, outputs, edges, lowering, limits)
    first = tuple(a[:REPEATED] for a in outputs)
    if verdict.status == "passed" and (problem := repeats(first, tuple(a[::-1] for a in again))):
        verdict = replace(verdict, status="failed", reason=problem)
    return Checked(structure, verdict, outputs[0].reshape(-1)[:HISTOGRAM_VALUES])


def _unrun(why: CannotRunHere) -> str:
    return f"{str(why).rstrip('.')}. Its structure was checked."


def _failed(reason: str, runtime: str = "") -> Verdict:
    return Verdict("failed", reason, runtime, None)


def measure_latency(
    path: Path, variant: Variant, evidence_path: Path, threads: int, budget_s: float = 2.0
) -> Latency:
    """Time the artifact in its runtime on real inputs, after a warm-up.

    Warm-up: at least 10 calls and 0.3 s. Then up to 200 calls, fewer when `budget_s` is over, at least 20.
    """
    import numpy as np

    from exporter import evidence
    from exporter.formats import FORMATS

    run, _ = FORMATS[variant.format].load(path, variant, threads)
    samples = evidence.load(evidence_path).samples()[:8]
    started, calls = time.monotonic(), 0
    while calls < 10 or time.monotonic() - started < 0.3:
        run(samples[calls % len(samples)])
        calls += 1
    taken: list[int] = []
    started = time.monotonic()
    while len(taken) < 200 and (len(taken) < 20 or time.monotonic() - started < budget_s):
        begin = time.perf_counter_ns()
        run(samples[len(taken) % len(samples)])
        taken.append(time.perf_counter_ns() - begin)
    p50, p90 = np.percentile(taken, [50, 90]) / 1e6
    return Latency(float(p50), float(p90), len(taken), threads, tuple(taken))


def load_data(work: Path) -> Data:
    """What `capture_model` wrote."""
    data: Data = pickle.loads((work / DATA).read_bytes())  # our own file, in our own folder
    return data
