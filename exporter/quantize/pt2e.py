"""Static int8 quantisation in PyTorch 2 export (PT2E), for ExecuTorch's XNNPACK backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.records import Array, Runner, Sample

if TYPE_CHECKING:
    import torch


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

    if not calibration:
        raise ValueError("int8 needs calibration samples, got none")
    example = program.example_inputs[0]
    prepared = prepare_pt2e(program.module(), _xnnpack_quantizer())
    with torch.no_grad():
        for sample in calibration:
            prepared(*_tensors(sample))
    converted = convert_pt2e(prepared)
    return torch.export.export(converted, example), _runner(converted)


def _xnnpack_quantizer() -> object:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    quantizer = XNNPACKQuantizer()
    # The rest is searched for in vain, at great cost: batch norms are folded before post-training annotation.
    quantizer.SUPPORTED_PATTERNS = [p for p in XNNPACKQuantizer.SUPPORTED_PATTERNS if not p.is_qat]
    return quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))


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
