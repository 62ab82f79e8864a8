"""Round weights so that their errors cancel on real inputs, for PT2E.

Rounding each weight to the nearest step ignores that a layer's inputs go together: what one weight loses,
those after it can make up for. This is GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", 2022), for convolutions too, with each channel's scale unchanged.
Layers are taken in order, each seeing what the layers before it, already rounded, really give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from exporter.quantize.graphs import (
    DEQUANTIZE_CHANNELS,
    aten,
    graph_attribute,
    spread_graph_samples,
    stored_in_graph,
)

LAYERS = (aten.conv2d.default, aten.linear.default)
DAMPING = 0.01
"""The share of the mean diagonal that is added to the diagonal, as in the paper."""

MOST_INPUTS = 2304
"""Layers with more inputs per output round to the nearest step: the work grows with the third power."""

MOST_SAMPLES = 16
"""How many calibration samples are used: all their values at a layer are in memory at once."""

MOST_COLUMNS = 40_000
"""How many places in all samples' inputs a layer's statistics use."""


def weights_before_weight_rounding(prepared: fx.GraphModule) -> dict[str, Tensor]:
    """Return the weights of convolutions and linear layers by the node's name, which `convert_pt2e` keeps."""
    weights = {}
    for node in prepared.graph.nodes:
        if node.target in LAYERS:
            weight = graph_attribute(prepared, str(stored_in_graph(node.args[1]).target))
            weights[node.name] = weight.detach().clone()
    return weights


def improve_weight_rounding(
    converted: fx.GraphModule, weights: Mapping[str, Tensor], calibration: Sequence[tuple[Tensor, ...]]
) -> None:
    """Round the weights of a converted program anew, in place.

    Args:
        converted: The result of `convert_pt2e`, with its weights stored as integers.
        weights: The earlier result of `weights_before_weight_rounding`.
        calibration: One call of the model each.
    """
    with torch.no_grad():
        _RoundingWalk(converted, weights, spread_graph_samples(calibration, MOST_SAMPLES)).run()


class _RoundingWalk:
    """Run all samples node by node, so that a layer is rounded before its result is read."""

    def __init__(
        self, module: fx.GraphModule, weights: Mapping[str, Tensor], samples: Sequence[tuple[Tensor, ...]]
    ) -> None:
        self.module = module
        self.weights = weights
        self.samples = samples
        self.values: dict[fx.Node, list[Any]] = {}

    def run(self) -> None:
        inputs = (list(column) for column in zip(*self.samples, strict=True))
        last_use = {argument: node for node in self.module.graph.nodes for argument in node.all_input_nodes}
        for node in self.module.graph.nodes:
            if node.op == "output":
                return
            if node.target in LAYERS and node.name in self.weights:
                self._round(node)
            self.values[node] = next(inputs) if node.op == "placeholder" else list(self._results(node))
            for argument in node.all_input_nodes:
                if last_use[argument] is node:
                    del self.values[argument]

    def _results(self, node: fx.Node) -> Iterator[Any]:
        if node.op == "get_attr":
            yield from [graph_attribute(self.module, str(node.target))] * len(self.samples)
            return
        for place in range(len(self.samples)):
            args, kwargs = fx.map_arg((node.args, node.kwargs), partial(self._value, place))
            if node.op == "call_module":
                yield self.module.get_submodule(str(node.target))(*args, **kwargs)
            else:
                yield node.target(*args, **kwargs)  # type: ignore[operator]

    def _value(self, place: int, node: fx.Node) -> Any:
        return self.values[node][place]

    def _round(self, node: Any) -> None:
        x, dequantize = node.args[0], node.args[1]
        if dequantize.target is not DEQUANTIZE_CHANNELS:
            return
        steps, scales = (graph_attribute(self.module, source.target) for source in dequantize.args[:2])
        weight = self.weights[node.name]
        groups = node.args[6] if len(node.args) > 6 else 1
        grouped = weight.reshape(groups, weight.shape[0] // groups, -1)
        if grouped.shape[2] > MOST_INPUTS:
            return
        columns = _weight_rounding_columns(self.values[x], node, groups, tuple(weight.shape[2:]))
        rounded = weight_rounding_together(grouped, columns, scales.reshape(groups, -1, 1))
        steps.copy_(rounded.reshape(weight.shape))
        # It was dequantised before: its new value is what this layer must see.
        again = steps.float() * scales.reshape(-1, *[1] * (weight.dim() - 1))
        self.values[dequantize] = [again] * len(self.samples)


def weight_rounding_together(weight: Tensor, columns: Tensor, scale: Tensor) -> Tensor:
    """Choose the weights' steps input by input, each compensating for the errors before.

    Args:
        weight: The float weights, (groups, outputs, inputs).
        columns: The layer's inputs, (groups, inputs, places).
        scale: The scale of each output, (groups, outputs, 1).

    Returns:
        Whole numbers from -127 to 127, shaped as `weight`.
    """
    factor = _weight_rounding_inverse_factor(columns)
    left, scale = weight.double().clone(), scale.double()
    steps = torch.empty_like(left)
    for k in range(left.shape[2]):
        steps[..., k : k + 1] = torch.round(left[..., k : k + 1] / scale).clamp_(-127, 127)
        error = left[..., k : k + 1] - steps[..., k : k + 1] * scale
        row = factor[:, k : k + 1, k:]
        left[..., k:] -= error @ (row / row[..., :1])
    return steps


def _weight_rounding_inverse_factor(columns: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of the inputs' damped second moments."""
    moments = (columns @ columns.transpose(1, 2)).double()
    diagonal = moments.diagonal(dim1=1, dim2=2)
    # An input that is always zero would make its moments singular; any number does, as nothing depends on it.
    mean = diagonal.mean(1, keepdim=True)
    diagonal += DAMPING * mean + (mean == 0) + (diagonal == 0) * mean
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _weight_rounding_columns(
    inputs: Sequence[Tensor], node: Any, groups: int, kernel: tuple[int, ...]
) -> Tensor:
    """Return a layer's inputs as its weights multiply them: (groups, inputs, places)."""
    if node.target is aten.linear.default:
        return torch.cat([x.reshape(-1, x.shape[-1]) for x in inputs]).T[None]
    given = dict(enumerate(node.args))
    stride, padding, dilation = (
        tuple(given.get(i, ones)) for i, ones in ((3, (1, 1)), (4, (0, 0)), (5, (1, 1)))
    )
    patches = []
    each = max(1, MOST_COLUMNS // len(inputs))
    for x in inputs:
        unfolded = functional.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)
        unfolded = unfolded.permute(1, 0, 2).reshape(groups, unfolded.shape[1] // groups, -1)
        patches.append(unfolded[..., :: max(1, unfolded.shape[-1] // each)])
    return torch.cat(patches, dim=2)
