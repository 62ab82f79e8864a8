"""Static int8 quantisation in PyTorch 2 export (PT2E), for ExecuTorch's XNNPACK backend."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exporter.records import Array, Runner, Sample

if TYPE_CHECKING:
    import torch

EPS = 2**-12
"""The smallest scale, as XNNPACK's quantiser sets it."""


def quantize(
    program: torch.export.ExportedProgram, calibration: tuple[Sample, ...]
) -> tuple[torch.export.ExportedProgram, Runner]:
    """Quantise weights (int8 per output channel) and activations (int8 per tensor, ranges from samples).

    Args:
        program: A float program; left as it is.
        calibration: One call of the model each, batch 1 as the program was captured. Run one by one: a
            larger batch would need a program with a dynamic batch.

    Returns:
        The quantised program to lower, and a runner of the same with XNNPACK's rounding (see `integer`).

    Raises:
        ValueError: No calibration samples.
    """
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from exporter.quantize import rounding

    if not calibration:
        raise ValueError("int8 needs calibration samples, got none")
    example = program.example_inputs[0]
    prepared = prepare_pt2e(program.module(), _xnnpack_quantizer())
    samples = [_tensors(sample) for sample in calibration]
    with torch.no_grad():
        for sample in samples:
            prepared(*sample)
    weights = rounding.float_weights(prepared)
    converted = convert_pt2e(prepared)
    rounding.improve(converted, weights, samples)
    return torch.export.export(converted, example), _runner(converted)


def _xnnpack_quantizer() -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    from exporter.quantize.ranges import LeastSquaresObserver

    class Fused(XNNPACKQuantizer):  # type: ignore[misc]
        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            annotated: torch.fx.GraphModule = super().annotate(model)
            _quantise_after_activations(annotated)
            return annotated

    quantizer = Fused()
    # The rest is searched for in vain, at great cost: batch norms are folded before post-training annotation.
    quantizer.SUPPORTED_PATTERNS = [p for p in XNNPACKQuantizer.SUPPORTED_PATTERNS if not p.is_qat]
    config = get_symmetric_quantization_config(is_per_channel=True)
    ranges = LeastSquaresObserver.with_args(eps=EPS)
    activation = replace(config.input_activation, observer_or_fake_quant_ctr=ranges)
    return quantizer.set_global(replace(config, input_activation=activation, output_activation=activation))


def _quantise_after_activations(model: torch.fx.GraphModule) -> None:
    """Have a layer and the activation after it quantised once, after both, as XNNPACK computes them.

    ExecuTorch's quantiser takes every convolution before it looks for one with an activation, and does not
    know ReLU6 as one. Half of a convolution's steps then go to values that the activation throws away.
    """
    import torch
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    from exporter.quantize.integer import ACTIVATIONS, CONVOLUTIONS

    layers = (*CONVOLUTIONS, torch.ops.aten.linear.default)
    for node in model.graph.nodes:
        layer = node.args[0] if node.target in ACTIVATIONS else None
        if layer is None or layer.target not in layers or len(layer.users) > 1:
            continue
        annotation = layer.meta.get(Q_ANNOTATION_KEY)
        if annotation and annotation.output_qspec:
            spec, annotation.output_qspec = annotation.output_qspec, None
            node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(output_qspec=spec, _annotated=True)


def _tensors(sample: Sample) -> tuple[torch.Tensor, ...]:
    import numpy as np
    import torch

    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in sample)


def _runner(converted: torch.fx.GraphModule) -> Runner:
    from exporter.quantize.integer import IntegerInterpreter

    interpreter = IntegerInterpreter(converted)

    def run(sample: Sample) -> tuple[Array, ...]:
        import torch

        with torch.no_grad():
            outputs = interpreter.run(*_tensors(sample))
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return tuple(output.numpy().copy() for output in outputs)

    return run
