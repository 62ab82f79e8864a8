"""Round weights so that their errors cancel on real inputs, for PT2E.

Rounding each weight to the nearest step ignores that a layer's inputs go together: what one weight loses,
those after it can make up for. This is GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", 2022), for convolutions too, with each channel's scale unchanged.
Layers are taken in order, each seeing what the layers before it, already rounded, really give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from exporter.quantize import layer_correction
from exporter.quantize.activation_ranges import RangeObserver
from exporter.quantize.graphs import (
    DEQUANTIZE_CHANNELS,
    aten,
    graph_attribute,
    is_graph_weight,
    spread_graph_samples,
    stored_in_graph,
)
from exporter.quantize.layer_correction import LayerMoments

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
    converted: fx.GraphModule,
    weights: dict[str, Tensor],
    calibration: Sequence[tuple[Tensor, ...]],
    reference: fx.GraphModule | None = None,
    scenes: Sequence[int] = (),
) -> None:
    """Round the weights of a converted program anew, in place.

    Args:
        converted: The result of `convert_pt2e`, with its weights stored as integers.
        weights: The earlier result of `weights_before_weight_rounding`; corrected weights replace its own.
        calibration: One call of the model each.
        reference: The prepared program, with the same names of layers, to correct layers by: in float, but
            clipped to the chosen ranges, whose choice says that the rest matters little. None corrects none.
        scenes: The scene of each call; empty where each is a scene of its own.
    """
    rows = list(zip(calibration, scenes or range(len(calibration)), strict=True))
    samples, scenes = zip(*spread_graph_samples(rows, MOST_SAMPLES), strict=True)
    walk = _LayerWalk(converted, samples)
    exact = _LayerWalk(reference or fx.GraphModule({}, fx.Graph()), samples)
    rounding = _Rounding(walk, weights, _weight_rounding_folds(scenes), _shared_in_weight_rounding(converted))
    with torch.no_grad():
        layers = exact.layers()
        for layer in walk.layers():
            if layer.name in weights:
                same: Any = next((other for other in layers if other.name == layer.name), None)
                rounding.round_layer(layer, exact.values[same.args[0]] if same else [])


def _shared_in_weight_rounding(module: fx.GraphModule) -> frozenset[str]:
    """Return the names of weights and biases that several layers read."""
    layers = [node for node in module.graph.nodes if node.target in LAYERS]
    read = [argument for node in layers for argument in node.args[1:3] if is_graph_weight(argument)]
    counts = Counter(str(stored_in_graph(argument).target) for argument in read)
    return frozenset(name for name, count in counts.items() if count > 1)


def _weight_rounding_folds(scenes: Sequence[int]) -> list[list[int]]:
    """Divide the places of samples into folds that share no scene."""
    names = sorted(set(scenes))
    count = min(layer_correction.FOLDS, len(names))
    fold_of = {scene: place % count for place, scene in enumerate(names)}
    return [[p for p, scene in enumerate(scenes) if fold_of[scene] == fold] for fold in range(count)]


class _LayerWalk:
    """Run all samples node by node, stopping before each layer, so that it can be changed."""

    def __init__(self, module: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]]) -> None:
        self.module = module
        self.samples = samples
        self.values: dict[fx.Node, list[Any]] = {}

    def layers(self) -> Iterator[fx.Node]:
        """Yield each layer before its result is computed; `values` has what it reads."""
        inputs = (list(column) for column in zip(*self.samples, strict=True))
        last_use = {argument: node for node in self.module.graph.nodes for argument in node.all_input_nodes}
        for node in self.module.graph.nodes:
            if node.op == "output":
                return
            if node.target in LAYERS:
                yield node
            self.values[node] = next(inputs) if node.op == "placeholder" else list(self._results(node))
            for argument in node.all_input_nodes:
                if last_use[argument] is node:
                    del self.values[argument]

    def put(self, node: fx.Node, value: Tensor) -> None:
        """Give a node of every sample another value."""
        self.values[node] = [value] * len(self.samples)

    def _results(self, node: fx.Node) -> Iterator[Any]:
        if node.op == "get_attr":
            yield from [graph_attribute(self.module, str(node.target))] * len(self.samples)
            return
        for place in range(len(self.samples)):
            args, kwargs = fx.map_arg((node.args, node.kwargs), partial(self._value, place))
            if node.op == "call_module":
                submodule = self.module.get_submodule(str(node.target))
                call: Any = submodule.clip if isinstance(submodule, RangeObserver) else submodule
                yield call(*args, **kwargs)
            else:
                yield node.target(*args, **kwargs)  # type: ignore[operator]

    def _value(self, place: int, node: fx.Node) -> Any:
        return self.values[node][place]


@dataclass(frozen=True, eq=False)
class _Rounding:
    """Rounds layers, from the walk that stands before one."""

    walk: _LayerWalk
    weights: dict[str, Tensor]
    """Layer -> its float weight."""
    folds: Sequence[Sequence[int]]
    """The places of the samples of each fold."""
    shared: frozenset[str]
    """Weights and biases that several layers read: a correction for one layer would be wrong for another."""

    def round_layer(self, node: Any, exact: Sequence[Tensor]) -> None:
        """Correct and round one layer.

        Args:
            node: The layer, before it is computed.
            exact: The layer's float inputs, of each sample; empty where it is not to be corrected.
        """
        module, dequantize = self.walk.module, node.args[1]
        if dequantize.target is not DEQUANTIZE_CHANNELS:
            return
        steps, scales = (graph_attribute(module, source.target) for source in dequantize.args[:2])
        weight = self.weights[node.name]
        groups = node.args[6] if len(node.args) > 6 else 1
        grouped = weight.reshape(groups, weight.shape[0] // groups, -1)
        if grouped.shape[2] > MOST_INPUTS:
            return
        kernel, most = tuple(weight.shape[2:]), max(1, MOST_COLUMNS // len(self.walk.samples))
        columns_of = partial(_weight_rounding_columns, node=node, groups=groups, kernel=kernel, most=most)
        rounded = [columns_of(x) for x in self.walk.values[node.args[0]]]
        if correction := self._correction(node, grouped, rounded, [columns_of(x) for x in exact]):
            grouped = (grouped.double() + correction.weight).to(weight.dtype)
            self.weights[node.name] = grouped.reshape(weight.shape)
            self._add_to_bias(node.args[2], correction.bias.flatten())
        together = weight_rounding_together(grouped, torch.cat(rounded, 2), scales.reshape(groups, -1, 1))
        steps.copy_(together.reshape(weight.shape))
        # It was dequantised before: its new value is what this layer must see.
        self.walk.put(dequantize, steps.float() * scales.reshape(-1, *[1] * (weight.dim() - 1)))

    def _correction(
        self, node: Any, weight: Tensor, rounded: Sequence[Tensor], exact: Sequence[Tensor]
    ) -> layer_correction.LayerCorrection | None:
        """Return the correction of a layer; None without a bias of its own, which takes a part of it."""
        if not exact or len(node.args) < 3 or getattr(node.args[2], "op", "") != "get_attr":
            return None
        if self.shared & {str(stored_in_graph(argument).target) for argument in node.args[1:3]}:
            return None
        folds = [
            LayerMoments.of_columns(*(torch.cat([each[p] for p in fold], 2) for each in (rounded, exact)))
            for fold in self.folds
        ]
        return layer_correction.find_layer_correction(weight, folds)

    def _add_to_bias(self, node: fx.Node, change: Tensor) -> None:
        """Give a layer a bias of its own: the float program, which shares the old one, keeps it."""
        old = graph_attribute(self.walk.module, str(node.target))
        bias = torch.nn.Parameter((old.double() + change).to(old.dtype), requires_grad=False)
        path, _, name = str(node.target).rpartition(".")
        setattr(self.walk.module.get_submodule(path), name, bias)
        self.walk.put(node, bias)


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


def _weight_rounding_columns(x: Tensor, node: Any, groups: int, kernel: tuple[int, ...], most: int) -> Tensor:
    """Return a layer's input as its weights multiply it: (groups, inputs, places), about `most` of them."""
    if node.target is aten.linear.default:
        columns = x.reshape(-1, x.shape[-1]).T[None]
    else:
        given = dict(enumerate(node.args))
        stride, padding, dilation = (
            tuple(given.get(i, ones)) for i, ones in ((3, (1, 1)), (4, (0, 0)), (5, (1, 1)))
        )
        unfolded = functional.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)
        unfolded = unfolded.permute(1, 0, 2)
        columns = unfolded.reshape(groups, unfolded.shape[0] // groups, -1)
    return columns[..., :: max(1, columns.shape[-1] // most)]
