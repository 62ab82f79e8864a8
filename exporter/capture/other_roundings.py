"""Rounds the results of arithmetic anew, at random: Monte Carlo arithmetic. Any runtime's float32 is a draw.

A value of a network on an edge input may be rounding and nothing else: a norm of a constant divides the error
of its mean by the root of its epsilon, and the next norm does it again. Eager float32 is one float32 of many,
and may have no error there by luck. What is only moved, compared or chosen stays exact, so that a threshold
which an input meets exactly is met.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from exporter.capture.graph_operators import graph_operator_names
from exporter.capture.rounding_errors import STEP

SUMS = graph_operator_names(
    "convolution addmm mm bmm baddbmm addmv mv dot mean sum prod cumsum var var_mean std std_mean "
    "native_layer_norm native_group_norm native_batch_norm _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training _softmax _log_softmax logsumexp linalg_vector_norm "
    "_scaled_dot_product_flash_attention_for_cpu avg_pool2d _adaptive_avg_pool2d"
)
"""Operators that sum: in another order their error is that of other operands."""
ROUNDS = SUMS | graph_operator_names(
    "add sub mul div reciprocal pow sqrt rsqrt exp expm1 log log1p sin cos tan tanh sigmoid hardsigmoid "
    "gelu silu mish softplus elu erf erfc atan atan2 addcmul addcdiv upsample_bilinear2d lerp"
)
"""Operators whose results are rounded."""


class OtherRoundings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Change what arithmetic reads and gives by about a step of float32, at random."""

    def __init__(self, seed: int, size: float = STEP) -> None:
        """Remember how to round.

        Args:
            seed: Chooses the roundings.
            size: The standard deviation of their errors, relative.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator, self._size = torch.Generator().manual_seed(seed), size

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "_opname", "")
        given = tuple(map(self._rounded, args)) if name in SUMS else args
        result = func(*given, **(kwargs or {}))
        if name not in ROUNDS:
            return result
        return tuple(map(self._rounded, result)) if isinstance(result, tuple) else self._rounded(result)

    def _rounded(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        return value * (1 + self._size * torch.randn(value.shape, generator=self._generator))
