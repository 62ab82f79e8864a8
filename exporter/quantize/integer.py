"""Run a PT2E program with the rounding of XNNPACK's integer kernels.

Eager PyTorch executes the same program in float between its quantisations. That differs from integer kernels
only where a value is on a rounding tie, and by biases, which integer kernels round to their accumulator's
scale. In deep networks these single steps grow: MobileNetV2 ends 13 dB away from a perfectly lowered file,
too far to tell it from a wrong one. Computed as here, the two are equal to the last bit.

Integers are exact in float64, so float64 carries them. XNNPACK's own arithmetic, which is followed:
    convolution, linear  sum(x * w) + round(bias / (x scale * w scale)), times one float32 factor, rounded
    addition             both terms times integer factors of 21 bits, summed, shifted right with half up
    averages             exact, then rounded
Operators that are not surrounded by quantisations run as eager PyTorch runs them, which is what XNNPACK does.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils.weak import WeakTensorKeyDictionary

from exporter.quantize.graphs import (
    ACTIVATIONS,
    AVERAGES,
    CONVOLUTIONS,
    DEQUANTIZE,
    DEQUANTIZE_CHANNELS,
    QUANTIZE,
    aten,
)

ADDITION_BITS = 20


class _Integers(NamedTuple):
    values: Tensor
    """The values in float64, with the zero point subtracted."""
    scale: Tensor
    """The scale in float32: one element, or one per output channel."""


class IntegerInterpreter(fx.Interpreter):
    """Executes a converted PT2E module node by node; call `run` with its inputs."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        # A dequantised tensor -> the integers it was made from, for as long as it lives.
        self._behind = WeakTensorKeyDictionary()

    def run_node(self, n: fx.Node) -> Any:
        result = self._integer_result(n) if n.op == "call_function" else None
        if result is None:
            result = super().run_node(n)
        if n.target in (DEQUANTIZE, DEQUANTIZE_CHANNELS):
            self._behind[result] = self._stored(n)
        return result

    def _integer_result(self, node: fx.Node) -> Tensor | None:
        if node.target in CONVOLUTIONS or node.target is aten.linear.default:
            return self._accumulate(node)
        if node.target is aten.add.Tensor:
            return self._add(node)
        if node.target in AVERAGES:
            return self._average(node)
        if node.target is QUANTIZE:
            return self._quantize(node)
        return None

    def _accumulate(self, node: fx.Node) -> Tensor | None:
        x, weight = self._integers(node.args[0]), self._integers(node.args[1])
        out_scale = self._output_scale(node)
        if x is None or weight is None or out_scale is None:
            return None
        scale = x.scale * weight.scale
        _, _, *rest = self.fetch_args_kwargs_from_env(node)[0]
        if rest and rest[0] is not None:
            # As the compiler computes it: in float32, by the reciprocal.
            rest[0] = torch.round(rest[0] * (1.0 / scale)).double()
        total: Tensor = node.target(x.values, weight.values, *rest)  # type: ignore[operator]
        factor = scale / torch.tensor(out_scale)
        if node.target in CONVOLUTIONS:
            factor = factor.reshape(-1, *[1] * (total.dim() - 2))
        result: Tensor = (total.float() * factor).double() * out_scale
        return result

    def _add(self, node: fx.Node) -> Tensor | None:
        a, b = self._integers(node.args[0]), self._integers(node.args[1])
        out_scale = self._output_scale(node)
        if a is None or b is None or out_scale is None or node.kwargs.get("alpha", 1) != 1:
            return None
        ratios = [float(np.float32(term.scale.item()) / np.float32(out_scale)) for term in (a, b)]
        if not all(0 < ratio < math.inf for ratio in ratios):  # a range with an infinite value
            return None
        shift = ADDITION_BITS - math.floor(math.log2(max(ratios)))
        a_factor, b_factor = (round(ratio * 2**shift) for ratio in ratios)
        total = a.values.long() * a_factor + b.values.long() * b_factor + (1 << (shift - 1))
        result: Tensor = (total >> shift).double() * out_scale
        return result

    def _average(self, node: fx.Node) -> Tensor | None:
        (values, *rest), kwargs = self.fetch_args_kwargs_from_env(node)
        # XNNPACK takes means that keep their dimensions; the rest is a float kernel's.
        keeps_dims = node.target is aten.adaptive_avg_pool2d.default or (len(node.args) > 2 and node.args[2])
        if self._output_scale(node) is None or not keeps_dims:
            return None
        average: Tensor = node.target(values.double(), *rest, **kwargs)  # type: ignore[operator]
        return average

    def _quantize(self, node: fx.Node) -> Tensor | None:
        values, scale, zero, low, high, dtype = self.fetch_args_kwargs_from_env(node)[0]
        if values.dtype != torch.float64:
            return None
        steps: Tensor = (torch.round(values / scale) + zero).clamp(low, high).to(dtype)
        return steps

    def _integers(self, argument: Any) -> _Integers | None:
        """Return an argument's integers before they were dequantised."""
        value = self.env[argument] if isinstance(argument, fx.Node) else None
        if value not in self._behind:
            return None
        steps, zero, scale = self._behind[value]
        return _Integers(steps.double() - zero, scale)

    def _stored(self, dequantize: fx.Node) -> tuple[Tensor, int, Tensor]:
        values, scale, zero, *_ = self.fetch_args_kwargs_from_env(dequantize)[0]
        if dequantize.target is DEQUANTIZE_CHANNELS:
            # Symmetric by construction, along the output channels: there is no zero point to subtract.
            return values, 0, scale.float()
        return values, zero, torch.tensor([scale], dtype=torch.float32)

    def _output_scale(self, node: fx.Node) -> float | None:
        """Return the scale that quantises a node's result, perhaps after an activation."""
        while len(node.users) == 1:
            node = next(iter(node.users))
            if node.target is QUANTIZE:
                scale = node.args[1]
                return scale if isinstance(scale, float) else None
            if node.target not in ACTIVATIONS:
                return None
        return None
