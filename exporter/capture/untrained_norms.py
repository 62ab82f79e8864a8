"""Finds batch norms that never saw what reaches them: the sign of a network whose weights are random.

Outputs of 1e-9 may be amperes, and are judged at their own scale. They may also be what is left of a signal
that fades from layer to layer in a network nobody trained. There, the inputs of the batch norms vary
thousands of times less than the statistics that the norms hold; in a trained network the two agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from exporter.records import Array, Runner, Sample
from exporter.verify.reference_io import Stacks

TINY = 1e-6
"""Only outputs that are all smaller than this are doubted."""
FADED = 1e-6
"""A norm never saw its inputs when their energy, in its median channel, is less than this share of the
variance that it holds: they are a thousand times too small."""


def untrained_norm(
    module: nn.Module, runner: Callable[[nn.Module], Runner], samples: Sequence[Sample], outputs: Stacks
) -> str:
    """Return the name of a batch norm that never saw what reaches it; an empty string when none is found.

    Args:
        module: A copy of the network, in float32; calls may change it.
        runner: Makes a function of the module that calls it.
        samples: Inputs; the first one is run.
        outputs: The network's outputs. Only those that are all tiny are doubted.
    """
    if not outputs or any(not _is_tiny_output(output) for output in outputs):
        return ""
    faded: list[str] = []
    handles = [
        norm.register_forward_pre_hook(_note_untrained_norm(name, faded))
        for name, norm in _norms_with_statistics(module)
    ]
    try:
        runner(module)(samples[0])
    finally:
        for handle in handles:
            handle.remove()
    return faded[0] if faded else ""


def _is_tiny_output(output: Array) -> bool:
    return output.dtype.kind in "fc" and float(np.abs(output).max(initial=0.0)) < TINY


def _norms_with_statistics(module: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and layer.running_var is not None:
            yield name, layer


def _note_untrained_norm(name: str, faded: list[str]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def note(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        inputs = arguments[0].detach()
        rest = [axis for axis in range(inputs.dim()) if axis != 1]
        shape = [1, -1] + [1] * (inputs.dim() - 2)
        energy = (inputs - mean.reshape(shape)).square().mean(rest)
        if bool(torch.median(energy / variance.clamp(min=torch.finfo(variance.dtype).tiny)) < FADED):
            faded.append(name)

    return note
