"""A model becomes a graph with example inputs and named outputs, and its float64 self becomes the reference.

Imports torch: only worker processes import this module.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from exporter.capture import matmul_weights, rounding
from exporter.errors import CaptureError, LoweringError
from exporter.records import Captured, Model, Runner, Sample, TensorSpec
from exporter.verify.compare import max_error
from exporter.verify.reference_io import Evidence, Stacks, stack


def capture(
    model: Model, example: Sample, torchscript: Literal["auto", "trace", "script"] = "auto"
) -> Captured:
    """Run the model once, name its outputs and export its graph.

    Args:
        model: Eval, float32.
        example: One array per input, from real data where there is some.
        torchscript: How TorchScript is made.

    Raises:
        CaptureError: The model does not run on the example.
    """
    # A contiguous copy: the example's memory layout is baked into some programs.
    tensors = tuple(torch.from_numpy(array).clone(memory_format=torch.contiguous_format) for array in example)
    with torch.inference_mode():
        outputs = _first_run(model, tensors)
    module = _flat(model.module, outputs)
    tensors = tuple(t.clone() for t in tensors)
    program, problem = _export(module, tensors)
    return Captured(
        module=module,
        program=program,
        program_error=f"torch.export: {problem.cause}" if problem else "",
        program_source=problem.source if problem else None,
        example=tensors,
        inputs=tuple(
            replace(spec, shape=tuple(t.shape), dtype=_dtype_name(t))
            for spec, t in zip(model.inputs, tensors, strict=True)
        ),
        outputs=_name_outputs(model, outputs),
        torchscript=torchscript,
    )


def _first_run(model: Model, tensors: tuple[torch.Tensor, ...]) -> Any:
    shapes = ", ".join(
        f"{s.name} {list(t.shape)} {_dtype_name(t)}" for s, t in zip(model.inputs, tensors, strict=True)
    )
    try:
        outputs = model.module(*tensors)
    except Exception as error:
        raise CaptureError(
            f"{model.architecture} does not run on {shapes}: {first_line(error)}",
            "Give the shapes it was trained on with --input-shape.",
        ) from error
    leaves = list(_leaves(outputs))
    if not leaves or not all(isinstance(leaf, torch.Tensor) for _, leaf in leaves):
        raise CaptureError(
            f"{model.architecture} returns {type(outputs).__name__},"
            " expected tensors or a tuple, list or dict of them.",
            "Wrap it in a module that returns tensors and pass that with --arch.",
        )
    return outputs


def _leaves(value: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    """(name, tensor) for every tensor in nested tuples, lists and dicts, in the order torch flattens them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}_{key}" if name else str(key))
    elif isinstance(value, tuple | list):
        fields = getattr(value, "_fields", range(len(value)))
        for key, item in zip(fields, value, strict=True):
            if item is not None:
                yield from _leaves(item, f"{name}_{key}" if name else str(key))
    else:
        yield name, value


def _name_outputs(model: Model, outputs: Any) -> tuple[TensorSpec, ...]:
    leaves = list(_leaves(outputs))
    names = [name for name, _ in leaves]
    if len(leaves) == 1 and not names[0]:
        names = ["logits" if leaves[0][1].dim() == 2 and leaves[0][1].shape[1] > 1 else "output"]
    names = [f"output_{name}" if name.isdigit() else name for name in names]
    taken = {spec.name for spec in model.inputs}
    names = [f"{name}_out" if name in taken else name for name in names]
    return tuple(
        TensorSpec(name, tuple(t.shape), _dtype_name(t)) for name, (_, t) in zip(names, leaves, strict=True)
    )


def _flat(module: torch.nn.Module, outputs: Any) -> torch.nn.Module:
    """The module itself where it returns a tensor or a flat tuple, else a wrapper that flattens."""
    if isinstance(outputs, torch.Tensor):
        return module
    if type(outputs) is tuple and all(isinstance(item, torch.Tensor) for item in outputs):
        return module
    return FlatOutputs(module).eval()


class FlatOutputs(torch.nn.Module):
    """Returns another module's nested outputs as one tuple of tensors."""

    def __init__(self, wrapped: torch.nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(leaf for _, leaf in _leaves(self.wrapped(*inputs)))


def _export(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...]
) -> tuple[torch.export.ExportedProgram | None, LoweringError | None]:
    from exporter.capture.lowering_errors import lowering_error

    try:
        if isinstance(module, torch.jit.ScriptModule):
            from torch._export.converter import TS2EPConverter

            return TS2EPConverter(module, example).convert(), None
        return torch.export.export(module, example), None
    except Exception as error:
        return None, lowering_error(error)


def digest(captured: Captured) -> str:
    """A sha256 over the graph and every weight: what a build depends on, whatever code made it.

    Returns an empty string when there is no graph to take it from.
    """
    if captured.program is None:
        return ""
    total = hashlib.sha256(captured.program.graph_module.code.encode())
    total.update(str(captured.program.graph_signature).encode())
    tensors = dict(captured.program.state_dict) | {
        name: value for name, value in captured.program.constants.items() if isinstance(value, torch.Tensor)
    }
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def matrix_weights(captured: Captured) -> int:
    """Elements of the weights of two or more dimensions that the graph multiplies with or looks up."""
    if captured.program is None:
        return sum(p.numel() for p in captured.module.parameters() if p.dim() > 1)
    return matmul_weights.count(captured.program)


def reference(
    captured: Captured, samples: Sequence[Sample], edges: Mapping[str, Sample]
) -> tuple[Evidence, tuple[str, ...]]:
    """Run the model in float64 on every sample and edge input, and in float32 to learn its own error.

    Returns:
        The evidence, and notes on how the reference was made.
    """
    exact, dtype, notes = _float64(captured)
    single = runner(captured.module)
    expected, actual = [exact(s) for s in samples], [single(s) for s in samples]
    edge_expected = [exact(s) for s in edges.values()]
    edge_actual = [single(s) for s in edges.values()]
    edge_floors = [_floor([y], [a]) for y, a in zip(edge_expected, edge_actual, strict=True)]
    nudged, edge_nudged = (
        _nudged(captured, expected, samples),
        _nudged(captured, expected, list(edges.values())),
    )
    evidence = Evidence(
        inputs=stack(samples),
        reference=stack(expected),
        edge_inputs=stack(list(edges.values())),
        edge_reference=stack(edge_expected),
        edge_names=tuple(edges),
        floor=_floor(expected, actual),
        edge_floor=max((floor for floor in edge_floors if math.isfinite(floor)), default=0.0),
        reference_dtype=dtype,
        edge_floors=tuple(edge_floors),
        eager_errors=rounding.eager_errors(expected, actual, nudged),
        edge_unstable=rounding.eager_errors(edge_expected, edge_actual, edge_nudged),
    )
    return evidence, notes


def _nudged(captured: Captured, expected: Sequence[Sample], samples: Sequence[Sample]) -> list[Stacks]:
    """Run with other roundings, where an output is a choice that rounding can turn: class numbers, masks."""
    if all(output.dtype.kind in "fc" for output in expected[0]):
        return []
    return rounding.nudged_outputs(captured.module, _copy, runner, samples)


def _floor(expected: Sequence[Sample], actual: Sequence[Sample]) -> float:
    pairs = zip(stack(expected), stack(actual), strict=True)
    return max(max_error(y, a) for y, a in pairs)


def _float64(captured: Captured) -> tuple[Runner, str, tuple[str, ...]]:
    """The model in float64; in float32, and saying so, where its code insists on float32."""
    try:
        exact = runner(_copy(captured.module).double(), widen=True)
        outputs = exact(tuple(t.numpy() for t in captured.example))
        reason = "its output stays float32" if any(o.dtype == "float32" for o in outputs) else ""
    except Exception as error:
        reason = first_line(error)
    if not reason:
        return exact, "float64", ()
    note = f"The reference is eager float32, not float64: the model does not run in float64 ({reason})."
    return runner(captured.module), "float32", (note,)


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _copy(module: torch.nn.Module) -> torch.nn.Module:
    if isinstance(module, torch.jit.ScriptModule):
        buffer = io.BytesIO()
        torch.jit.save(module, buffer)
        buffer.seek(0)
        return torch.jit.load(buffer)  # type: ignore[no-any-return, no-untyped-call]
    return copy.deepcopy(module)


def runner(module: torch.nn.Module, widen: bool = False) -> Runner:
    """Call a module with arrays; `widen` turns float inputs into float64 first."""

    def run(sample: Sample) -> Sample:
        tensors = [torch.from_numpy(array) for array in sample]
        if widen:
            tensors = [t.double() if t.is_floating_point() else t for t in tensors]
        with torch.inference_mode():
            outputs = module(*tensors)
        return tuple(leaf.numpy().copy() for _, leaf in _leaves(outputs))

    return run


def save(captured: Captured, directory: Path) -> None:
    """Write a captured model for other worker processes of this run. Private: loading runs pickled code."""
    if isinstance(captured.module, torch.jit.ScriptModule):
        torch.jit.save(captured.module, directory / "module.ts")
    else:
        with contextlib.suppress(Exception):  # not picklable: the others work from the program alone
            torch.save(captured.module, directory / "module.pt")
    if captured.program is not None:
        torch.export.save(captured.program, directory / "program.pt2")
    torch.save(replace(captured, module=None, program=None), directory / "captured.pt")  # type: ignore[arg-type]


def load(directory: Path) -> Captured:
    """Read what `save` wrote in this run's own work folder."""
    captured: Captured = torch.load(directory / "captured.pt", weights_only=False)
    program = torch.export.load(directory / "program.pt2") if (directory / "program.pt2").exists() else None
    return replace(captured, module=_load_module(directory, program), program=program)


def _load_module(directory: Path, program: torch.export.ExportedProgram | None) -> torch.nn.Module:
    if (directory / "module.ts").exists():
        return torch.jit.load(directory / "module.ts")  # type: ignore[no-any-return, no-untyped-call]
    try:
        return torch.load(directory / "module.pt", weights_only=False)  # type: ignore[no-any-return]
    except Exception as error:
        if program is None:
            raise CaptureError(
                "The network can be neither exported as a graph nor pickled for the worker processes.",
                "Define its class at the top of a module, not inside a function.",
            ) from error
        return program.module()


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
