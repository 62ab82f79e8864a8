"""Runs a Vulkan artifact on Mesa's software driver, in this process: it can load one artifact."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np

from exporter.emulated.vulkan.vulkan_tools import PACKAGE, software_driver_of_vulkan_tools
from exporter.errors import CannotRunHere
from exporter.records import Array, Runner, Sample

STAND_INS = ("libc.so", "libm.so", "libdl.so", "liblog.so", "libfbjni.so")
"""Android's libraries, in the order in which they are loaded, before the one that asks for them."""
SCALAR_TYPES = {
    "uint8": 0, "int8": 1, "int16": 2, "int32": 3, "int64": 4, "float16": 5, "float32": 6, "float64": 7,
    "bool": 11,
}  # fmt: skip
"""NumPy's dtype -> ExecuTorch's number (runtime/core/portable_type/scalar_type.h)."""
DTYPES = {number: name for name, number in SCALAR_TYPES.items()}
MAX_RANK = 16


def load_to_run_on_software_vulkan(path: Path, folder: Path) -> tuple[Runner, str]:
    """Load a `.pte` on the software driver.

    Args:
        path: The written file.
        folder: The prepared libraries.

    Returns:
        A runner giving copied outputs, and the runtime's name.

    Raises:
        CannotRunHere: The runtime refuses the file, which its runner may raise too.
    """
    # Vulkan's loader would take a GPU of this machine, and Mesa would write compiled shaders.
    os.environ["VK_ICD_FILENAMES"] = os.environ["VK_DRIVER_FILES"] = str(software_driver_of_vulkan_tools())
    os.environ["MESA_SHADER_CACHE_DISABLE"] = "true"
    for name in STAND_INS:
        ctypes.CDLL(str(folder / name))
    library = ctypes.CDLL(str(folder / "libvulkan_runner.so"))
    library.vulkan_problem.restype = c_char_p
    library.vulkan_outputs.restype = c_size_t
    _check_call_of_vulkan_run(library, library.vulkan_load(str(path).encode()))

    def run(sample: Sample) -> tuple[Array, ...]:
        arrays = [np.ascontiguousarray(array) for array in sample]
        for index, array in enumerate(arrays):
            _set_input_of_vulkan_run(library, index, array)
        _check_call_of_vulkan_run(library, library.vulkan_run())
        return tuple(_output_of_vulkan_run(library, index) for index in range(library.vulkan_outputs()))

    return run, f"{PACKAGE.replace('@', ' ')} (lavapipe)"


def _set_input_of_vulkan_run(library: ctypes.CDLL, index: int, array: Array) -> None:
    shape = (c_int64 * array.ndim)(*array.shape)
    dtype = SCALAR_TYPES.get(array.dtype.name)
    if dtype is None:
        raise CannotRunHere(f"ExecuTorch takes no {array.dtype.name}")
    data = array.ctypes.data_as(c_void_p)
    status = library.vulkan_set_input(c_size_t(index), dtype, c_size_t(array.ndim), shape, data)
    _check_call_of_vulkan_run(library, status)


def _output_of_vulkan_run(library: ctypes.CDLL, index: int) -> Array:
    dtype, rank, data, size = c_int(), c_size_t(MAX_RANK), c_void_p(), c_size_t()
    shape = (c_int64 * MAX_RANK)()
    status = library.vulkan_output(
        c_size_t(index), byref(dtype), byref(rank), shape, byref(data), byref(size)
    )
    _check_call_of_vulkan_run(library, status)
    if dtype.value not in DTYPES:
        raise CannotRunHere(f"Output {index} is of ExecuTorch's type {dtype.value}")
    values = np.frombuffer(ctypes.string_at(data, size.value), DTYPES[dtype.value])
    return values.reshape(shape[: rank.value]).copy()


def _check_call_of_vulkan_run(library: ctypes.CDLL, status: int) -> None:
    """Raise what the library says: it is older than the exporter, so a refusal is not the file's fault."""
    if status:
        problem: bytes = library.vulkan_problem()
        raise CannotRunHere(
            f"The library that stands in for a phone's ({PACKAGE}) refuses it: "
            f"{problem.decode(errors='replace')[:300]}"
        )
