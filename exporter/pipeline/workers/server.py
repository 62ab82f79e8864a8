"""The server process of `workers`: imports frameworks once, forks a child for every job, passes answers on.

It never computes, because OpenMP's threads do not survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import IO, Any

from exporter import sandbox
from exporter.capture.lowering_errors import lowering_error_in
from exporter.errors import ExportError, OverBoundsError, WorkerError
from exporter.sandbox import Confinement

ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}
"""OpenMP's threads spin for each other's time slices on a busy machine: 116 ms a call instead of 27."""


LAST_BYTES = 1 << 14
"""How much of a crashed job's output is searched for what went wrong."""
ANSWER_BYTES = 1 << 30


def server_import_path() -> tuple[str, ...]:
    """Return where this process imports from, without the entry that means the current folder."""
    return tuple(filter(None, sys.path))


@dataclass(frozen=True)
class ServerRequest:
    """A message to a server: a job, and what its process takes over from the caller."""

    log: Path
    """The file for everything that is printed meanwhile."""
    preload: tuple[str, ...]
    function: Callable[..., Any] | None = None
    """None: only the imports."""
    arguments: tuple[Any, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: Path = field(default_factory=Path.cwd)
    import_path: tuple[str, ...] = field(default_factory=server_import_path)
    own_modules: bool = False
    """Whether the job may also import from `folder`: the user's own network is defined there."""
    confinement: Confinement | None = None
    """What the job's process may do; None lets it do whatever the user may."""

    def enter(self) -> None:
        """Make this process like the caller's; a server may have been started for an earlier one.

        The folder comes last on the import path, when the frameworks are imported: nothing in it can stand in
        for one of them.
        """
        os.environ.clear()
        os.environ.update({**self.environment, **ENVIRONMENT})
        os.chdir(self.folder)
        sys.path[:] = [*self.import_path, *([str(self.folder)] if self.own_modules else [])]
        if self.confinement is not None:
            sandbox.enter_sandbox(self.confinement)


def serve_jobs(descriptor: int) -> None:
    """Serve jobs: import what a job needs, fork, let the child run the job, pass its answer on."""
    pipe = connection.Connection(descriptor)
    while True:
        try:
            request: ServerRequest = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        _print_server_to(request.log)
        _preload_in_server(request.preload)
        _freeze_server()
        if request.function is not None:
            pipe.send_bytes(_serve_in_child(pipe, request))


def _print_server_to(log: Path) -> None:
    with contextlib.suppress(OSError), log.open("ab") as stream:  # its run may have ended by now
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)


def _preload_in_server(modules: Sequence[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken framework is the job's to report, in its own words
            print(f"preload of {name} failed: {error!r}", file=sys.stderr, flush=True)  # noqa: T201 - the log


def _freeze_server() -> None:
    """Take what was imported out of garbage collection: walking it again and again costs a fifth of a job."""
    gc.collect()
    gc.freeze()


def _serve_in_child(pipe: connection.Connection, request: ServerRequest) -> bytes:
    reader, writer = os.pipe()
    output = tempfile.TemporaryFile()  # noqa: SIM115 - the child's own, so that its last words are known
    child = os.fork()
    if child == 0:
        os.close(reader)
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
        pipe.close()  # it leads to the caller, who trusts what comes out of it
        _server_child(writer, request)
    os.close(writer)
    answer = bytearray()
    while True:
        ready = connection.wait([reader, pipe])
        if pipe in ready:  # nothing is sent to a busy server: the caller is gone
            os.kill(child, signal.SIGKILL)
            os._exit(1)
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            break
        answer += chunk
        if len(answer) > ANSWER_BYTES:
            os.kill(child, signal.SIGKILL)
            answer.clear()
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with output:
        printed = _server_output_passed_on(output)
    return (
        bytes(answer) if status == 0 else pickle.dumps(_death_in_server(status, request.confinement, printed))
    )


def _server_output_passed_on(output: IO[bytes]) -> str:
    """Append what a job printed to the log, and return the end of it."""
    output.seek(0)
    sys.stdout.flush()
    with contextlib.suppress(OSError):  # the log's disk may be full
        while chunk := output.read(1 << 20):
            os.write(1, chunk)
    output.seek(max(0, output.tell() - LAST_BYTES))
    return output.read().decode(errors="replace")


def _server_child(writer: int, request: ServerRequest) -> None:
    try:
        try:
            request.enter()
            assert request.function is not None
            answer = pickle.dumps(request.function(*request.arguments))
        except MemoryError:
            answer = pickle.dumps(_is_server_child_over_memory(request.confinement))
        except Exception as error:
            import traceback

            traceback.print_exc()  # to the log
            answer = _error_from_server(error)
        with os.fdopen(writer, "wb") as stream:
            stream.write(answer)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    finally:  # never return into the server's loop
        os._exit(1)


def _is_server_child_over_memory(confinement: Confinement | None) -> WorkerError:
    if confinement is None:
        return WorkerError("The worker ran out of memory.", "Try --jobs 1.")
    return OverBoundsError(f"It needed more than {confinement.memory_bytes / 2**30:.0f} GiB of memory.")


def _error_from_server(error: Exception) -> bytes:
    """Pickle the error where it survives that, otherwise its text."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:
        return pickle.dumps(ExportError(f"{type(error).__name__}: {error}", "See export.log."))
    return data


def _death_in_server(status: int, confinement: Confinement | None, printed: str = "") -> WorkerError:
    if confinement is not None and status in (-signal.SIGALRM, -signal.SIGXCPU):
        return OverBoundsError(f"It took more than {confinement.seconds:.0f} s and was stopped.")
    if status == -signal.SIGKILL:
        return WorkerError(
            "The worker was killed (signal 9), most likely because memory ran out.", "Try --jobs 1."
        )
    end = f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"exit code {status}"
    line = lowering_error_in(printed, last=True)
    return WorkerError(f"The worker crashed with {end}{f': {line}' if line else ''}.", "See export.log.")
