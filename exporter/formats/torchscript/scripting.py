"""Chooses between tracing and scripting: a trace keeps only the path that the example took."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from exporter.capture.lowering_errors import lowering_error, shorten_lowering_error
from exporter.capture.unknown_operators import unknown_operator
from exporter.errors import LoweringError
from exporter.records import Captured

if TYPE_CHECKING:
    import torch

_READS_VALUES = frozenset({"aten.item.default", "aten._local_scalar_dense.default", "cond", "while_loop"})
"""Operators through which a tensor's values decide what a graph computes."""


def script_or_trace(captured: Captured) -> tuple[torch.jit.ScriptModule, tuple[str, ...]]:
    """Turn the module into TorchScript, in the way of `captured.torchscript`.

    "auto" scripts when a trace would lose control flow: when the network has no graph (`torch.export` refuses
    data-dependent branches, and a trace passes some of them, like `torch.equal`, in silence), and when the
    tracer warns that values turned into Python's while the graph does read values.

    Returns:
        The module, and notes on what was chosen and why.

    Raises:
        LoweringError: It can neither be scripted nor faithfully traced, or not in the requested way.
    """
    import torch

    module = captured.module
    if isinstance(module, torch.jit.ScriptModule):
        return module, ("The model is already TorchScript: used unchanged.",)
    if captured.torchscript == "script":
        return _script_module(module), ("Scripted, as asked.",)
    if captured.torchscript == "trace":
        traced, lost = _trace_for_scripting(captured)
        return traced, ("Traced, as asked.", *(f"The trace may be wrong for other inputs: {w}" for w in lost))
    if captured.program is None:
        return _script_before_tracing(captured)
    return _trace_before_scripting(captured, captured.program)


def trace_instead_of_scripting(captured: Captured) -> torch.jit.ScriptModule | None:
    """Trace a network whose graph reads no values, so that the trace is right for all inputs; else None."""
    import torch

    scripted = isinstance(captured.module, torch.jit.ScriptModule)
    if scripted or captured.program is None or _scripting_reads_values(captured.program):
        return None
    return _trace_for_scripting(captured)[0]


def _trace_before_scripting(
    captured: Captured, program: torch.export.ExportedProgram
) -> tuple[torch.jit.ScriptModule, tuple[str, ...]]:
    try:
        traced, lost = _trace_for_scripting(captured)
    except Exception as error:
        reason = f"it cannot be traced ({shorten_lowering_error(error)})"
    else:
        # A graph without such operators proves that the warnings are about shapes, which are fixed here.
        if not lost or not _scripting_reads_values(program):
            return traced, ("Traced.",)
        reason = f"a trace would lose control flow ({lost[0]})"
    try:
        return _script_module(captured.module), (f"Scripted, because {reason}.",)
    except LoweringError as error:
        if unknown := unknown_operator([reason], program):
            raise LoweringError(*unknown) from error
        raise LoweringError(f"{error.cause}. Scripting was needed because {reason}", error.source) from error


def _script_before_tracing(captured: Captured) -> tuple[torch.jit.ScriptModule, tuple[str, ...]]:
    reason = f"torch.export could not follow its control flow or operators ({captured.program_error})"
    try:
        return _script_module(captured.module), (f"Scripted, because {reason}.",)
    except LoweringError as error:
        why, source = error.cause, error.source
    try:
        traced, lost = _trace_for_scripting(captured)
    except Exception as error:
        raise lowering_error(error) from error
    if lost or "data-dependent" in captured.program_error.lower():
        detail = lost[0] if lost else captured.program_error
        raise LoweringError(f"{why}. A trace would lose control flow: {detail}", source)
    return traced, (f"Traced, because it cannot be scripted ({why}); the tracer saw no control flow.",)


def _scripting_reads_values(program: torch.export.ExportedProgram) -> bool:
    return any(str(node.target) in _READS_VALUES for node in program.graph.nodes)


def _trace_for_scripting(captured: Captured) -> tuple[torch.jit.ScriptModule, list[str]]:
    """Return the trace, and the tracer's warnings of what it may have lost, each with its line."""
    import torch
    from torch.jit._trace import TracerWarning

    from exporter.capture.calls import copy_module_for_calls

    module = captured.module
    if (captured.state or (captured.folded and not captured.ranges)) and captured.program is not None:
        # A trace of the module itself loses `self.cache = x`; in the graph that is a copy into the buffer.
        # And the graph alone has the normalisation of pixels folded; but a trace of it fixes sizes.
        module = copy_module_for_calls(captured.program.module())
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        # Verification compares the outputs on many inputs: the tracer's own check on one would add nothing.
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            module, tuple(t.clone() for t in captured.example), check_trace=False, strict=False
        )
    if captured.state and captured.program is not None:
        _restore_after_scripting(traced, captured.program.state_dict)
    lost = [w for w in caught if issubclass(w.category, TracerWarning)]
    return traced, [
        f"{shorten_lowering_error(Warning(_first_sentence_of_scripting(w)))} at {w.filename}:{w.lineno}"
        for w in lost
    ]


def _restore_after_scripting(traced: torch.jit.ScriptModule, state: Mapping[str, torch.Tensor]) -> None:
    """Undo the changes of the traced call to the buffers."""
    import torch

    with torch.no_grad():
        for name, buffer in traced.named_buffers():
            if name in state:
                buffer.copy_(state[name])


def _first_sentence_of_scripting(warning: warnings.WarningMessage) -> str:
    return str(warning.message).split(". ", maxsplit=1)[0]


def _script_module(module: torch.nn.Module) -> torch.jit.ScriptModule:
    import torch

    from exporter.capture.calls import unwrapped_call

    # Variable arguments can't be scripted, and need not be: our runner flattens outputs and copies inputs.
    module = unwrapped_call(module)
    try:
        return torch.jit.script(module)
    except Exception as error:
        raise lowering_error(error) from error
