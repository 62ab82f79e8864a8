"""The int8 recipe, step by step. Both ExecuTorch and ONNX lower its result."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.records import Array, Runner, Sample

if TYPE_CHECKING:
    import torch
    from torch import Tensor, fx

    from exporter.quantize.uncorrected_layers import UncorrectedLayer


PROGRAM = "int8.pt2"
WEIGHTS = "int8-float-weights.pt"
NOTE = "int8-note.txt"


@dataclass(frozen=True, eq=False)
class Int8Program:
    """A program in int8, before it is lowered for a runtime."""

    module: fx.GraphModule
    """A PT2E module: float operators between quantise and dequantise pairs, weights stored as integers."""
    example: tuple[Tensor, ...]
    float_weights: dict[str, Tensor]
    """Layer node -> its weight before rounding, for layers that stay in float."""
    dynamic_shapes: Any = None
    """The sizes of its inputs that may differ from call to call, as `torch.export` takes them; None: none."""
    note: str = ""
    """How the program was quantised, where there was a choice. Shown to the user."""
    uncorrected: dict[str, UncorrectedLayer] = field(default_factory=dict)
    """Corrected layer node -> the layer before its correction."""

    def without_corrections(self) -> Int8Program:
        """Return the program without corrections of layers, of which a mixed program is made."""
        from exporter.quantize.uncorrected_layers import take_back_layer_corrections

        weights = {name: layer.weight for name, layer in self.uncorrected.items()}
        module = take_back_layer_corrections(self.module, self.uncorrected)
        return replace(self, module=module, float_weights={**self.float_weights, **weights}, uncorrected={})

    def program(self) -> torch.export.ExportedProgram:
        """Return the program, ready to be lowered."""
        import torch

        return torch.export.export(self.module, self.example, dynamic_shapes=self.dynamic_shapes)


def quantize_by_int8_recipe(
    program: torch.export.ExportedProgram,
    calibration: Sequence[Sample],
    scenes: Sequence[int] = (),
    least_stored: int = 0,
) -> Int8Program:
    """Quantise weights (int8 per output channel) and activations (int8 per tensor).

    Where most work is in linear layers and static ranges lose, ranges are chosen at run time
    (`dynamic`); where that loses, too, activations stay in float (`weights_only`). Both leave convolutions
    as they are, so static ranges stay where these hold too many of the weights.

    Args:
        program: A float program; it is not changed.
        calibration: Samples of one call each, with batch 1 as the program was captured. They run one by one:
            a larger batch would need a program with a dynamic batch.
        scenes: The scene of each sample; empty where each is a scene of its own.
        least_stored: The number of the weights' elements that must be stored in 8 bits.

    Raises:
        ValueError: There are no calibration samples.
    """
    from exporter.quantize import dynamic_int8, int8_scheme, sensitivity, weights_only

    if not calibration:
        raise ValueError("int8 needs calibration samples, got none")
    samples = [int8_recipe_tensors(sample) for sample in calibration]
    written = _int8_recipe_float_module(program)
    fixed = _quantize_statically(written, program.example_inputs[0], samples, scenes)
    if not dynamic_int8.is_dynamic_int8_worthwhile(written):
        return fixed
    module, weights = dynamic_int8.quantize_dynamic_int8(copy.deepcopy(written), samples)
    ways: dict[int8_scheme.Way, fx.GraphModule] = {"static": fixed.module, "dynamic": module}
    stored = {way: stored_weights_of_int8_recipe(candidate) for way, candidate in ways.items()}
    if note := int8_scheme.note_on_too_few_int8_weights(stored, least_stored):
        return replace(fixed, note=note)
    calls = int8_scheme.samples_for_int8_scheme(samples)
    judge = partial(
        int8_scheme.sqnr_of_int8_scheme,
        sensitivity.run_for_sensitivity(program.module(), calls),
        samples=calls,
    )
    reached = {way: judge(dynamic_int8.dynamic_int8_by_rows(candidate)) for way, candidate in ways.items()}
    if int8_scheme.all_int8_schemes_lose(reached):
        ways["weights only"] = weights_only.quantize_weights_only(module, weights, samples)
        reached["weights only"] = judge(ways["weights only"])
    chosen = int8_scheme.choose_int8_scheme(reached)
    if chosen.way == "static":
        return replace(fixed, note=chosen.note)
    return Int8Program(ways[chosen.way], program.example_inputs[0], weights, note=chosen.note)


def quantize_by_static_int8_recipe(
    program: torch.export.ExportedProgram,
    samples: Sequence[tuple[Tensor, ...]],
    scenes: Sequence[int] = (),
) -> Int8Program:
    """Quantise statically: all activation ranges are fixed at calibration time."""
    return _quantize_statically(
        _int8_recipe_float_module(program), program.example_inputs[0], samples, scenes
    )


def _quantize_statically(
    written: fx.GraphModule,
    example: tuple[Tensor, ...],
    samples: Sequence[tuple[Tensor, ...]],
    scenes: Sequence[int],
) -> Int8Program:
    """Quantise a copy of a float module whose layers are spelled as layers."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from exporter.quantize import (
        activation_ranges,
        annotate,
        batch_norms,
        channel_spread,
        cross_layer_equalization,
        data_movement,
        embeddings,
        float_operators,
        own_operands,
        recurrent_cells,
        recurrent_float,
        recurrent_weights,
        weight_rounding,
    )
    from exporter.quantize.graphs import copy_graph

    module = copy.deepcopy(written)
    spreads = channel_spread.channel_spread_of_norms(module)
    batch_norms.fold_batch_norms(module)
    note = cross_layer_equalization.equalize_across_layers(module, samples, spreads, scenes)
    cells = recurrent_cells.recurrent_cells(module)
    in_float = float_operators.operators_in_float(module, samples) | cells.operators
    float_recurrent = recurrent_float.recurrent_weights_in_float(module, samples)
    prepared = prepare_pt2e(module, annotate.annotating_static_quantizer(in_float))
    with torch.no_grad():
        for sample in samples:
            prepared(*sample)
    activation_ranges.choose_activation_ranges(prepared, samples, scenes)
    weights = weight_rounding.weights_before_weight_rounding(prepared)
    reference = copy_graph(prepared)
    converted = convert_pt2e(prepared)
    data_movement.share_quantisation_of_data_movement(converted)
    recurrent_weights.quantize_recurrent_weights(converted, float_recurrent)
    embeddings.quantize_embeddings(converted)
    uncorrected = weight_rounding.improve_weight_rounding(converted, weights, samples, reference, scenes)
    recurrent_cells.quantize_recurrent_cells(converted, cells)
    own_operands.give_readers_own_operands(converted)
    return Int8Program(converted, example, weights, note=note, uncorrected=uncorrected)


def _int8_recipe_float_module(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """Return the float module with its layers spelled as layers, over the program's own tensors."""
    from exporter.quantize import constant_arithmetic, empty_tensors, matmul_layers

    module = matmul_layers.with_linear_layers(program.module())
    empty_tensors.leave_out_empty_tensors(module)
    constant_arithmetic.compute_constants(module)
    return module


def save_int8_recipe(quantized: Int8Program, work: Path) -> None:
    """Write the program for the other workers of this run."""
    import torch

    torch.export.save(quantized.program(), work / PROGRAM)
    layers = [node.name for node in _int8_recipe_layers(quantized.module)]
    uncorrected = [quantized.uncorrected.get(name) for name in layers]
    torch.save(
        {
            "weights": [quantized.float_weights.get(name) for name in layers],
            "uncorrected": [None if layer is None else tuple(layer) for layer in uncorrected],
        },
        work / WEIGHTS,
    )
    (work / NOTE).write_text(quantized.note, "utf-8")


def load_int8_recipe_note(work: Path) -> str:
    """Return how the program that `save_int8_recipe` wrote was quantised, where there was a choice."""
    return (work / NOTE).read_text("utf-8")


def load_int8_recipe_program(work: Path) -> torch.export.ExportedProgram:
    """Load the program that `save_int8_recipe` wrote, to be lowered."""
    import exporter.quantize.graphs  # noqa: F401 - its operators must be known before they are read
    from exporter.quantize.saved_program import load_saved_program

    return load_saved_program(work / PROGRAM)


def load_int8_recipe(work: Path) -> Int8Program:
    """Load what `save_int8_recipe` wrote in this run's own work folder."""
    import torch

    from exporter.quantize.uncorrected_layers import UncorrectedLayer

    program = load_int8_recipe_program(work)
    module: fx.GraphModule = program.module()
    names = [node.name for node in _int8_recipe_layers(module)]
    floats = torch.load(work / WEIGHTS, mmap=True)  # as large as the network
    weights, layers = (dict(zip(names, floats[part], strict=True)) for part in ("weights", "uncorrected"))
    return Int8Program(
        module,
        program.example_inputs[0],
        {name: weight for name, weight in weights.items() if weight is not None},
        note=load_int8_recipe_note(work),
        uncorrected={name: UncorrectedLayer(*layer) for name, layer in layers.items() if layer is not None},
    )


def stored_weights_of_int8_recipe(module: fx.GraphModule) -> int:
    """Count the elements of the weights (two or more dimensions) that a module stores in 8 bits."""
    import torch

    from exporter.quantize.graphs import graph_attribute

    names = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    values = [graph_attribute(module, name) for name in names]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]  # of `cond` it is a graph
    return sum(t.numel() for t in tensors if t.dtype == torch.int8 and t.dim() > 1)


def _int8_recipe_layers(module: fx.GraphModule) -> list[fx.Node]:
    """Return the layers in order, because their names change when a program is exported again."""
    from exporter.quantize.graphs import LAYERS

    return [node for node in module.graph.nodes if node.target in LAYERS]


def int8_recipe_tensors(sample: Sample) -> tuple[Tensor, ...]:
    """Return a call's arrays as contiguous tensors of their own."""
    import numpy as np
    import torch

    return tuple(torch.from_numpy(np.array(array, order="C")) for array in sample)


def int8_recipe_runner(module: fx.GraphModule) -> Runner:
    """Return a function that runs a quantised module as XNNPACK rounds (see `integer` and `dynamic`)."""
    from exporter.quantize import dynamic_int8
    from exporter.quantize.graphs import graph_outputs
    from exporter.quantize.integer import IntegerInterpreter

    interpreter = IntegerInterpreter(dynamic_int8.dynamic_int8_by_rows(module))

    def run(sample: Sample) -> tuple[Array, ...]:
        import torch

        with torch.no_grad():
            outputs = graph_outputs(interpreter.run(*int8_recipe_tensors(sample)))
        return tuple(output.numpy().copy() for output in outputs)

    return run
