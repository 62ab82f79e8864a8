"""Run a quantised program as another right kernel does, with each float off by float32's own error.

Kernels sum in other orders and have other polynomials for exp and erf. A value next to the middle between two
steps then goes to the other step, and a deep network amplifies that: all-MiniLM-L6-v2 ends 27 dB from itself.
So nothing can be expected of a right file but to be as near to its program as the program is to itself.

What integers decide exactly (see `integer`) is off by the rounding of one float32 factor only. A network of
convolutions has hardly a tie, and its files are held to the last bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from exporter.quantize.dynamic_int8 import dynamic_int8_by_rows, dynamic_int8_rounded_rows
from exporter.quantize.graphs import QUANTIZE, graph_outputs
from exporter.quantize.int8_recipe import int8_recipe_tensors
from exporter.quantize.integer import IntegerInterpreter
from exporter.records import Array, Runner, Sample

SUM = 1e-6
"""A float's error as a share of its tensor's range: about ten roundings of float32, as sums have."""
FACTOR = 2.0**-23
"""The error of an integer sum times a factor in float32, relative."""
LEVELS = 255


class _NudgedInterpreter(IntegerInterpreter):
    """Changes what each quantiser reads, and nothing else."""

    def __init__(self, module: fx.GraphModule, seed: int) -> None:
        super().__init__(module)
        self._generator = torch.Generator().manual_seed(seed)

    def run_node(self, n: fx.Node) -> Any:
        if n.target not in (QUANTIZE, dynamic_int8_rounded_rows):
            return super().run_node(n)
        source = n.args[0]
        assert isinstance(source, fx.Node)
        exact = self.env[source]
        self.env[source] = exact + self._nudge(n, exact)
        try:
            return super().run_node(n)
        finally:
            self.env[source] = exact

    def _nudge(self, node: fx.Node, values: Tensor) -> Tensor:
        noise = torch.randn(values.shape, generator=self._generator, dtype=values.dtype)
        if values.dtype == torch.float64:  # an integer sum (see `integer`)
            return noise * values * FACTOR
        if node.target is QUANTIZE:
            scale: float = self.fetch_args_kwargs_from_env(node)[0][1]
            return noise * (SUM * LEVELS / 2 * scale)
        return noise * (SUM * values.abs().amax(-1, keepdim=True))


def rounding_ties_runner(module: fx.GraphModule, seed: int) -> Runner:
    """Return a function that runs a quantised module as another right kernel may.

    Args:
        module: As PT2E converted it.
        seed: Chooses the errors; each call has others.
    """
    interpreter = _NudgedInterpreter(dynamic_int8_by_rows(module), seed)

    def run(sample: Sample) -> tuple[Array, ...]:
        with torch.no_grad():
            outputs = graph_outputs(interpreter.run(*int8_recipe_tensors(sample)))
        return tuple(output.numpy().copy() for output in outputs)

    return run
