"""Takes a network through capture, reference, a format and verification, all in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from exporter.capture import program
from exporter.capture.reference import run_reference
from exporter.data import edge_inputs
from exporter.errors import LoweringError
from exporter.formats import FORMATS, VARIANTS
from exporter.pipeline.results import ExpectedResult
from exporter.pipeline.verify import verify_artifact
from exporter.records import Captured, Limits, Model, Sample, TensorSpec, Verdict
from exporter.verify import reference_io

EVIDENCE = "verification.npz"


def capture(net: nn.Module, samples: Sequence[Sample], folder: Path) -> Captured:
    """Capture a network and write its evidence, as an export would."""
    specs = tuple(TensorSpec(f"x{i}", a.shape, a.dtype.name) for i, a in enumerate(samples[0]))
    model = Model(net.eval(), "tests:net", specs, None, 0)
    captured = program.capture(model, samples[0], others=samples[1:])
    edges = edge_inputs(captured.inputs, None, samples[0], samples[1:])
    evidence, _ = run_reference(captured, samples, edges)
    reference_io.save(evidence, folder / EVIDENCE)
    return captured


def prove(captured: Captured, variant: str, folder: Path) -> Verdict:
    """Make one artifact of a captured network and judge it by the evidence in the folder."""
    how = VARIANTS[variant]
    try:
        path = FORMATS[how.format].emit(captured, how, folder).path
    except LoweringError as error:
        return Verdict("error", str(error), "", None)
    return judge(captured, path, variant)


def judge(captured: Captured, path: Path, variant: str) -> Verdict:
    """Judge a file by the evidence in its folder."""
    expected = ExpectedResult(
        captured.inputs, captured.outputs, program.matrix_weights(captured), Limits(min_delegated=0.0)
    )
    return verify_artifact(path, VARIANTS[variant], path.parent / EVIDENCE, None, expected).verdict
