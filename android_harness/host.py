"""This machine as a device, with the same methods as a phone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import IO

from android_harness import parse
from android_harness.errors import DeviceError
from android_harness.records import HOST, Completed

MAX_OUTPUT = 8 << 20
NOT_EXECUTABLE, NOT_FOUND = 126, 127
LIMITS_OF_THREADS = frozenset({"OMP_NUM_THREADS", "OMP_THREAD_LIMIT"})
"""Variables of the user's shell that `nproc` and runtimes obey."""


def host_environment_of_programs() -> dict[str, str]:
    """Return this process's environment without limits of threads: a launch's configuration has its own."""
    return {name: value for name, value in os.environ.items() if name not in LIMITS_OF_THREADS}


class HostDevice:
    """This machine as a `records.Device`. Its root is a private folder that is deleted with this object."""

    def __init__(self) -> None:
        self.serial = HOST
        self.root = tempfile.mkdtemp(prefix="export-mobile-")
        weakref.finalize(self, shutil.rmtree, self.root, ignore_errors=True)

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        """Run one program. Exit codes are a shell's: 126, 127, and 128 plus the number of a signal.

        Raises:
            DeviceError: It did not end in time, printed more than 8 MB, or is not a valid command.
        """
        if not argv or any("\0" in word for word in argv):
            raise DeviceError("A command needs a program and must not contain NUL characters.")
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                code = _wait_on_host(argv, out, err, timeout_s)
            except FileNotFoundError:
                return Completed(NOT_FOUND, "", f"{argv[0]}: not found")
            except OSError as error:
                return Completed(NOT_EXECUTABLE, "", f"{argv[0]}: {error}")
            return Completed(code, _host_text(out, argv[0]), _host_text(err, argv[0]))

    def push(self, source: Path, target: str) -> None:
        """Copy a file."""
        self._copy(source, Path(target))

    def pull(self, source: str, target: Path) -> None:
        """Copy a file."""
        self._copy(Path(source), target)

    def _copy(self, source: Path, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755)  # like adb: the runner must be executable
        except (OSError, ValueError, shutil.Error) as error:
            raise DeviceError(
                f"{str(source)!r:.200} cannot be copied to {str(target)!r:.200}: {error}"
            ) from error

    def reconnect(self, timeout_s: float = 60.0) -> None:
        """Return at once: this machine is always connected."""


def _wait_on_host(argv: tuple[str, ...], out: IO[bytes], err: IO[bytes], timeout_s: float) -> int:
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        env=host_environment_of_programs(),
        start_new_session=True,
    )
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{argv[0]!r:.100} did not end within {timeout_s:g} s.") from error
    finally:
        if process.returncode is None:  # after the deadline or Ctrl-C, kill its children too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code if code >= 0 else 128 - code


def _host_text(file: IO[bytes], program: str) -> str:
    if file.seek(0, os.SEEK_END) > MAX_OUTPUT:
        raise DeviceError(f"{program!r:.100} printed more than {MAX_OUTPUT >> 20} MB.")
    file.seek(0)
    return parse.parse_text(file.read())
