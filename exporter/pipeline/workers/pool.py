"""Runs jobs in processes of their own: a framework that crashes takes down one job, not the export.

Each slot has a server process (`server.py`) that imports frameworks once and forks a child for every job:
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
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from exporter import temporary_files
from exporter.errors import WorkerError
from exporter.pipeline.workers import answers
from exporter.pipeline.workers.jobs import Job, JobOutcome, JobRights
from exporter.pipeline.workers.server import ENVIRONMENT, ServerRequest, server_import_path

_SERVER = "import sys; from exporter.pipeline.workers.server import serve_jobs; serve_jobs(int(sys.argv[1]))"

MAX_POOL_SIZE = 4


class WorkerPool:
    """A pool of `count` slots. Use as a context manager; leaving it kills whatever still runs."""

    def __init__(self, count: int, log: Path, rights: JobRights | None = None) -> None:
        self._closing = threading.Event()
        self._slots = [_PoolSlot(log, self._closing, rights or JobRights()) for _ in range(count)]

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()  # before the kills: a thread whose server died would start the next one
        for slot in self._slots:
            slot.close()

    def adapt(self, count: int, more_memory_bytes: int) -> None:
        """Close all slots but the first `count`, and let the jobs of the others take more memory."""
        for slot in self._slots[count:]:
            slot.close()
        del self._slots[count:]
        for slot in self._slots:
            slot.allow_memory(more_memory_bytes)

    def warm(self, modules: Sequence[str]) -> None:
        """Import modules in every slot but the first, while the first one is busy with a lone job."""
        for slot in self._slots[1:]:
            slot.warm(tuple(modules))

    def run(
        self,
        jobs: Sequence[Job],
        on_event: Callable[[str, Job], None] | None = None,
        on_outcome: Callable[[JobOutcome], None] | None = None,
    ) -> list[JobOutcome]:
        """Run all jobs and return their outcomes in the order given.

        Args:
            jobs: A job that raises or dies is an outcome with `error`; the others go on.
            on_event: Called with "start" and "end" from worker threads.
            on_outcome: Called with each outcome as soon as it is there, one at a time.
        """
        queue, lock = _PoolQueue(jobs, self._closing), threading.Lock()
        outcomes: dict[Job, JobOutcome] = {}

        def serve(slot: _PoolSlot) -> None:
            while not self._closing.is_set() and (job := queue.take(slot.warmed)) is not None:
                if on_event:
                    on_event("start", job)
                failed = outcomes[job.after].error if job.after else None
                outcome = JobOutcome(job, error=failed) if failed else slot.run(job)
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
                slot.close()  # what runs is given up; a caller that continues gets new servers
            raise
        return [outcomes[job] for job in jobs]


def default_pool_size() -> int:
    """Return as many processes as cores, up to four: each holds a framework in memory."""
    return min(len(os.sched_getaffinity(0)), MAX_POOL_SIZE)


@dataclass(eq=False)
class _PoolQueue:
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


class _PoolServer:
    """The caller's end of one server process."""

    def __init__(self, log: Path) -> None:
        ours, theirs = socket.socketpair()
        with log.open("ab") as stream, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVER, str(theirs.fileno())],
                env=os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(server_import_path())},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # Ctrl-C reaches the caller alone, who then closes the slots
            )
        self.pipe = connection.Connection(ours.detach())
        self.warmed: set[str] = set()

    def send(self, request: ServerRequest) -> None:
        self.pipe.send_bytes(pickle.dumps(request))
        self.warmed.update(request.preload)

    def kill(self) -> None:
        """Kill the process, as often as needed; the pipe stays open for the thread that reads from it."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


_idle: list[_PoolServer] | None = None
"""Servers whose slots were closed, for the next slots; None where nothing is kept."""


@contextlib.contextmanager
def keep_pool_warm() -> Iterator[None]:
    """Pass servers on from one `WorkerPool` to the next inside: many exports import the frameworks once."""
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


def _pool_server(log: Path) -> _PoolServer:
    """Return an idle server, or start one."""
    while _idle:
        server = _idle.pop()
        if server.process.poll() is None:
            return server
    return _PoolServer(log)


def _value_for_pool(answer: bytes, confined: bool) -> Any:
    """Return the value or the error that a job's process answered."""
    if not confined:
        return pickle.loads(answer)
    try:
        # Whoever took over the confined process must not get out of the confinement by its answer.
        return answers.load_answer(answer)
    except Exception as error:
        return WorkerError(f"The worker's answer is malformed: {error!r}")


class _PoolSlot:
    """One server, started when first needed and again if it dies."""

    def __init__(self, log: Path, closing: threading.Event, rights: JobRights) -> None:
        self._log = log
        self._closing = closing
        self._rights = rights
        self._server: _PoolServer | None = None
        self._lock = threading.Lock()

    @property
    def warmed(self) -> set[str]:
        """Modules that the server has imported."""
        server = self._server
        return server.warmed if server else set()

    def warm(self, modules: tuple[str, ...]) -> None:
        with self._lock:
            self._connect().send(ServerRequest(self._log, modules))

    def allow_memory(self, more_bytes: int) -> None:
        """Raise the limit of the jobs that are confined."""
        self._rights = self._rights.with_more_memory(more_bytes)

    def run(self, job: Job) -> JobOutcome:
        with self._lock, temporary_files.temporary_scratch("job") as scratch:
            try:
                server = self._connect()
                request = self._rights.request(self._log, job, scratch)
                server.send(request)
                answer = server.pipe.recv_bytes()
            except (EOFError, OSError):
                self._kill()
                self._forget()
                return JobOutcome(
                    job, error=WorkerError(f"The worker for {job.label} died.", "See export.log.")
                )
        value = _value_for_pool(answer, confined=request.confinement is not None)
        return JobOutcome(job, error=value) if isinstance(value, Exception) else JobOutcome(job, value)

    def _connect(self) -> _PoolServer:
        if self._closing.is_set():
            raise EOFError
        if self._server is None:
            self._server = _pool_server(self._log)
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
