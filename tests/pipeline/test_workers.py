from __future__ import annotations

import _thread
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from exporter.errors import CheckpointError, WorkerError
from exporter.pipeline.workers.jobs import Job, JobRights
from exporter.pipeline.workers.pool import WorkerPool, _PoolQueue, keep_pool_warm
from exporter.sandbox import Confinement
from tests.waiting import wait_until


def double(x: int) -> int:
    return 2 * x


def memory_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def process_id() -> int:
    return os.getpid()


def refuse() -> None:
    raise CheckpointError("saw this", "try that")


class LocalError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def refuse_unpicklably() -> None:
    raise LocalError("odd", "error")


def crash() -> None:
    ctypes.string_at(0)


def chatter() -> None:
    os.system("echo from a native library")


def parallel_sum() -> float:
    import torch

    torch.set_num_threads(2)
    return float(torch.ones(4_000_000).sum())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "export.log"


def test_outcomes_come_in_the_order_given(log: Path) -> None:
    """Results belong to their jobs whatever order they ran in."""
    with WorkerPool(2, log) as workers:
        outcomes = workers.run([Job(str(i), double, (i,), cost_s=i) for i in range(5)])
    assert [o.result() for o in outcomes] == [0, 2, 4, 6, 8]


def test_each_job_has_a_process_of_its_own(log: Path) -> None:
    """A job cannot leave anything behind for the next."""
    with WorkerPool(1, log) as workers:
        outcomes = workers.run([Job("a", process_id), Job("b", process_id)])
    assert len({o.result() for o in outcomes} | {os.getpid()}) == 3


def test_an_error_arrives_whole(log: Path) -> None:
    """A job's own error type, message and hint reach the caller."""
    with WorkerPool(1, log) as workers:
        (outcome,) = workers.run([Job("a", refuse)])
    assert isinstance(outcome.error, CheckpointError)
    assert (outcome.error.message, outcome.error.hint) == ("saw this", "try that")


def test_an_error_that_cannot_be_pickled_arrives_as_text(log: Path) -> None:
    """Frameworks raise exceptions whose constructors pickle cannot call."""
    with WorkerPool(1, log) as workers:
        (outcome,) = workers.run([Job("a", refuse_unpicklably)])
    assert "odd error" in str(outcome.error)


def test_a_crash_costs_one_job(log: Path) -> None:
    """A segmentation fault in native code is that job's outcome; the next job runs."""
    with WorkerPool(1, log) as workers:
        outcomes = workers.run([Job("bad", crash, cost_s=2), Job("good", double, (4,))])
    assert isinstance(outcomes[0].error, WorkerError)
    assert "SIGSEGV" in str(outcomes[0].error)
    assert outcomes[1].result() == 8


def test_what_native_code_prints_goes_to_the_log(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The terminal stays the user's."""
    with WorkerPool(1, log) as workers:
        workers.run([Job("a", chatter)])
    assert "from a native library" in log.read_text()
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_children_can_use_torchs_threads(log: Path) -> None:
    """OpenMP hangs in a child whose parent has computed: the servers never do."""
    with WorkerPool(1, log) as workers:
        outcomes = workers.run(
            [Job(str(i), parallel_sum, preload=("exporter.pipeline.workers.preload",)) for i in range(2)]
        )
    assert [o.result() for o in outcomes] == [4e6, 4e6]


def test_a_slot_prefers_jobs_whose_modules_it_has_imported() -> None:
    """Imports take seconds: work goes where they are done, longest first."""
    cold, warm, warm_short = (
        Job("cold", double, preload=("x",), cost_s=9),
        Job("warm", double, preload=("y",), cost_s=3),
        Job("short", double, cost_s=1),
    )
    queue = _PoolQueue([cold, warm_short, warm], threading.Event())
    assert [queue.take({"y"}) for _ in range(4)] == [warm, warm_short, cold, None]


def test_workers_die_with_their_caller(tmp_path: Path) -> None:
    """A caller killed outright leaves no process behind."""
    mark = tmp_path / "alive"
    script = (
        "import sys, pathlib; sys.path.insert(0, '.')\n"
        "from exporter.pipeline.workers.pool import Job, WorkerPool\n"
        "from tests.pipeline.test_workers import write_for_ever\n"
        f"workers = WorkerPool(1, pathlib.Path({str(tmp_path / 'log')!r}))\n"
        f"workers.run([Job('a', write_for_ever, ({str(mark)!r},))])"
    )
    caller = subprocess.Popen([sys.executable, "-c", script])
    wait_until(mark.exists)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    wait_until(lambda: _rests(mark))


def write_for_ever(path: str) -> None:
    with Path(path).open("a") as stream:
        while True:
            stream.write("x")
            stream.flush()
            time.sleep(0.02)


def _rests(path: Path) -> bool:
    before = path.stat().st_size
    time.sleep(0.5)
    return path.stat().st_size == before


def mark_and_sleep(mark: Path) -> None:
    mark.touch()
    time.sleep(60)


def servers() -> set[int]:
    """Return the live servers of this process; other tests' may be kept warm."""
    children = psutil.Process().children(recursive=True)
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return {child.pid for child in alive if "serve(" in str(child.cmdline())}


@pytest.mark.parametrize("running", [0, 2])
def test_ctrl_c_comes_out_and_leaves_nothing_running(
    running: int, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread whose server was killed neither closes it a second time nor starts another."""
    monkeypatch.setattr("exporter.pipeline.workers.pool._idle", None)
    before = servers()
    for attempt in range(5):
        started: list[str] = []
        marks = [tmp_path / f"{attempt}-{number}" for number in range(6)]

        def note(event: str, job: Job, started: list[str] = started) -> None:
            if event == "start":
                started.append(job.label)

        def interrupt(started: list[str] = started, marks: list[Path] = marks) -> None:
            wait_until(lambda: len(started) == 2 and sum(mark.exists() for mark in marks) >= running)
            _thread.interrupt_main()

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt), WorkerPool(2, log) as workers:
            workers.run([Job(mark.name, mark_and_sleep, (mark,)) for mark in marks], on_event=note)
        time.sleep(0.3)  # for a thread that would go on
        assert len(started) == 2
        wait_until(lambda: servers() <= before)


def server_id() -> int:
    return os.getppid()


def surroundings() -> tuple[str | None, str]:
    chatter()
    return os.environ.get("EXPORT_MOBILE_TEST"), str(Path.cwd())


def run_one(job: Job, log: Path) -> object:
    with WorkerPool(1, log) as workers:
        return workers.run([job])[0].result()


def test_servers_are_passed_on_where_they_are_kept_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of the next export finds its own folder, environment and log all the same."""
    with keep_pool_warm():
        first = run_one(Job("a", server_id), tmp_path / "first.log")
        monkeypatch.setenv("EXPORT_MOBILE_TEST", "new")
        monkeypatch.chdir(tmp_path)
        assert run_one(Job("b", server_id), tmp_path / "second.log") == first
        assert run_one(Job("c", surroundings), tmp_path / "third.log") == ("new", str(tmp_path))
    assert "from a native library" in (tmp_path / "third.log").read_text()


def test_a_killed_server_is_not_passed_on(tmp_path: Path) -> None:
    """Whoever comes next starts one."""
    with keep_pool_warm():
        first = run_one(Job("a", server_id), tmp_path / "log")
        assert isinstance(first, int)
        psutil.Process(first).kill()
        psutil.wait_procs([psutil.Process(first)] if psutil.pid_exists(first) else [], timeout=5)
        assert run_one(Job("b", server_id), tmp_path / "log") != first


def test_servers_end_with_their_workers_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that exports once leaves nothing behind."""
    monkeypatch.setattr("exporter.pipeline.workers.pool._idle", None)
    first = run_one(Job("a", server_id), tmp_path / "log")
    assert not psutil.pid_exists(int(str(first)))
    with keep_pool_warm():
        second = run_one(Job("b", server_id), tmp_path / "log")
        assert psutil.pid_exists(int(str(second)))
    assert not psutil.pid_exists(int(str(second)))


def say_and_crash() -> None:
    os.write(2, b"[kernel.cpp:3] Check failed: no memory for node 7\n[loader.cpp:9] bye\n")
    os.kill(os.getpid(), signal.SIGSEGV)


def test_a_crash_names_the_last_error_that_was_printed(log: Path) -> None:
    """The error of a crash quotes the last error that was printed, and the output is in the log."""
    with WorkerPool(1, log) as workers:
        (outcome,) = workers.run([Job("crash", say_and_crash)])
    assert "SIGSEGV" in str(outcome.error)
    assert "Check failed: no memory for node 7" in str(outcome.error)
    assert "[loader.cpp:9] bye" in log.read_text()


def test_a_smaller_pool_runs_on_with_more_memory(log: Path) -> None:
    """Jobs after `adapt` run in the slots that are left, and may take so much more memory."""
    rights = JobRights(Confinement(memory_bytes=1 << 30))
    with WorkerPool(3, log, rights) as workers:
        workers.run([Job("before", double, (1,))])
        workers.adapt(1, 1 << 28)
        outcomes = workers.run([Job("id", process_id) for _ in range(3)] + [Job("limit", memory_limit)])
    limit = outcomes.pop().result()
    assert len(outcomes) == 3
    assert limit == (1 << 30) + (1 << 28)
