from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_harness import adb, device_listing
from android_harness.errors import DeviceError, Disconnected, HarnessError, NoDeviceError, SetupError
from android_harness.records import DeviceEntry

HANGS_S = 60.0
"""Time within which a call with a deadline of a second ends, even on a busy machine."""
Words = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1)


@given(Words)
def test_a_shell_reads_back_the_words_that_were_quoted(words: list[str]) -> None:
    """Quoted words arrive unchanged, whatever they contain; printf separates them."""
    line = adb.quote_for_adb(("printf", "%s\\0", *words))
    printed = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True).stdout
    assert printed == b"".join(word.encode() + b"\0" for word in words)


@pytest.mark.parametrize("program", ["A=b", "if", "~", "!", "{", "case"])
def test_a_program_is_never_mistaken_for_shell_syntax(program: str) -> None:
    """A program's name is mistaken neither for an assignment nor for a keyword."""
    ended = subprocess.run(["/bin/sh", "-c", adb.quote_for_adb((program,))], capture_output=True, check=False)
    assert ended.returncode == 127


@pytest.mark.parametrize("argv", [(), ("a\0b",), ("ls", "\udcff"), ("ls", "x" * 40_000)])
def test_invalid_commands_are_refused(argv: tuple[str, ...]) -> None:
    """An invalid command is refused before anything reaches the device."""
    with pytest.raises(DeviceError):
        adb.quote_for_adb(argv)


READY, LOCKED, GONE = (
    DeviceEntry("A 1", "device"),
    DeviceEntry("B", "unauthorized"),
    DeviceEntry("C:5555", "offline"),
)


@pytest.mark.parametrize(
    ("entries", "serial", "expected"),
    [
        ((READY,), None, READY),
        ((READY, LOCKED, GONE), None, READY),
        ((READY, DeviceEntry("D", "device")), "D", DeviceEntry("D", "device")),
    ],
)
def test_the_usable_device_is_chosen(
    entries: tuple[DeviceEntry, ...], serial: str, expected: DeviceEntry
) -> None:
    """The only usable device is chosen, or the one that is named."""
    assert adb.choose_adb_device(entries, serial) == expected


@pytest.mark.parametrize(
    ("entries", "serial", "words"),
    [
        ((), None, ("USB debugging", "adb connect", "udev")),
        ((LOCKED,), None, ("B (unauthorized", "accept")),
        ((LOCKED, GONE), None, ("B (unauthorized", "C:5555 (offline", "adb reconnect")),
        (
            (READY, DeviceEntry("D", "device"), LOCKED),
            None,
            ("2 devices", "A 1 (device)", "D (device)", "B", "--device"),
        ),
        ((READY,), "X", ("'X'", "A 1 (device)")),
        ((READY, LOCKED), "B", ("accept",)),
        ((DeviceEntry("E", "no permissions (user in plugdev group)"),), None, ("udev rule",)),
        ((DeviceEntry("F", "bootloader"),), None, ("fastboot reboot",)),
        ((DeviceEntry("G", "something new"),), None, ("plug it in again",)),
    ],
)
def test_the_error_lists_the_candidates(
    entries: tuple[DeviceEntry, ...], serial: str | None, words: tuple[str, ...]
) -> None:
    """The error lists each candidate with its state and what to do."""
    with pytest.raises(NoDeviceError) as raised:
        adb.choose_adb_device(entries, serial)
    assert not [word for word in words if word not in str(raised.value)]


class Server:
    """A server that implements as much of adb's protocol as a call needs, then calls `behave`."""

    def __init__(self, behave: Callable[[socket.socket, str], None]) -> None:
        self.behave = behave
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.open: list[socket.socket] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.open.append(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                command = connection.recv(int(connection.recv(4), 16)).decode()
                if command == "host:version":
                    connection.sendall(b"OKAY00040029")
                elif command.endswith(":features"):
                    connection.sendall(b"OKAY0008shell_v2")
                elif command.startswith("host:tport:"):
                    connection.sendall(b"OKAY" + bytes(8))
                else:
                    self.behave(connection, command)

    def close(self) -> None:
        # shutdown wakes the thread that waits in accept; close alone does not.
        for each in (self.socket, *self.open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.thread.join(5)


@pytest.fixture
def serve(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Callable[[socket.socket, str], None]], None]]:
    servers: list[Server] = []

    def start(behave: Callable[[socket.socket, str], None]) -> None:
        servers.append(Server(behave))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(servers[-1].port))

    monkeypatch.setattr(adb, "QUERY_S", 0.5)
    monkeypatch.setattr(adb, "PROBE_S", 0.5)
    monkeypatch.setattr(adb, "MAX_OUTPUT", 1 << 20)
    yield start
    for server in servers:
        server.close()


def hang(connection: socket.socket, command: str) -> None:
    """Keep the connection open until the client gives up."""
    connection.settimeout(2 * HANGS_S)
    while connection.recv(1 << 16):
        pass


def trickle(connection: socket.socket, command: str) -> None:
    connection.sendall(b"OKAY")
    while True:
        connection.sendall(struct.pack("<BI", 1, 1) + b"x")
        time.sleep(0.05)


def flood(connection: socket.socket, command: str) -> None:
    connection.sendall(b"OKAY")
    while True:
        connection.sendall(struct.pack("<BI", 1, 60_000) + bytes(60_000))


def boast(connection: socket.socket, command: str) -> None:
    connection.sendall(b"OKAY" + struct.pack("<BI", 1, 2**32 - 1))
    while True:
        connection.sendall(bytes(60_000))


def hang_up(connection: socket.socket, command: str) -> None:
    connection.sendall(b"OKAY\1\0")
    connection.shutdown(socket.SHUT_RDWR)


def say(text: str) -> Callable[[socket.socket, str], None]:
    def behave(connection: socket.socket, command: str) -> None:
        connection.sendall(f"FAIL{len(text):04x}{text}".encode())

    return behave


@pytest.mark.parametrize(
    ("behave", "error", "message"),
    [
        (hang, Disconnected, "stopped answering"),
        (trickle, Disconnected, "stopped answering"),
        (flood, DeviceError, "more than expected"),
        (boast, DeviceError, "more than expected"),
        (hang_up, Disconnected, "disconnected while running"),
        (say("device 'A 1' not reports"), Disconnected, "not reports"),
        (say("device offline"), Disconnected, "device offline"),
        (say("device unauthorized.\nThis adb server's …"), DeviceError, "accept"),
    ],
    ids=["hang", "trickle", "flood", "boast", "hang up", "gone", "offline", "unauthorized"],
)
def test_every_way_a_command_can_fail_ends_in_time_and_in_our_errors(
    serve: Callable[..., None], behave: Callable[..., None], error: type[HarnessError], message: str
) -> None:
    """Every failure ends in time with an error of the harness, even if the device sends byte after byte."""
    serve(behave)
    start = time.monotonic()
    with pytest.raises(error, match=message) as raised:
        adb.AdbDevice("A 1").run("true", timeout_s=0.5)
    assert type(raised.value) is error
    assert time.monotonic() - start < HANGS_S


@pytest.mark.parametrize("transfer", ["push", "pull"])
def test_a_transfer_over_a_hung_link_ends(
    serve: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer: str
) -> None:
    """A transfer keeps its deadline, although adbutils' file transfers have no timeout."""
    monkeypatch.setattr(adb, "adb_transfer_s", lambda size: 0.5)
    serve(hang)
    (tmp_path / "a").write_bytes(bytes(1000))
    device = adb.AdbDevice("A 1")
    start = time.monotonic()
    with pytest.raises(Disconnected, match="stopped answering"):
        device.push(tmp_path / "a", "/a") if transfer == "push" else device.pull("/a", tmp_path / "b")
    assert time.monotonic() - start < HANGS_S
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_hanging_server_is_reported(serve: Callable[..., None]) -> None:
    """A server that hangs takes one deadline and is reported."""
    serve(hang)
    with pytest.raises(Disconnected, match="the adb server stopped answering"):
        adb.list_adb_devices()


def test_one_hanging_device_costs_the_listing_only_its_deadline(
    serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices are examined at the same time, and unusable ones not at all."""
    from android_harness import identity

    monkeypatch.setattr(identity, "SCRIPT_S", 2.0)
    hanging: list[str] = []
    together = 0

    def behave(connection: socket.socket, command: str) -> None:
        nonlocal together
        if command == "host:devices":
            listed = "".join(f"{name}\t{state}\n" for name, state in rows)
            connection.sendall(f"OKAY{len(listed):04x}{listed}".encode())
            return
        hanging.append(command)
        together = max(together, len(hanging))
        try:
            hang(connection, command)
        finally:
            hanging.pop()

    rows = [("A 1", "device"), ("B", "device"), ("C", "unauthorized"), ("D", "device")]
    serve(behave)
    reports = device_listing.list_device_reports()
    assert together == 3
    assert [(report.entry.serial, report.entry.state) for report in reports] == rows
    assert [report.ready for report in reports] == [False] * 4
    assert "stopped answering" in reports[0].gates[0].seen
    assert "accept" in reports[2].gates[0].fix


def test_reconnect_gives_up_in_time(serve: Callable[..., None]) -> None:
    """Reconnecting gives up at its deadline with an error."""
    serve(say("device offline"))
    start = time.monotonic()
    with pytest.raises(Disconnected, match="did not come back within 1 s"):
        adb.AdbDevice("A:5555").reconnect(1.0)
    assert time.monotonic() - start < HANGS_S


def test_a_server_is_started_where_none_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server is started; it knows no device, and the message says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for name, value in {"ANDROID_ADB_SERVER_PORT": port, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    try:
        with pytest.raises(NoDeviceError, match=r"'none of these'|adb lists no device"):
            adb.connect_adb("none of these")
    finally:
        from adbutils._utils import adb_path

        subprocess.run([adb_path(), "-P", port, "kill-server"], capture_output=True, check=True)


def test_an_invalid_port_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid port is reported with the name of its variable."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "usb")
    with pytest.raises(SetupError, match="ANDROID_ADB_SERVER_PORT"):
        adb.list_adb_devices()


def test_an_adb_that_cannot_start_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error contains what adb printed."""
    (tmp_path / "adb").write_text("#!/bin/sh\necho cannot bind >&2; exit 1\n")
    (tmp_path / "adb").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(tmp_path / "adb"))
    with pytest.raises(SetupError, match="cannot bind"):
        adb.list_adb_devices()


def test_without_adbutils_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the command that installs adbutils; importing the module does not need it."""
    monkeypatch.setitem(sys.modules, "adbutils", None)
    monkeypatch.delitem(sys.modules, "android_harness.adb_client", raising=False)
    monkeypatch.delattr("android_harness.adb_client", raising=False)
    with pytest.raises(SetupError, match=r"export-mobile\[android\]"):
        adb.list_adb_devices()


@pytest.mark.parametrize("path", ["relative", "/a\0b", "/\udcff"])
def test_invalid_paths_are_refused(path: str, tmp_path: Path) -> None:
    """An invalid path is refused before the device is contacted."""
    (tmp_path / "a").touch()
    with pytest.raises(DeviceError):
        adb.AdbDevice("A").push(tmp_path / "a", path)
    with pytest.raises(DeviceError):
        adb.AdbDevice("A").pull(path, tmp_path / "b")
