"""adbutils on sockets that keep a deadline. Imported only where a device is talked to: adbutils is heavy.

adbutils' own timeouts are per read, and its file transfers and `server_version` have none; its `send` may
send a part only once a socket has a timeout. Here one deadline covers everything that one call does.
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

from android_harness.adb_states import advice
from android_harness.errors import DeviceError, Disconnected, SetupError

AdbError: type[Exception] = adbutils.AdbError
MAX_READ = 1 << 16
SERVER_START_S = 20.0


class TooMuch(Exception):  # noqa: N818 - translated into a DeviceError before anyone sees it
    """The device sends more than it was asked for."""


class _Socket(socket.socket):
    def __init__(self, deadline: float, limit: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._deadline = deadline
        self._left = limit

    def __del__(self) -> None:
        # adbutils drops a connection whose request was refused (open_transport) without closing it.
        self.close()

    def settimeout(self, value: float | None) -> None:
        """The deadline was set when the call began; what adbutils would rather have does not count."""

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


class _Connection(AdbConnection):  # type: ignore[misc]  # adbutils is not typed
    def __init__(self, client: Client) -> None:
        self._client = client
        super().__init__(client.host, client.port)

    def _safe_connect(self) -> _Socket:
        made = _Socket(self._client.deadline, self._client.limit)
        try:
            made.connect((self._client.host, self._client.port))
        except OSError:
            made.close()
            raise
        return made


class Client(adbutils.AdbClient):  # type: ignore[misc]
    """One call's view of the adb server, whose port is ANDROID_ADB_SERVER_PORT or 5037.

    Args:
        timeout_s: Seconds from now until everything that is done through this object must have ended.
        limit: Bytes that may be received over one connection.
    """

    def __init__(self, timeout_s: float, limit: int) -> None:
        super().__init__()
        self.deadline = time.monotonic() + timeout_s
        self.limit = limit

    def make_connection(self, timeout: float | None = None) -> _Connection:
        """Connect to the server under this object's deadline; adbutils' own `timeout` is not used."""
        return _Connection(self)

    def ask(self, command: str) -> str:
        """What the server answers to a command of its own, such as "host:devices"."""
        with self.make_connection() as connection:
            connection.send_command(command)
            connection.check_okay()
            return str(connection.read_string_block())


def start_server() -> None:
    """Start the adb server unless something listens on its port already.

    Raises:
        SetupError: There is no adb, or it cannot start its server.
    """
    client = _client_for_start()
    try:
        client.make_connection().close()
    except (ConnectionError, TimeoutError):
        _start(client)


def _client_for_start() -> Client:
    try:
        return Client(timeout_s=2.0, limit=MAX_READ)
    except ValueError:
        port = os.environ.get("ANDROID_ADB_SERVER_PORT")
        raise SetupError(
            f"ANDROID_ADB_SERVER_PORT is {port!r}, not a number.", "Unset it or set it to a port."
        ) from None


def _start(client: Client) -> None:
    # Its messages go to a file: the server it leaves behind would keep a pipe open for ever.
    with tempfile.TemporaryFile() as said:
        try:
            command = [adb_path(), "-P", str(client.port), "start-server"]
            ended = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=SERVER_START_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, adbutils.AdbError) as error:
            raise SetupError(
                f"The adb server cannot be started: {error}",
                "Try `adb start-server`.",
                code="EM-ADB",
            ) from error
        if ended.returncode:
            said.seek(0)
            text = said.read(2000).decode(errors="replace").strip()
            raise SetupError(
                f"The adb server cannot be started: {text}", "Try `adb start-server` yourself.", code="EM-ADB"
            )


def pull(device: Any, source: str, target: Path, size: int) -> int:
    """Copy a file from the device, no more than `size` bytes of it, and count them."""
    copied = 0
    with target.open("wb") as file:
        for chunk in device.sync.iter_content(source):
            copied += len(chunk)
            if copied > size:
                raise TooMuch
            file.write(chunk)
    return copied


@contextmanager
def translated(serial: str, doing: str, timeout_s: float | None) -> Iterator[None]:
    """Turn what adbutils and sockets raise into the harness' errors.

    Args:
        serial: Whom the messages name.
        doing: What was going on: "copying 'a.pte' onto it".
        timeout_s: The deadline in seconds, for the message; None leaves it to the caller (TimeoutError).
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
    # The last three are what adbutils makes of an answer that was cut off.
    except (adbutils.AdbError, OSError, EOFError, AssertionError, struct.error, ValueError) as error:
        raise _failure(serial, doing, error) from error


def _failure(serial: str, doing: str, error: Exception) -> DeviceError:
    what = error.args[0] if isinstance(error, AdbError) and error.args else error
    said = str(what).strip().partition("\n")[0][:300]
    if "unauthorized" in said:
        return DeviceError(
            f"{serial} does not allow USB debugging (any more).", f"Please {advice('unauthorized')}."
        )
    if re.search("no such file|permission denied|is a directory|not a directory", said, re.IGNORECASE):
        return DeviceError(f"{serial}: {doing}: {said}.")
    return Disconnected(
        f"{serial} was disconnected while {doing}{': ' if said else ''}{said}.",
        "Check the cable and `adb devices`.",
    )
