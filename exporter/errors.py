"""Every way export-mobile refuses to go on, and the exit code of each.

ExportError                       1  something unexpected; `--debug` shows where
├── UsageError                    2  the command line or an argument is wrong
├── CheckpointError               3  the checkpoint cannot be read, or not safely
├── ArchitectureError             4  no known network fits the weights
├── CaptureError                  5  the network does not run on the given inputs
├── NothingPassedError            6  no artifact may be shipped
├── RequirementError              7  an artifact named by `--require` did not pass
├── OutputError                   8  OUT cannot be written, or holds something of the user's
├── VerificationError             9  OUT is missing or damaged, or `export-mobile verify` found a difference
├── MissingDependencyError       10  an optional package is needed
├── CalibrationError             11  calibration data cannot be used
├── WorkerError                  12  a worker process died (killed, out of memory, crashed)
├── ReleaseError                 30  may not be released: not passed, over budget, not measured, …
└── NightRunningError            46  a nightly run is under way in the same folder

13 to 29 are the harness's. `export-mobile nightly` ends with 40 to 45 by what it found
(`exporter.nightly.records.EXIT_CODES`). Ctrl-C ends with 130.
What one format does wrong is data in the report (`Status`), not an exception.
"""

from __future__ import annotations

INTERRUPTED_EXIT_CODE = 130


class ExportError(Exception):
    """What was seen, and what to try: always one message a user can act on.

    Args:
        message: What was seen and what was expected instead.
        hint: What to try next; one sentence, or empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        # Both stay in args so that the error survives pickling out of a worker.
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(ExportError):
    exit_code = 2


class CheckpointError(ExportError):
    exit_code = 3


class ArchitectureError(ExportError):
    exit_code = 4


class CaptureError(ExportError):
    exit_code = 5


class NothingPassedError(ExportError):
    exit_code = 6


class RequirementError(ExportError):
    exit_code = 7


class OutputError(ExportError):
    exit_code = 8


class VerificationError(ExportError):
    exit_code = 9


class MissingDependencyError(ExportError):
    exit_code = 10


class CalibrationError(ExportError):
    exit_code = 11


class WorkerError(ExportError):
    exit_code = 12


class ReleaseError(ExportError):
    exit_code = 30


class NightRunningError(ExportError):
    exit_code = 46


class LoweringError(Exception):
    """One variant could not be made; its siblings go on.

    Args:
        cause: The framework's own words, shortened to what matters.
        source: `file:line` of the user's model that caused it, where known.
    """

    def __init__(self, cause: str, source: str | None = None) -> None:
        super().__init__(cause, source)
        self.cause = cause
        self.source = source

    def __str__(self) -> str:
        return f"{self.cause} (at {self.source})" if self.source else self.cause


class CannotRunHere(Exception):  # noqa: N818 - not an error: the artifact becomes `not_run` with this reason
    """The artifact's runtime cannot execute on this machine."""
