"""A private adb server with its own port and key, which leaves the user's server alone."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory

from android_harness.errors import SetupError

START_S = 15.0
# The phones on this machine's USB belong to the user's server.
HIDE_USB = 'for bus in /dev/bus/usb; do [ ! -d "$bus" ] || mount -t tmpfs none "$bus"; done; exec "$@"'

ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", HIDE_USB, "sh")


@contextmanager
def private_adb_server() -> Iterator[int]:
    """Run an adb server and yield its port. It ends with the block, and with this process."""
    import adbutils

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with TemporaryDirectory(prefix="export-mobile-adb-") as home:
        server = subprocess.Popen(
            [*ALONE, adbutils.adb_path(), "-P", str(port), "nodaemon", "server"],
            env=os.environ | {"HOME": home, "ADB_MDNS": "0", "TMPDIR": home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for_server_port(port, server)
            yield port
        finally:
            server.kill()
            server.wait()


def wait_for_server_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process listens on a port.

    Raises:
        SetupError: The process ended, or took too long.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.02)
    raise SetupError(f"adb's server did not start on port {port}.")


def connect_to_server(address: str, port: int) -> None:
    """Make the adb server at `port` (re)connect to a device; an unauthorized device counts as connected.

    Raises:
        SetupError: It cannot reach the device.
    """
    import adbutils

    client = adbutils.AdbClient(host="127.0.0.1", port=port)
    client.disconnect(address)
    answer = client.connect(address, timeout=20.0)
    # adb distinguishes success from failure only by its message.
    if not answer.startswith(("connected", "already connected", "failed to authenticate")):
        raise SetupError(f"adb's server could not connect to the simulated device {address}: {answer}.")


def disconnect_from_server(address: str, port: int) -> None:
    """Make the adb server at `port` forget a device; do nothing if no server runs there."""
    import adbutils

    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        adbutils.AdbClient(host="127.0.0.1", port=port).disconnect(address)
