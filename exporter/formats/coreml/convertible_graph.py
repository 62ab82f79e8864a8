"""Rewrites what coremltools' reader of exported programs would convert to something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
"""ATen's recurrent layers."""
FILLS = {"aten.zeros_like": 0, "aten.ones_like": 1, "aten.full_like": None, "aten.new_full": None}
"""Operators that fill a tensor like another one -> the value; None where the second (third) argument is."""


def convertible_graph(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Decompose a program, and give tensors that are filled like another one their own type.

    coremltools takes the other's type: the float mask that attention makes of a boolean one would be boolean,
    and mean the contrary.
    """
    import torch

    program = _convertible_without_boolean_inputs(program).run_decompositions({})
    for node in program.graph.nodes:
        name = str(node.target).removesuffix(".default")
        if node.op != "call_function" or name not in FILLS or not _is_fill_convertible(node):
            continue
        filled = node.meta["val"]
        value = _value_of_fill_in_convertible_graph(node, name)
        number: Any = float(value) if filled.dtype.is_floating_point else int(value)
        node.target = torch.ops.aten.full.default
        node.args, node.kwargs = (list(filled.shape), number), {"dtype": filled.dtype}
    program.graph_module.recompile()
    return program


def _is_fill_convertible(node: Any) -> bool:
    """Tell whether a fill has another type than the tensor it is like, and sizes that are known."""
    source, filled = node.args[0].meta.get("val"), node.meta.get("val")
    if source is None or filled is None or source.dtype == filled.dtype:
        return False
    return str(filled.dtype) != "torch.bool" and all(isinstance(size, int) for size in filled.shape)


def _value_of_fill_in_convertible_graph(node: Any, name: str) -> Any:
    if FILLS[name] is not None:
        return FILLS[name]
    return node.args[2 if name == "aten.new_full" else 1]


def _convertible_without_boolean_inputs(
    program: torch.export.ExportedProgram,
) -> torch.export.ExportedProgram:
    """Let a program take integers for truth values: coremltools' reader makes floats of them."""
    import torch

    (arguments, keywords) = program.example_inputs or ((), {})
    if keywords or not any(_is_boolean_in_convertible_graph(value) for value in arguments):
        return program
    example = tuple(
        value.to(torch.int32) if _is_boolean_in_convertible_graph(value) else value for value in arguments
    )
    places = frozenset(i for i, value in enumerate(arguments) if _is_boolean_in_convertible_graph(value))

    class Integers(torch.nn.Module):
        """Calls the program with integers made truth values."""

        def __init__(self) -> None:
            super().__init__()
            self.module = program.module()

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.module(*(x.to(torch.bool) if i in places else x for i, x in enumerate(inputs)))

    return torch.export.export(Integers(), example, strict=False)


def _is_boolean_in_convertible_graph(value: Any) -> bool:
    return str(getattr(value, "dtype", "")) == "torch.bool"


def has_convertible_graph_recurrent_layers(program: torch.export.ExportedProgram) -> bool:
    """Tell whether a program has an LSTM, a GRU or a plain recurrent layer."""
    kinds = {str(node.target).partition(".")[2].partition(".")[0] for node in program.graph.nodes}
    return bool(kinds & RECURRENT)
