"""An adb client on adbutils, with sockets that keep a deadline. It is imported late: adbutils is heavy.

adbutils' own timeouts apply to single reads, its file transfers and `server_version` have none, and its
`send` may send only a part once a socket has a timeout. Here one deadline covers everything that a call does.

Running the adb program for each call would not need the private parts of adbutils, but its exit code does not
distinguish a lost connection, after which a launch is repeated, from a command that fails.
`benchmarks/adb_calls.py` measures the cost of both.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import adbutils
from adbutils._adb import AdbConnection
from adbutils._utils import adb_path

from android_harness.adb_states import adb_state_advice
from android_harness.errors import DeviceError, Disconnected, SetupError

AdbError: type[Exception] = adbutils.AdbError
MAX_READ = 1 << 16
SERVER_START_S = 20.0
LOCAL = ("127.0.0.1", "localhost", "::1")


class TooMuch(Exception):  # noqa: N818 - `translated_adb_client_errors` makes it a DeviceError
    """The device sends more than was requested."""


class _AdbClientSocket(socket.socket):
    def __init__(self, deadline: float, limit: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._deadline = deadline
        self._left = limit

    def __del__(self) -> None:
        # If a request is refused (open_transport), adbutils drops the connection without closing it.
        self.close()

    def settimeout(self, value: float | None) -> None:
        """Ignore adbutils' timeout: the deadline was set when the call began."""

    def _arm(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        super().settimeout(left)

    def connect(self, address: Any) -> None:
        self._arm()
        super().connect(address)

    def send(self, data: Any, flags: int = 0) -> int:
        self._arm()
        self.sendall(data, flags)
        return len(data)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        self._arm()
        data = super().recv(min(bufsize, MAX_READ), flags)
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch
        return data


class _AdbClientConnection(AdbConnection):  # type: ignore[misc]  # adbutils is not typed
    def __init__(self, client: AdbClient) -> None:
        self._client = client
        super().__init__(client.host, client.port)

    def close(self) -> None:
        """Close at once: adbutils sleeps for 10 ms before it closes a socket that is still open."""
        self._socket.close()
        super().close()

    def _safe_connect(self) -> _AdbClientSocket:
        self._socket = _AdbClientSocket(self._client.deadline, self._client.limit)
        try:
            self._socket.connect((self._client.host, self._client.port))
        except OSError:
            self._socket.close()
            raise
        return self._socket


def adb_client_server_address() -> tuple[str, int]:
    """Return host and port of adb's server: ADB_SERVER_SOCKET's, else ANDROID_ADB_SERVER_PORT's.

    Raises:
        SetupError: ADB_SERVER_SOCKET is no TCP address.
    """
    socket_name = os.environ.get("ADB_SERVER_SOCKET", "")
    if socket_name:
        address = re.fullmatch(r"tcp:(?:(?P<host>[^:]+|\[[^]]+\]):)?(?P<port>\d{1,5})", socket_name)
        if address is None:
            raise SetupError(
                f"ADB_SERVER_SOCKET is {socket_name!r:.80}, expected tcp:HOST:PORT.",
                "Unset it, or name the server's TCP address.",
            )
        return (address["host"] or "127.0.0.1").strip("[]"), int(address["port"])
    return "127.0.0.1", int(os.environ.get("ANDROID_ADB_SERVER_PORT") or 5037)


class AdbClient(adbutils.AdbClient):  # type: ignore[misc]
    """The adb server as one call uses it, at `adb_client_server_address`.

    Args:
        timeout_s: The deadline in seconds for everything that is done through this object.
        limit: The largest number of bytes to receive over one connection.
    """

    def __init__(self, timeout_s: float, limit: int) -> None:
        super().__init__(*adb_client_server_address())
        self.deadline = time.monotonic() + timeout_s
        self.limit = limit

    def make_connection(self, timeout: float | None = None) -> _AdbClientConnection:
        """Connect to the server with this object's deadline; adbutils' `timeout` is ignored."""
        return _AdbClientConnection(self)

    def ask(self, command: str) -> str:
        """Send the server a command such as "host:devices", and return its answer."""
        with self.make_connection() as connection:
            connection.send_command(command)
            connection.check_okay()
            return str(connection.read_string_block())


def start_adb_server_for_client() -> None:
    """Start the adb server unless a server already listens on its port.

    Raises:
        SetupError: adb is missing, or cannot start its server.
    """
    client = AdbClient(timeout_s=2.0, limit=MAX_READ)
    try:
        client.make_connection().close()
    except OSError as error:  # refused, too slow, or no such host
        if client.host not in LOCAL:
            raise SetupError(
                f"The adb server {client.host}:{client.port} (ADB_SERVER_SOCKET) does not answer: {error}.",
                f"Start it there: adb -a -P {client.port} nodaemon server.",
                code="EM-ADB",
            ) from error
        _start_adb_client_server(client)


def _start_adb_client_server(client: AdbClient) -> None:
    # The messages go to a file, because the server would keep a pipe open for ever.
    with tempfile.TemporaryFile() as messages:
        try:
            command = [adb_path(), "-P", str(client.port), "start-server"]
            completed = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
                timeout=SERVER_START_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, adbutils.AdbError) as error:
            raise SetupError(
                f"The adb server cannot be started: {error}",
                "Try `adb start-server`.",
                code="EM-ADB",
            ) from error
        if completed.returncode:
            messages.seek(0)
            text = messages.read(2000).decode(errors="replace").strip()
            raise SetupError(
                f"The adb server cannot be started: {text}", "Run `adb start-server`.", code="EM-ADB"
            )


def pull_with_adb_client(device: Any, source: str, target: Path, size: int) -> int:
    """Copy at most `size` bytes of a file from the device; return their number."""
    copied = 0
    with target.open("wb") as file:
        for chunk in device.sync.iter_content(source):
            copied += len(chunk)
            if copied > size:
                raise TooMuch
            file.write(chunk)
    return copied


@contextmanager
def translated_adb_client_errors(serial: str, doing: str, timeout_s: float | None) -> Iterator[None]:
    """Translate the exceptions of adbutils and sockets into errors of the harness.

    Args:
        serial: The device that messages name.
        doing: The activity that messages name, such as "copying 'a.pte' to it".
        timeout_s: The deadline in seconds for the message; None raises TimeoutError instead.
    """
    try:
        yield
    except (TimeoutError, adbutils.AdbTimeout) as error:
        if timeout_s is None:
            raise TimeoutError from error
        raise Disconnected(
            f"{serial} stopped answering: {doing} took longer than {timeout_s:.0f} s.",
            "Check the cable or the Wi-Fi connection.",
        ) from error
    except TooMuch as error:
        raise DeviceError(f"{serial} sent more than expected while {doing}.") from error
    # adbutils raises the last three if an answer is cut off.
    except (adbutils.AdbError, OSError, EOFError, AssertionError, struct.error, ValueError) as error:
        raise _adb_client_failure(serial, doing, error) from error


def _adb_client_failure(serial: str, doing: str, error: Exception) -> DeviceError:
    cause = error.args[0] if isinstance(error, AdbError) and error.args else error
    message = str(cause).strip().partition("\n")[0][:300]
    if "unauthorized" in message:
        return DeviceError(
            f"{serial} does not allow USB debugging.", f"Please {adb_state_advice('unauthorized')}."
        )
    if re.search("no such file|permission denied|is a directory|not a directory", message, re.IGNORECASE):
        return DeviceError(f"{serial}: {doing}: {message}.")
    return Disconnected(
        f"{serial} was disconnected while {doing}{': ' if message else ''}{message}.",
        "Check the cable and `adb devices`.",
    )
