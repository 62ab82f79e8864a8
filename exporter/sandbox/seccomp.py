"""seccomp: a filter of system calls, for the network, other processes and whatever Landlock leaves open."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from exporter.sandbox.confinement import Confinement
from exporter.sandbox.system_calls import check_system_call, prctl_system_call

_PR_GET_SECCOMP, _PR_SET_SECCOMP, _MODE_FILTER = 21, 22, 2

_MACHINES: Mapping[str, tuple[int, int]] = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine -> its AUDIT_ARCH, and its column in the tables of system calls."""

_FORBIDDEN: Mapping[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "setns": (308, 268), "unshare": (272, 97), "bpf": (321, 280),
    "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "userfaultfd": (323, 282), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "mknod": (133, None),
    "mknodat": (259, 33), "open_by_handle_at": (304, 265), "move_mount": (429, 429), "fsopen": (430, 430),
    "open_tree": (428, 428), "mount_setattr": (442, 442), "acct": (163, 89), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None),
    "ioperm": (173, None), "quotactl": (179, 60), "personality": (135, 92), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "msgget": (68, 186), "semget": (64, 190), "shmget": (29, 194),
    "shmat": (30, 196), "mq_open": (240, 180), "fanotify_init": (300, 262), "inotify_init1": (294, 26),
    "openat2": (437, 437), "chmod": (90, None),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
}  # fmt: skip
"""System calls that no model needs: (x86-64, arm64). Landlock lets everybody change modes and times."""

_PROGRAMS: Mapping[str, tuple[int | None, int | None]] = {"execve": (59, 221), "execveat": (322, 281)}
_FORKS: Mapping[str, tuple[int | None, int | None]] = {"fork": (57, None), "vfork": (58, None)}

_CHANGES: Mapping[str, tuple[int | None, int | None]] = {
    "creat": (85, None), "truncate": (76, 45), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "unlink": (87, None), "unlinkat": (263, 35), "mkdir": (83, None),
    "mkdirat": (258, 34), "rmdir": (84, None),
    "memfd_create": (319, 279), "fchmod": (91, 52),
}  # fmt: skip
"""System calls that change files: forbidden where nothing may be written."""

_OPEN: tuple[tuple[tuple[int | None, int | None], int], ...] = (((2, None), 1), ((257, 56), 2))
"""open and openat, and which argument of each holds the flags."""
_CLONE, _CLONE3, _KILL, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (62, 129), (234, 131), (302, 261)
_CLONE_THREAD = 0x10000
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_X32 = 0x40000000

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`."""

Instruction = tuple[int, int, int, int]
"""BPF: code, how many to skip if true, if false, and the operand."""


def seccomp_available() -> bool:
    """Whether the kernel filters system calls, and the filter is written for this processor."""
    return platform.machine() in _MACHINES and prctl_system_call(_PR_GET_SECCOMP) >= 0


def enter_seccomp(confinement: Confinement) -> None:
    """Forbid this process every system call that the confinement does not need.

    Raises:
        OSError: The kernel refuses.
    """
    program = _seccomp_program(confinement, os.getpid())
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    check_system_call(prctl_system_call(_PR_SET_SECCOMP, _MODE_FILTER, header), "seccomp")


def _seccomp_program(confinement: Confinement, process: int) -> list[Instruction]:
    """The filter: forbidden calls fail with EPERM, as on a machine without the right to them."""
    architecture, column = _MACHINES[platform.machine()]
    forks = confinement.forks or confinement.programs
    forbidden = [*_FORBIDDEN.values()]
    forbidden += [] if confinement.programs else [*_PROGRAMS.values()]
    forbidden += [] if forks else [*_FORKS.values()]
    forbidden += [] if confinement.writes else [*_CHANGES.values()]
    numbers = [call[column] for call in forbidden]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        *(((_JUMP_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERROR | _ENOSYS)) if column == 0 else ()),
        *(line for number in numbers if number is not None for line in _seccomp_refuse(number)),
        *(() if forks else _seccomp_only_threads(column)),
        *(() if confinement.writes else _seccomp_only_reading(column)),
        *(() if forks else _seccomp_only_itself(_KILL[column], process)),
        *(() if forks else _seccomp_only_itself(_TGKILL[column], process)),
        *_seccomp_only_itself(_PRLIMIT[column], 0),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _seccomp_refuse(number: int, code: int = _EPERM) -> Iterable[Instruction]:
    return (_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | code)


def _seccomp_only_threads(column: int) -> Sequence[Instruction]:
    """Refuse new processes; ENOSYS makes the C library use clone, whose flags a filter can see."""
    return [
        *_seccomp_refuse(_CLONE3[column], _ENOSYS),
        (_JUMP_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_JUMP_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _ERROR | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _seccomp_only_reading(column: int) -> Iterator[Instruction]:
    """Refuse to open a file for writing."""
    for numbers, argument in _OPEN:
        number = numbers[column]
        if number is not None:
            yield (_JUMP_EQUAL, 0, 4, number)
            yield (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)
            yield (_JUMP_ANY_BIT, 0, 1, _WRITE_FLAGS)
            yield (_RETURN, 0, 0, _ERROR | _EPERM)
            yield (_RETURN, 0, 0, _ALLOW)


def _seccomp_only_itself(number: int, process: int) -> Sequence[Instruction]:
    """Refuse a call whose first argument is another process."""
    return [
        (_JUMP_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_JUMP_EQUAL, 1, 0, process),
        (_RETURN, 0, 0, _ERROR | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
