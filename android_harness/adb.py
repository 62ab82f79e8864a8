"""A phone over adb, with quoted arguments, deadlines and typed errors."""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path
from typing import Any, Self

from android_harness import parse, physical_phones
from android_harness.adb_states import NO_DEVICE, adb_state_advice
from android_harness.errors import DeviceError, Disconnected, HarnessError, NoDeviceError, SetupError
from android_harness.records import Completed, DeviceEntry

ROOT = "/data/local/tmp/export-mobile"
QUERY_S = 5.0
CONNECT_S = 10.0
NETWORK = re.compile(r"[A-Za-z0-9._-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
"""An address in a network, as `adb connect` takes it."""
PROBE_S = 3.0
BYTES_PER_SECOND = 1_000_000
"""The slowest acceptable connection: a transfer may take 10 s plus its size at this rate."""
MAX_OUTPUT = 8 << 20
MAX_COMMAND = 32_000
"""adb encodes a command's length in four hexadecimal digits."""


def quote_for_adb(argv: tuple[str, ...]) -> str:
    """Return a command line for the device's shell that consists of exactly these words.

    Every word is quoted, so that none is mistaken for an assignment or a keyword.

    Raises:
        DeviceError: There is no word, a NUL character or text that is not Unicode, or the line is too long.
    """
    if not argv or any("\0" in word for word in argv):
        raise DeviceError("A command for the device needs a program and must not contain NUL characters.")
    line = " ".join("'" + word.replace("'", "'\"'\"'") + "'" for word in argv)
    try:
        length = len(line.encode())
    except UnicodeEncodeError:
        raise DeviceError(f"The command is not Unicode text: {line[:200]!r}.", "Rename the file.") from None
    if length > MAX_COMMAND:
        raise DeviceError(f"A command of {length} bytes is too long for adb (at most {MAX_COMMAND}).")
    return line


def adb_transfer_s(size: int) -> float:
    """Return the time in seconds that a transfer of `size` bytes may take."""
    return 10.0 + size / BYTES_PER_SECOND


def list_adb_devices() -> tuple[DeviceEntry, ...]:
    """Return every device that adb knows, in any state, sorted by serial: adb's own order varies.

    Raises:
        SetupError: adbutils or adb is missing, or its server cannot be started.
        DeviceError: The adb server does not answer.
    """
    client = _adb_client()
    client.start_adb_server_for_client()
    with client.translated_adb_client_errors("the adb server", "listing devices", QUERY_S):
        entries = parse.parse_devices(client.AdbClient(QUERY_S, MAX_OUTPUT).ask("host:devices"))
    return tuple(sorted(entries, key=lambda entry: entry.serial))


def connect_adb(name: str | None = None) -> AdbDevice:
    """Connect to the only usable phone, or to the one named by its serial or by its address in adb.

    Without a name, ANDROID_SERIAL names it, as for adb. An address of a network that adb does not list is
    connected to first.

    Raises:
        NoDeviceError: There is no usable device, or several; the message lists each with advice.
        DeviceError: The device does not answer.
        SetupError: See `list_adb_devices`.
    """
    device = _adb_phone(name or os.environ.get("ANDROID_SERIAL") or None)
    completed = device.run("mkdir", "-p", device.root)
    if completed.exit_code:
        reason = completed.stderr.strip()[:300]
        raise DeviceError(f"{device.serial}: {device.root} cannot be created: {reason}")
    return device


def _adb_phone(name: str | None) -> AdbDevice:
    entries = list_adb_devices()
    if name and NETWORK.fullmatch(name) and name not in {e.serial for e in entries if e.state == "device"}:
        connect_adb_address(name)
        entries = list_adb_devices()
    usable = [AdbDevice(entry.serial) for entry in entries if entry.state == "device"]
    if name is None and len(usable) > 1:
        phones = physical_phones.distinct_physical_phones(usable)
        return phones[0] if len(phones) == 1 else AdbDevice(choose_adb_device(entries, None).serial)
    if name is not None and name not in {entry.serial for entry in entries}:
        by_serial = {device.serial: device for device in physical_phones.distinct_physical_phones(usable)}
        if name in by_serial:
            return by_serial[name]
    return physical_phones.distinct_physical_phones((AdbDevice(choose_adb_device(entries, name).serial),))[0]


def connect_adb_address(address: str) -> None:
    """Ask adb's server to connect to a phone in the network; what comes of it, the list of devices says."""
    client = _adb_client()
    client.start_adb_server_for_client()
    try:
        with client.translated_adb_client_errors(address, "connecting", CONNECT_S):
            client.AdbClient(CONNECT_S, MAX_OUTPUT).ask(f"host:connect:{address}")
    except DeviceError:
        return


def choose_adb_device(entries: tuple[DeviceEntry, ...], serial: str | None) -> DeviceEntry:
    """Return the named device, or the only one; raise `NoDeviceError` unless exactly one is usable."""
    named = tuple(device for device in entries if serial in (None, device.serial))
    usable = tuple(device for device in named if device.state == "device")
    if len(usable) == 1:
        return usable[0]
    if usable:
        raise NoDeviceError(
            f"There are {len(usable)} devices: {_format_adb_devices(entries)}.",
            "Choose one with --device SERIAL.",
            code="EM-SEVERAL-DEVICES",
        )
    if named:
        raise NoDeviceError(f"No device is usable: {_format_adb_devices(named)}.")
    if entries:
        raise NoDeviceError(
            f"There is no device {serial!r}, only: {_format_adb_devices(entries)}.", "Check --device SERIAL."
        )
    raise NoDeviceError("adb lists no device.", NO_DEVICE)


def _format_adb_devices(entries: tuple[DeviceEntry, ...]) -> str:
    return "; ".join(
        f"{device.serial} ({': '.join(filter(None, (device.state, adb_state_advice(device.state))))})"
        for device in entries
    )


class AdbDevice:
    """A phone over adb as a `records.Device`. Each call makes its own connection, so threads may share it.

    Args:
        address: The phone's name in adb: its serial over USB, or host and port.
        serial: The phone's own serial, which stays the same at another address; the address when None.
    """

    def __init__(self, address: str, serial: str | None = None) -> None:
        self.address = address
        self.serial = serial or address
        self.root = ROOT

    def known_as(self, serial: str) -> Self:
        """Return the same phone under its own serial."""
        return type(self)(self.address, serial)

    def run(self, *argv: str, timeout_s: float = QUERY_S) -> Completed:
        """Run one program. Its arguments arrive unchanged, whatever characters they contain.

        Raises:
            Disconnected: The connection was lost, or the device does not answer any more.
            DeviceError: The program did not end in time, or printed more than 8 MB.
        """
        line = quote_for_adb(argv)
        try:
            return self._shell(line, timeout_s)
        except TimeoutError as error:
            raise self._overdue(argv[0], timeout_s) from error

    def _shell(self, line: str, timeout_s: float) -> Completed:
        with _adb_client().translated_adb_client_errors(self.serial, "running a command", None):
            # Without v2, adbutils reads the exit code from an echo that `exit` would skip.
            raw = self._on_adb(timeout_s).shell2(
                f"{line} </dev/null", timeout=timeout_s, encoding=None, v2=True
            )
        return Completed(raw.returncode, parse.parse_text(raw.stdout), parse.parse_text(raw.stderr))

    def _overdue(self, program: str, timeout_s: float) -> DeviceError:
        try:
            self._shell("true", PROBE_S)
        except (TimeoutError, DeviceError):
            return Disconnected(
                f"{self.serial} stopped answering ({program!r:.100} had {timeout_s:g} s).",
                "Check the cable or the Wi-Fi connection.",
            )
        return DeviceError(f"{self.serial}: {program!r:.100} did not end within {timeout_s:g} s.")

    def push(self, source: Path, target: str) -> None:
        """Copy a file to the device and check its size there.

        Raises:
            Disconnected: The connection was lost or is too slow (less than 1 MB/s).
            DeviceError: The device refused the file, perhaps because it is full.
        """
        _check_adb_path(target)
        size = source.stat().st_size
        deadline = adb_transfer_s(size)
        # The file is opened here because adbutils leaves it open if the device disappears early.
        doing = f"copying {source.name!r:.100} to it"
        with (
            source.open("rb") as file,
            _adb_client().translated_adb_client_errors(self.serial, doing, deadline),
        ):
            try:
                self._on_adb(deadline).sync.push(file, target, check=True)
            except _adb_client().AdbError as error:
                if str(error) != "FAIL":  # adbutils reduces the device's answer to this
                    raise
                refused = True
            else:
                refused = False
        if refused:
            raise self._refused(size, target)

    def _refused(self, size: int, target: str) -> DeviceError:
        folder = target.rpartition("/")[0] or "/"
        self.run("rm", "-f", target)  # the daemon may still hold the part that fitted
        free = parse.parse_free_bytes(self.run("df", "-k", folder).stdout)
        if free is not None and free < size:
            return DeviceError(
                f"{self.serial} is full: {target!r:.200} needs {adb_megabytes(size)}, "
                f"{adb_megabytes(free)} are free.",
                "Free some space on the phone.",
            )
        return DeviceError(
            f"{self.serial} refused to store {target!r:.200} ({adb_megabytes(size)}).",
            f"Check that adb may write to {folder}.",
        )

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from the device. `target` changes only when the file is complete.

        Raises:
            Disconnected: The connection was lost or is too slow (less than 1 MB/s).
            DeviceError: There is no such file, or its length differs from what the device reports.
        """
        _check_adb_path(source)
        size = self._size(source)
        deadline = adb_transfer_s(size)
        aside = target.with_name(f".{target.name[:100]}.part")
        try:
            with _adb_client().translated_adb_client_errors(
                self.serial, f"copying {source!r:.200} from it", deadline
            ):
                copied = _adb_client().pull_with_adb_client(
                    self._on_adb(deadline, 2 * size + MAX_OUTPUT), source, aside, size
                )
            if copied != size:
                raise DeviceError(f"{self.serial}: {source!r:.200} has {size} bytes, {copied} arrived.")
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)

    def _size(self, path: str) -> int:
        with _adb_client().translated_adb_client_errors(self.serial, f"examining {path!r:.200}", QUERY_S):
            status = self._on_adb(QUERY_S).sync.stat(path)
        if not stat.S_ISREG(status.mode):
            raise DeviceError(f"{self.serial} has no file {path!r:.200}.")
        return int(status.size)

    def reconnect(self, timeout_s: float = 60.0) -> None:
        """Wait until the device answers again; over TCP, reconnect to it.

        Raises:
            Disconnected: It did not come back in time.
        """
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                if self._shell("true", min(PROBE_S, left)).exit_code == 0:
                    return
            except (TimeoutError, DeviceError):
                self._nudge(min(PROBE_S, deadline - time.monotonic()))
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
        raise Disconnected(f"{self.serial} did not come back within {timeout_s:g} s.", "Plug it in again.")

    def _nudge(self, timeout_s: float) -> None:
        over_tcp = re.search(r":\d+$", self.address)
        commands = (
            (f"host:disconnect:{self.address}", f"host:connect:{self.address}")
            if over_tcp
            else ("host:reconnect-offline",)
        )
        if timeout_s <= 0:
            return
        for command in commands:
            try:
                _adb_client().start_adb_server_for_client()
                with _adb_client().translated_adb_client_errors(self.serial, "reconnecting", timeout_s):
                    _adb_client().AdbClient(timeout_s, MAX_OUTPUT).ask(command)
            except HarnessError:
                continue  # `reconnect` asks the device itself whether it worked

    def _on_adb(self, timeout_s: float, limit: int | None = None) -> Any:
        return _adb_client().AdbClient(timeout_s, limit or MAX_OUTPUT).device(serial=self.address)


def adb_megabytes(count: int) -> str:
    """Return a number of bytes for people, such as "1.5 MB"."""
    return f"{count / 1e6:.1f} MB"


def _check_adb_path(path: str) -> None:
    quote_for_adb((path,))
    if not path.startswith("/"):
        raise DeviceError(f"This is not an absolute path on the device: {path!r:.200}.")


def _adb_client() -> Any:
    """Import the client, once the variables that name adb's server are checked."""
    port = os.environ.get("ANDROID_ADB_SERVER_PORT")
    if port and not port.isdecimal():
        raise SetupError(
            f"ANDROID_ADB_SERVER_PORT is {port!r:.40}, not a number.", "Unset it or set it to a port."
        )
    try:
        from android_harness import adb_client
    except ImportError as error:
        raise SetupError(
            f"Talking to a phone needs the package adbutils ({error}).",
            "Install it: pip install 'export-mobile[android]'.",
        ) from error
    return adb_client
