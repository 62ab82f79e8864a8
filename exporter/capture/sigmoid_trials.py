"""Measures what a runtime's sigmoid does to outputs that are computed from it, such as an LSTM's state.

A gate that is nearly closed hands on a millionth of a value. The error of ONNX Runtime's sigmoid, half a unit
in the last place of 1, is then a tenth of what is left: right, and far more than float32's own error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from exporter.capture.graph_operators import graph_operator
from exporter.capture.reference_network import ReferenceNetwork
from exporter.capture.sigmoids import ERROR
from exporter.records import Sample
from exporter.verify.reference_io import Stacks, pad_reference_io

if TYPE_CHECKING:
    from torch.export import ExportedProgram

USED = 8
"""Samples of the trial."""
GATES = frozenset({"sigmoid", "silu", "lstm", "gru"})
"""Operators that compute a sigmoid, or hold one."""

aten = torch.ops.aten


class SigmoidsOff(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Change every sigmoid by up to the error that a runtime's may have, at random."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generator = torch.Generator().manual_seed(0)

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inputs = args[0] if func in (aten.silu.default, aten.silu_.default) else None
        factor = inputs.clone() if isinstance(inputs, Tensor) else 1.0
        result = func(*args, **(kwargs or {}))
        if func in (aten.sigmoid.default, aten.silu.default):
            return result + self._error(result) * factor
        if func in (aten.sigmoid_.default, aten.silu_.default):
            result.add_(self._error(result) * factor)
        return result

    def _error(self, like: Tensor) -> Tensor:
        share = torch.rand(like.shape, generator=self.generator, dtype=torch.float64) * 2 - 1
        return (ERROR * share).to(like.dtype)


def errors_of_sigmoid_trial(
    program: ExportedProgram | None,
    exact: ReferenceNetwork,
    samples: Sequence[Sample],
    expected: Sequence[Sample],
) -> Stacks:
    """Return the largest error per element of each output over the first samples with other sigmoids.

    Args:
        program: The captured program; without one there is no trial.
        exact: The network as the reference is computed.
        samples: The reference's inputs.
        expected: The reference's outputs, padded.

    Returns:
        Float32 arrays, each shaped as one output; nothing where no sigmoid is computed.
    """
    if program is None or not any(graph_operator(n) in GATES for n in program.graph.nodes):
        return ()
    with SigmoidsOff():
        trials = exact.sequences(samples[:USED])
    shapes = [output.shape for output in expected[0]]
    errors = [np.zeros(shape, np.float32) for shape in shapes]
    for outputs in trials:
        for y, a in zip(expected, outputs, strict=False):
            with contextlib.suppress(ValueError):  # an output is larger there
                _raise_sigmoid_trial_errors(errors, y, pad_reference_io(a, shapes))
    return tuple(errors)


def _raise_sigmoid_trial_errors(errors: list[Any], expected: Sample, actual: Sample) -> None:
    for largest, y, a in zip(errors, expected, actual, strict=True):
        if y.dtype.kind in "fc":
            distance = np.nan_to_num(np.abs(a - y), nan=0.0, posinf=0.0)
            np.maximum(largest, distance, out=largest, casting="same_kind")
