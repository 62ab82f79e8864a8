"""Captures a model as a graph with example inputs and named outputs.

Imports torch: only worker processes import this module.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from exporter.capture import dynamic_shapes, embedded_preprocessing, matmul_weights, randomness, state
from exporter.capture.calls import (
    FlatCallOutputs,
    OwnCallInputs,
    call_arguments,
    call_dtype_name,
    call_leaves,
    call_mutates_inputs,
    call_network,
    call_output_names,
    copy_module_for_calls,
    settle_for_calls,
)
from exporter.capture.digest import digest_program
from exporter.capture.folded_weights import with_folded_weights
from exporter.errors import CaptureError, LoweringError
from exporter.quantize.saved_program import load_saved_program
from exporter.records import Captured, DynamicSize, Model, Sample, TensorSpec

FACTS = "captured.pt"
GRAPH = "program.pt2"
MODULE = "module.pt"
SCRIPT = "module.ts"
WEIGHTS = "weights.pt"
KNOWN_OPERATORS = frozenset({
    "aten", "prims", "quantized", "_quantized", "quantized_decomposed", "torchvision", "export", "sparse",
    "mkldnn", "onednn",
})  # fmt: skip
"""The namespaces of operators that every process of an export knows."""


def capture_program(
    model: Model,
    example: Sample,
    torchscript: Literal["auto", "trace", "script"] = "auto",
    others: Sequence[Sample] = (),
    sizes: tuple[DynamicSize, ...] = (),
) -> Captured:
    """Run the model, name its outputs and export its graph.

    The captured network and its graph have the checkpoint's state: calls that change it are made on copies.

    Args:
        model: In eval mode and float32.
        example: One array per input, from real data where there is some.
        torchscript: How TorchScript is made.
        others: Further inputs, which show whether a call changes the outputs of the next.
        sizes: The sizes that may differ from call to call.

    Raises:
        CaptureError: The model does not run on the example, draws random numbers, or has fixed sizes.
    """
    module, tensors = model.module, call_arguments(example)
    settle_for_calls(module)
    fresh = copy_module_for_calls(module)
    names = [spec.name for spec in model.inputs]
    outputs = call_network(module, tensors, model.architecture, names)
    named = _captured_program_outputs(model, outputs)
    changed = _captured_program_state(fresh, (example, *others), tensors)
    module = _adapt_captured_program(fresh if changed else module, tensors, outputs)
    ranges = [size for size in sizes if not size.range.fixed]
    program, problem = _export_captured_program(
        copy_module_for_calls(module) if changed else module, tensors, ranges
    )
    if ranges and program is None:
        raise dynamic_shapes.dynamic_shapes_refusal(model.architecture, problem)
    randomness.check_randomness(fresh, tensors, program)
    lowered, folded = embedded_preprocessing.fold_embedded_preprocessing(module, program)
    if folded:
        program, problem = _export_captured_program(
            copy_module_for_calls(lowered) if changed else lowered, tensors, ranges
        )
    specs = _name_captured_program_outputs(model, named)
    return Captured(
        module=module,
        program=program,
        program_error=f"torch.export: {problem.cause}" if problem else "",
        program_source=problem.source if problem else None,
        example=tensors,
        inputs=tuple(
            replace(spec, shape=tuple(t.shape), dtype=call_dtype_name(t))
            for spec, t in zip(model.inputs, tensors, strict=True)
        ),
        outputs=specs,
        torchscript=torchscript,
        state=changed,
        variable=_variable_captured_program_outputs(program, specs),
        folded=folded,
        dynamic=sizes,
    )


def _captured_program_state(
    module: torch.nn.Module, samples: Sequence[Sample], tensors: Any
) -> tuple[str, ...]:
    """Name what a network carries from call to call; random outputs are told apart from such state.

    Raises:
        CaptureError: The network draws random numbers, or carries something that is not a tensor.
    """
    try:
        return state.state_changed_by_calls(module, samples)
    except CaptureError:
        randomness.check_randomness(module, tensors)
        raise


def _adapt_captured_program(
    module: torch.nn.Module, inputs: Sequence[torch.Tensor], outputs: Any
) -> torch.nn.Module:
    """Wrap a module that writes to its inputs, or returns anything but a tensor or a flat tuple."""
    if call_mutates_inputs(copy_module_for_calls(module), inputs):
        module = OwnCallInputs(module).eval()
    if isinstance(outputs, torch.Tensor):
        return module
    if type(outputs) is tuple and all(isinstance(item, torch.Tensor) for item in outputs):
        return module
    return FlatCallOutputs(module).eval()


def _captured_program_outputs(model: Model, outputs: Any) -> list[tuple[str, torch.Tensor]]:
    """Return the outputs by name.

    Raises:
        CaptureError: They are not tensors that can be compared.
    """
    named = list(call_leaves(outputs))
    if not named or not all(isinstance(leaf, torch.Tensor) for _, leaf in named):
        raise CaptureError(
            f"{model.architecture} returns {type(outputs).__name__},"
            " expected tensors or a tuple, list or dict of them.",
            "Wrap it in a module that returns tensors and pass that with --arch.",
        )
    for name, leaf in named:
        if leaf.layout != torch.strided or leaf.is_quantized or leaf.is_nested:
            raise CaptureError(
                f"{model.architecture} returns a {_captured_program_output_kind(leaf)} tensor"
                f"{f' ({name})' if name else ''}, expected dense ones.",
                "Wrap it in a module that returns dense tensors and pass that with --arch.",
            )
    return named


def _captured_program_output_kind(tensor: torch.Tensor) -> str:
    if tensor.is_nested:
        return "nested"
    return "quantised" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")


def _name_captured_program_outputs(
    model: Model, named: Sequence[tuple[str, torch.Tensor]]
) -> tuple[TensorSpec, ...]:
    taken = {spec.name for spec in model.inputs}
    names = [f"{name}_out" if name in taken else name for name in call_output_names(named)]
    return tuple(
        TensorSpec(name, tuple(t.shape), call_dtype_name(t))
        for name, (_, t) in zip(names, named, strict=True)
    )


def _variable_captured_program_outputs(
    program: torch.export.ExportedProgram | None, outputs: Sequence[TensorSpec]
) -> tuple[str, ...]:
    """Name the outputs whose sizes are symbols in the graph that no input has: values decide."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    if program is None:
        return ()
    (result,) = (node for node in program.graph.nodes if node.op == "output")
    values = [getattr(node, "meta", {}).get("val") for node in result.args[0]][-len(outputs) :]
    shapes = [tuple(getattr(value, "shape", ())) for value in values]
    pairs = zip(outputs, shapes, strict=False)
    return tuple(spec.name for spec, shape in pairs if free_unbacked_symbols(shape))


def _export_captured_program(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...], sizes: Sequence[DynamicSize]
) -> tuple[torch.export.ExportedProgram | None, LoweringError | None]:
    from exporter.capture.lowering_errors import lowering_error

    if sizes and isinstance(module, torch.jit.ScriptModule):
        return None, LoweringError("the graph of a TorchScript archive has fixed sizes")
    try:
        if isinstance(module, torch.jit.ScriptModule):
            from torch._export.converter import TS2EPConverter

            return TS2EPConverter(module, example).convert(), None
        plain = with_folded_weights(module)
        shapes = dynamic_shapes.torch_dynamic_shapes(plain, sizes, len(example))
        program = torch.export.export(plain, example, dynamic_shapes=shapes)
    except Exception as error:
        return None, lowering_error(error)
    if own := _operator_of_a_package(program):
        return None, LoweringError(
            f"the network calls {own}, an operator of a package's own: no format has it"
        )
    return program, None


def _operator_of_a_package(program: torch.export.ExportedProgram) -> str:
    """Name an operator that neither PyTorch nor torchvision has, and that other processes do not know."""
    operators = (
        node.target
        for module in program.graph_module.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
    )
    return next(
        (
            str(operator)
            for operator in operators
            if isinstance(operator, torch._ops.OpOverload) and operator.namespace not in KNOWN_OPERATORS
        ),
        "",
    )


def captured_program_digest(captured: Captured) -> str:
    """Hash the graph and every weight, which a build depends on, whatever code made them.

    Returns an empty string when there is no graph to take it from.
    """
    return digest_program(captured.program)


def captured_program_matrix_weights(captured: Captured) -> int:
    """Count the elements of the weights of two or more dimensions that the graph multiplies or looks up."""
    if captured.program is None:
        return sum(p.numel() for p in captured.module.parameters() if p.dim() > 1)
    return matmul_weights.count_matmul_weights(captured.program)


def save_captured_program(captured: Captured, directory: Path) -> None:
    """Write a captured model for other worker processes of this run. Private: loading runs pickled code.

    The weights of the graph are written beside it, where other processes can map them.
    """
    if isinstance(captured.module, torch.jit.ScriptModule):
        torch.jit.save(captured.module, directory / SCRIPT)
    else:
        with contextlib.suppress(Exception):  # not picklable: the others work from the graph alone
            torch.save(captured.module, directory / MODULE)
    if (program := captured.program) is not None:
        torch.save(dict(program.state_dict), directory / WEIGHTS)
        torch.export.save(_captured_program_without_weights(program), directory / GRAPH)
    torch.save(replace(captured, module=None, program=None), directory / FACTS)  # type: ignore[arg-type]


def load_captured_program(directory: Path, mapped: bool = True) -> Captured:
    """Read what `save_captured_program` wrote in this run's own work folder.

    Weights are mapped from the files: what is not used takes no memory, and processes that only read them
    share one copy.

    Args:
        directory: The work folder.
        mapped: False reads the network's own weights into memory, which copies of the network share.
    """
    captured: Captured = torch.load(directory / FACTS, weights_only=False)
    program = load_saved_program(directory / GRAPH) if (directory / GRAPH).exists() else None
    if program is not None:
        program.state_dict.update(torch.load(directory / WEIGHTS, weights_only=False, mmap=True))
    return replace(
        captured, module=_load_captured_program_module(directory, program, mapped), program=program
    )


def _load_captured_program_module(
    directory: Path, program: torch.export.ExportedProgram | None, mapped: bool
) -> torch.nn.Module:
    if (directory / SCRIPT).exists():
        return torch.jit.load(directory / SCRIPT)  # type: ignore[no-any-return, no-untyped-call]
    try:
        module: torch.nn.Module = torch.load(directory / MODULE, weights_only=False, mmap=mapped)
    except Exception as error:
        if program is None:
            raise CaptureError(
                "The network can be neither exported as a graph nor pickled for the worker processes.",
                "Define its class at the top of a module, not inside a function.",
            ) from error
        module = program.module()
    if not mapped:
        settle_for_calls(module)
    return module


def _captured_program_without_weights(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program with the same graph, whose weights are one element each."""
    light = copy.copy(program)
    light._state_dict = {
        name: _one_element_of_captured_program(weight) for name, weight in program.state_dict.items()
    }
    return light


def _one_element_of_captured_program(weight: torch.Tensor) -> torch.Tensor:
    element = torch.zeros(1, dtype=weight.dtype)
    if not isinstance(weight, torch.nn.Parameter):
        return element
    return torch.nn.Parameter(element, requires_grad=weight.requires_grad)
