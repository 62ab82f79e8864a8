"""Writes recurrent layers with int8 weights out step by step, so that XNNPACK computes their products.

ExecuTorch has no LSTM or GRU: its compiler writes the steps out itself, but then leaves linear layers with a
bias and dequantised weights to portable kernels, which dequantise all weights anew at every step. The time
that this takes grows with the steps, so that long sequences are refused before it begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.errors import LoweringError

if TYPE_CHECKING:
    import torch

SECONDS_PER_STEP = 0.43
"""Time that lowering takes for a step of a layer in one direction: LSTMs of 20 and 80 steps took 8.9 and
34.3 s on one core of an x86 machine."""
MAX_SECONDS = 240.0


def check_written_out_steps(program: torch.export.ExportedProgram) -> None:
    """Refuse a program whose recurrent layers have more steps than are lowered in a bearable time.

    Raises:
        LoweringError: The estimate is above `MAX_SECONDS`.
    """
    steps = written_out_steps(program)
    seconds = steps * SECONDS_PER_STEP
    if seconds <= MAX_SECONDS:
        return
    raise LoweringError(
        f"ExecuTorch has no recurrent layers: its compiler would write out {steps:,} steps, in about "
        f"{seconds / 60:.0f} minutes; at most {MAX_SECONDS / 60:.0f} are taken "
        f"({int(MAX_SECONDS / SECONDS_PER_STEP)} steps, each layer and direction counted). Export a shorter "
        "sequence and hand the state from call to call (--input-shape, --state explicit), or use ONNX, which "
        "keeps the layer"
    )


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
