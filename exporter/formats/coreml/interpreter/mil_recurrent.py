"""Recurrent layers, step by step. States and sums are float32; only the outputs are rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from exporter.formats.coreml.interpreter.mil_call import Call

Activation: TypeAlias = Callable[[Tensor], Tensor]

_ACTIVATIONS: Mapping[str, Activation] = {
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "linear": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def _mil_recurrent_activation(call: Call, name: str, default: str) -> Activation:
    kind = call.text(name, default)
    if kind not in _ACTIVATIONS:
        raise call.refuse(f"{name} {kind!a}")
    return _ACTIVATIONS[kind]


def _mil_recurrent_bias(call: Call, name: str, size: int) -> Tensor:
    bias = call.optional(name)
    return torch.zeros(size) if bias is None else bias


def _mil_recurrent_outputs(call: Call, steps: list[Tensor], reverse: bool) -> Tensor:
    """Return the states of all steps in the order of the inputs, or of the last step alone."""
    chosen = steps if call.flag("output_sequence") else steps[-1:]
    return torch.stack(chosen[::-1] if reverse else chosen)


def _mil_recurrent_direction(call: Call, allowed: tuple[str, ...]) -> str:
    direction = call.text("direction", "forward")
    if direction not in allowed:
        raise call.refuse(f"direction {direction!a}")
    return direction


def mil_recurrent_simple(call: Call) -> tuple[Tensor, Tensor]:
    """Compute `rnn`."""
    x, h = call.tensor("x"), call.tensor("initial_h")
    reverse = _mil_recurrent_direction(call, ("forward", "reverse")) == "reverse"
    weight, recurrent = call.tensor("weight_ih"), call.tensor("weight_hh")
    bias = _mil_recurrent_bias(call, "bias", len(weight))
    activation = _mil_recurrent_activation(call, "activation", "tanh")
    steps = []
    for inputs in x.flip(0) if reverse else x:
        h = activation(inputs @ weight.T + h @ recurrent.T + bias)
        steps.append(h)
    return _mil_recurrent_outputs(call, steps, reverse), h


def mil_recurrent_gru(call: Call) -> tuple[Tensor, Tensor]:
    """Compute `gru`, its gates in the order reset, new, update.

    MIL has one bias for each gate: that of the new gate is outside what the reset gate scales.
    """
    x, h = call.tensor("x"), call.tensor("initial_h")
    reverse = _mil_recurrent_direction(call, ("forward", "reverse")) == "reverse"
    weight, recurrent = call.tensor("weight_ih"), call.tensor("weight_hh")
    bias = _mil_recurrent_bias(call, "bias", len(weight))
    gate = _mil_recurrent_activation(call, "recurrent_activation", "sigmoid")
    activation = _mil_recurrent_activation(call, "activation", "tanh")
    steps = []
    for inputs in x.flip(0) if reverse else x:
        given = (inputs @ weight.T + bias).chunk(3, -1)
        kept = (h @ recurrent.T).chunk(3, -1)
        reset, update = gate(given[0] + kept[0]), gate(given[2] + kept[2])
        h = (1 - update) * activation(given[1] + reset * kept[1]) + update * h
        steps.append(h)
    return _mil_recurrent_outputs(call, steps, reverse), h


def mil_recurrent_lstm(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `lstm`, its gates in the order input, forget, output, cell; in one direction or both."""
    x, h, c = call.tensor("x"), call.tensor("initial_h"), call.tensor("initial_c")
    direction = _mil_recurrent_direction(call, ("forward", "reverse", "bidirectional"))
    if direction != "bidirectional":
        return _mil_recurrent_lstm_one_way(call, x, h, c, "", direction == "reverse")
    (forth_h, back_h), (forth_c, back_c) = h.chunk(2, -1), c.chunk(2, -1)
    forth = _mil_recurrent_lstm_one_way(call, x, forth_h, forth_c, "", False)
    back = _mil_recurrent_lstm_one_way(call, x, back_h, back_c, "_back", True)
    outputs, last_h, last_c = (torch.cat(pair, -1) for pair in zip(forth, back, strict=True))
    return outputs, last_h, last_c


def _mil_recurrent_lstm_one_way(
    call: Call, x: Tensor, h: Tensor, c: Tensor, suffix: str, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    weight, recurrent = call.tensor(f"weight_ih{suffix}"), call.tensor(f"weight_hh{suffix}")
    bias = _mil_recurrent_bias(call, f"bias{suffix}", len(weight))
    peephole = _mil_recurrent_bias(call, f"peephole{suffix}", 3 * h.shape[-1]).chunk(3)
    gate = _mil_recurrent_activation(call, "recurrent_activation", "sigmoid")
    cell = _mil_recurrent_activation(call, "cell_activation", "tanh")
    activation = _mil_recurrent_activation(call, "activation", "tanh")
    clip = call.number("clip") if call.has("clip") else torch.inf
    steps = []
    for inputs in x.flip(0) if reverse else x:
        i, f, o, z = (inputs @ weight.T + h @ recurrent.T + bias).clamp(-clip, clip).chunk(4, -1)
        kept = gate(f + peephole[1] * c) * c
        c = kept + gate(i + peephole[0] * c) * cell(z)
        h = gate(o + peephole[2] * c) * activation(c)
        steps.append(h)
    return _mil_recurrent_outputs(call, steps, reverse), h, c
