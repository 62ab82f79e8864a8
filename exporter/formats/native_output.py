"""Finds a runtime's own words for a failure: native code prints them, and raises a number."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeAlias

from exporter.capture.lowering_errors import lowering_error, lowering_error_causes, lowering_error_in
from exporter.errors import LoweringError

Output: TypeAlias = "Callable[[], str]"
LONGEST = 1 << 20
"""Bytes of output that are searched."""


@contextmanager
def explain_by_native_output() -> Iterator[None]:
    """Let whatever is raised inside say what native code printed meanwhile.

    Raises:
        LoweringError: Instead of the exception: its message, and the runtime's own line.
    """
    with _explain_by_any_native_output(lambda _: True):
        yield


@contextmanager
def explain_by_native_compiler_output() -> Iterator[None]:
    """Do the same for another program that ended with an error (`flatc`), and for nothing else.

    A framework's Python code warns of much on standard error that is no cause of anything.
    """
    with _explain_by_any_native_output(_is_native_output_of_program):
        yield


@contextmanager
def _explain_by_any_native_output(is_explained: Callable[[Exception], bool]) -> Iterator[None]:
    """Let the exceptions that `is_explained` accepts say what was printed meanwhile."""
    with _collect_native_output() as output:
        try:
            yield
        except Exception as error:
            original = error
        else:
            return
        line = lowering_error_in(output()) if is_explained(original) else ""
    _raise_with_native_output(original, line)


def _raise_with_native_output(original: Exception, line: str) -> NoReturn:
    cause = lowering_error(original)
    if not line or line in cause.cause:
        raise original
    raise LoweringError(f"{cause.cause}: {line}", cause.source) from original


def _is_native_output_of_program(error: BaseException) -> bool:
    return any(
        isinstance(each, subprocess.CalledProcessError) or "returned non-zero" in str(each)
        for each in lowering_error_causes(error, contexts=True)
    )


@contextmanager
def _collect_native_output() -> Iterator[Output]:
    """Give a function that returns what was written to standard error inside the block."""
    sys.stderr.flush()
    if (start := _end_of_native_output()) is not None:  # a job's own file: nothing need be redirected
        yield lambda: _read_native_output(2, start)
        return
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: _read_native_output(file.fileno(), 0)
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.write(2, _read_native_output(file.fileno(), 0).encode())
            os.close(before)


def _end_of_native_output() -> int | None:
    """Return where standard error's file ends; None where it cannot be read (a terminal, a pipe)."""
    try:
        end = os.lseek(2, 0, os.SEEK_CUR)
        os.pread(2, 1, 0)
    except OSError:
        return None
    return end


def _read_native_output(descriptor: int, start: int) -> str:
    sys.stderr.flush()
    return os.pread(descriptor, LONGEST, start).decode(errors="replace")
