"""Let one run at a time use a phone: a lock on this computer, and a lease with a deadline on the phone.

The kernel releases the lock of a run that was killed. The lease on the phone keeps other computers out. It
ends at its deadline, at a restart of the phone, and when a later run on the same computer holds the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import hashlib
import os
import platform
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from android_harness.errors import DeviceError, Disconnected, NotReadyError
from android_harness.records import Device

SECONDS = 900
"""The lease's time; a run renews it at every step, the longest of which is copying a large model."""
RENEW_S = 60.0
POLL_S = 5.0
TAKEN = 75
ALONE = r"""
alone() {
    mkdir -p "${lease%/*}"
    tries=0
    until mkdir "$lease.busy" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -gt 60 ] && rmdir "$lease.busy" 2>/dev/null
        [ "$tries" -gt 90 ] && { echo "cannot write ${lease%/*}" >&2; exit 1; }
        sleep 0.1
    done
}
"""
"""A shell function: one script at a time reads and writes the lease. A killed one delays others by 6 s."""
ACQUIRE = (
    ALONE
    + r"""
lease=$1 token=$2 host=$3 seconds=$4 label=$5
alone
trap 'rmdir "$lease.busy"' EXIT
now=$(date +%s)
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo unknown)
old_token= old_host= deadline= old_boot= old_label=
[ -e "$lease" ] && read -r old_token old_host deadline old_boot old_label <"$lease"
case $deadline in ''|*[!0-9]*) deadline=0;; esac
left=$((deadline - now))
if [ "$old_token" != "$token" ] && [ "$left" -gt 0 ] && [ "$left" -le 86400 ] &&
    [ "$old_boot" = "$boot" ] && [ "$old_host" != "$host" ]; then
    echo "$left $old_label"
    exit 75
fi
echo "$token $host $((now + seconds)) $boot $label" >"$lease.new" && mv -f "$lease.new" "$lease"
"""
)
RELEASE = (
    ALONE
    + r"""
lease=$1
alone
trap 'rmdir "$lease.busy"' EXIT
read -r token rest <"$lease" 2>/dev/null
[ "$token" = "$2" ] && rm -f "$lease"
exit 0
"""
)
SCRIPT_S = 20.0


@dataclass(eq=False)
class Lease:
    """A lease that this run holds on a phone."""

    device: Device
    host: str
    """This computer; a lease of another run on it is stale, because its lock is free."""
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    renewed_at: float = 0.0

    def acquire(self) -> str:
        """Take or renew the lease. Return an empty text, or who else holds it.

        Raises:
            DeviceError: The device does not answer, or its folder cannot be written.
        """
        completed = self.device.run(
            "sh",
            "-c",
            ACQUIRE,
            "sh",
            lease_path_on(self.device),
            self.token,
            self.host,
            str(SECONDS),
            lease_label(),
            timeout_s=SCRIPT_S,
        )
        if completed.exit_code == 0:
            self.renewed_at = time.monotonic()
            return ""
        if completed.exit_code == TAKEN:
            left, _, holder = completed.stdout.strip().partition(" ")
            return f"{_printable_lease(holder) or 'another run'}, at most {left[:12]} s more"
        reason = completed.stderr.strip()[:300] or f"exit code {completed.exit_code}"
        raise DeviceError(f"{self.device.serial}: its lease cannot be written: {reason}")

    def renew(self) -> None:
        """Renew the lease if it is older than a minute; a phone that is away for a moment is no error.

        Raises:
            DeviceError: Another run has taken the phone, because this one did not renew in time.
        """
        if time.monotonic() - self.renewed_at < RENEW_S:
            return
        with contextlib.suppress(Disconnected):
            if holder := self.acquire():
                raise DeviceError(
                    f"{self.device.serial} is used by {holder}: this run stood still for too long.",
                    "Start it again; finished launches are kept.",
                )

    def release(self) -> None:
        with contextlib.suppress(DeviceError):
            self.device.run(
                "sh", "-c", RELEASE, "sh", lease_path_on(self.device), self.token, timeout_s=SCRIPT_S
            )


@contextlib.contextmanager
def held_lease(
    device: Device, wait_s: float, notify: Callable[[str, float], None], pause: Callable[[float], None]
) -> Iterator[Lease]:
    """Hold the phone until the block ends.

    Args:
        device: The phone; its serial identifies it, whatever its address.
        wait_s: How long to wait for another run.
        notify: Called with who holds it and the seconds left, before each wait.
        pause: Waits for a number of seconds.

    Raises:
        NotReadyError: Another run still holds it.
        DeviceError: The device does not answer.
    """
    left = wait_s
    with contextlib.ExitStack() as stack:
        while True:
            holder, lease = _try_lease(device, stack)
            if lease is not None:
                stack.callback(lease.release)
                break
            if left <= 0:
                raise NotReadyError(
                    f"{device.serial} is in use: {holder}.",
                    "Wait until that run has ended.",
                    code="EM-IN-USE",
                )
            notify(holder, left)
            step = min(POLL_S, left)
            pause(step)
            left -= step
        yield lease


def _try_lease(device: Device, stack: contextlib.ExitStack) -> tuple[str, Lease | None]:
    """Take the lock and the lease; return who holds one of them, or the lease."""
    lock, holder = _lock_lease(device.serial)
    if holder:
        return holder, None
    lease = Lease(device, _lease_host() if lock is not None else f"unlocked-{secrets.token_hex(4)}")
    try:
        holder = lease.acquire()
    except BaseException:
        _close_lease(lock)
        raise
    if holder:
        _close_lease(lock)
        return holder, None
    stack.callback(_close_lease, lock)
    return "", lease


def lease_path_on(device: Device) -> str:
    return f"{device.root}/lease"


def lease_label() -> str:
    """Describe this run for people who find the phone in use."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"process {os.getpid()} of {user} on {platform.node()}"


def _lease_folder() -> Path:
    """Return the folder of locks, which all users of this computer share.

    Raises:
        OSError: It cannot be made, or is a link: one of another user may lead to a folder of this user.
    """
    chosen = os.environ.get("EXPORT_MOBILE_STATE")
    folder = Path(chosen) / "leases" if chosen else Path(tempfile.gettempdir()) / "export-mobile-leases"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # another user's
            os.fchmod(handle, 0o1777)
    finally:
        os.close(handle)
    return folder


def _lease_host() -> str:
    """Return a name of the place where a lock excludes others: this folder on this computer."""
    status = _lease_folder().stat()
    machine = platform.node()
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text()
    text = f"{machine} {status.st_dev} {status.st_ino}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _lock_lease(serial: str) -> tuple[int | None, str]:
    """Lock a phone on this computer.

    Returns:
        The lock, or None where there can be none; and who holds it, or an empty text.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", serial)[:60]
    digest = hashlib.sha256(serial.encode()).hexdigest()[:8]
    try:
        lock = _open_lease(_lease_folder() / f"{name}-{digest}")
    except OSError:
        return None, ""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = _printable_lease(os.pread(lock, 300, 0).decode(errors="replace").strip())
        os.close(lock)
        return None, holder or "another run on this computer"
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, lease_label().encode(), 0)
    return lock, ""


def _printable_lease(text: str) -> str:
    """Return a text that anyone on the phone or computer may have written, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)[:200]


def _open_lease(path: Path) -> int:
    """Open a lock; it will be written to, so it must not be another file under a lock's name.

    Raises:
        OSError: It cannot be opened, or is a link.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        lock = os.open(path, flags)
    except FileNotFoundError:
        lock = os.open(path, flags | os.O_CREAT, 0o666)
        os.fchmod(lock, 0o666)
    status = os.fstat(lock)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(lock)
        raise OSError(errno.ELOOP, "no file of its own", str(path))
    return lock


def _close_lease(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
