"""Turns a framework's exception into one sentence and the line of the user's model that caused it."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.capture.unknown_operators import unknown_operator
from exporter.errors import LoweringError

if TYPE_CHECKING:
    import torch

MAX_CAUSE_CHARACTERS = 300

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Where frameworks stop saying what went wrong and start giving general advice or their own stack.
_ADVICE = re.compile(
    r"Traceback \(most recent|Original traceback|[Ff]rom user code|[Ww]hile executing|Stack trace|Next steps:"
    r"|There are a few things to try|For more (?:information|debugging)|For extended logs|For C\+\+ stack"
    r"|Exception raised from|The following call raised|The error above occurred|consider using data-dependent"
    r"|See the stack trace|\(Refer to the full stack|\n⬆|\(https?://"
)
_CONTROL_FLOW = re.compile(r"<torch\._higher_order_ops\.(\w+)\.\w+ object at 0x[0-9a-f]+>")
"""How Python prints PyTorch's operators of branches and loops, with an address that changes."""
_ERROR = re.compile(
    r"fail|missing|not found|no kernel|\berror\b|must |invalid|unsupported|not supported|cannot|can't"
    r"|mismatch|expected|out of memory|unable|assert",
    re.IGNORECASE,
)
_CONSEQUENCE = re.compile(
    r"compileModel failed: 0x|Init failed for backend|KernelCall failed|instructions don't have|midr|cpuinfo"
    r"|CPU info|loading of method|Traceback|Warning|^\s*(INFO|DEBUG|WARNING)\b|^\s*File \"|^\s*raise "
    r"|0x[0-9a-f]+$",
)
"""Lines that only pass a failure on, or that have nothing to do with one."""
_ORIGIN = re.compile(r"^\[[\w./+-]+:\d+\]\s*")
_NOT_USER_CODE = (str(Path(__file__).parents[1]), sysconfig.get_paths()["stdlib"])


def lowering_error(
    error: BaseException, program: torch.export.ExportedProgram | None = None
) -> LoweringError:
    """Say in one sentence why a framework gave up, and where in the user's model.

    Args:
        error: What the framework raised. Its explicit causes (`raise … from …`) are followed to the first.
        program: The network being lowered: where the message only names an operator, the operator's first use
            in the program gives the line.

    Returns:
        The error to raise `from` the original. A `LoweringError` is returned itself.
    """
    if isinstance(error, LoweringError):
        return error
    chain = list(lowering_error_causes(error))
    texts = [_COLOUR.sub("", str(e)) for e in chain]
    sources = [lowering_error_source_in_text(text) for text in reversed(texts)]
    sources += [lowering_error_source(e) for e in reversed(chain)]
    if unknown := unknown_operator(texts, program):
        cause, line = unknown
        return LoweringError(cause, line or next((s for s in sources if s), None))
    if program is not None:
        sources += [_lowering_error_operator(text, program) for text in reversed(texts)]
    return LoweringError(shorten_lowering_error(chain[-1]), next((s for s in sources if s), None))


def shorten_lowering_error(error: BaseException) -> str:
    """Cut a framework's message down to what was wrong: one line, no advice, no stack."""
    text = _CONTROL_FLOW.sub(r"torch's \1", _COLOUR.sub("", str(error)).strip())
    first = _ADVICE.split(text, maxsplit=1)[0] or text
    line = " ".join(first.split()).rstrip(' ."')
    if not line:
        return type(error).__name__
    if len(line) > MAX_CAUSE_CHARACTERS:
        line = line[: MAX_CAUSE_CHARACTERS - 1] + "…"
    # A bare KeyError('x') says nothing without its class.
    return f"{type(error).__name__}: {line}" if len(line.split()) < 3 else line


def lowering_error_in(text: str, last: bool = False) -> str:
    """Return the first line of a program's output that says what went wrong; empty when none does.

    A runtime prints the cause first, and then each level that passes it on. `last` starts at the other end.
    """
    lines = text.splitlines()
    for line in reversed(lines) if last else lines:
        if _ERROR.search(line) and not _CONSEQUENCE.search(line):
            return _ORIGIN.sub("", line.strip()).rstrip(" .:")[:300]
    return ""


def lowering_error_source_in_text(text: str) -> str | None:
    """Return the innermost `file:line` of the user's own code in a printed stack trace, if there is one."""
    frames = [(file, line) for file, line in _FRAME.findall(text) if is_lowering_error_of_user(file)]
    return f"{frames[-1][0]}:{frames[-1][1]}" if frames else None


def lowering_error_causes(error: BaseException, contexts: bool = False) -> Iterator[BaseException]:
    """Yield an exception and its causes, each once: a framework that raises an old one again makes a circle.

    Args:
        error: The exception to start with.
        contexts: Where an exception has no explicit cause, go on with the one that was being handled.
    """
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (cause.__context__ if contexts else None)


def is_lowering_error_of_user(file: str) -> bool:
    """Tell whether a file belongs neither to Python, nor to an installed package, nor to us."""
    installed = "site-packages" in file or "dist-packages" in file
    return not (installed or file.startswith(("<", *_NOT_USER_CODE)))


def lowering_error_source(error: BaseException) -> str | None:
    """Return the innermost `file:line` of the user's own code on the way to an exception, if there is one."""
    return lowering_error_source_in_text("".join(traceback.format_tb(error.__traceback__)))


def _lowering_error_operator(text: str, program: torch.export.ExportedProgram) -> str | None:
    for node in program.graph.nodes:
        # Decomposition renames `linalg_svd` to `_linalg_svd`: the leading underscores don't count.
        name = getattr(node.target, "_opname", "").lstrip("_")
        if name and re.search(rf"(?:\.|::|\bnode |\bop )_*{re.escape(name)}\b", text):
            return lowering_error_source_in_text(node.stack_trace or "")
    return None
