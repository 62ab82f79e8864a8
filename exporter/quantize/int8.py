"""The int8 recipe, step by step. Both ExecuTorch and ONNX lower its result."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.records import Array, Runner, Sample

if TYPE_CHECKING:
    import torch
    from torch import Tensor, fx


PROGRAM = "int8.pt2"
WEIGHTS = "int8-float-weights.pt"
NOTE = "int8-note.txt"


@dataclass(frozen=True, eq=False)
class Quantized:
    """A program in int8, before it is lowered for a runtime."""

    module: fx.GraphModule
    """A PT2E module: float operators between quantise and dequantise pairs, weights stored as integers."""
    example: tuple[Tensor, ...]
    float_weights: dict[str, Tensor]
    """Layer node -> its weight before rounding, for layers that stay in float."""
    note: str = ""
    """How the program was quantised, where there was a choice. Shown to the user."""

    def program(self) -> torch.export.ExportedProgram:
        """Return the program, ready to be lowered."""
        import torch

        return torch.export.export(self.module, self.example)


def quantize(program: torch.export.ExportedProgram, calibration: Sequence[Sample]) -> Quantized:
    """Quantise weights (int8 per output channel) and activations (int8 per tensor).

    Where most work is in linear layers and static ranges lose, ranges are chosen at run time
    (`dynamic`); where that loses, too, activations stay in float (`weights_only`).

    Args:
        program: A float program; it is not changed.
        calibration: Samples of one call each, with batch 1 as the program was captured. They run one by one:
            a larger batch would need a program with a dynamic batch.

    Raises:
        ValueError: There are no calibration samples.
    """
    from exporter.quantize import choice, dynamic, sensitivity, weights_only

    if not calibration:
        raise ValueError("int8 needs calibration samples, got none")
    samples = [tensors(sample) for sample in calibration]
    fixed = static(program, samples)
    if not dynamic.is_linear_heavy(program):
        return fixed
    module, weights = dynamic.quantize(copy.deepcopy(program.module()), samples)
    ways: dict[choice.Way, fx.GraphModule] = {"static": fixed.module, "dynamic": module}
    calls = choice.judging(samples)
    judge = partial(choice.reached, sensitivity.run(program.module(), calls), samples=calls)
    reached = {way: judge(dynamic.by_rows(candidate)) for way, candidate in ways.items()}
    if choice.all_lose(reached):
        ways["weights only"] = weights_only.quantize(module, weights, samples)
        reached["weights only"] = judge(ways["weights only"])
    chosen = choice.decide(reached)
    float_weights = fixed.float_weights if chosen.way == "static" else weights
    return Quantized(ways[chosen.way], program.example_inputs[0], float_weights, chosen.note)


def static(program: torch.export.ExportedProgram, samples: Sequence[tuple[Tensor, ...]]) -> Quantized:
    """Quantise statically: all activation ranges are fixed at calibration time."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from exporter.quantize import annotate, equalise, movement, norms, ranges, rounding, tails

    module = copy.deepcopy(program.module())
    norms.fold(module)
    equalise.equalise(module, samples)
    prepared = prepare_pt2e(module, annotate.static_quantizer(tails.float_tail(module, samples)))
    with torch.no_grad():
        for sample in samples:
            prepared(*sample)
    ranges.choose(prepared, samples)
    weights = rounding.float_weights(prepared)
    converted = convert_pt2e(prepared)
    movement.share_quantisation(converted)
    rounding.improve(converted, weights, samples)
    return Quantized(converted, program.example_inputs[0], weights)


def save(quantized: Quantized, work: Path) -> None:
    """Write the program for the other workers of this run."""
    import torch

    torch.export.save(quantized.program(), work / PROGRAM)
    torch.save([quantized.float_weights.get(node.name) for node in _layers(quantized.module)], work / WEIGHTS)
    (work / NOTE).write_text(quantized.note, "utf-8")


def load_note(work: Path) -> str:
    """Return how the program that `save` wrote was quantised, where there was a choice."""
    return (work / NOTE).read_text("utf-8")


def load_program(work: Path) -> torch.export.ExportedProgram:
    """Load the program that `save` wrote, to be lowered."""
    import torch

    import exporter.quantize.graphs  # noqa: F401 - its operators must be known before they are read

    return torch.export.load(work / PROGRAM)


def load(work: Path) -> Quantized:
    """Load what `save` wrote in this run's own work folder."""
    import torch

    program = load_program(work)
    module: fx.GraphModule = program.module()
    weights = zip(_layers(module), torch.load(work / WEIGHTS), strict=True)
    return Quantized(
        module, program.example_inputs[0], {n.name: w for n, w in weights if w is not None}, load_note(work)
    )


def stored_weights(module: fx.GraphModule) -> int:
    """Count the elements of the weights (two or more dimensions) that a module stores in 8 bits."""
    import torch

    from exporter.quantize.graphs import attribute

    names = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    values = [attribute(module, name) for name in names]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]  # of `cond` it is a graph
    return sum(t.numel() for t in tensors if t.dtype == torch.int8 and t.dim() > 1)


def _layers(module: fx.GraphModule) -> list[fx.Node]:
    """Return the layers in order, because their names change when a program is exported again."""
    from exporter.quantize.graphs import LAYERS

    return [node for node in module.graph.nodes if node.target in LAYERS]


def tensors(sample: Sample) -> tuple[Tensor, ...]:
    """Return a call's arrays as contiguous tensors of their own."""
    import numpy as np
    import torch

    return tuple(torch.from_numpy(np.array(array, order="C")) for array in sample)


def runner(module: fx.GraphModule) -> Runner:
    """Return a function that runs a quantised module as XNNPACK rounds (see `integer` and `dynamic`)."""
    from exporter.quantize import dynamic
    from exporter.quantize.graphs import outputs_of
    from exporter.quantize.integer import IntegerInterpreter

    interpreter = IntegerInterpreter(dynamic.by_rows(module))

    def run(sample: Sample) -> tuple[Array, ...]:
        import torch

        with torch.no_grad():
            outputs = outputs_of(interpreter.run(*tensors(sample)))
        return tuple(output.numpy().copy() for output in outputs)

    return run
