"""Round weights so that their errors cancel on real inputs, for PT2E.

Rounding each weight to the nearest step ignores that a layer's inputs go together: what one weight loses,
those after it can make up for. This is GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", 2022), for convolutions too, with each channel's scale unchanged.
Layers are taken in order, each seeing what the layers before it, already rounded, really give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
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
from exporter.quantize.moment_factor import factor_of_moments
from exporter.quantize.scene_folds import folds_of_scenes
from exporter.quantize.uncorrected_layers import UncorrectedLayer

LAYERS = (aten.conv2d.default, aten.linear.default)
DAMPING = 0.01
"""The share of the mean diagonal that is added to the diagonal, as in the paper."""

MOST_INPUTS = 2304
"""Layers with more inputs per output round to the nearest step: the work grows with the third power."""

MOST_SAMPLES = 16
"""How many calibration samples are used: all their values at a layer are in memory at once."""

MOST_COLUMNS = 40_000
"""How many places in all samples' inputs a layer's statistics use."""

BLOCK = 32
"""Inputs that compensate for each other before the inputs after them are touched: the same result, sooner."""


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
) -> dict[str, UncorrectedLayer]:
    """Round the weights of a converted program anew, in place; return corrected layers as they were before.

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
    walk, folds = _LayerWalk(converted, samples), folds_of_scenes(scenes)
    if reference is None or len(folds) < 2:  # one scene confirms no correction
        reference = fx.GraphModule({}, fx.Graph())
    exact = _LayerWalk(reference, samples)
    rounding = _Rounding(walk, weights, folds, _shared_in_weight_rounding(converted))
    with torch.no_grad():
        layers = exact.layers()
        for layer in walk.layers():
            if layer.name in weights:
                same: Any = next((other for other in layers if other.name == layer.name), None)
                rounding.round_layer(layer, exact.values[same.args[0]] if same else [])
    return rounding.uncorrected


def _shared_in_weight_rounding(module: fx.GraphModule) -> frozenset[str]:
    """Return the names of weights and biases that several layers read."""
    layers = [node for node in module.graph.nodes if node.target in LAYERS]
    read = [argument for node in layers for argument in node.args[1:3] if is_graph_weight(argument)]
    counts = Counter(str(stored_in_graph(argument).target) for argument in read)
    return frozenset(name for name, count in counts.items() if count > 1)


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
            self.values[node] = next(inputs) if node.op == "placeholder" else self._results(node)
            for argument in node.all_input_nodes:
                if last_use[argument] is node:
                    del self.values[argument]

    def put(self, node: fx.Node, value: Tensor) -> None:
        """Give a node of every sample another value."""
        self.values[node] = [value] * len(self.samples)

    def _results(self, node: fx.Node) -> list[Any]:
        if node.op == "get_attr":
            return [graph_attribute(self.module, str(node.target))] * len(self.samples)
        if node.target is DEQUANTIZE_CHANNELS and node.all_input_nodes[0].op == "get_attr":
            return [self._result(node, node.target, 0)] * len(self.samples)  # a weight: the same for all
        call: Any = node.target
        if node.op == "call_module":
            call = self.module.get_submodule(str(node.target))
            call = call.clipping() if isinstance(call, RangeObserver) else call
        return [self._result(node, call, place) for place in range(len(self.samples))]

    def _result(self, node: fx.Node, call: Any, place: int) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), partial(self._value, place))
        return call(*args, **kwargs)

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
    uncorrected: dict[str, UncorrectedLayer] = field(default_factory=dict)
    """Layer -> the layer before its correction."""

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
        moments = self._moments(node, groups, tuple(weight.shape[2:]), exact)
        products = reduce(torch.add, (fold.products for fold in moments))
        correction = None
        if exact and self._owns_parameters(node):
            correction = layer_correction.find_layer_correction(grouped, moments)
        versions = [grouped]
        if correction is not None:
            versions.insert(0, (grouped.double() + correction.weight).to(weight.dtype))
        scale = scales.reshape(groups, -1, 1).repeat(1, len(versions), 1)
        rounded = weight_rounding_together(torch.cat(versions, 1), products, scale).chunk(len(versions), 1)
        if correction is not None:
            plain = rounded[1].reshape(weight.shape).to(steps.dtype)
            bias = graph_attribute(module, str(node.args[2].target))
            self.uncorrected[node.name] = UncorrectedLayer(weight, plain, bias)
            self.weights[node.name] = versions[0].reshape(weight.shape)
            self._add_to_bias(node.args[2], correction.bias.flatten())
        steps.copy_(rounded[0].reshape(weight.shape))
        # It was dequantised before: its new value is what this layer must see.
        self.walk.put(dequantize, steps.float() * scales.reshape(-1, *[1] * (weight.dim() - 1)))

    def _moments(
        self, node: Any, groups: int, kernel: tuple[int, ...], exact: Sequence[Tensor]
    ) -> list[LayerMoments]:
        """Sum over a layer's inputs, fold by fold; without its float inputs, as if nothing were lost."""
        most = max(1, MOST_COLUMNS // len(self.walk.samples))
        columns_of = partial(_weight_rounding_columns, node=node, groups=groups, kernel=kernel, most=most)
        rounded = self.walk.values[node.args[0]]
        return [
            LayerMoments.of_columns(
                (columns_of(rounded[p]), columns_of(exact[p] - rounded[p]) if exact else None) for p in fold
            )
            for fold in self.folds
        ]

    def _owns_parameters(self, node: Any) -> bool:
        """Return whether a layer has a bias, which takes a part of a correction, and shares nothing."""
        if len(node.args) < 3 or getattr(node.args[2], "op", "") != "get_attr":
            return False
        return not self.shared & {str(stored_in_graph(argument).target) for argument in node.args[1:3]}

    def _add_to_bias(self, node: fx.Node, change: Tensor) -> None:
        """Give a layer a bias of its own: the float program, which shares the old one, keeps it."""
        old = graph_attribute(self.walk.module, str(node.target))
        bias = torch.nn.Parameter((old.double() + change).to(old.dtype), requires_grad=False)
        path, _, name = str(node.target).rpartition(".")
        setattr(self.walk.module.get_submodule(path), name, bias)
        self.walk.put(node, bias)


def weight_rounding_together(weight: Tensor, products: Tensor, scale: Tensor) -> Tensor:
    """Choose the weights' steps input by input, each compensating for the errors before.

    Args:
        weight: The float weights, (groups, outputs, inputs).
        products: The sum over places of the layer's inputs times its inputs, (groups, inputs, inputs).
        scale: The scale of each output, (groups, outputs, 1).

    Returns:
        Whole numbers from -127 to 127, shaped as `weight`.
    """
    factor = _weight_rounding_inverse_factor(products)
    rows = factor / factor.diagonal(dim1=1, dim2=2)[..., None]
    # Input by input, in units of each output's step: what is changed together lies together in memory.
    left = (weight.double() / scale.double()).transpose(1, 2).contiguous()
    errors = torch.empty_like(left)
    for begin in range(0, left.shape[1], BLOCK):
        end = min(begin + BLOCK, left.shape[1])
        for k in range(begin, end):
            here, behind = slice(k, k + 1), slice(k + 1, end)
            wanted = left[:, here].clone()
            left[:, here].round_().clamp_(-127, 127)
            torch.sub(wanted, left[:, here], out=errors[:, here])
            left[:, behind].baddbmm_(rows[:, here, behind].transpose(1, 2), errors[:, here], alpha=-1)
        left[:, end:].baddbmm_(rows[:, begin:end, end:].transpose(1, 2), errors[:, begin:end], alpha=-1)
    return left.transpose(1, 2)


def _weight_rounding_inverse_factor(products: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of the inputs' damped second moments."""
    moments = products.double()
    diagonal = moments.diagonal(dim1=1, dim2=2)
    # An input that is always zero would make its moments singular; any number does, as nothing depends on it.
    mean = diagonal.mean(1, keepdim=True)
    moments = moments + torch.diag_embed(DAMPING * mean + (mean == 0) + (diagonal == 0) * mean)
    inverse = torch.cholesky_inverse(factor_of_moments(moments))
    return factor_of_moments(inverse).transpose(1, 2)


def _weight_rounding_columns(x: Tensor, node: Any, groups: int, kernel: tuple[int, ...], most: int) -> Tensor:
    """Return a layer's input as its weights multiply it: (groups, inputs, places), about `most` of them."""
    if node.target is aten.linear.default:
        columns = x.reshape(-1, x.shape[-1]).T[None]
        return columns[..., :: max(1, columns.shape[-1] // most)]
    given = dict(enumerate(node.args))
    stride, padding, dilation = (
        _pair_for_weight_rounding(given.get(i, [default])) for i, default in ((3, 1), (4, 0), (5, 1))
    )
    padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0])) if any(padding) else x
    size = [
        (padded.shape[2 + axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    ]
    by, to, down, right = padded.stride()
    windows = padded.as_strided(
        (x.shape[1], *kernel, len(x), *size),
        (to, dilation[0] * down, dilation[1] * right, by, stride[0] * down, stride[1] * right),
        padded.storage_offset(),
    )
    inputs = x.shape[1] // groups * kernel[0] * kernel[1]
    step = max(1, len(x) * size[0] * size[1] // most)
    if step == 1 or kernel == (1, 1):  # as a rule nothing is copied
        return windows.reshape(groups, inputs, -1)[..., ::step]
    # Only the places that are used are copied; `unfold` copies every value as often as the kernel is large.
    places = torch.arange(0, len(x) * size[0] * size[1], step)
    sample, row, column = places // (size[0] * size[1]), places // size[1] % size[0], places % size[1]
    return windows[..., sample, row, column].reshape(groups, inputs, -1)


def _pair_for_weight_rounding(numbers: Sequence[int]) -> tuple[int, int]:
    """Return a number for each axis; a list of one is for both."""
    return numbers[0], numbers[-1]
