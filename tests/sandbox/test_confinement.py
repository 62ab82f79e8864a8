"""A confined process can do what a model needs, and nothing beyond it, even with Python at hand."""

from __future__ import annotations

import ctypes
import multiprocessing.shared_memory
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import sandbox
from exporter.sandbox import Confinement, child
from exporter.sandbox.confinement import MEMORY_BYTES

pytestmark = pytest.mark.skipif(not sandbox.sandbox_support().confines, reason="this kernel confines nothing")


def outcome(action: Callable[[Path], object], folder: Path, confinement: Confinement) -> str:
    """What an action ends with in a confined child: "done", or the name of its exception."""

    def attempt() -> str:
        try:
            action(folder)
        except Exception as error:
            return type(error).__name__
        return "done"

    return str(child.call_in_child(attempt, confinement))


SECRET = "secret.txt"

ATTACKS: dict[str, Callable[[Path], object]] = {
    "read a file": lambda f: (f / SECRET).read_text(),
    "read the system's users": lambda f: Path("/etc/passwd").read_text(),
    "read another process's memory": lambda f: Path(f"/proc/{os.getppid()}/maps").read_text(),
    "read another process's environment": lambda f: Path(f"/proc/{os.getppid()}/environ").read_text(),
    "list a folder": lambda f: list(f.iterdir()),
    "write a file": lambda f: (f / "new").write_text("x"),
    "append to a file": lambda f: (f / SECRET).open("a"),
    "empty a file": lambda f: os.truncate(f / SECRET, 0),
    "create by creat": lambda f: os.open(f / "new", os.O_CREAT),
    "create an unnamed file": lambda f: os.open(f, os.O_TMPFILE | os.O_RDWR),
    "write to a temporary folder": lambda f: Path("/tmp/export-mobile-attack").write_text("x"),
    "write below the home folder": lambda f: (Path.home() / ".export-mobile-attack").write_text("x"),
    "write to shared memory": lambda f: multiprocessing.shared_memory.SharedMemory("x", True, 10),
    "write to its own package": lambda f: (Path(sandbox.__file__).parent / "x.py").write_text(""),
    "remove a file": lambda f: (f / SECRET).unlink(),
    "rename a file": lambda f: (f / SECRET).rename(f / "other"),
    "link a file": lambda f: os.link(f / SECRET, f / "other"),
    "link a name": lambda f: (f / "other").symlink_to("/etc/passwd"),
    "make a folder": lambda f: (f / "new").mkdir(),
    "make a named pipe": lambda f: os.mkfifo(f / "pipe"),
    "change a mode": lambda f: (f / SECRET).chmod(0o777),
    "change an owner": lambda f: os.chown(f / SECRET, 1, 1),
    "change a time": lambda f: os.utime(f / SECRET),
    "set an attribute": lambda f: os.setxattr(f / SECRET, "user.x", b"x"),
    "copy a file": lambda f: shutil.copy(sys.executable, f / "python"),
    "start a program": lambda f: subprocess.run(["/bin/true"], check=False),
    "start a shell": lambda f: _started(os.system("true")),
    "fork": lambda f: os.fork() or os._exit(0),
    "replace itself": lambda f: os.execv("/bin/true", ["true"]),
    "open an internet socket": lambda f: socket.socket(socket.AF_INET),
    "open an internet socket of datagrams": lambda f: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "open a local socket": lambda f: socket.socket(socket.AF_UNIX),
    "open a raw socket": lambda f: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "signal its parent": lambda f: os.kill(os.getppid(), 0),
    "signal all processes": lambda f: os.kill(-1, 0),
    "trace its parent": lambda f: _called(ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0)),
    "leave its root": os.chroot,
    "raise its limits": lambda f: _raise_limit(),
    "open a file of another process": lambda f: os.pidfd_open(os.getppid()),
}


def _started(status: int) -> None:
    if status != 0:
        raise PermissionError


def _called(result: int) -> None:
    if result < 0:
        raise PermissionError


def _raise_limit() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    bytearray(hard + (1 << 20))


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_reached(tmp_path: Path, name: str) -> None:
    """A confinement without grants leaves every door closed: the action fails and changes nothing."""
    (tmp_path / SECRET).write_text("secret")
    assert outcome(ATTACKS[name], tmp_path, Confinement(seconds=20)) != "done"
    assert [path.name for path in tmp_path.iterdir()] == [SECRET]
    assert (tmp_path / SECRET).read_text() == "secret"


LIVE = (
    "read a file", "list a folder", "write a file", "append to a file", "empty a file", "create by creat",
    "remove a file", "rename a file", "link a file", "link a name", "make a folder", "make a named pipe",
    "change a mode", "change a time", "copy a file", "start a program", "start a shell", "signal its parent",
    "open an internet socket", "open a local socket",
)  # fmt: skip


@pytest.mark.parametrize("name", LIVE)
def test_the_attacks_are_live(tmp_path: Path, name: str) -> None:
    """The same actions succeed for any user who is not confined."""
    (tmp_path / SECRET).write_text("secret")
    ATTACKS[name](tmp_path)


NEEDS: dict[str, Callable[[Path], object]] = {
    "read what was granted": lambda f: (f / "granted" / "file").read_text(),
    "read a library": lambda f: Path(os.__file__).read_text(),
    "read about the processor": lambda f: Path("/proc/cpuinfo").read_text(),
    "read about itself": lambda f: Path("/proc/self/maps").read_text(),
    "random numbers": lambda f: os.urandom(4),
    "start a thread": lambda f: threading.Thread(target=time.sleep, args=(0,)).start(),
    "half a gigabyte": lambda f: bytearray(1 << 29),
    "import a module": lambda f: __import__("wave"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_models_need_is_left(tmp_path: Path, name: str) -> None:
    """Libraries, facts about the machine, threads and memory are there."""
    (tmp_path / "granted").mkdir()
    (tmp_path / "granted" / "file").write_text("x")
    # The child starts with the data of this process, which the tests before may have made large.
    memory = MEMORY_BYTES + inherited_data_bytes()
    confinement = Confinement(reads=(tmp_path / "granted",), seconds=20, memory_bytes=memory)
    assert outcome(NEEDS[name], tmp_path, confinement) == "done"


def inherited_data_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")) << 10


def test_writing_is_granted_by_folder(tmp_path: Path) -> None:
    """A granted folder can be changed; its neighbour can be neither changed nor read."""
    (tmp_path / "mine").mkdir()
    (tmp_path / SECRET).write_text("secret")
    confinement = Confinement(writes=(tmp_path / "mine",), seconds=20)
    assert outcome(lambda f: (f / "mine" / "new").write_text("x"), tmp_path, confinement) == "done"
    assert (tmp_path / "mine" / "new").exists()
    for action in ("read a file", "remove a file", "write a file", "change a mode"):
        assert outcome(ATTACKS[action], tmp_path, confinement) != "done", action


def test_programs_are_granted_and_stay_confined(tmp_path: Path) -> None:
    """A program that a confined process may start is confined as it is."""
    confinement = Confinement(programs=True, seconds=20)
    assert outcome(lambda f: subprocess.run(["/bin/true"], check=True), tmp_path, confinement) == "done"
    touch = ["/bin/sh", "-c", f"echo x > {tmp_path}/new"]
    assert outcome(lambda f: subprocess.run(touch, check=True), tmp_path, confinement) != "done"
    assert not list(tmp_path.iterdir())


def test_memory_is_bounded(tmp_path: Path) -> None:
    """An allocation over the bound fails in the child."""
    bound = Confinement(seconds=20, memory_bytes=1 << 30)
    assert outcome(lambda f: bytearray(2 << 30), tmp_path, bound) == "MemoryError"


def test_time_is_bounded() -> None:
    """A child that neither ends nor computes is killed when its time is over."""
    began = time.monotonic()
    with pytest.raises(child.ChildFailed, match="more than 1 s") as failure:
        child.call_in_child(lambda: time.sleep(60), Confinement(seconds=1))
    assert failure.value.over_bounds
    assert time.monotonic() - began < 30


def test_a_crash_and_an_error_are_told_apart() -> None:
    """The reason names the signal of a crash, and the error of a function that raised."""
    with pytest.raises(child.ChildFailed, match="SIGKILL"):
        child.call_in_child(lambda: os.kill(os.getpid(), signal.SIGKILL), Confinement())
    with pytest.raises(child.ChildFailed, match=r"ValueError: .*'x'"):
        child.call_in_child(lambda: int("x"), Confinement())


def test_an_endless_answer_is_cut() -> None:
    """A child cannot fill its parent's memory."""
    with pytest.raises(child.ChildFailed):
        child.call_in_child(lambda: "x" * (child.ANSWER_BYTES + 1), Confinement(seconds=20))


def test_the_machine_says_what_it_offers() -> None:
    """The support names the mechanisms in force; without any the resource limits remain."""
    assert str(sandbox.SandboxSupport(7, seccomp=True)) == "Landlock 7, seccomp, resource limits"
    assert str(sandbox.SandboxSupport(0, seccomp=False)) == "resource limits"
    assert sandbox.SandboxSupport(0, seccomp=True).confines
    assert not sandbox.SandboxSupport(0, seccomp=False).confines


@pytest.mark.parametrize("alone", ["landlock", "seccomp"])
@pytest.mark.parametrize(
    "name", ["write a file", "start a program", "open an internet socket", "link a file"]
)
def test_each_mechanism_closes_the_doors_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, alone: str
) -> None:
    """An old kernel may have only one of the two."""
    (tmp_path / SECRET).write_text("secret")
    have = sandbox.sandbox_support()
    only = sandbox.SandboxSupport(have.landlock if alone == "landlock" else 0, seccomp=alone == "seccomp")
    monkeypatch.setattr(sandbox, "sandbox_support", lambda: only)
    if (alone, name) == ("landlock", "open an internet socket"):
        assert outcome(_connect, tmp_path, Confinement(seconds=20)) == "PermissionError"
    else:
        assert outcome(ATTACKS[name], tmp_path, Confinement(seconds=20)) == "PermissionError"


def _connect(_: Path) -> None:
    with socket.socket(socket.AF_INET) as stream:
        stream.settimeout(2)
        stream.connect(("127.0.0.1", 9))


def test_a_confined_process_has_confined_children() -> None:
    """A process that may write nothing confines a child of its own, whose printing is no error."""

    def printing() -> int:
        warnings.warn("nowhere", stacklevel=2)
        return 7

    def asking() -> int:
        return int(child.call_in_child(printing, Confinement(seconds=10)))

    assert child.call_in_child(asking, Confinement(forks=True, seconds=20)) == 7


def test_a_child_may_write_to_its_streams() -> None:
    """A library that writes to standard output or error is no failure of the file."""
    confinement = Confinement(seconds=20)
    assert child.call_in_child(lambda: [sys.stdout.write("seen"), sys.stderr.write("by")], confinement) == [
        4,
        2,
    ]
