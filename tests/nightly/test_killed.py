"""Test that a night over three cards and two simulated devices, killed twice, ends complete."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests import exports
from tests.harness import runners, simulated

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("simulated")]
ROOT = Path(__file__).parents[2]
NETS = ("cnn", "two_in_two_out", "attention")
PHONES = ("lab phone 1", "lab phone 2")
TASK = """
cards = ["cnn.toml", "two_in_two_out.toml", "attention.toml"]
targets = ["generic-arm64"]
devices = ["all"]
out = "out"
history = "history.sqlite"
[protocol]
launches = 3
seconds = 0.05
threads = 1
wait_s = 0
"""
NOT_MEASURED = 45
DEADLINE_S = 400


def write(folder: Path) -> Path:
    """Write cards of the small networks, and the night's task."""
    for net in NETS:
        options = exports.options(net)
        source = exports.checkpoint(net)
        sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
        inputs = ", ".join(
            f'{{ name = "{i.name}", shape = {list(i.shape)} }}' for i in options["input_shapes"]
        )
        (folder / f"{net}.toml").write_text(
            f'checkpoint = {{ path = "{source}", sha256 = "{sha256}" }}\n'
            f'architecture = {{ name = "{options["arch"]}" }}\ninputs = [{inputs}]\n'
            f'calibration = {{ path = "{exports.arrays(net)}", samples = 8 }}\n'
            'artifacts = { formats = ["onnx-fp32"] }\n'
        )
    task = folder / "nightly.toml"
    task.write_text(TASK)
    return task


def start(task: Path, port: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "ANDROID_ADB_SERVER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*simulated.COMMAND, "nightly", str(task)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stored(folder: Path) -> list[tuple[str, str, str, str]]:
    """Read (key, model, serial, time) of all stored sessions, oldest first, from outside."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/history.sqlite?mode=ro", uri=True)) as base:
            return base.execute(
                "SELECT key, model, serial, started_at FROM sessions ORDER BY number"
            ).fetchall()
    except sqlite3.OperationalError:
        return []


def kill_when(task: Path, port: int, reached: Callable[[], bool]) -> None:
    """Start a night, and end it with SIGKILL once `reached` holds."""
    with start(task, port) as night:
        deadline = time.monotonic() + DEADLINE_S
        while not reached() and night.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        night.send_signal(signal.SIGKILL)
        output = night.communicate()[0]
    assert night.returncode == -signal.SIGKILL, output


def test_a_night_that_is_killed_twice_ends_complete(tmp_path: Path) -> None:
    """After kills during export and measuring, each measurement is stored exactly once."""
    runners.host_runner("onnxruntime")
    task = write(tmp_path)
    with simulated.devices(count=2, serials=PHONES) as (phone, _):
        port = phone.server_port
        kill_when(task, port, lambda: any(tmp_path.glob("out/nights/*/cnn-*/manifest.json")))
        assert stored(tmp_path) == []
        (first,) = tmp_path.glob("out/nights/*/cnn-*/manifest.json")
        exported = (first.parent / "onnx-fp32.onnx").stat().st_mtime_ns
        kill_when(task, port, lambda: len(stored(tmp_path)) > 0)
        before = stored(tmp_path)
        assert 0 < len(before) < len(NETS) * len(PHONES)
        with start(task, port) as night:
            output = night.communicate(timeout=DEADLINE_S)[0]
    assert night.returncode == NOT_MEASURED, output
    after = stored(tmp_path)
    assert after[: len(before)] == before
    assert sorted((model, serial) for _, model, serial, _ in after) == sorted(
        (net, serial) for net in NETS for serial in PHONES
    )
    (folder,) = (tmp_path / "out" / "nights").iterdir()
    written = json.loads((folder / "night.json").read_text())
    assert [row["state"] for row in written["rows"] if row["serial"]] == ["not_measured"] * len(after)
    assert {row["key"] for row in written["rows"] if row["key"]} == {key for key, *_ in after}
    assert "interrupted" in written["notes"][0]
    assert (first.parent / "onnx-fp32.onnx").stat().st_mtime_ns == exported
    assert not list(folder.glob(".*"))
