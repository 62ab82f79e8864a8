"""The command line in the test's own process."""

from __future__ import annotations

import pytest

from exporter.cli import main


def exit_code(*arguments: object) -> int:
    """Run the command line, and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    return int(caught.value.code or 0)
