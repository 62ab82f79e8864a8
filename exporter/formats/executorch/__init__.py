"""ExecuTorch `.pte` files: XNNPACK on the CPU in float and int8, Vulkan on the GPU in half precision."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.capture.lowering_errors import lowering_error
from exporter.capture.unknown_operators import operators_at_lines
from exporter.errors import LoweringError
from exporter.formats.executorch.executorch_lowering import lower_to_executorch
from exporter.formats.executorch.executorch_recurrent import (
    are_recurrent_steps_written_out,
    written_out_steps,
)
from exporter.formats.executorch.executorch_runtime import load_in_executorch_runtime as load
from exporter.formats.executorch.pte import read_pte as structure
from exporter.formats.metadata import metadata_as_json
from exporter.records import Captured, Emission, Variant

if TYPE_CHECKING:
    from executorch.exir import ExecutorchProgramManager
    from torch.export import ExportedProgram

__all__ = ["KEEPS_STATE", "PRELOAD", "VARIANTS", "emit", "load", "structure"]

VARIANTS: tuple[Variant, ...] = (
    Variant(
        name="executorch-xnnpack-fp32",
        format="executorch",
        backend="xnnpack",
        precision="fp32",
        suffix=".pte",
        group="executorch-xnnpack-fp32",
        cost_s=7.0,
    ),
    Variant(
        name="executorch-xnnpack-int8",
        format="executorch",
        backend="xnnpack",
        precision="int8",
        suffix=".pte",
        group="executorch-xnnpack-int8",
        cost_s=12.0,
    ),
    Variant(
        name="executorch-xnnpack-mixed",
        format="executorch",
        backend="xnnpack",
        precision="mixed",
        suffix=".pte",
        group="executorch-xnnpack-mixed",
        cost_s=12.0,
    ),
    Variant(
        name="executorch-vulkan-fp16",
        format="executorch",
        backend="vulkan",
        precision="fp16",
        suffix=".pte",
        group="executorch-vulkan-fp16",
        cost_s=8.0,
    ),
)
KEEPS_STATE = True
PRELOAD: tuple[str, ...] = (
    "executorch.exir",
    "executorch.backends.xnnpack.partition.xnnpack_partitioner",
)


def emit(captured: Captured, variant: Variant, directory: Path) -> Emission:
    """Lower the program to the variant's backend and write it.

    Args:
        captured: Its `program` is lowered; a network without one cannot become a `.pte`.
        variant: One of `VARIANTS`.
        directory: Where `<variant.name>.pte` is written.

    Raises:
        LoweringError: There is no program, or ExecuTorch cannot express it.
    """
    if captured.program is None:
        raise LoweringError(captured.program_error, captured.program_source)
    try:
        data = lower_to_executorch(
            captured.program, variant.backend, captured.ranges, metadata_as_json(captured.about)
        )
    except Exception as error:
        # The compiler's passes raise errors of any type on a graph that they don't know.
        raise lowering_error(error, captured.program) from error
    path = directory / f"{variant.name}{variant.suffix}"
    with path.open("wb") as file:
        data.write_to_file(file)
    notes = _planned_memory_note(data) if captured.ranges else ()
    notes += _note_on_loops(captured.program)
    return Emission(path, (*notes, *_note_on_missing_kernels(data, captured.program)))


def _note_on_loops(program: ExportedProgram) -> tuple[str, ...]:
    if are_recurrent_steps_written_out(program):
        return ()
    return (
        f"Its {written_out_steps(program)} recurrent steps run as loops of ExecuTorch's own kernels, as no "
        "delegate takes loops: they are slower than delegated ones would be.",
    )


def _note_on_missing_kernels(data: ExecutorchProgramManager, program: ExportedProgram) -> tuple[str, ...]:
    """Name the operators that the runtime of this package has no kernel for, and the lines that use them."""
    from executorch.runtime import Runtime

    operators = data.executorch_program.execution_plan[0].operators
    used = {f"{operator.name}.{operator.overload}".removesuffix(".") for operator in operators}
    missing = sorted(used - set(Runtime.get().operator_registry.operator_names))
    if not missing:
        return ()
    lines = ", ".join(operators_at_lines(missing, program))
    return (f"ExecuTorch's runtime {importlib.metadata.version('executorch')} has no kernel for {lines}.",)


def _planned_memory_note(data: ExecutorchProgramManager) -> tuple[str, ...]:
    """Say how much memory is planned for activations, which is what the largest sizes need."""
    buffers = data.executorch_program.execution_plan[0].non_const_buffer_sizes
    planned = sum(int(size) for size in buffers)
    return (
        f"{planned / 1e6:.2f} MB are planned for activations outside the delegate, at the largest sizes.",
    )
