"""Tests of whole nights: whatever fails or is killed, everything else is measured, once."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from android_harness import history
from android_harness.errors import Disconnected, HarnessError
from android_harness.history.records import history_record_device_hash
from android_harness.records import BenchTask
from exporter.errors import CheckpointError, MissingDependencyError, NightRunningError
from exporter.nightly import journal, night_rows, night_run
from exporter.nightly.records import Night
from exporter.records import Accuracy, Evaluation, Report, Status
from exporter.report import manifest
from tests.nightly import sample as season
from tests.nightly.lab import (
    ARTIFACT,
    CLOSE,
    FAST,
    OVER,
    FakePhones,
    Killed,
    fake_phones,
    only,
    rows_of,
    states,
)
from tests.report import sample


@pytest.fixture
def phones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhones:
    return fake_phones(tmp_path, monkeypatch)


def cells(phones: FakePhones) -> Counter[tuple[str, str, str, str]]:
    return Counter(
        (session.run, session.model, session.artifact, session.serial) for session in phones.sessions()
    )


def per_night(phones: FakePhones) -> int:
    """Count the artifacts that passed and that the runner executes, times models and phones."""
    return len({(session.model, session.artifact, session.serial) for session in phones.sessions()})


class TestAllIsMeasured:
    """A night measures models x targets x devices."""

    def test_every_artifact_of_every_model_on_every_phone(self, phones: FakePhones) -> None:
        """Every session is stored, and the night is fine."""
        finished = phones.run()
        stored = phones.sessions()
        assert {session.model for session in stored} == {"one", "two", "three"}
        assert {session.serial for session in stored} == {"a", "b"}
        assert ARTIFACT in {session.artifact for session in stored}
        assert set(cells(phones).values()) == {1}
        assert states(finished) == {"fine": len(stored)}
        assert len({row.cell for row in finished.result.rows}) == len(finished.result.rows)
        assert finished.result.exit_code == 0

    def test_what_is_remembered_says_what_it_is_of(self, phones: FakePhones) -> None:
        """A stored session has enough fields to be compared in a year."""
        phones.run()
        session = next(s for s in phones.sessions() if s.artifact == ARTIFACT)
        assert (session.target, session.format, session.precision) == ("snapdragon865", "executorch", "int8")
        assert session.toolchain["torch"]
        assert session.artifact_sha256 != session.source_sha256
        assert (session.evidence, session.verdict, session.budget_ms) == ("measured", "pass", 15.0)
        artifact = next(a for a in sample.artifacts() if a.variant.name == ARTIFACT)
        comparison = artifact.verdict and artifact.verdict.comparison
        assert comparison
        assert (session.sqnr_db, session.top1_agreement) == (comparison.sqnr_db, comparison.agreement)
        assert (session.size_bytes, session.source_sha256) == (
            artifact.size_bytes,
            sample.report().source_sha256,
        )
        assert (session.host, session.launches) == (platform.node(), 4)
        with history.open_history(phones.folder / "history.sqlite") as memory:
            assert memory.samples(session.key) is not None

    def test_accuracy_on_labelled_data_is_remembered(self, phones: FakePhones) -> None:
        """The export's accuracy is stored."""
        phones.phones = ("a",)
        phones.change = lambda report: with_accuracy(only_chosen(report))
        phones.run(phones.task(["one"]))
        assert [session.accuracy for session in phones.sessions()] == [0.75]

    def test_the_exports_own_page_and_manifest_know_it(self, phones: FakePhones) -> None:
        """As after `bench`, `verify` holds and the devices decide the choice."""
        finished = phones.run()
        listed = manifest.load_manifest(finished.folder / "one-snapdragon865" / "manifest.json")
        row = next(a for a in listed.artifacts if a.name == ARTIFACT)
        assert {item.device["serial"] for item in row.device_latencies} == {"a", "b"}
        assert listed.verdict.budget == "pass"

    def test_only_the_chosen_when_that_is_asked_for(self, phones: FakePhones) -> None:
        """Only the chosen artifact is measured when the file asks for it."""
        task = phones.task()
        task.write_text(task.read_text() + 'artifacts = "chosen"\n')
        phones.run(task)
        assert {session.artifact for session in phones.sessions()} == {ARTIFACT}

    def test_a_phone_that_is_another_chip_is_left_out(self, phones: FakePhones) -> None:
        """Another chip is skipped with the reason, which is no failure."""
        phones.socs = {"b": "SM8350"}
        finished = phones.run()
        assert {session.serial for session in phones.sessions()} == {"a"}
        skipped = [row for row in rows_of(finished, "skipped") if row.serial == "b"]
        assert skipped
        assert "SM8350" in skipped[0].words
        assert finished.result.exit_code == 0


class TestNothingStopsTheRest:
    """Every failure is in the report, with its message."""

    def test_one_model(self, phones: FakePhones) -> None:
        """One failing model does not stop the other two."""
        gone = CheckpointError("There is no such file.", "Get it.")
        phones.exports = lambda model, _: gone if model == "two" else None
        finished = phones.run()
        assert {session.model for session in phones.sessions()} == {"one", "three"}
        (row,) = rows_of(finished, "failed")
        assert (row.model, row.words) == ("two", "There is no such file. Get it.")
        assert finished.result.exit_code == 42

    def test_one_model_with_an_error_that_nobody_thought_of(self, phones: FakePhones) -> None:
        """An unexpected error is reported as such."""
        phones.exports = lambda model, _: ZeroDivisionError("by zero") if model == "two" else None
        (row,) = rows_of(phones.run(), "failed")
        assert row.words == "Unexpected ZeroDivisionError: by zero."

    def test_one_card(self, phones: FakePhones) -> None:
        """A broken card is reported, and the night continues."""
        task = phones.task()
        (phones.folder / "two.toml").write_text("licens = 1\n")
        finished = phones.run(task)
        assert {session.model for session in phones.sessions()} == {"one", "three"}
        (row,) = rows_of(finished, "failed")
        assert "unknown key licens. " in row.words

    def test_one_artifact_on_one_phone(self, phones: FakePhones) -> None:
        """Everything else is measured, and a gap is stored."""

        def answer(serial: str, work: BenchTask, _: int) -> float | HarnessError:
            return Disconnected("It went away.", "") if (serial, work.name) == ("b", ARTIFACT) else FAST

        phones.answer = answer
        finished = phones.run()
        failed = rows_of(finished, "failed")
        assert {(row.serial, row.artifact, row.words) for row in failed} == {("b", ARTIFACT, "It went away.")}
        assert len(failed) == 3
        assert {(gap.artifact, gap.reason) for gap in phones.gaps()} == {(ARTIFACT, "It went away.")}
        assert len(phones.sessions()) == sum(states(finished).values()) - 3

    def test_one_phone_that_does_not_answer(self, phones: FakePhones) -> None:
        """A silent phone is a failure of its own."""
        phones.phones, phones.silent = ("a",), {"b": "adb says 'unauthorized'."}
        finished = phones.run()
        (row,) = rows_of(finished, "failed")
        assert (row.serial, row.words) == ("b", "adb says 'unauthorized'.")
        assert {session.serial for session in phones.sessions()} == {"a"}

    def test_what_a_phone_that_does_not_answer_would_have_measured(self, phones: FakePhones) -> None:
        """The phone's artifacts are skipped with the reason; only the phone's failure is a gap."""
        phones.phones, phones.silent = ("a",), {"b": "adb says 'unauthorized'."}
        finished = phones.run()
        measured = {(row.model, row.artifact) for row in rows_of(finished, "fine")}
        skipped = [row for row in rows_of(finished, "skipped") if row.serial]
        assert {(row.model, row.artifact) for row in skipped} == measured
        assert {(row.serial, row.words) for row in skipped} == {("b", "adb says 'unauthorized'.")}
        assert [(gap.device, gap.artifact) for gap in phones.gaps()] == [
            (history_record_device_hash("b"), "")
        ]

    @pytest.mark.parametrize("status", ["failed", "error"])
    def test_one_artifact_that_is_not_verified_or_not_made(self, phones: FakePhones, status: Status) -> None:
        """The first night fails, too; what passed is measured."""
        phones.change = lambda report: replace(
            only(report, ARTIFACT, "onnx-fp32"),
            artifacts=tuple(
                replace(a, status=status, reason="It reaches 3 dB.") if a.variant.name == "onnx-fp32" else a
                for a in only(report, ARTIFACT, "onnx-fp32").artifacts
            ),
        )
        finished = phones.run(phones.task(["one"]))
        (row,) = rows_of(finished, "failed")
        assert (row.artifact, row.serial) == ("onnx-fp32", "")
        assert row.words.endswith("It reaches 3 dB.")
        assert finished.result.exit_code == 42
        assert {session.artifact for session in phones.sessions()} == {ARTIFACT}

    def test_what_a_card_requires_and_nothing_passes(self, phones: FakePhones) -> None:
        """A night without a required artifact fails."""
        task = phones.task(["one"])
        card = phones.folder / "one.toml"
        card.write_text(card.read_text() + '[artifacts]\nrequire = ["coreml"]\n')
        (row,) = rows_of(phones.run(task), "failed")
        assert row.words == "The card requires coreml, and none of it passed."

    def test_what_is_said_twice_of_one_thing_is_one_row(self, phones: FakePhones) -> None:
        """Each cell has one row with all sentences, hence one test case and one count."""
        task = phones.task(["one"])
        card = phones.folder / "one.toml"
        card.write_text(card.read_text() + '[artifacts]\nrequire = ["int8"]\n')
        phones.change = lambda report: failing(only_chosen(report))
        rows = phones.run(task).result.rows
        (whole,) = (row for row in rows if row.model and not row.artifact)
        assert whole.state == "failed"
        assert "The card requires int8, and none of it passed." in whole.words
        assert "Nothing of this export can be measured" in whole.words
        assert len({row.cell for row in rows}) == len(rows)


class TestNoPhone:
    """A night has no phone to measure on."""

    def test_has_its_own_exit_code_and_leaves_a_gap(self, phones: FakePhones) -> None:
        """The exports are made all the same."""
        phones.phones, phones.silent = (), {"all": "adb sees no phone."}
        finished = phones.run()
        assert finished.result.exit_code == 43
        assert phones.exported == ["one", "two", "three"]
        assert [(gap.reason, gap.run) for gap in phones.gaps()] == [
            ("adb sees no phone.", finished.result.night)
        ]

    @pytest.mark.parametrize(
        ("silent", "serial", "why"),
        [({}, "all", "No phone answered."), ({"b": "adb says 'offline'."}, "b", "adb says 'offline'.")],
    )
    def test_what_would_have_been_measured_is_skipped(
        self, phones: FakePhones, silent: dict[str, str], serial: str, why: str
    ) -> None:
        """Each artifact is skipped with the reason, so that JUnit lists all."""
        phones.phones, phones.silent = (), silent
        finished = phones.run(phones.task(["one"]))
        skipped = {row.artifact: (row.serial, row.words) for row in rows_of(finished, "skipped")}
        assert skipped[ARTIFACT] == skipped["onnx-fp32"] == (serial, why)
        (row,) = rows_of(finished, "no_phone")
        assert (row.model, row.serial, row.words) == ("", serial, why)


class TestKilled:
    """A night may be killed at any point; the next start resumes it."""

    @pytest.mark.parametrize("after", [1, 7])
    def test_nothing_is_lost_and_nothing_is_measured_twice(self, phones: FakePhones, after: int) -> None:
        """A night killed at two points is still complete."""
        task = phones.task()
        phones.kill_after = after
        with pytest.raises(Killed):
            phones.run(task)
        first = phones.sessions()
        assert len(first) == after
        phones.kill_after = len(phones.asked) + 4
        with pytest.raises(Killed):
            phones.run(task)
        second = phones.sessions()
        assert second[: len(first)] == first
        finished = phones.run(task)
        assert phones.sessions()[: len(second)] == second
        assert set(Counter(phones.asked).values()) == {1}
        assert set(cells(phones).values()) == {1}
        assert states(finished) == {"fine": 6 * len({name for _, _, name in phones.asked})}
        assert len(journal.nights_in_journal(phones.folder / "out")) == 1
        assert phones.exported == ["one", "two", "three"]
        assert finished.result.notes == ("This night was interrupted and resumed where it stopped.",)

    def test_a_failure_is_tried_again(self, phones: FakePhones) -> None:
        """Only measured cells are finished."""
        task = phones.task(["one"])
        phones.answer = lambda serial, work, before: Disconnected("Gone.") if not before else FAST
        phones.kill_after = 1
        with pytest.raises(Killed):
            phones.run(task)
        finished = phones.run(task)
        assert {row.serial for row in rows_of(finished, "fine")} == {"a"}

    def test_a_phone_that_is_gone_at_the_next_start(self, phones: FakePhones) -> None:
        """What it measured before counts; the rest is skipped."""
        task = phones.task(["one", "two"])
        phones.phones, phones.kill_after = ("a",), 2
        with pytest.raises(Killed):
            phones.run(task)
        phones.phones, phones.silent = (), {"a": "adb says 'offline'."}
        finished = phones.run(task)
        assert {row.model for row in rows_of(finished, "fine")} == {"one"}
        assert {row.model for row in rows_of(finished, "skipped") if row.serial} == {"two"}

    def test_another_day_begins_another_night(self, phones: FakePhones) -> None:
        """The interrupted night leaves a gap."""
        task = phones.task(["one"])
        phones.kill_after = 1
        with pytest.raises(Killed):
            phones.run(task)
        (cut_off,) = journal.nights_in_journal(phones.folder / "out")
        cut_off.rename(cut_off.with_name("2026-01-01T02-00-00Z"))
        finished = phones.run(task)
        assert finished.result.night > "2026-01-01"
        assert [gap.run for gap in phones.gaps()] == ["2026-01-01T02-00-00Z"]
        note = "The night 2026-01-01T02-00-00Z was interrupted and never finished."
        assert finished.result.notes == (note,)

    def test_one_that_has_ended_is_not_gone_on_with(self, phones: FakePhones) -> None:
        """The next start after a finished night begins a new one."""
        task = phones.task(["one"])
        assert phones.run(task).result.night != phones.run(task).result.night

    def test_a_new_one_begins_when_asked_for(self, phones: FakePhones) -> None:
        """`--fresh` begins a new night."""
        task = phones.task(["one"])
        phones.kill_after = 1
        with pytest.raises(Killed):
            phones.run(task)
        phones.run(task, fresh=True)
        assert len(journal.nights_in_journal(phones.folder / "out")) == 2


def test_two_nights_do_not_run_at_once(phones: FakePhones) -> None:
    """A second night is refused at once."""
    import subprocess
    import sys

    out = phones.folder / "out"
    code = (
        "import sys, pathlib\nfrom exporter.nightly import journal\n"
        f"with journal.lock_journal(pathlib.Path({str(out)!r})):\n"
        "  print('held', flush=True)\n  sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(NightRunningError, match=rf"process {other.pid}"):
            phones.run()
        other.kill()
    phones.run(phones.task(["one"]))


class TestJudged:
    """Sessions are judged by the nights before."""

    @pytest.fixture
    def week(self, phones: FakePhones) -> FakePhones:
        """Run six fine nights of one model on one phone."""
        phones.phones = ("a",)
        phones.change = only_chosen
        for _ in range(6):
            phones.run(phones.task(["one"]))
        phones.asked.clear()
        return phones

    def test_slower_twice_is_a_regression(self, week: FakePhones) -> None:
        """A slowdown is measured again, reported with figures, and leaves the baselines."""
        week.answer = lambda *_: FAST * 1.5
        finished = week.run(week.task(["one"]))
        (row,) = rows_of(finished, "regression")
        assert finished.result.exit_code == 40
        assert len(week.asked) == 2
        assert "above the usual" in row.words
        assert "Measured again" in row.words

    def test_a_regression_is_none_the_less_one_the_next_night(self, week: FakePhones) -> None:
        """The regression is compared with the old baseline, and ends when the speed is back."""
        week.answer = lambda *_: FAST * 1.5
        week.run(week.task(["one"]))
        assert states(week.run(week.task(["one"]))) == {"regression": 1}
        week.answer = lambda *_: FAST
        assert states(week.run(week.task(["one"]))) == {"fine": 1}

    def test_slower_once_is_none(self, week: FakePhones) -> None:
        """The second measurement decides."""
        week.answer = lambda serial, work, before: FAST if before else FAST * 1.5
        finished = week.run(week.task(["one"]))
        assert states(finished) == {"fine": 1}
        assert len(week.asked) == 2

    def test_only_what_looked_slower_is_measured_again(self, week: FakePhones) -> None:
        """Another phone, which is new here, is not measured again."""
        week.phones = ("a", "b")
        week.answer = lambda *_: FAST * 1.5
        week.run(week.task(["one"]))
        assert Counter(serial for serial, _, _ in week.asked) == {"a": 2, "b": 1}

    def test_killed_before_the_second_measurement(self, week: FakePhones) -> None:
        """The next start makes only the second measurement."""
        task = cut_off_when_slower_once(week)
        assert rows_of(week.run(task), "regression")
        assert len(week.asked) == 2

    def test_a_phone_that_is_gone_before_the_second_measurement(self, week: FakePhones) -> None:
        """The first row says so, and stays a suspicion."""
        task = cut_off_when_slower_once(week)
        week.phones, week.silent = (), {"a": "adb says 'offline'."}
        (row,) = (row for row in week.run(task).result.rows if row.serial and row.model)
        assert row.state == "inconclusive"
        assert "It could not be measured again: adb says 'offline'." in row.words

    def test_not_measured_again_when_that_is_not_wanted(self, week: FakePhones) -> None:
        """A suspicion without a re-run is inconclusive."""
        week.answer = lambda *_: FAST * 1.5
        task = week.task(["one"])
        task.write_text(task.read_text() + "confirm = false\n")
        assert states(week.run(task)) == {"inconclusive": 1}

    def test_what_passed_before_and_does_not_now(self, week: FakePhones) -> None:
        """Failing after a pass is a regression, whatever the speed; other changes are listed."""
        week.change = lambda report: failing(only_chosen(report))
        finished = week.run(week.task(["one"]))
        (row,) = rows_of(finished, "regression")
        assert row.words.startswith("It passed the night before. Failed: ")
        change = finished.result.changes[0]
        assert (change.artifact, change.worse) == (ARTIFACT, True)

    def test_a_steady_night_changes_nothing(self, week: FakePhones) -> None:
        """A steady night has no changes and names the night that it was compared with."""
        last = journal.ended_nights_in_journal(week.folder / "out")[-1].name
        result = week.run(week.task(["one"])).result
        assert (result.changes, result.before) == ((), last)


class TestMerged:
    """The rows of one cell are merged."""

    def test_the_worst_state_all_words_once_and_the_key(self) -> None:
        """The result does not depend on their order."""
        drafts = [
            season.row("fine", "Fast.", key="k"),
            season.row("failed", "It broke."),
            season.row("failed", "It broke."),
            season.row("skipped", "Not here."),
        ]
        for order in (drafts, drafts[::-1]):
            merged = night_rows._merge_night_rows(order)
            assert merged == season.row("failed", "It broke. Fast. Not here.", key="k")


def cut_off_when_slower_once(week: FakePhones) -> Path:
    """Return the task of a night killed before suspects are measured again."""
    week.answer = lambda *_: FAST * 1.5
    task = week.task(["one"])
    week.kill_after = 1
    with pytest.raises(Killed):
        week.run(task)
    return task


def only_chosen(report: Report) -> Report:
    return only(report, ARTIFACT)


def with_accuracy(report: Report) -> Report:
    score = Accuracy(count=40, right=30, right5=38)
    rows = tuple(replace(a, accuracy=score) for a in report.artifacts)
    return replace(report, artifacts=rows, evaluation=Evaluation("photos", 10, 1.0, score))


def failing(report: Report) -> Report:
    rows = tuple(replace(a, status="failed", reason="It reaches 3 dB.") for a in report.artifacts)
    return replace(report, artifacts=rows, selected=None, numerics="failed")


@pytest.mark.parametrize(
    ("ms", "code", "state"), [(FAST, 0, "fine"), (OVER, 41, "over_budget"), (CLOSE, 44, "inconclusive")]
)
def test_the_budget_decides(phones: FakePhones, ms: float, code: int, state: str) -> None:
    """The phones' p90 decides; a p90 on the budget decides nothing."""
    phones.phones = ("a",)
    if state == "inconclusive":
        phones.answer = lambda *_: 15.0 / 1.009
    else:
        phones.answer = lambda *_: ms
    finished = phones.run(phones.task(["one"]))
    assert (finished.result.exit_code, set(states(finished))) == (code, {state})


def test_what_is_left_behind(phones: FakePhones, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page, JUnit, summary and JSON are in the night's folder; copies of three next to all nights."""
    step = phones.folder / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    finished = phones.run(phones.task(["one"]))
    out = phones.folder / "out"
    for name in ("nightly.html", "junit.xml", "summary.md"):
        assert (out / name).read_text() == (finished.folder / name).read_text()
    written: dict[str, Any] = json.loads((finished.folder / "night.json").read_text())
    assert (written["state"], written["exit_code"]) == ("fine", 0)
    assert step.read_text() == "before\n" + (out / "summary.md").read_text()


def test_old_samples_and_sessions_are_forgotten_as_asked(phones: FakePhones) -> None:
    """Old samples go first, later whole sessions that are no baseline."""
    task = phones.task(["one"], extra="retention = { samples_days = 30 }")
    phones.run(task)
    with history.open_history(phones.folder / "history.sqlite") as memory:
        session = memory.sessions()[0]
        raw = memory.samples(session.key)
        at = session.started_at - timedelta(days=45)
        memory.add(replace(session, key="old", run="old", model="gone", started_at=at), raw)
    phones.run(task)
    with history.open_history(phones.folder / "history.sqlite") as memory:
        assert memory.samples("old") is None
        assert memory.get("old") is not None
        assert memory.samples(session.key) is not None


def test_old_sessions_are_forgotten_as_asked(phones: FakePhones) -> None:
    """Old sessions go, with their samples; baselines stay."""
    task = phones.task(["one"], extra="retention = { history_days = 30 }")
    phones.run(task)
    with history.open_history(phones.folder / "history.sqlite") as memory:
        session = memory.sessions()[0]
        for number in range(15):
            at = session.started_at - timedelta(days=45 + number)
            memory.add(replace(session, key=f"old-{number}", run=f"old-{number}", started_at=at))
    phones.run(task)
    with history.open_history(phones.folder / "history.sqlite") as memory:
        assert memory.get("old-14") is None
        assert memory.get("old-0") is not None
        assert memory.get(session.key) is not None


def test_a_missing_package_is_told_before_the_night(
    phones: FakePhones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing package is reported before the night starts."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingDependencyError, match="tensorboard"):
        phones.run(tensorboard=phones.folder / "scalars")
    assert phones.exported == []


def test_only_what_was_not_measured_is_a_gap(tmp_path: Path) -> None:
    """A gap names its device, or none; wrong outputs are no gap, as they were measured."""
    rows = (
        season.row("failed", key="measured"),
        season.row("failed", serial="b"),
        season.row("no_phone", serial="all", model=""),
        season.row("fine", key="fine"),
        season.row("skipped", artifact="coreml-fp16"),
    )
    night = Night("2026-01-31T02-00-00Z", tmp_path, resumed=False)
    with history.open_history(tmp_path / "history.sqlite") as memory:
        night_run._remember_gaps_of_night_run(memory, night, rows)
        gaps = {(gap.model, gap.device) for gap in memory.gaps()}
    assert gaps == {("mobilenet_v2", history_record_device_hash("b")), ("", "")}


def test_old_nights_are_forgotten(phones: FakePhones) -> None:
    """Old folders are deleted; the history keeps the measurements."""
    task = phones.task(["one"], extra="retention = { nights = 2 }")
    for _ in range(3):
        phones.run(task)
    assert len(journal.nights_in_journal(phones.folder / "out")) == 2
    assert len({session.run for session in phones.sessions()}) == 3
