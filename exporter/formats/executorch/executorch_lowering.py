"""Lowers a program to a `.pte`, without the compiler's wasted work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.errors import LoweringError
from exporter.formats.executorch import executorch_weights_only
from exporter.formats.executorch.executorch_recurrent import (
    are_recurrent_steps_written_out,
    with_executorch_recurrent_steps,
)
from exporter.formats.executorch.executorch_recurrent_loop import with_executorch_recurrent_loops
from exporter.formats.executorch.parameter_names import with_usable_parameter_names
from exporter.formats.executorch.pooling_strides import write_pooling_strides
from exporter.formats.executorch.size_guards import guard_sizes_of_edge
from exporter.formats.executorch.skipped_compiler_work import skip_compiler_work
from exporter.formats.executorch.spelled_out import with_operators_spelled_out
from exporter.formats.metadata import METADATA
from exporter.records import DynamicSize

if TYPE_CHECKING:
    import torch
    from executorch.exir import EdgeProgramManager, ExecutorchBackendConfig, ExecutorchProgramManager
    from executorch.exir.backend.partitioner import Partitioner


CYCLES = "dependency cycles"
"""In the message of the partitioner where two groups of operators would wait for each other."""


def lower_to_executorch(
    program: torch.export.ExportedProgram, backend: str, sizes: Sequence[DynamicSize] = (), metadata: str = ""
) -> ExecutorchProgramManager:
    """Partition a program for a backend and compile it.

    Args:
        program: In ATen dialect, float or PT2E-quantised; its example inputs' memory layout becomes fixed.
        backend: "xnnpack" or "vulkan" (half precision).
        sizes: Ranges that the program takes; the file refuses all other sizes.
        metadata: What the file's method `metadata` returns; without any it has no such method.

    Raises:
        LoweringError: The program was captured with transposed example inputs.
        Exception: A compiler pass cannot handle the graph; it may be of any type.
    """
    import torch

    _check_executorch_lowering_layout(program)
    write_pooling_strides(program.graph_module)
    if not are_recurrent_steps_written_out(program):
        program = with_executorch_recurrent_loops(program)
    # A buffer that forward computes from parameters would require a gradient, and could not be written to.
    with skip_compiler_work(), torch.no_grad():
        try:
            edge = _lower_to_edge(program, _executorch_lowering_partitioner(backend), metadata)
        except Exception as error:
            if backend != "xnnpack" or CYCLES not in str(error):
                raise
            edge = _lower_to_edge(
                program, _executorch_lowering_partitioner(backend, per_operator=True), metadata
            )
        guard_sizes_of_edge(edge, sizes)
        return edge.to_executorch(_executorch_lowering_config(edge.exported_program()))


def _lower_to_edge(
    program: torch.export.ExportedProgram, partitioner: Partitioner, metadata: str
) -> EdgeProgramManager:
    from executorch.exir import to_edge_transform_and_lower

    return to_edge_transform_and_lower(
        with_usable_parameter_names(with_operators_spelled_out(with_executorch_recurrent_steps(program))),
        partitioner=[partitioner],
        constant_methods={METADATA: metadata} if metadata else None,
    )


def _executorch_lowering_config(program: torch.export.ExportedProgram) -> ExecutorchBackendConfig:
    """Start buffers that forward changes with their values: by default they are uninitialised memory."""
    from executorch.exir import ExecutorchBackendConfig
    from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass

    signature = program.graph_signature
    changed = set(signature.buffers_to_mutate.values())
    names = [name for name, target in signature.inputs_to_buffers.items() if target in changed]
    return ExecutorchBackendConfig(passes=[InitializedMutableBufferPass(names)] if names else [])


def _check_executorch_lowering_layout(program: torch.export.ExportedProgram) -> None:
    """Refuse a transposed example, which lowers silently into a file that fails for every input."""
    import torch

    for tensor in program.example_inputs[0]:
        # Strides and not is_contiguous(), which calls one-channel images contiguous in any layout.
        if tensor.stride() != torch.empty(tensor.shape, device="meta").stride():
            raise LoweringError(
                f"captured with a transposed example input, strides {tensor.stride()}: make it contiguous"
            )


def _executorch_lowering_partitioner(backend: str, per_operator: bool = False) -> Partitioner:
    """Return what chooses the nodes of a backend.

    Args:
        backend: "xnnpack" or "vulkan".
        per_operator: Whether XNNPACK gets every operator as a delegate of its own.
    """
    if backend == "xnnpack":
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        return XnnpackPartitioner(
            configs=executorch_weights_only.executorch_weights_only_configs(), per_op_mode=per_operator
        )
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    # Adreno's half-precision rate is twice its float rate, and textures halve in size.
    return VulkanPartitioner({"force_fp16": True})
