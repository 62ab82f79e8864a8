"""Landlock: the kernel lets a process give up files, TCP and signals to others (Linux 5.13; TCP 6.7)."""

from __future__ import annotations

import ctypes
import os
import site
import stat
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from exporter.sandbox.confinement import Confinement
from exporter.sandbox.system_calls import check_system_call, system_call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_MAKE_DEVICES = 1 << 6 | 1 << 11
_ACCESS_BITS: Mapping[int, int] = {1: 13, 2: 14, 3: 15, 4: 15}
"""Landlock version -> how many of its file rights exist; 16 from version 5 on."""

_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/localtime", "/opt/homebrew", "/nix/store",
)  # fmt: skip
"""Where interpreters, shared libraries and their data are."""
_MACHINE = (
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/sys/vm",
    "/proc/sys/kernel", "/proc/mounts", "/proc/filesystems", "/sys/devices/system", "/sys/fs/cgroup",
    "/sys/kernel/mm", "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
)  # fmt: skip
"""What runtimes read to learn about processors and memory."""


def landlock_version() -> int:
    """The version of Landlock's interface; 0 where the kernel has none."""
    return max(system_call(_CREATE_RULESET, None, 0, _ASK_VERSION), 0)


def enter_landlock(confinement: Confinement, version: int) -> None:
    """Limit this process to what the confinement grants.

    Args:
        confinement: What is granted, beside Python and the system's libraries.
        version: Of Landlock's interface: older ones know fewer rights.

    Raises:
        OSError: The kernel refuses.
    """
    everything = (1 << _ACCESS_BITS.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0
    scoped = 0b11 if version >= 6 else 0
    attributes = struct.pack("=QQQ", everything, network, scoped)
    attributes = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = check_system_call(
        system_call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "Landlock"
    )
    reading = (_READ_FILE | _READ_DIR | (_EXECUTE if confinement.programs else 0)) & everything
    writing = everything & ~(_EXECUTE | _MAKE_DEVICES)
    for path in (*_readable_in_landlock(), *confinement.reads):
        _allow_in_landlock(ruleset, path, reading)
    for path in confinement.writes:
        _allow_in_landlock(ruleset, path, writing)
    _allow_in_landlock(ruleset, Path("/dev/null"), (_READ_FILE | _WRITE_FILE) & everything)
    check_system_call(system_call(_RESTRICT_SELF, ruleset, 0), "Landlock")
    os.close(ruleset)


def _allow_in_landlock(ruleset: int, path: Path, access: int) -> None:
    """Grant `access` below `path`; what does not exist needs no grant."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _OF_FILES
        rule = struct.pack("=Qi", access, descriptor)
        check_system_call(system_call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"Landlock, {path}")
    finally:
        os.close(descriptor)


def _readable_in_landlock() -> Iterator[Path]:
    """Python, its packages, our own, and the system's libraries."""
    yield from map(Path, (*_SYSTEM, *_MACHINE, sys.prefix, sys.base_prefix, sys.exec_prefix))
    yield from map(Path, site.getsitepackages())
    yield Path(site.getusersitepackages())
    for name in ("exporter", "android_harness"):
        for folder in getattr(sys.modules.get(name), "__path__", ()):
            yield Path(folder)
