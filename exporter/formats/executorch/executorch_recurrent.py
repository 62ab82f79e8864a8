"""Writes recurrent layers with int8 weights out step by step, so that XNNPACK computes their products.

ExecuTorch has no LSTM or GRU: its compiler writes the steps out itself, but then leaves linear layers with a
bias and dequantised weights to portable kernels, which dequantise all weights anew at every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.errors import LoweringError

if TYPE_CHECKING:
    import torch


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
