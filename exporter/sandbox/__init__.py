"""Confines a process for the rest of its life: what it may read, write, start, reach and use up.

A job that runs a model of unknown origin enters a confinement first, in the child that was forked for it.
Landlock limits the files, seccomp the system calls, resource limits memory and time, each as far as the
kernel has it. Everything goes through ctypes: the standard library does not offer it.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from dataclasses import dataclass, replace

from exporter.sandbox import landlock, resource_limits, seccomp, system_calls
from exporter.sandbox.confinement import (
    Confinement,
    confinement_memory,
    confinement_run_seconds,
    confinement_seconds,
)
from exporter.sandbox.resource_limits import resource_limit_of_seconds_anew

__all__ = [
    "Confinement",
    "SandboxSupport",
    "confinement_memory",
    "confinement_run_seconds",
    "confinement_seconds",
    "enter_sandbox",
    "resource_limit_of_seconds_anew",
    "sandbox_support",
    "tighten_sandbox",
]


@dataclass(frozen=True)
class SandboxSupport:
    """What this machine's kernel offers."""

    landlock: int
    """The version of Landlock's interface; 0 without Landlock."""
    seccomp: bool

    @property
    def confines(self) -> bool:
        """Whether a confined process can neither write nor reach the network: either mechanism suffices."""
        return self.landlock > 0 or self.seccomp

    def __str__(self) -> str:
        names = [f"Landlock {self.landlock}"] if self.landlock else []
        names += ["seccomp"] if self.seccomp else []
        return ", ".join([*names, "resource limits"])


_entered: Confinement | None = None
"""What this process is confined to."""


def tighten_sandbox(writes: bool = False) -> None:
    """From here on start nothing, and write nothing, where this process is confined at all.

    Args:
        writes: Whether it keeps writing where it may, as runtimes do that compile what they load.
    """
    if _entered is not None:
        visible = (*_entered.reads, *_entered.writes)
        changed = _entered.writes if writes else ()
        enter_sandbox(replace(_entered, reads=visible, writes=changed, forks=False, programs=False))


@functools.cache
def sandbox_support() -> SandboxSupport:
    """Ask the kernel what it offers; changes nothing."""
    if sys.platform != "linux":
        return SandboxSupport(0, seccomp=False)
    return SandboxSupport(landlock.landlock_version(), seccomp.seccomp_available())


def enter_sandbox(confinement: Confinement) -> None:
    """Confine this process and everything it starts, for good.

    Raises:
        OSError: The kernel offers a mechanism and then refuses it.
    """
    global _entered
    _entered = confinement
    available = sandbox_support()
    resource_limits.enter_resource_limits(confinement)
    if confinement.writes:
        tempfile.tempdir = os.environ["TMPDIR"] = str(confinement.writes[0])
    if not available.confines:
        return
    system_calls.forbid_privileges_by_system_call()
    if available.landlock:
        landlock.enter_landlock(confinement, available.landlock)
    if available.seccomp:
        seccomp.enter_seccomp(confinement)
