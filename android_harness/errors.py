"""The exceptions of the harness, each with its own exit code.

HarnessError                      1
├── SetupError                   13  a program or package is missing, or the runner is not built
├── NoDeviceError                14  no device, several, unauthorised, offline, or the wrong one
├── NotReadyError                15  a condition for measuring is not met (battery, heat, space, …)
├── DeviceError                  16  device or runner failed: disconnected, timed out, crashed, …
└── HistoryError                 20  the history cannot be opened, read or written

`export-mobile bench` also exits with 17 (over budget), 18 (inconclusive) or 19 (not measured: simulated or
host). The codes continue those of `exporter.errors`; a test checks that they differ.
"""

from __future__ import annotations


class HarnessError(Exception):
    """An error with a hint.

    Args:
        message: What happened, and what was expected.
        hint: What to try next, in one sentence; may be empty.
        code: The entry of docs/troubleshooting.md that explains this failure; the class's own when empty.
    """

    exit_code = 1
    code = "EM-HARNESS"

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint
        self.code = code or type(self).code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class SetupError(HarnessError):
    exit_code = 13
    code = "EM-SETUP"


class NoDeviceError(HarnessError):
    exit_code = 14
    code = "EM-NO-DEVICE"


class NotReadyError(HarnessError):
    exit_code = 15
    code = "EM-NOT-READY"


class DeviceError(HarnessError):
    exit_code = 16
    code = "EM-DEVICE"


class Disconnected(DeviceError):  # noqa: N818 - a kind of DeviceError that is worth a second try
    """The connection was lost. Another attempt is worthwhile once the device is back."""

    code = "EM-DISCONNECTED"


class HistoryError(HarnessError):
    exit_code = 20
    code = "EM-HISTORY"


OVER_BUDGET_EXIT_CODE = 17
INCONCLUSIVE_EXIT_CODE = 18
NOT_MEASURED_EXIT_CODE = 19
