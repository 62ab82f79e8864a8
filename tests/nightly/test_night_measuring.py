"""`night_measuring`: what may go wrong around a measurement, and what is not measured at all."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from android_harness import all_devices, identity, parse, runner_build
from android_harness.errors import DeviceError, HistoryError, SetupError
from android_harness.history.store import History
from android_harness.push import Program
from android_harness.records import Completed
from exporter.errors import OutputError
from exporter.nightly import devices, night_measuring
from exporter.nightly.devices import DevicePool
from exporter.nightly.night_measuring import Stage, session_key_of_night_measuring
from exporter.nightly.records import Cell, Night
from tests.harness import sessions
from tests.harness.test_all_devices import Named
from tests.nightly.lab import ARTIFACT, FAST, FakePhones, Killed, fake_phones, only, rows_of, states

CELL: Cell = ("one", "snapdragon865", ARTIFACT, "a")
BENCH_ALL = all_devices.bench_all_devices
LAUNCHES = 4
"""The launches that `FakePhones.task` asks for."""


@pytest.fixture
def phones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhones:
    return fake_phones(tmp_path, monkeypatch)


def test_a_session_has_a_key_of_its_own_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is the same at every start, and differs by host, night, device and attempt."""
    night, other = (Night(name, Path(), resumed=False) for name in ("one", "two"))
    keys = [
        session_key_of_night_measuring(night, CELL, 0),
        session_key_of_night_measuring(other, CELL, 0),
        session_key_of_night_measuring(night, CELL, 1),
        session_key_of_night_measuring(night, (*CELL[:3], "b"), 0),
    ]
    assert session_key_of_night_measuring(night, CELL, 0) == keys[0]
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    assert len({*keys, session_key_of_night_measuring(night, CELL, 0)}) == 5


def test_what_the_protocol_says_is_what_the_phones_do(phones: FakePhones) -> None:
    """Launches follow the night's file; budget and chip follow the export."""
    phones.change = lambda report: replace(report, budget_ms=12.0)
    phones.run(phones.task(["one"]))
    (plan,) = phones.plans
    assert (plan.launches, plan.budget_ms, phones.socs_asked) == (4, 12.0, ["SM8250"])


def test_a_target_that_no_phone_here_stands_for(phones: FakePhones) -> None:
    """An iPhone's export is made and not measured, which is no failure."""
    task = phones.task(["one"])
    task.write_text(task.read_text().replace("snapdragon865", "iphone"))
    phones.change = lambda report: replace(report, target_name="iphone", target_soc="A15")
    finished = phones.run(task)
    assert (phones.asked, phones.exported) == ([], ["one"])
    words = [row.words for row in rows_of(finished, "skipped") if not row.artifact]
    assert ["iphone cannot be measured" in sentence for sentence in words] == [True]


def test_a_runtime_without_a_runner_stops_no_other(
    phones: FakePhones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artifact without a built runner is skipped with the reason."""

    def find(_: str, backend: str) -> Path:
        if backend == "onnxruntime":
            raise SetupError("It is not built.", "Build it.")
        return phones.folder

    monkeypatch.setattr(runner_build, "find_runner_build", find)
    finished = phones.run(phones.task(["one"]))
    assert {session.artifact for session in phones.sessions()} == {ARTIFACT}
    words = {row.artifact: row.words for row in rows_of(finished, "skipped")}
    assert words["onnx-fp32"] == "It is not built. Build it."


def test_a_file_that_was_changed_is_not_measured(phones: FakePhones, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export with a changed file fails; the others are measured."""
    made = phones._made

    def damaged(card: object, target: str, folder: Path, observer: object) -> object:
        report = made(card, target, folder, observer)
        if folder.name.startswith("one"):
            next(folder.glob("*.onnx")).write_text("damaged")
        return report

    monkeypatch.setattr("exporter.nightly.exporting._make_night_export", damaged)
    finished = phones.run(phones.task(["one", "two"]))
    (row,) = rows_of(finished, "failed")
    assert (row.model, row.artifact) == ("one", "")
    assert "is not the file that was exported" in row.words
    assert {session.model for session in phones.sessions()} == {"two"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DeviceError("It broke.", "Mend it."), "It broke. Mend it."),
        (KeyError("x"), "Unexpected KeyError: 'x'."),
    ],
)
def test_a_phone_that_breaks_down(phones: FakePhones, error: Exception, words: str) -> None:
    """All measurements on a broken phone fail; the other phone is unaffected."""
    phones.broken = {"b": error}
    finished = phones.run(phones.task(["one"]))
    failed = rows_of(finished, "failed")
    assert {(row.serial, row.words) for row in failed} == {("b", words)}
    assert {row.artifact for row in failed} == {session.artifact for session in phones.sessions()}
    assert {session.serial for session in phones.sessions()} == {"a"}


def test_a_phone_that_breaks_down_later(phones: FakePhones) -> None:
    """What a phone measured before it broke counts; only the rest fails."""
    phones.phones, phones.broken_late = ("a",), {"a": DeviceError("It broke.")}
    finished = phones.run(phones.task(["one"]))
    (good,), (bad,) = rows_of(finished, "fine"), rows_of(finished, "failed")
    assert {good.artifact, bad.artifact} == {ARTIFACT, "onnx-fp32"}
    assert "broke" not in good.words
    assert bad.words == "It broke."


def test_a_session_is_found_once(phones: FakePhones, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is reported twice is stored once, not as a re-run."""
    added, remember = [], night_measuring._remember_night_measured

    def counted(stage: Stage, group: object, cell: Cell, *rest: Any) -> None:
        added.append(cell)
        remember(stage, group, cell, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(night_measuring, "_remember_night_measured", counted)
    phones.run(phones.task(["one"]))
    assert len(added) == len(set(added)) == 4


def test_a_folder_that_cannot_be_written_loses_no_measurement(
    phones: FakePhones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is stored, and the failure is reported."""

    def full(*_: object) -> None:
        raise OutputError("No space left.")

    monkeypatch.setattr("exporter.bench.bench_storing.write_report_in_stage", full)
    finished = phones.run(phones.task(["one"]))
    assert len(phones.sessions()) == states(finished)["fine"] == 4
    assert [row.words for row in rows_of(finished, "failed")] == ["No space left."]


def test_a_finished_session_is_in_the_spool_before_the_next_begins(
    phones: FakePhones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night whose database is away, and that is killed, loses nothing and measures nothing twice."""
    spooled: list[int] = []

    def answer(*_: Any) -> float:
        spooled.append(len([*(phones.folder / "out" / "spool").glob("*.json")]))
        return FAST

    def away(*_: Any) -> bool:
        raise HistoryError("The server does not answer.")

    phones.phones, phones.answer, phones.kill_after = ("a",), answer, 2
    task = phones.task(["one"])
    with monkeypatch.context() as down:
        down.setattr(History, "add", away)
        with pytest.raises(Killed):
            phones.run(task)
    assert spooled == [0, 1]
    assert phones.sessions() == ()
    assert states(phones.run(task)) == {"fine": 2}
    assert len(phones.sessions()) == len(phones.asked) == 2


def test_devices_are_written_down_one_after_another(
    phones: FakePhones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices' threads share a manifest without losing updates."""
    held, update = [], night_measuring._update_night_measured_export

    def watched(stage: Stage, *arguments: Any) -> None:
        held.append(stage.lock.locked())
        update(stage, *arguments)

    monkeypatch.setattr(night_measuring, "_update_night_measured_export", watched)
    phones.run(phones.task(["one"]))
    assert held
    assert all(held)


class Dying(Named):
    """A device that kills everything at the launch of a given number, counted from 1."""

    def __init__(self, serial: str, last: int) -> None:
        super().__init__(serial)
        self.left = last

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        self.left -= "run" in argv
        if "run" in argv and self.left == 0:
            raise Killed
        return super().run(*argv, timeout_s=timeout_s)


def test_what_is_complete_is_kept_when_the_last_round_is_cut_off(
    phones: FakePhones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the incomplete artifact is measured next time."""
    device = Dying("a", last=2 * LAUNCHES)
    who = identity.read_identity(device)
    program = Program(sessions.stand_in(phones.folder))
    monkeypatch.setattr(all_devices, "bench_all_devices", BENCH_ALL)
    monkeypatch.setattr(
        all_devices, "runner_programs_for_device", lambda device, identity: lambda backend: program
    )
    monkeypatch.setattr(
        devices, "find_night_devices", lambda names: DevicePool({"a": device}, {"a": who}, {}, ("a",))
    )
    monkeypatch.setattr(parse, "parse_load1", lambda text: 0.5)  # other tests' is no reason to wait
    phones.change = lambda report: replace(
        only(report, "onnx-fp32", "onnx-fp16"), selected="onnx-fp32", target_soc="generic"
    )
    task = phones.task(["one"])
    with pytest.raises(Killed):
        phones.run(task)
    (first,) = phones.sessions()
    phones.run(task)
    assert -device.left == 1  # the launch that was cut off
    assert first in phones.sessions()
    assert {session.artifact for session in phones.sessions()} == {"onnx-fp32", "onnx-fp16"}
