"""Calls one function in a confined child of this process, and takes only an answer in JSON from it."""

from __future__ import annotations

import faulthandler
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from exporter.sandbox.confinement import Confinement

ANSWER_BYTES = 16 << 20


class _Silence(io.TextIOBase):
    """A stream that takes text and keeps nothing, without a file behind it."""

    def write(self, text: str, /) -> int:
        return len(text)


class ChildFailed(Exception):  # noqa: N818 - the caller says what it means for the file
    """The child gave no answer; the text says what ended it."""

    def __init__(self, reason: str, over_bounds: bool = False) -> None:
        super().__init__(reason)
        self.over_bounds = over_bounds
        """Whether it took more time or memory than it may."""


def call_in_child(function: Callable[[], Any], confinement: Confinement) -> Any:
    """Call `function` in a forked child that enters the confinement first; what it prints goes nowhere.

    Returns:
        Its result, which must be JSON.

    Raises:
        ChildFailed: It crashed, took too long or too much memory, or raised.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child_answer(function, confinement, writer)
    os.close(writer)
    answer = _read_from_child(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0 or len(answer) > ANSWER_BYTES:
        raise ChildFailed(_child_ending(status, confinement), status in (-signal.SIGALRM, -signal.SIGXCPU))
    kind, value = json.loads(answer)
    if kind != "ok":
        raise ChildFailed(value, over_bounds=kind == "memory")
    return value


def _read_from_child(reader: int) -> bytes:
    """What the child writes; too much of it is cut, and then the child fails to write the rest."""
    with os.fdopen(reader, "rb") as stream:
        return stream.read(ANSWER_BYTES + 1)


def _child_answer(function: Callable[[], Any], confinement: Confinement, writer: int) -> NoReturn:
    from exporter import sandbox

    try:
        # A process that is confined already may open nothing to write, not even /dev/null.
        unread, silence = os.pipe()
        os.close(unread)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor in (1, 2):
            os.dup2(silence, descriptor)
        faulthandler.disable()
        sys.stdout = sys.stderr = _Silence()  # they may lead elsewhere
        sandbox.enter_sandbox(confinement)
        try:
            answer = ("ok", function())
        except MemoryError:
            answer = ("memory", "it needs more memory than it may have")
        except Exception as error:
            answer = ("error", f"{type(error).__name__}: {str(error).strip()}"[:2000])
        with os.fdopen(writer, "wb") as stream:
            stream.write(json.dumps(answer).encode())
        os._exit(0)
    finally:  # never return into the caller's code
        os._exit(1)


def _child_ending(status: int, confinement: Confinement) -> str:
    if status in (-signal.SIGALRM, -signal.SIGXCPU):
        return f"it takes more than {confinement.seconds:.0f} s"
    if status < 0:
        return f"it crashes PyTorch ({signal.Signals(-status).name})"
    return f"its process ended with exit code {status}"
