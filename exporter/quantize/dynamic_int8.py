"""Dynamic int8 for linear layers whose activations no fixed range fits: each row gets its range at run time.

Transformers write a few values a hundred times as large as the rest, often all of one token. A range that
holds them rounds every other token to nothing; one that clips them destroys them. XNNPACK quantises what goes
into a linear layer row by row, as it comes, and gives float results (its "qd8" kernels). Weights are int8 as
ever; everything else stays in float.

PT2E has no words for rows: it writes one range for the whole tensor. `dynamic_int8_by_rows` gives what
XNNPACK computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, fx

from exporter.quantize.graphs import DEQUANTIZE_DYNAMIC, aten, copy_graph, rounded_graph_tensor

LOW, HIGH = -128, 127

LINEAR_SHARE = 0.5
"""The share of multiply-accumulates in linear layers from which dynamic quantisation is tried, too."""


def is_dynamic_int8_worthwhile(module: fx.GraphModule) -> bool:
    """Return whether most multiply-accumulates with weights are those of linear layers."""
    linear = convolved = 0
    for node in module.graph.nodes:
        if node.target is aten.linear.default:
            linear += prod(node.meta["val"].shape) * node.args[1].meta["val"].shape[1]
        elif str(node.target).startswith("aten.conv"):  # of every kind, also those that stay in float
            convolved += prod(node.meta["val"].shape) * prod(node.args[1].meta["val"].shape[1:])
    return linear > 0 and linear >= LINEAR_SHARE * (linear + convolved)


def quantize_dynamic_int8(
    module: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]]
) -> tuple[fx.GraphModule, dict[str, Tensor]]:
    """Quantise linear layers dynamically: weights per output channel, activations at run time.

    Args:
        module: A float module from `torch.export`; it is changed.
        samples: One call of the model each: weights are rounded for them.

    Returns:
        A PT2E program, and layer node -> its weight before it was rounded.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from exporter.quantize import annotate, embeddings, recurrent_float, recurrent_weights, weight_rounding

    float_recurrent = recurrent_float.recurrent_weights_in_float(module, samples)
    prepared = prepare_pt2e(module, annotate.annotating_dynamic_quantizer())
    with torch.no_grad():
        prepared(*samples[0])
    weights = weight_rounding.weights_before_weight_rounding(prepared)
    converted = convert_pt2e(prepared)
    recurrent_weights.quantize_recurrent_weights(converted, float_recurrent)
    embeddings.quantize_embeddings(converted)
    # The integers are shared with the copy, so that rounding them there, on what rows give, rounds them here.
    weight_rounding.improve_weight_rounding(dynamic_int8_by_rows(converted), weights, samples)
    return converted, weights


def is_dynamic_int8(module: fx.GraphModule) -> bool:
    """Return whether a program chooses ranges at run time."""
    return any(node.target is DEQUANTIZE_DYNAMIC for node in module.graph.nodes)


def dynamic_int8_by_rows(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy over the same tensors that quantises each row separately, as XNNPACK does.

    A module without dynamic ranges is returned unchanged.
    """
    if not is_dynamic_int8(module):
        return module
    copy = copy_graph(module)
    for node, source in _dynamic_int8_rounded(copy):
        with copy.graph.inserting_before(node):
            rows = copy.graph.call_function(dynamic_int8_rounded_rows, (source,))
        node.replace_all_uses_with(rows)
    return _clean_dynamic_int8(copy)


def dynamic_int8_in_float(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy over the same tensors with activations in float: only weights are quantised."""
    copy = copy_graph(module)
    for node, source in _dynamic_int8_rounded(copy):
        node.replace_all_uses_with(source)
    return _clean_dynamic_int8(copy)


def _dynamic_int8_rounded(module: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Yield each dequantiser with a dynamic range, and the tensor that it returns rounded."""
    return [
        (node, source)
        for node in module.graph.nodes
        if node.target is DEQUANTIZE_DYNAMIC and (source := rounded_graph_tensor(node)) is not None
    ]


def _clean_dynamic_int8(module: fx.GraphModule) -> fx.GraphModule:
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def dynamic_int8_rounded_rows(x: Tensor) -> Tensor:
    """Round each row (the last dimension) to 256 steps between its extremes and zero.

    XNNPACK's own formula (`xnn_f32_qd8_asymmetric_quantization_params`): the zero point follows from the end
    of the range that errs less.
    """
    low, high = x.amin(-1, keepdim=True).clamp_max(0), x.amax(-1, keepdim=True).clamp_min(0)
    per_unit = torch.where(low == high, torch.ones_like(low), (HIGH - LOW) / (high - low))
    from_low, from_high = LOW - low * per_unit, HIGH - high * per_unit
    zero = torch.where((LOW + low * per_unit) + (HIGH + high * per_unit) > 0, from_low, from_high)
    zero = zero.clamp(LOW, HIGH).round()
    steps = (torch.round(x * per_unit) + zero).clamp(LOW, HIGH)
    return (steps - zero) * (1 / per_unit)
