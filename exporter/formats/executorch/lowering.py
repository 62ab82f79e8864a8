"""Lowers a program to a `.pte`, without the compiler's wasted work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.errors import LoweringError
from exporter.formats.executorch import weights_only
from exporter.formats.executorch.parameter_names import with_usable_naming
from exporter.formats.executorch.prelu import with_prelu_on_images_only
from exporter.formats.executorch.recurrent import with_recurrent_steps
from exporter.formats.executorch.skipped_compiler_work import skip_compiler_work

if TYPE_CHECKING:
    import torch
    from executorch.exir import ExecutorchBackendConfig, ExecutorchProgramManager
    from executorch.exir.backend.partitioner import Partitioner


def lower_to_executorch(program: torch.export.ExportedProgram, backend: str) -> ExecutorchProgramManager:
    """Partition a program for a backend and compile it.

    Args:
        program: In ATen dialect, float or PT2E-quantised; its example inputs' memory layout becomes fixed.
        backend: "xnnpack" or "vulkan" (half precision).

    Raises:
        LoweringError: The program was captured with transposed example inputs.
        Exception: A compiler pass cannot handle the graph; it may be of any type.
    """
    from executorch.exir import to_edge_transform_and_lower

    _check_lowering_layout(program)
    with skip_compiler_work():
        edge = to_edge_transform_and_lower(
            with_usable_naming(with_prelu_on_images_only(with_recurrent_steps(program))),
            partitioner=[_lowering_partitioner(backend)],
        )
        return edge.to_executorch(_lowering_config(edge.exported_program()))


def _lowering_config(program: torch.export.ExportedProgram) -> ExecutorchBackendConfig:
    """Start buffers that forward changes with their values: by default they are uninitialised memory."""
    from executorch.exir import ExecutorchBackendConfig
    from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass

    signature = program.graph_signature
    changed = set(signature.buffers_to_mutate.values())
    names = [name for name, target in signature.inputs_to_buffers.items() if target in changed]
    return ExecutorchBackendConfig(passes=[InitializedMutableBufferPass(names)] if names else [])


def _check_lowering_layout(program: torch.export.ExportedProgram) -> None:
    """Refuse a transposed example, which lowers silently into a file that fails for every input."""
    import torch

    for tensor in program.example_inputs[0]:
        # Strides and not is_contiguous(), which calls one-channel images contiguous in any layout.
        if tensor.stride() != torch.empty(tensor.shape, device="meta").stride():
            raise LoweringError(
                f"captured with a transposed example input, strides {tensor.stride()}: make it contiguous"
            )


def _lowering_partitioner(backend: str) -> Partitioner:
    if backend == "xnnpack":
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        return XnnpackPartitioner(configs=weights_only.executorch_weights_only_configs())
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    # Adreno's half-precision rate is twice its float rate, and textures halve in size.
    return VulkanPartitioner({"force_fp16": True})
