"""Reads what a `.pte` needs from its runtime: kernels, backends, and nodes of XNNPACK's graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.android.records import Needs, Operator
from exporter.capture.lowering_errors import shorten_lowering_error
from exporter.errors import LoweringError
from exporter.formats.executorch.delegates import read_delegate
from exporter.formats.executorch.pte import MAGIC, read_pte_program

if TYPE_CHECKING:
    from executorch.exir.schema import BackendDelegate, Program

XNNPACK = "XnnpackBackend"


def executorch_needs(path: Path) -> Needs:
    """Read the needs of all methods of a `.pte`.

    Raises:
        LoweringError: It is not a whole, well-formed `.pte` file of known delegates.
    """
    data = path.read_bytes()
    if data[4:6] != MAGIC:
        raise LoweringError(f"{path.name} is not an ExecuTorch program")
    try:
        program = read_pte_program(data).program
        delegates = [delegate for plan in program.execution_plan for delegate in plan.delegates]
        operators = {
            f"{operator.name}.{operator.overload}" if operator.overload else operator.name
            for plan in program.execution_plan
            for operator in plan.operators
        }
        return Needs(
            runtime="ExecuTorch",
            operators=tuple(Operator(name) for name in sorted(operators)),
            backends=tuple(sorted({delegate.id for delegate in delegates})),
            delegate_operators=tuple(sorted(_executorch_needs_of_nodes(program, delegates))),
            identifier=data[4:8].decode("ascii", "replace"),
        )
    except LoweringError:
        raise
    except Exception as error:  # damaged offsets make the flatbuffer reader fail in any way Python can
        raise LoweringError(f"{path.name} is damaged: {shorten_lowering_error(error)}") from error


def _executorch_needs_of_nodes(program: Program, delegates: list[BackendDelegate]) -> set[str]:
    """Return the kinds of nodes in XNNPACK's graphs."""
    return {
        kind
        for delegate in delegates
        if delegate.id == XNNPACK
        for kind in read_delegate(
            delegate.id, program.backend_delegate_data[delegate.processed.index].data
        ).operators
    }
