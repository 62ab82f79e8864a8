"""What every test run needs first."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take Ctrl-C: a shell has its background jobs ignore it, and their children would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
