"""`tests.history.postgres`: no server outlives its tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.history import postgres
from tests.waiting import wait_until

CODE = """
import sys
from tests.history import postgres
with postgres.running() as server:
    print(server.new_location(), flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_killed_run_leaves_no_server() -> None:
    """If the tests are killed, the server ends and its folder is removed."""
    if reason := postgres.why_not():
        pytest.skip(reason)
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        folder = Path(run.stdout.readline().partition("host=")[2].partition("&")[0])
        server = Path("/proc") / (folder / "data" / "postmaster.pid").read_text().split()[0]
        assert server.exists()
        run.kill()
    wait_until(lambda: not folder.exists() and not server.exists())
