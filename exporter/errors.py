"""The errors by which export-mobile refuses to continue, and their exit codes.

ExportError                       1  something unexpected; `--debug` shows where
├── UsageError                    2  the command line or an argument is wrong
│   └── SeveralPartsError            the network has several parts, and none was named
├── CheckpointError               3  the checkpoint cannot be read, or not safely
│   ├── DamagedFileError             cut short, or not what its own header promises
│   ├── BoundsError                  reading it would take too much time or memory
│   └── CodeInFileError              reading it would run code; `--trust` allows that
├── ArchitectureError             4  no known network fits the weights
├── CaptureError                  5  the network does not run on the given inputs
│   └── FixedSizesError              its graph has one size, where ranges are asked for
├── NothingPassedError            6  no artifact may be shipped
├── InconclusiveError            18  too few scenes were seen to prove what could be shipped
├── RequirementError              7  an artifact named by `--require` did not pass
├── OutputError                   8  OUT cannot be written, or holds something of the user's
├── VerificationError             9  OUT is missing or damaged, or `export-mobile verify` found a difference
├── MissingDependencyError       10  an optional package is needed
├── CalibrationError             11  calibration data cannot be used
├── WorkerError                  12  a worker process died (killed, out of memory, crashed)
│   ├── OverBoundsError              it took more time or memory than a model of that size may
│   └── NotEnoughMemoryError         the machine has less free memory than the model needs
├── ReleaseError                 30  may not be released: not passed, over budget, not measured, …
└── NightRunningError            46  a nightly run is under way in the same folder

13 to 29 are the harness's. `export-mobile nightly` ends with 40 to 45 by what it found
(`exporter.nightly.records.EXIT_CODES`). Ctrl-C ends with 130.
What one format does wrong is data in the report (`Status`), not an exception.

Every class has a `code`, which names its entry in docs/troubleshooting.md; some refusals carry a finer one.
"""

from __future__ import annotations

INTERRUPTED_EXIT_CODE = 130
TROUBLESHOOTING = "docs/troubleshooting.md"
"""The page that explains every error under its code; `tests/test_troubleshooting.py` compares the two."""


MAX_TEXT = 1_200
"""A message that quotes a file is cut here: it fits a screen of 24 lines of 80 characters, with its hint."""
MAX_LINES = 16


def brief_error(text: str) -> str:
    """Return a text as it may be printed: without control characters, and no longer than a screen."""
    clean = "".join(c if c.isprintable() or c == "\n" else "?" for c in text.replace("\t", " "))
    lines = clean.splitlines()
    if len(lines) > MAX_LINES:
        clean = "\n".join([*lines[:MAX_LINES], "…"])
    return clean if len(clean) <= MAX_TEXT else f"{clean[: MAX_TEXT - 200]} … {clean[-200:]}"


class ExportError(Exception):
    """A refusal: one message that says what was seen and what to try.

    Args:
        message: What was seen and what was expected instead.
        hint: What to try next; one sentence, or empty.
        code: The entry of docs/troubleshooting.md that explains this refusal; the class's own when empty.
    """

    exit_code = 1
    code = "EM-UNEXPECTED"

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        # Both stay in args so that the error survives pickling out of a worker.
        super().__init__(message, hint)
        self.message = brief_error(message)
        self.hint = brief_error(hint)
        self.code = code or type(self).code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(ExportError):
    exit_code = 2
    code = "EM-USAGE"


class SeveralPartsError(UsageError):
    """The network has several parts, and no single one was asked for.

    Args:
        message: The parts.
        hint: The way to choose.
        parts: Their names where all are wanted; empty where one was named that it does not have.
    """

    code = "EM-SEVERAL-PARTS"

    def __init__(self, message: str, hint: str = "", parts: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, parts)
        self.parts = parts


class CheckpointError(ExportError):
    exit_code = 3
    code = "EM-CHECKPOINT"


class DamagedFileError(CheckpointError):
    code = "EM-DAMAGED"


class BoundsError(CheckpointError):
    code = "EM-BOUNDS"


class CodeInFileError(CheckpointError):
    code = "EM-CODE-IN-FILE"


class ArchitectureError(ExportError):
    exit_code = 4
    code = "EM-ARCHITECTURE"


class CaptureError(ExportError):
    exit_code = 5
    code = "EM-CAPTURE"


class FixedSizesError(CaptureError):
    """The network's graph cannot have ranges of sizes; a graph for each size may still be made."""

    code = "EM-DYNAMIC"


class NothingPassedError(ExportError):
    exit_code = 6
    code = "EM-NOTHING-PASSED"


class InconclusiveError(ExportError):
    exit_code = 18
    code = "EM-INCONCLUSIVE"


class RequirementError(ExportError):
    exit_code = 7
    code = "EM-REQUIRED"


class OutputError(ExportError):
    exit_code = 8
    code = "EM-OUTPUT"


class VerificationError(ExportError):
    exit_code = 9
    code = "EM-VERIFICATION"


class MissingDependencyError(ExportError):
    exit_code = 10
    code = "EM-MISSING-PACKAGE"


class CalibrationError(ExportError):
    exit_code = 11
    code = "EM-CALIBRATION"


class WorkerError(ExportError):
    exit_code = 12
    code = "EM-WORKER"


class OverBoundsError(WorkerError):
    code = "EM-STOPPED"


class NotEnoughMemoryError(WorkerError):
    code = "EM-MEMORY"


class ReleaseError(ExportError):
    exit_code = 30
    code = "EM-RELEASE"


class NightRunningError(ExportError):
    exit_code = 46
    code = "EM-NIGHT-RUNNING"


class LoweringError(Exception):
    """One variant could not be made; its siblings go on.

    Args:
        cause: The framework's own words, shortened to what matters.
        source: `file:line` of the user's model that caused it, where known.
    """

    code = "EM-LOWERING"

    def __init__(self, cause: str, source: str | None = None) -> None:
        super().__init__(cause, source)
        self.cause = cause
        self.source = source

    def __str__(self) -> str:
        return f"{self.cause} (at {self.source})" if self.source else self.cause


class CannotRunHere(Exception):  # noqa: N818 - not an error: the artifact becomes `not_run` with this reason
    """The artifact's runtime cannot execute on this machine."""

    code = "EM-NOT-RUN"
