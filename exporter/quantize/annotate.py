"""Choose the operators to quantise, by XNNPACK's scheme, which ONNX Runtime's CPU executes, too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

EPS = 2**-12
"""The smallest scale; XNNPACK's quantiser uses the same."""


def annotating_static_quantizer(in_float: Collection[str] = ()) -> Any:
    """Return ExecuTorch's quantiser, per output channel, with ranges chosen by `ranges`.

    Args:
        in_float: Names of operators that are not quantised.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    from exporter.quantize.activation_ranges import RangeObserver

    config = get_symmetric_quantization_config(is_per_channel=True)
    ranges = RangeObserver.with_args(eps=EPS)
    activation = replace(config.input_activation, observer_or_fake_quant_ctr=ranges)

    class Fused(_annotate_with_integers()):  # type: ignore[misc]
        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            annotated: torch.fx.GraphModule = super().annotate(model)
            _leave_float_unannotated(annotated, in_float)
            _annotate_after_activations(annotated)
            _annotate_averages_apart(annotated, activation)
            _annotate_small_weights(annotated)
            _leave_integers_without_annotation(annotated)
            return annotated

    fused = Fused()
    # The rest is searched for in vain, at great cost: batch norms are folded before post-training annotation.
    fused.SUPPORTED_PATTERNS = [p for p in XNNPACKQuantizer.SUPPORTED_PATTERNS if not p.is_qat]
    return fused.set_global(replace(config, input_activation=activation, output_activation=activation))


def annotating_dynamic_quantizer() -> Any:
    """Return ExecuTorch's quantiser for linear layers alone: activations at run time, weights per channel."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config

    from exporter.quantize.graphs import aten

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    return _annotate_with_integers()().set_operator_type(aten.linear.default, config)


def _annotate_with_integers() -> Any:
    """Return ExecuTorch's quantiser as a class that leaves arithmetic on integers as it is."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer

    class WithIntegers(XNNPACKQuantizer):  # type: ignore[misc]
        def transform_for_annotation(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            arguments = {
                node: node.args for node in model.graph.nodes if _is_annotated_not_float32(model, node)
            }
            transformed: torch.fx.GraphModule = super().transform_for_annotation(model)
            _restore_annotated(transformed, arguments)
            return transformed

    return WithIntegers


def _annotate_after_activations(model: torch.fx.GraphModule) -> None:
    """Quantise a layer and its activation once, after both, as XNNPACK computes them.

    ExecuTorch's quantiser takes every convolution before it looks for one with an activation, and does not
    know ReLU6 as one. Half of a convolution's steps then go to values that the activation throws away.
    """
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    from exporter.quantize.graphs import ACTIVATIONS, LAYERS

    for node in model.graph.nodes:
        layer = node.args[0] if node.target in ACTIVATIONS else None
        if layer is None or layer.target not in LAYERS or len(layer.users) > 1:
            continue
        annotation = layer.meta.get(Q_ANNOTATION_KEY)
        if annotation and annotation.output_qspec:
            spec, annotation.output_qspec = annotation.output_qspec, None
            node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(output_qspec=spec, _annotated=True)


def _annotate_averages_apart(model: torch.fx.GraphModule, spec: QuantizationSpec) -> None:
    """Give what an average returns a range of its own.

    ExecuTorch's quantiser lets it share its input's. But an average reaches less far than what it is taken
    of, and its rounding is not averaged out any more.
    """
    from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    from exporter.quantize.graphs import AVERAGES

    for node in model.graph.nodes:
        annotation = node.meta.get(Q_ANNOTATION_KEY) if node.target in AVERAGES else None
        if annotation and isinstance(annotation.output_qspec, SharedQuantizationSpec):
            annotation.output_qspec = spec


def _annotate_small_weights(model: torch.fx.GraphModule) -> None:
    """Let layers whose weights are all tiny have scales below `EPS`, which would leave them a few steps.

    Such is a convolution that reads bytes and has their normalisation folded into its weights.
    """
    from torchao.quantization.pt2e import PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    from exporter.quantize.graphs import LAYERS, graph_attribute

    for node in model.graph.nodes:
        annotation: Any = node.meta.get(Q_ANNOTATION_KEY) if node.target in LAYERS else None
        for source, spec in list(annotation.input_qspec_map.items()) if annotation else []:
            weight = graph_attribute(model, str(source.target)) if source.op == "get_attr" else None
            if spec is None or weight is None or weight.dim() < 2:
                continue
            largest = float(weight.abs().max())
            if 0 < largest < 127 * EPS:
                observer = PerChannelMinMaxObserver.with_args(eps=EPS * largest)
                annotation.input_qspec_map[source] = replace(spec, observer_or_fake_quant_ctr=observer)


def _leave_float_unannotated(model: torch.fx.GraphModule, names: Collection[str]) -> None:
    """Remove the annotations of operators by name."""
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    for node in model.graph.nodes:
        if node.name in names:
            node.meta.pop(Q_ANNOTATION_KEY, None)


def _restore_annotated(
    model: torch.fx.GraphModule, arguments: Mapping[torch.fx.Node, tuple[Any, ...]]
) -> None:
    """Give operators on integers their numbers back, which ExecuTorch made float tensors of.

    `arange(8) + 0` would become float, and no table can be indexed with it.
    """
    for node, args in arguments.items():
        node.args = args
    model.graph.eliminate_dead_code()
    model.recompile()


def _leave_integers_without_annotation(model: torch.fx.GraphModule) -> None:
    """Remove annotations of tensors that are not float32, such as positions that index a table.

    ExecuTorch's quantiser asks for the type of an operator's inputs, not of its output. A table of positions
    may be computed in float64, which no 8 bits are made of.
    """
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    for node in model.graph.nodes:
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        if annotation is None:
            continue
        if _is_annotated_not_float32(model, node):
            del node.meta[Q_ANNOTATION_KEY]
            continue
        for source in [
            source for source in annotation.input_qspec_map if _is_annotated_not_float32(model, source)
        ]:
            del annotation.input_qspec_map[source]


def _is_annotated_not_float32(model: torch.fx.GraphModule, node: torch.fx.Node) -> bool:
    import torch

    from exporter.quantize.graphs import graph_attribute

    value = graph_attribute(model, str(node.target)) if node.op == "get_attr" else node.meta.get("val")
    return value is not None and hasattr(value, "is_floating_point") and value.dtype != torch.float32
