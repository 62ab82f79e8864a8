"""Runs long recurrent layers as loops: ExecuTorch has no LSTM or GRU, but a scan over steps.

Written out, each step becomes operators of its own, whose lowering takes time and memory with their number.
A loop is lowered once, whatever its length. Its products are left to ExecuTorch's own kernels, since XNNPACK
takes no loops, so that it is slower on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

State = tuple["Tensor", ...]
"""The hidden state of a layer in one direction, [batch, hidden]; an LSTM has its cell state, too."""
Step = Callable[["Tensor", "Tensor", State], State]
"""Takes the products of the inputs and of the hidden state with their weights, and the state before."""


def with_executorch_recurrent_loops(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program whose recurrent layers are scans over their steps."""
    import torch

    module: torch.fx.GraphModule = program.module()
    layers = looped_layers()
    for node in module.graph.nodes:
        if node.target in layers:
            _dequantize_looped_weights(node)
            node.target = layers[node.target]
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, program.example_inputs[0])


def _dequantize_looped_weights(layer: torch.fx.Node) -> None:
    """Dequantise what the loop multiplies by in plain operators, once and before it.

    ExecuTorch has no kernel for weights of 8 bits outside delegates. The weights of inputs, the first of each
    row, stay as they are: XNNPACK computes these products.
    """
    from exporter.quantize.graphs import DEQUANTIZE_CHANNELS

    given: list[Any] = list(layer.args)
    weights, _, num_layers, _, _, bidirectional = given[2:8]
    row = len(weights) // (num_layers * (2 if bidirectional else 1))
    for place, weight in enumerate(weights):
        if place % row and weight.target is DEQUANTIZE_CHANNELS:
            weight.target = _dequantized_by_rows


def _dequantized_by_rows(steps: Tensor, scale: Tensor, *_: Any) -> Tensor:
    """Compute what `dequantize_per_channel` does of symmetric weights, a scale for each row."""
    return steps.float() * scale[:, None]


def looped_layers() -> dict[Any, Callable[..., Any]]:
    """Return, for each recurrent operator of ATen, the function of the same arguments that loops."""
    from exporter.quantize.graphs import aten

    return {
        aten.lstm.input: _looped_lstm,
        aten.gru.input: _looped_gru,
        aten.rnn_tanh.input: _looped_rnn_tanh,
        aten.rnn_relu.input: _looped_rnn_relu,
    }


@dataclass(frozen=True)
class _Weights:
    """The weights of a layer in one direction, as PyTorch orders them."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None
    hidden_bias: Tensor | None
    projection: Tensor | None
    """What an LSTM with `proj_size` multiplies its hidden state by."""


def _looped_lstm(
    sequence: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *layout: Any, **named: Any
) -> State:
    """Compute `aten::lstm.input`."""
    projected = states[0].shape[-1] != states[1].shape[-1]
    return _looped_layers_of(_lstm_step, sequence, states, weights, projected, *layout, **named)


def _looped_gru(
    sequence: Tensor, state: Tensor, weights: Sequence[Tensor], *layout: Any, **named: Any
) -> State:
    """Compute `aten::gru.input`."""
    return _looped_layers_of(_gru_step, sequence, [state], weights, False, *layout, **named)


def _looped_rnn_tanh(
    sequence: Tensor, state: Tensor, weights: Sequence[Tensor], *layout: Any, **named: Any
) -> State:
    """Compute `aten::rnn_tanh.input`."""
    return _looped_layers_of(_tanh_step, sequence, [state], weights, False, *layout, **named)


def _looped_rnn_relu(
    sequence: Tensor, state: Tensor, weights: Sequence[Tensor], *layout: Any, **named: Any
) -> State:
    """Compute `aten::rnn_relu.input`."""
    return _looped_layers_of(_relu_step, sequence, [state], weights, False, *layout, **named)


def _lstm_step(of_input: Tensor, of_hidden: Tensor, state: State) -> State:
    enter, forget, new, leave = (of_input + of_hidden).chunk(4, 1)
    cell = forget.sigmoid() * state[1] + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * cell.tanh(), cell


def _gru_step(of_input: Tensor, of_hidden: Tensor, state: State) -> State:
    reset, update, new = of_input.chunk(3, 1)
    reset_hidden, update_hidden, new_hidden = of_hidden.chunk(3, 1)
    keep = (update + update_hidden).sigmoid()
    new = (new + (reset + reset_hidden).sigmoid() * new_hidden).tanh()
    return (new + keep * (state[0] - new),)


def _tanh_step(of_input: Tensor, of_hidden: Tensor, _: State) -> State:
    return ((of_input + of_hidden).tanh(),)


def _relu_step(of_input: Tensor, of_hidden: Tensor, _: State) -> State:
    return ((of_input + of_hidden).relu(),)


def _looped_layers_of(
    step: Step,
    sequence: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    projected: bool,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> State:
    """Run all layers in all directions.

    Args:
        step: One step of the kind of layer.
        sequence: [batch, steps, features] where `batch_first`, else [steps, batch, features].
        states: Each [layers x directions, batch, hidden].
        weights: Of each layer and direction in turn.
        projected: Whether hidden states are multiplied by weights of their own.
        has_biases: Whether each has biases.
        num_layers: The number of layers.
        dropout: Unused: no network is exported in training.
        train: Unused, likewise.
        bidirectional: Whether each layer also runs from the end.
        batch_first: The layout of `sequence` and of the output.

    Returns:
        The output, and the states after the last step.
    """
    import torch

    directions = 2 if bidirectional else 1
    rows = list(_weights_of_each(weights, has_biases, projected))
    values = sequence.transpose(0, 1) if batch_first else sequence
    last: list[State] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            start = tuple(state[place] for state in states)
            output, end = _looped_direction(step, values, start, rows[place], direction == 1)
            outputs.append(output)
            last.append(end)
        values = torch.cat(outputs, 2) if bidirectional else outputs[0]
    ends = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
    return (values.transpose(0, 1) if batch_first else values, *ends)


def _weights_of_each(weights: Sequence[Tensor], has_biases: bool, projected: bool) -> Iterator[_Weights]:
    size = (4 if has_biases else 2) + projected
    for start in range(0, len(weights), size):
        row = weights[start : start + size]
        biases = (row[2], row[3]) if has_biases else (None, None)
        yield _Weights(row[0], row[1], biases[0], biases[1], row[-1] if projected else None)


def _looped_direction(
    step: Step, sequence: Tensor, start: State, weights: _Weights, backwards: bool
) -> tuple[Tensor, State]:
    """Run a layer in one direction over [steps, batch, features]."""
    import torch
    from torch._higher_order_ops.scan import scan

    # The products of all inputs are one product, and what the loop reads of weights is transposed before it.
    of_inputs = torch.nn.functional.linear(sequence, weights.input)
    if weights.input_bias is not None:  # apart: see `exporter.quantize.weights_only`
        of_inputs = of_inputs + weights.input_bias
    hidden_weight = weights.hidden.t().contiguous()
    projection = None if weights.projection is None else weights.projection.t().contiguous()

    def advance(state: list[Tensor], of_input: Tensor) -> tuple[list[Tensor], Tensor]:
        of_hidden = state[0] @ hidden_weight
        if weights.hidden_bias is not None:
            of_hidden = of_hidden + weights.hidden_bias
        hidden, *others = step(of_input, of_hidden, tuple(state))
        if projection is not None:
            hidden = hidden @ projection
        return [hidden, *others], hidden.clone()

    if backwards:
        of_inputs = of_inputs.flip(0)
    end, outputs = scan(advance, [state.clone() for state in start], of_inputs)
    return (outputs.flip(0) if backwards else outputs), tuple(end)
