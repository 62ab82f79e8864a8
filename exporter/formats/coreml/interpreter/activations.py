"""Activations: functions of each value, with constants of their own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporter.formats.coreml.interpreter.mil_call import Call


def activation_clamped_relu(call: Call) -> Tensor:
    """Compute `clamped_relu`: min(beta, x) for x >= 0, min(beta, alpha * x) below."""
    x = call.tensor("x")
    return torch.where(x >= 0, x, call.number("alpha") * x).clamp(max=call.number("beta"))


def activation_elu(call: Call) -> Tensor:
    """Compute `elu`."""
    return functional.elu(call.tensor("x"), call.number("alpha", 1.0))


def activation_gelu(call: Call) -> Tensor:
    """Compute `gelu`, exact or in one of its approximations."""
    x, mode = call.tensor("x"), call.text("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    if mode not in ("EXACT", "TANH_APPROXIMATION"):
        raise call.refuse(f"mode {mode!a}")
    return functional.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def activation_leaky_relu(call: Call) -> Tensor:
    """Compute `leaky_relu`."""
    return functional.leaky_relu(call.tensor("x"), call.number("alpha", 0.01))


def activation_linear(call: Call) -> Tensor:
    """Compute `linear_activation`: alpha * x + beta."""
    return call.number("alpha") * call.tensor("x") + call.number("beta", 0.0)


def activation_prelu(call: Call) -> Tensor:
    """Compute `prelu`: a slope for each channel, which is the second dimension."""
    x = call.tensor("x")
    slope = call.tensor("alpha").reshape(1, -1, *[1] * (x.dim() - 2))
    return torch.where(x >= 0, x, slope * x)


def activation_relu(call: Call) -> Tensor:
    """Compute `relu`."""
    return functional.relu(call.tensor("x"))


def activation_relu6(call: Call) -> Tensor:
    """Compute `relu6`."""
    return functional.relu6(call.tensor("x"))


def activation_scaled_tanh(call: Call) -> Tensor:
    """Compute `scaled_tanh`: alpha * tanh(beta * x)."""
    return call.number("alpha", 1.0) * torch.tanh(call.number("beta", 1.0) * call.tensor("x"))


def activation_sigmoid(call: Call) -> Tensor:
    """Compute `sigmoid`."""
    return torch.sigmoid(call.tensor("x"))


def activation_sigmoid_hard(call: Call) -> Tensor:
    """Compute `sigmoid_hard`: alpha * x + beta between 0 and 1."""
    return (call.number("alpha", 0.2) * call.tensor("x") + call.number("beta", 0.5)).clamp(0, 1)


def activation_silu(call: Call) -> Tensor:
    """Compute `silu`."""
    return functional.silu(call.tensor("x"))


def activation_softmax(call: Call) -> Tensor:
    """Compute `softmax` along one axis."""
    return torch.softmax(call.tensor("x"), call.integer("axis", -1))


def activation_softplus(call: Call) -> Tensor:
    """Compute `softplus`, exact for large values too."""
    x = call.tensor("x")
    return torch.logaddexp(x, torch.zeros_like(x))


def activation_softplus_parametric(call: Call) -> Tensor:
    """Compute `softplus_parametric`: alpha * log(1 + exp(beta * x)), with constants for each channel."""
    x = call.tensor("x")
    shape = [1, -1, *[1] * (x.dim() - 2)]
    alpha, beta = (call.tensor(name).reshape(shape) for name in ("alpha", "beta"))
    return alpha * torch.logaddexp(beta * x, torch.zeros_like(x))


def activation_softsign(call: Call) -> Tensor:
    """Compute `softsign`."""
    return functional.softsign(call.tensor("x"))


def activation_thresholded_relu(call: Call) -> Tensor:
    """Compute `thresholded_relu`: x where it is at least alpha, else 0."""
    x = call.tensor("x")
    return torch.where(x >= call.number("alpha", 1.0), x, torch.zeros_like(x))


def activation_threshold(call: Call) -> Tensor:
    """Compute `threshold`: at least alpha."""
    return call.tensor("x").clamp(min=call.number("alpha"))


def activation_clip(call: Call) -> Tensor:
    """Compute `clip`: between alpha and beta."""
    return call.tensor("x").clamp(call.number("alpha"), call.number("beta"))
