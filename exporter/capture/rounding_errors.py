"""Measures what rounding alone does to a model: float32's error, and the class numbers that it decides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.records import Array, Runner, Sample
from exporter.verify.infinite import without_infinite
from exporter.verify.reference_io import Stacks, stack_reference_io

if TYPE_CHECKING:
    import torch

NUDGE = 1e-6
"""Relative change of weights and inputs: about ten roundings of float32, as in another runtime's sums."""
HALF_STEP = 2.0**-24
"""Half a step of float32, relative: one rounding."""
STEP = 2.0**-23
"""A step of float32, relative: rounding anew."""
TRIALS = 2
SIZE_TRIALS = 5
"""Trials of an output's size: one score at a threshold is as often above it as below."""


def rounding_errors(expected: Sequence[Sample], actual: Sequence[Sample], nudged: Sequence[Stacks]) -> Stacks:
    """Return what rounding does to each output.

    Args:
        expected: The reference's outputs, a tuple per sample.
        actual: Eager float32's outputs.
        nudged: Stacked outputs of float32 runs whose weights and inputs were changed by `NUDGE`.

    Returns:
        For a float or complex output its largest absolute error per element over the samples, float32. For
        any other output a boolean per value: whether rounding changes it, so that no artifact can be
        expected to match it.
    """
    reference, single = stack_reference_io(expected), stack_reference_io(actual)
    pairs = zip(without_infinite(reference, reference), without_infinite(reference, single), strict=True)
    return tuple(_rounding_errors(y, a, [trial[i] for trial in nudged]) for i, (y, a) in enumerate(pairs))


def _rounding_errors(reference: Array, actual: Array, nudged: Sequence[Array]) -> Array:
    if reference.dtype.kind not in "fc":
        unstable: Array = np.any([reference != run for run in (actual, *nudged)], axis=0)
        return unstable
    wide = np.complex128 if reference.dtype.kind == "c" else np.float64
    with np.errstate(invalid="ignore"):  # of two infinities there is no difference: NaN
        errors: Array = np.abs(actual.astype(wide) - reference.astype(wide)).max(axis=0).astype(np.float32)
    return errors


def run_nudged_rounding_errors(
    module: torch.nn.Module,
    copy: Callable[[torch.nn.Module], torch.nn.Module],
    runner: Callable[[torch.nn.Module], Runner],
    samples: Sequence[Sample],
) -> list[Stacks]:
    """Run float32 copies of a model with weights and inputs changed by `NUDGE`, `TRIALS` times.

    Two more runs change nothing but which of equal values a top-k or a sort takes first. A model that
    has neither, or refuses changed inputs, has fewer runs.
    """
    from exporter.capture.other_ties import TiesFromOneEnd

    runs: list[Stacks] = []
    for seed in range(TRIALS):
        with contextlib.suppress(Exception):  # the model's own code may raise anything
            runs.append(_run_nudged_rounding_errors_once(copy(module), runner, samples, seed))
    for last in (False, True):
        with contextlib.suppress(Exception), TiesFromOneEnd(last) as mode:
            run = runner(copy(module))
            first = run(samples[0])
            if mode.used:
                runs.append(stack_reference_io([first, *map(run, samples[1:])]))
    return runs


def _run_nudged_rounding_errors_once(
    module: torch.nn.Module,
    runner: Callable[[torch.nn.Module], Runner],
    samples: Sequence[Sample],
    seed: int,
) -> Stacks:
    run = rounding_errors_runner(module, runner, seed)
    return stack_reference_io([run(sample) for sample in samples])


def rounding_errors_runner(
    module: torch.nn.Module,
    runner: Callable[[torch.nn.Module], Runner],
    seed: int,
    size: float = NUDGE,
) -> Runner:
    """Return a runner of a network whose weights and given inputs are changed by a share `size`."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1 + size * torch.randn(tensor.shape, generator=generator))
    run, random = runner(module), np.random.default_rng(seed)
    return lambda sample: run(tuple(_nudge_for_rounding_errors(array, random, size) for array in sample))


def round_anew(sample: Sample) -> Sample:
    """Change every float of an input by about half a step of float32, always in the same way."""
    random = np.random.default_rng(0)
    return tuple(_nudge_for_rounding_errors(array, random, HALF_STEP) for array in sample)


def _nudge_for_rounding_errors(array: Array, random: np.random.Generator, size: float = NUDGE) -> Array:
    if array.dtype.kind != "f":
        return array
    noise = 1 + size * random.standard_normal(array.shape)
    changed: Array = (array * noise).astype(array.dtype)
    return changed
