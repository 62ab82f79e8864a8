"""Choose the operators to quantise, by XNNPACK's scheme, which ONNX Runtime's CPU executes, too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

EPS = 2**-12
"""The smallest scale; XNNPACK's quantiser uses the same."""


def quantizer() -> Any:
    """Return ExecuTorch's quantiser, per output channel, with ranges chosen by `ranges`."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    from exporter.quantize.ranges import RangeObserver

    class Fused(XNNPACKQuantizer):  # type: ignore[misc]
        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            annotated: torch.fx.GraphModule = super().annotate(model)
            _quantise_after_activations(annotated)
            return annotated

    fused = Fused()
    # The rest is searched for in vain, at great cost: batch norms are folded before post-training annotation.
    fused.SUPPORTED_PATTERNS = [p for p in XNNPACKQuantizer.SUPPORTED_PATTERNS if not p.is_qat]
    config = get_symmetric_quantization_config(is_per_channel=True)
    ranges = RangeObserver.with_args(eps=EPS)
    activation = replace(config.input_activation, observer_or_fake_quant_ctr=ranges)
    return fused.set_global(replace(config, input_activation=activation, output_activation=activation))


def _quantise_after_activations(model: torch.fx.GraphModule) -> None:
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
