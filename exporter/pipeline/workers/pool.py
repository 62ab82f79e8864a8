"""Runs jobs in processes of their own: a framework that crashes takes down one job, not the export.

Each slot has a server process (`serving`) that imports frameworks once and forks a child for every job:
children start at once, cannot disturb each other, and give their memory back. What frameworks print goes to
the log file.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from exporter import held
from exporter.errors import WorkerError
from exporter.pipeline.workers import answers
from exporter.pipeline.workers.server import ENVIRONMENT, Request, import_path
from exporter.sandbox import Confinement

_SERVER = "import sys; from exporter.pipeline.workers.server import serve; serve(int(sys.argv[1]))"


@dataclass(frozen=True, eq=False)
class Job:
    """One function call in a worker. `function` must be importable; arguments and result must pickle."""

    label: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    preload: tuple[str, ...] = ()
    """Modules the server imports before forking, so that the next job finds them imported."""
    cost_s: float = 1.0
    """Rough seconds; longer jobs start first."""
    after: Job | None = None
    """Starts when that one has ended; an error of that one is this one's too."""
    read_only: bool = False
    """Runs an artifact: its process writes nothing, whatever the pool's other jobs may do."""
    scratch: bool = False
    """A read-only job may write to a folder of its own and start programs, until it tightens its sandbox."""
    seconds: float | None = None
    """Bound on its wall time, in place of the confinement's."""


@dataclass(frozen=True)
class Rights:
    """What the jobs of one pool may do."""

    confinement: Confinement | None = None
    """None lets them do whatever the user may."""
    own_code: bool = False
    """Whether the user vouches for code that the jobs run, of the checkpoint or of the current folder.

    Only jobs that run artifacts are confined then, and the others may import from the current folder.
    """

    def request(self, log: Path, job: Job, scratch: Path) -> Request:
        """Return the message that starts a job with these rights."""
        confinement = self.confinement
        if confinement is not None and job.read_only:
            confinement = replace(
                confinement,
                reads=(*confinement.reads, *confinement.writes),
                writes=(scratch,) if job.scratch else (),
                forks=job.scratch,
                programs=job.scratch,
            )
        elif self.own_code:
            confinement = None
        if confinement is not None and job.seconds is not None:
            confinement = replace(confinement, seconds=job.seconds)
        return Request(
            log,
            job.preload,
            job.function,
            job.arguments,
            own_modules=self.own_code and not job.read_only,
            confinement=confinement,
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    job: Job
    value: Any = None
    error: Exception | None = None

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class Workers:
    """A pool of `count` slots. Use as a context manager; leaving it kills whatever still runs."""

    def __init__(self, count: int, log: Path, rights: Rights | None = None) -> None:
        self._closing = threading.Event()
        self._slots = [_Slot(log, self._closing, rights or Rights()) for _ in range(count)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()  # before the kills: a thread whose server died would start the next one
        for slot in self._slots:
            slot.close()

    def warm(self, modules: Sequence[str]) -> None:
        """Import modules in every slot but the first, while the first one is busy with a lone job."""
        for slot in self._slots[1:]:
            slot.warm(tuple(modules))

    def run(
        self,
        jobs: Sequence[Job],
        on_event: Callable[[str, Job], None] | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
    ) -> list[Outcome]:
        """Run all jobs and return their outcomes in the order given.

        Args:
            jobs: A job that raises or dies is an outcome with `error`; the others go on.
            on_event: Called with "start" and "end" from worker threads.
            on_outcome: Called with each outcome as soon as it is there, one at a time.
        """
        queue, lock = _Queue(jobs, self._closing), threading.Lock()
        outcomes: dict[Job, Outcome] = {}

        def serve(slot: _Slot) -> None:
            while not self._closing.is_set() and (job := queue.take(slot.warmed)) is not None:
                if on_event:
                    on_event("start", job)
                failed = outcomes[job.after].error if job.after else None
                outcome = Outcome(job, error=failed) if failed else slot.run(job)
                with lock:
                    outcomes[job] = outcome
                    if on_outcome:
                        on_outcome(outcome)
                queue.end(job)
                if on_event:
                    on_event("end", job)

        threads = [threading.Thread(target=serve, args=(slot,), daemon=True) for slot in self._slots]
        for thread in threads[: len(jobs)]:
            thread.start()
        try:
            for thread in threads[: len(jobs)]:
                while thread.is_alive():  # a bare join() would not be interrupted by Ctrl-C
                    thread.join(0.1)
        except KeyboardInterrupt:
            queue.clear()
            for slot in self._slots:
                slot.close()  # what runs is given up; a caller who goes on gets new servers
            raise
        return [outcomes[job] for job in jobs]


@dataclass(eq=False)
class _Queue:
    waiting: Sequence[Job]
    closing: threading.Event
    _ended: set[Job] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.waiting = list(self.waiting)

    def take(self, warmed: set[str]) -> Job | None:
        """Return the longest job whose modules this slot has already imported; failing that, the longest.

        Waits while all that is left comes after a job that is still running.
        """
        with self._changed:
            while self.waiting and not self.closing.is_set():
                ready = [job for job in self.waiting if job.after is None or job.after in self._ended]
                if ready:
                    best = max(ready, key=lambda job: (warmed.issuperset(job.preload), job.cost_s))
                    self.waiting = [job for job in self.waiting if job is not best]
                    return best
                self._changed.wait(0.1)  # not for ever: closing does not notify
            return None

    def clear(self) -> None:
        """Start nothing more."""
        with self._changed:
            self.waiting = []
            self._changed.notify_all()

    def end(self, job: Job) -> None:
        with self._changed:
            self._ended.add(job)
            self._changed.notify_all()


class _Server:
    """The caller's end of one server process."""

    def __init__(self, log: Path) -> None:
        ours, theirs = socket.socketpair()
        with log.open("ab") as stream, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVER, str(theirs.fileno())],
                env=os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(import_path())},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # Ctrl-C reaches the caller alone, who then closes the slots
            )
        self.pipe = connection.Connection(ours.detach())
        self.warmed: set[str] = set()

    def send(self, request: Request) -> None:
        self.pipe.send_bytes(pickle.dumps(request))
        self.warmed.update(request.preload)

    def kill(self) -> None:
        """Kill the process, as often as needed; the pipe stays open for the thread that reads from it."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


_idle: list[_Server] | None = None
"""Servers whose slots were closed, for the next slots; None where nothing is kept."""


@contextlib.contextmanager
def kept_warm() -> Iterator[None]:
    """Pass servers on from one `Workers` to the next inside: many exports import the frameworks once."""
    global _idle
    before, _idle = _idle, [] if _idle is None else _idle
    try:
        yield
    finally:
        if before is None:
            for server in _idle:
                server.kill()
                server.pipe.close()
        _idle = before


def _server(log: Path) -> _Server:
    """Return an idle server, or start one."""
    while _idle:
        server = _idle.pop()
        if server.process.poll() is None:
            return server
    return _Server(log)


def _value(answer: bytes, confined: bool) -> Any:
    """Return the value or the error that a job's process answered."""
    if not confined:
        return pickle.loads(answer)
    try:
        # Whoever took over the confined process must not get out of the confinement by its answer.
        return answers.loads(answer)
    except Exception as error:
        return WorkerError(f"The worker's answer is malformed: {error!r}")


class _Slot:
    """One server, started when first needed and again if it dies."""

    def __init__(self, log: Path, closing: threading.Event, rights: Rights) -> None:
        self._log = log
        self._closing = closing
        self._rights = rights
        self._server: _Server | None = None
        self._lock = threading.Lock()

    @property
    def warmed(self) -> set[str]:
        """Modules that the server has imported."""
        server = self._server
        return server.warmed if server else set()

    def warm(self, modules: tuple[str, ...]) -> None:
        with self._lock:
            self._connect().send(Request(self._log, modules))

    def run(self, job: Job) -> Outcome:
        with self._lock, held.scratch("job") as scratch:
            try:
                server = self._connect()
                request = self._rights.request(self._log, job, scratch)
                server.send(request)
                answer = server.pipe.recv_bytes()
            except (EOFError, OSError):
                self._kill()
                self._forget()
                return Outcome(job, error=WorkerError(f"The worker for {job.label} died.", "See export.log."))
        value = _value(answer, confined=request.confinement is not None)
        return Outcome(job, error=value) if isinstance(value, Exception) else Outcome(job, value)

    def _connect(self) -> _Server:
        if self._closing.is_set():
            raise EOFError
        if self._server is None:
            self._server = _server(self._log)
        return self._server

    def close(self) -> None:
        """End whatever runs, also for the thread that waits for it."""
        if _idle is not None and self._lock.acquire(blocking=False):  # nothing runs
            if self._server is not None:
                _idle.append(self._server)
            self._server = None
            self._lock.release()
            return
        while not self._lock.acquire(timeout=0.1):
            self._kill()  # again: that thread may have been about to start the server
        try:
            self._kill()
            self._forget()
        finally:
            self._lock.release()

    def _kill(self) -> None:
        if (server := self._server) is not None:
            server.kill()

    def _forget(self) -> None:
        """Close the pipe, with the lock held: a descriptor closed twice may be another's by then."""
        if self._server is not None:
            self._server.pipe.close()
        self._server = None
