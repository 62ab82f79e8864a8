"""Runs a `.pte` in ExecuTorch's own Python runtime."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.capture.lowering_errors import lowering_error
from exporter.emulated.vulkan.run import load_to_run_on_software_vulkan
from exporter.emulated.vulkan.vulkan_tools import (
    PREPARE,
    can_prepare_vulkan_tools,
    ready_vulkan_tools,
)
from exporter.errors import CannotRunHere, LoweringError
from exporter.files import default_cache_root
from exporter.formats.native_output import explain_by_native_output
from exporter.records import Array, Runner, Sample, Variant

if TYPE_CHECKING:
    from executorch.runtime import Method

RUNTIME_BACKENDS = {"xnnpack": "XnnpackBackend", "vulkan": "VulkanBackend"}


def load_in_executorch_runtime(
    path: Path, variant: Variant, threads: int, method_name: str = "forward"
) -> tuple[Runner, str]:
    """Load a `.pte` from the file and verify that it is whole.

    Args:
        path: The written file.
        variant: Names the backend that is needed to run it.
        threads: Size of XNNPACK's thread pool. The runtime has one pool per process: a runner loaded
            before with another number must not be called any more.
        method_name: The method that is run.

    Returns:
        A runner giving copied outputs, and "executorch <version>".

    Raises:
        CannotRunHere: The runtime was built without the backend.
        LoweringError: The file is damaged, or the runtime refuses it.
    """
    from executorch.runtime import Runtime, Verification

    version = importlib.metadata.version("executorch")
    runtime = Runtime.get()
    backend = RUNTIME_BACKENDS[variant.backend]
    if not runtime.backend_registry.is_available(backend):
        if variant.backend == "vulkan" and (folder := ready_vulkan_tools(default_cache_root())):
            _check_whole_for_executorch_runtime(path)
            return load_to_run_on_software_vulkan(path, folder)
        raise CannotRunHere(f"ExecuTorch {version}'s Python runtime has no {backend}{_where_vulkan_runs()}")
    _set_executorch_runtime_threads(threads)
    try:
        with explain_by_native_output():
            # Internal consistency: offsets are checked, so that a damaged file is refused and does not crash.
            program = runtime.load_program(path.read_bytes(), verification=Verification.InternalConsistency)
            method = program.load_method(method_name)
    except (RuntimeError, KeyError) as error:
        raise lowering_error(error) from error
    if method is None:
        raise LoweringError(f"{path.name} has no method {method_name}")

    def run(sample: Sample) -> tuple[Array, ...]:
        return _execute_in_executorch_runtime(method, sample, program)

    return run, f"executorch {version}"


def _where_vulkan_runs() -> str:
    """Return the end of the reason for a Vulkan artifact that was not run: what would run it."""
    if not can_prepare_vulkan_tools():
        return ": it runs on the device only"
    return (
        f", and no software runtime is prepared: `{PREPARE}` prepares it, or names the packages that it needs"
    )


def _execute_in_executorch_runtime(method: Method, sample: Sample, _keep_alive: Any) -> tuple[Array, ...]:
    import numpy as np
    import torch

    # The runtime reads raw memory in the layout of the exported example, which was contiguous.
    # Copies: a program may write to its inputs.
    inputs = tuple(torch.from_numpy(np.array(array, order="C")) for array in sample)
    try:
        outputs = method.execute(inputs)
    except RuntimeError:
        with (
            explain_by_native_output()
        ):  # once more, to hear what it says: listening at every call would cost time
            outputs = method.execute(inputs)
    # Outputs are in the method's own arena: the next call overwrites them.
    return tuple(output.numpy().copy() for output in outputs)


def _set_executorch_runtime_threads(threads: int) -> None:
    from executorch.extension.pybindings import portable_lib

    # Replacing the pool leaves loaded methods with a dangling one, so never without need.
    if portable_lib._threadpool_get_thread_count() != threads:
        portable_lib._unsafe_reset_threadpool(threads)


def _check_whole_for_executorch_runtime(path: Path) -> None:
    """Refuse a damaged file, which another build of the runtime may trust.

    Raises:
        LoweringError: Its tables are not consistent.
    """
    from executorch.runtime import Runtime, Verification

    try:
        with explain_by_native_output():
            Runtime.get().load_program(path.read_bytes(), verification=Verification.InternalConsistency)
    except RuntimeError as error:
        raise lowering_error(error) from error
