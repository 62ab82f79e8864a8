"""Writes recurrent layers with int8 weights out step by step, so that XNNPACK computes their products.

ExecuTorch has no LSTM or GRU: its compiler writes the steps out itself, but then leaves linear layers with a
bias and dequantised weights to portable kernels, which dequantise all weights anew at every step. The time
and the memory that this takes grow with the steps, so that longer sequences are loops
(`exporter.formats.executorch.executorch_recurrent_loop`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.errors import LoweringError

if TYPE_CHECKING:
    import torch

MOST_STEPS = 128
"""The most steps of all layers and directions that are written out. On one core of an x86 machine, an LSTM of
256 units takes 40 s for 60 steps and 150 s for 120, and needs more than 4 GB of memory for 480."""


def are_recurrent_steps_written_out(program: torch.export.ExportedProgram) -> bool:
    """Return whether a program's recurrent layers are short enough to be written out step by step."""
    return written_out_steps(program) <= MOST_STEPS


def written_out_steps(program: torch.export.ExportedProgram) -> int:
    """Return the steps of all recurrent layers, each layer and direction counted."""
    from exporter.quantize.graphs import aten

    layers = (aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
    return sum(_steps_of_recurrent_node(node) for node in program.graph.nodes if node.target in layers)


def _steps_of_recurrent_node(node: torch.fx.Node) -> int:
    """Return steps times layers times directions, by the arguments of `aten::lstm.input` and its siblings."""
    import torch

    assert isinstance(node.target, torch._ops.OpOverload)
    names = [argument.name for argument in node.target._schema.arguments]
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    length = given["input"].meta["val"].shape[1 if given["batch_first"] else 0]
    layers = given["num_layers"] * (2 if given["bidirectional"] else 1)
    return int(layers * length) if isinstance(length, int) else 0


def with_executorch_recurrent_steps(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program whose recurrent layers with int8 weights are linear layers and activations.

    A program without such layers is returned as it is.
    """
    import torch
    from torch._decomp import get_decompositions

    from exporter.quantize import recurrent_weights, weights_only
    from exporter.quantize.graphs import DEQUANTIZE_CHANNELS, QUANTIZER_OF, aten

    if not recurrent_weights.has_recurrent_weights(program.graph_module):
        return program
    if program.range_constraints:
        raise LoweringError("recurrent layers in int8 are written out step by step, for one length only")
    steps = get_decompositions(list(recurrent_weights.RECURRENT))
    module: torch.fx.GraphModule = program.run_decompositions(steps).module()
    for node in list(module.graph.nodes):
        if node.target is not aten.linear.default or node.args[1].target is not DEQUANTIZE_CHANNELS:
            continue
        if node.args[0].target in QUANTIZER_OF:
            continue  # its inputs are integers, too
        weights_only.part_bias_of_weights_only(module.graph, node)
        # One dequantiser for all steps would tie the parts that XNNPACK computes into a cycle.
        with module.graph.inserting_before(node):
            node.replace_input_with(node.args[1], module.graph.node_copy(node.args[1]))
    module.graph.eliminate_dead_code()
    module.recompile()
    return torch.export.export(module, program.example_inputs[0])
