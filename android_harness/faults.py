"""Explain how a program on a device ended, from its exit code and what it printed."""

from __future__ import annotations

import re

CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"no space left|ENOSPC",
        "could not write its results: the disk is full",
        "Free some space on the phone.",
    ),
    (
        r"library .* not found|cannot open shared object|CANNOT LINK",
        "misses a shared library",
        "Build the runner again: `export-mobile runner build`.",
    ),
    (
        r"permission denied|exec format|not executable",
        "may not be executed",
        "The folder may be mounted noexec, or the runner is for another processor: check `adb shell mount` "
        "and `export-mobile runner build --for`.",
    ),
)
"""(pattern of the error output, cause, advice)."""
CODES: dict[int, tuple[str, str]] = {
    126: CAUSES[2][1:],
    127: ("was not found", "The phone may have been cleaned meanwhile: run the bench again."),
    132: (
        "executed an instruction that this processor lacks (SIGILL)",
        "Build the runner and its runtime for this phone's cores.",
    ),
    134: ("aborted (SIGABRT)", "The runtime found an error in itself or in the artifact."),
    135: ("accessed memory wrongly (SIGBUS)", "The runtime or the artifact is damaged; copy it again."),
    137: (
        "was killed, probably for lack of memory",
        "Close apps or restart the device; see `adb logcat -d | grep lowmemorykiller`.",
    ),
    139: ("crashed (SIGSEGV)", "The runtime crashed on this artifact."),
    143: ("was asked to end (SIGTERM)", "Another program on the phone ended it."),
}
"""Exit code of a shell -> cause, advice."""


def explain_fault(exit_code: int, stderr: str) -> tuple[str, str]:
    """Return why a program ended and what to do about it; two empty texts where neither says so."""
    for pattern, cause, advice in CAUSES:
        if re.search(pattern, stderr, re.IGNORECASE):
            return cause, advice
    return CODES.get(exit_code, ("", ""))
