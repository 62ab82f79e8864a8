"""Everything that can go wrong with a device, as exceptions with exit codes of their own.

HarnessError                      1
├── SetupError                   13  a program or package is missing, or the runner is not built
├── NoDeviceError                14  no device, several, unauthorised, offline, or the wrong one
├── NotReadyError                15  the device may not be measured now (battery, heat, space, …)
└── DeviceError                  16  the device or the runner failed: disconnected, timed out, crashed, lied

`export-mobile bench` further ends with 17 over budget, 18 inconclusive, 19 not measured (simulated or host).
These numbers continue those of `exporter.errors`; a test holds the two apart.
"""

from __future__ import annotations


class HarnessError(Exception):
    """What was seen, and what to try.

    Args:
        message: What was seen and what was expected instead.
        hint: What to try next; one sentence, or empty.
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
    """The transport broke: worth another try once the device is back; what was finished is not repeated."""

    code = "EM-DISCONNECTED"


class HistoryError(HarnessError):
    exit_code = 20
    code = "EM-HISTORY"


OVER_BUDGET_EXIT_CODE = 17
INCONCLUSIVE_EXIT_CODE = 18
NOT_MEASURED_EXIT_CODE = 19
