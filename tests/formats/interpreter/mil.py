"""Builds small MIL programs with coremltools and computes them with the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporter.formats.coreml.coreml_package import coremltools_quietly_for_package
from exporter.formats.coreml.interpreter.mil_program import Program

Build = Callable[..., Any]
"""Takes coremltools' builder and the inputs; returns the output or a tuple of outputs."""

GENERATOR = np.random.default_rng(0)


def numbers(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Return float32 numbers that float16 holds exactly."""
    return GENERATOR.uniform(low, high, shape).astype(np.float16).astype(np.float32)


def whole(*shape: int, low: int = -5, high: int = 6) -> np.ndarray:
    """Return int32 numbers."""
    return GENERATOR.integers(low, high, shape).astype(np.int32)


def build_mil(build: Build, arrays: Sequence[np.ndarray], target: str = "iOS16") -> Program:
    """Build a program of one function whose inputs are like these arrays."""
    from coremltools.converters.mil.mil import Builder, Function, types

    ct = coremltools_quietly_for_package()
    inputs = {
        f"x{i}": Builder.placeholder(a.shape, dtype=types.numpy_type_to_builtin_type(a.dtype))
        for i, a in enumerate(arrays)
    }
    with Function(inputs, opset_version=ct.target[target]) as function:
        outputs = build(Builder, *function.inputs.values())
        function.set_outputs(list(outputs) if isinstance(outputs, tuple | list) else [outputs])
    return Program(function, list(inputs), function.outputs)


def compute_mil(build: Build, *arrays: np.ndarray, target: str = "iOS16") -> tuple[np.ndarray, ...]:
    """Build a program and compute it on these inputs."""
    return build_mil(build, arrays, target).run(arrays)


def assert_like_torch(
    build: Build,
    function: Callable[..., Any],
    *arrays: np.ndarray,
    target: str = "iOS16",
    tolerance: float = 2e-6,
) -> None:
    """Compare an operator in float32 and in float16 with a function of PyTorch on float64 tensors.

    In float32 it is nearly exact. In float16, where all inputs are float16 and the exact result is rounded
    once, at most the last bit may differ.
    """
    exact = function(*map(exact_tensor, arrays))
    exact = exact if isinstance(exact, tuple | list) else (exact,)
    single = compute_mil(build, *arrays, target=target)
    assert len(single) == len(exact)
    for actual, expected in zip(single, map(as_array, exact), strict=True):
        assert actual.shape == expected.shape
        if expected.dtype.kind == "f":
            scale = max(float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)), 1e-30)
            np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)
        else:
            np.testing.assert_array_equal(actual, expected)
    if any(a.dtype.kind == "f" for a in arrays):
        halves = [a.astype(np.float16) if a.dtype.kind == "f" else a for a in arrays]
        rounded = compute_mil(build, *halves, target=target)
        for actual, expected in zip(rounded, map(as_array, exact), strict=True):
            assert_rounded_once(actual, expected)


def as_array(value: Tensor) -> np.ndarray:
    return np.asarray(value.detach().numpy() if isinstance(value, Tensor) else value)


def assert_rounded_once(actual: np.ndarray, expected: np.ndarray) -> None:
    """Expect float16 values that are the exact ones rounded, but for one unit in the last place."""
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected)
        return
    assert actual.dtype == np.float16
    rounded = expected.astype(np.float16)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(np.isfinite(actual), finite)
    step = np.spacing(np.abs(rounded[finite])).astype(np.float64)
    apart = np.abs(actual[finite].astype(np.float64) - rounded[finite].astype(np.float64))
    assert (apart <= step + 1e-6).all()


def exact_tensor(array: np.ndarray) -> Tensor:
    """Return an array as a tensor, floats in float64."""
    tensor = torch.from_numpy(array)
    return tensor.double() if tensor.is_floating_point() else tensor


def like(variable: Any, values: np.ndarray | np.floating[Any] | float) -> Any:
    """Return a constant in the float type of a variable: MIL mixes none."""
    dtype = np.float16 if "fp16" in variable.dtype.__name__ else np.float32
    return values.astype(dtype) if isinstance(values, np.ndarray) else dtype(values)
