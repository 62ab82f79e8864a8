"""Tests of the Perfetto trace that `bench --trace` keeps with a failure, with a stand-in for perfetto."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from android_harness import latency_stats, push, trace
from android_harness.errors import DeviceError
from android_harness.host import HostDevice
from android_harness.launch import run_launch
from android_harness.launch_files import PreparedDevice
from android_harness.push import Program
from android_harness.records import BenchConfig, Completed
from tests.harness import sessions

PERFETTO = """#!/bin/sh
[ "$1 $2" = "--background -o" ] || exit 2
(trap 'echo trace > "$0.out"; cp "$0.out" "$3"; exit' TERM; while :; do sleep 0.05; done) >/dev/null 2>&1 &
echo $! | tee -a "$0.pids"
"""


class Phone(HostDevice):
    """This machine under another name, whose runner may fail."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.serial = "PHONE"
        self.fails = fails

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        if self.fails and "run" in argv:
            return Completed(139, "", "Segmentation fault")
        return super().run(*argv, timeout_s=timeout_s)


def launched(folder: Path, monkeypatch: pytest.MonkeyPatch, fails: bool, script: str = PERFETTO) -> str:
    """Run a traced launch; return the advice of its failure, or an empty text."""
    program = folder / "bin" / "perfetto"
    program.parent.mkdir()
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("EXPORT_MOBILE_STATE", str(folder / "state"))
    monkeypatch.setattr(trace, "FOLDER", str(folder))
    device, task = Phone(fails), sessions.task(folder, "fine")
    files = push.push_files(device, [task], {"onnxruntime": Program(sessions.stand_in(folder))}, folder)
    prepared = PreparedDevice(device, files, BenchConfig(trace=True), (), folder)
    try:
        run_launch(prepared, task, 0)
    except DeviceError as error:
        return error.hint
    return ""


def is_gone(folder: Path) -> bool:
    """Return whether every started perfetto has ended."""
    pids = [*map(int, (folder / "bin" / "perfetto.pids").read_text().split())]
    time.sleep(0.1)
    running = [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()]
    return bool(pids) and not [pid for pid in running if Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_failure_keeps_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice names a file of this machine, and nothing is left on the phone."""
    advice = launched(tmp_path, monkeypatch, fails=True)
    path = Path(advice.partition("The trace is in ")[2].partition(": open it")[0])
    assert path.read_text() == "trace\n"
    assert path.suffix == ".perfetto-trace"
    assert is_gone(tmp_path)
    assert not [*tmp_path.glob("export-mobile-*")]


def test_a_launch_that_ends_well_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launch's trace is deleted, and perfetto has ended."""
    assert launched(tmp_path, monkeypatch, fails=False) == ""
    assert is_gone(tmp_path)
    assert not [*tmp_path.glob("export-mobile-*"), *tmp_path.glob("state/**/*trace*")]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\necho no such category >&2; exit 1", "There is no trace: no such category"),
        ("#!/bin/sh\nexit 3", "There is no trace: perfetto ended with 3"),
        ("#!/bin/sh\necho $$", "The trace could not be copied"),
    ],
)
def test_a_phone_without_a_trace_says_why(
    script: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launch's own failure stays, with the reason why it has no trace."""
    assert words in launched(tmp_path, monkeypatch, fails=True, script=script)


def test_a_traced_session_is_flagged() -> None:
    """Tracing slows calls down: the figures show a failure, and prove no speed."""
    session = sessions.session()
    traced = replace(session, config=replace(session.config, trace=True))
    flags = set(latency_stats.latency_stats(traced).flags) - set(latency_stats.latency_stats(session).flags)
    assert {flag.partition(":")[0] for flag in flags} == {"trace"}
