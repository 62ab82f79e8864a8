"""Normalisations. Means and variances are of float32 values; only the result is rounded."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporter.formats.coreml.interpreter.mil_call import Call


def batch_norm(call: Call) -> Tensor:
    """Compute `batch_norm` with the statistics that the program stores."""
    return functional.batch_norm(
        call.tensor("x"),
        call.tensor("mean"),
        call.tensor("variance"),
        call.optional("gamma"),
        call.optional("beta"),
        eps=call.number("epsilon", 1e-5),
    )


def instance_norm(call: Call) -> Tensor:
    """Compute `instance_norm`: over the spatial dimensions of each sample and channel."""
    x = call.tensor("x")
    axes = list(range(2, x.dim()))
    normalized = _norm_over(x, axes, call.number("epsilon", 1e-5))
    shape = [1, -1, *[1] * len(axes)]
    return _norm_scaled(
        normalized,
        *(None if v is None else v.reshape(shape) for v in (call.optional("gamma"), call.optional("beta"))),
    )


def layer_norm(call: Call) -> Tensor:
    """Compute `layer_norm` over any axes; gamma and beta have the sizes of these axes."""
    x = call.tensor("x")
    axes = sorted(axis % x.dim() for axis in call.integers("axes", range(x.dim())))
    shape = [x.shape[axis] if axis in axes else 1 for axis in range(x.dim())]
    return _norm_scaled(
        _norm_over(x, axes, call.number("epsilon", 1e-5)),
        *(None if v is None else v.reshape(shape) for v in (call.optional("gamma"), call.optional("beta"))),
    )


def _norm_over(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + epsilon)


def _norm_scaled(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    x = x if gamma is None else x * gamma
    return x if beta is None else x + beta


def l2_norm(call: Call) -> Tensor:
    """Compute `l2_norm` over the last three dimensions."""
    x = call.tensor("x")
    return x / torch.sqrt(x.square().sum((-3, -2, -1), keepdim=True) + call.number("epsilon", 1e-6))


def local_response_norm(call: Call) -> Tensor:
    """Compute `local_response_norm` over neighbouring channels."""
    return functional.local_response_norm(
        call.tensor("x"),
        call.integer("size"),
        call.number("alpha", 1e-4),
        call.number("beta", 0.75),
        call.number("k", 1.0),
    )
