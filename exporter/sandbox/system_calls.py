"""Calls of the kernel that Python does not wrap."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS = 38


def system_call(number: int, *arguments: object) -> int:
    """Make a system call; the result is negative when it failed."""
    return int(_libc.syscall(ctypes.c_long(number), *arguments))


def prctl_system_call(operation: int, *arguments: object) -> int:
    """Make the system call `prctl`; missing arguments are zero."""
    words = [a if isinstance(a, bytes) else ctypes.c_ulong(int(str(a))) for a in arguments]
    words += [ctypes.c_ulong(0)] * (4 - len(words))
    return int(_libc.prctl(operation, *words))


def check_system_call(result: int, action: str) -> int:
    """Return a system call's result.

    Raises:
        OSError: The call failed.
    """
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{action}: {os.strerror(code)}")
    return result


def forbid_privileges_by_system_call() -> None:
    """Give up what set-user-ID programs could add: the kernel asks for it before it confines."""
    check_system_call(prctl_system_call(_PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
