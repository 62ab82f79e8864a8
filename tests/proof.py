"""Takes a network through capture, reference, a format and verification, all in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from exporter.capture import captured_program
from exporter.capture.float64_reference import run_float64_reference
from exporter.data import Data, edge_inputs
from exporter.errors import LoweringError
from exporter.formats import FORMATS, VARIANTS, simulation
from exporter.pipeline.int8_stage import refuse_mostly_float_in_int8_stage, run_program_in_int8_stage
from exporter.pipeline.stage_results import ExpectedResult
from exporter.pipeline.verify_stage import verify_artifact_in_stage
from exporter.quantize import int8_recipe
from exporter.records import SIMULATED, Captured, Limits, Model, Precision, Sample, TensorSpec, Verdict
from exporter.verify import reference_io, simulation_io

EVIDENCE = "verification.npz"
LOWERING = "lowering.npz"
SIMULATION = "{}.simulated.npz"


def capture(net: nn.Module, samples: Sequence[Sample], folder: Path) -> Captured:
    """Capture a network and write its evidence, as an export would."""
    specs = tuple(TensorSpec(f"x{i}", a.shape, a.dtype.name) for i, a in enumerate(samples[0]))
    model = Model(net.eval(), "tests:net", specs, None, 0)
    captured = captured_program.capture_program(model, samples[0], others=samples[1:])
    references, _ = run_float64_reference(captured, samples, _edges(captured, samples))
    reference_io.save_reference_io(references, folder / EVIDENCE)
    return captured


def _edges(captured: Captured, samples: Sequence[Sample]) -> Mapping[str, Sample]:
    return edge_inputs(captured.inputs, None, samples[0], samples[1:])


def quantize(captured: Captured, calibration: Sequence[Sample], folder: Path) -> Captured:
    """Quantise a captured network, and write what its quantised program gives on the evidence.

    Raises:
        LoweringError: It has no graph.
    """
    if captured.program is None:
        raise LoweringError(captured.program_error)
    quantized = int8_recipe.quantize_by_int8_recipe(captured.program, calibration)
    refuse_mostly_float_in_int8_stage(captured.program, quantized.module, Limits().min_quantized_weights)
    samples = reference_io.load_reference_io(folder / EVIDENCE).samples()
    data = Data(tuple(calibration), tuple(samples), "arrays")
    lowering = run_program_in_int8_stage(quantized.module, data.verification, _edges(captured, samples))
    reference_io.save_reference_io_lowering(lowering, folder / LOWERING)
    int8_recipe.save_int8_recipe(quantized, folder)
    return replace(captured, program=int8_recipe.load_int8_recipe_program(folder))


def simulate(captured: Captured, precision: Precision, folder: Path) -> None:
    """Write what a precision makes of a captured network."""
    assert captured.program is not None
    run = simulation.format_simulation_runner(captured.program, precision)
    references = reference_io.load_reference_io(folder / EVIDENCE)
    outputs = reference_io.stack_reference_io([run(sample) for sample in references.samples()])
    simulation_io.save_simulation(
        simulation_io.Simulation(outputs, {}), folder / SIMULATION.format(precision)
    )


def prove(captured: Captured, variant: str, folder: Path, matrices: int | None = None) -> Verdict:
    """Make one artifact of a captured network and judge it by the evidence in the folder.

    Args:
        captured: The network; a quantised one for int8.
        variant: What is made of it.
        folder: Where the evidence is, and where the artifact is written.
        matrices: How many weights the float network has; counted in `captured` when left out.
    """
    how = VARIANTS[variant]
    try:
        path = FORMATS[how.format].emit(captured, how, folder).path
    except LoweringError as error:
        return Verdict("error", str(error), "", None)
    if how.precision in SIMULATED and captured.program is not None:
        with contextlib.suppress(ValueError):  # outputs of changing sizes: fixed limits alone judge it
            simulate(captured, how.precision, folder)
    return judge(captured, path, variant, matrices)


def judge(captured: Captured, path: Path, variant: str, matrices: int | None = None) -> Verdict:
    """Judge a file by the evidence in its folder."""
    how = VARIANTS[variant]
    weights = captured_program.captured_program_matrix_weights(captured) if matrices is None else matrices
    expected = ExpectedResult(captured.inputs, captured.outputs, weights, Limits(min_delegated=0.0))
    lowering = path.parent / LOWERING if how.precision == "int8" else None
    simulated = path.parent / SIMULATION.format(how.precision)
    return verify_artifact_in_stage(
        path,
        how,
        path.parent / EVIDENCE,
        lowering,
        expected,
        simulated if simulated.exists() else None,
    ).verdict
