"""Tests of a night's outputs for machines: JUnit, Markdown, JSON, TensorBoard, exit codes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from exporter.cli import main
from exporter.errors import MissingDependencyError
from exporter.nightly import junit, night_run, night_scalars, night_summary
from exporter.nightly.night_run import Finished
from exporter.nightly.records import EXIT_CODES, WORST_FIRST, NightResult, State, night_records_as_json
from tests.nightly import sample


def nights_of(*states: State) -> NightResult:
    return sample.result(rows=tuple(sample.row(state) for state in states))


class TestExitCodes:
    """The worst row decides the exit code."""

    def test_each_verdict_has_its_own(self) -> None:
        """Only nights whose rows are fine or skipped end with 0."""
        codes = [code for state, code in EXIT_CODES.items() if state != "skipped"]
        assert len(set(codes)) == len(codes)
        assert nights_of("fine", "skipped").exit_code == 0

    @pytest.mark.parametrize("place", range(len(WORST_FIRST) - 2))
    def test_the_worst_governs(self, place: int) -> None:
        """The worst state decides, whatever the other rows are."""
        states = WORST_FIRST[place:]
        assert nights_of(*reversed(states)).exit_code == EXIT_CODES[states[0]]

    def test_a_night_without_rows_measured_nothing(self) -> None:
        """A night without rows is not fine."""
        assert nights_of("skipped").exit_code == EXIT_CODES["not_measured"]

    @pytest.mark.parametrize("as_json", [False, True])
    def test_the_command_line_ends_with_it(
        self,
        as_json: bool,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The command exits with the code, and prints the result as a table or as JSON."""
        monkeypatch.setattr(night_run, "run_night", lambda *_, **__: Finished(sample.result(), tmp_path))
        (tmp_path / "nightly.toml").write_text('cards = ["x.toml"]\ntargets = ["snapdragon865"]\n')
        with pytest.raises(SystemExit) as caught:
            main(["nightly", str(tmp_path / "nightly.toml"), *(["--json"] if as_json else [])])
        assert caught.value.code == 40
        output = capsys.readouterr().out
        if as_json:
            assert json.loads(output) == json.loads(json.dumps(as_json_of_sample()))
        else:
            assert "regression   onnx-fp32 of resnet18 for snapdragon865 on R5CR30ABCDE" in output


def as_json_of_sample() -> object:
    return night_records_as_json(sample.result())


class TestJunit:
    """CI systems can read the XML."""

    def test_a_case_for_every_row(self) -> None:
        """Cases are counted, and named by model, target, artifact and device."""
        result = sample.result()
        root = ET.fromstring(junit.render_junit(result))
        cases = root.findall("testsuite/testcase")
        assert len(cases) == len(result.rows) == int(root.attrib["tests"])
        assert cases[0].attrib == {
            "classname": "mobilenet_v2.snapdragon865",
            "name": "onnx-fp32 on R5CR30ABCDE",
        }
        assert len({(c.attrib["classname"], c.attrib["name"]) for c in cases}) == len(cases)

    @pytest.mark.parametrize(
        ("state", "kind"),
        [
            ("regression", "failure"),
            ("over_budget", "failure"),
            ("failed", "error"),
            ("no_phone", "skipped"),
            ("inconclusive", "skipped"),
            ("not_measured", "skipped"),
            ("skipped", "skipped"),
            ("fine", None),
        ],
    )
    def test_each_state_is_what_it_should_be(self, state: State, kind: str | None) -> None:
        """Each state has its kind and its reason; only fine rows passed."""
        (case,) = ET.fromstring(junit.render_junit(nights_of(state))).findall("testsuite/testcase")
        assert {child.tag for child in case} == {kind or "system-out"}
        assert case[0].text == "It is so."
        totals = ET.fromstring(junit.render_junit(nights_of(state))).attrib
        assert totals["failures"] == str(int(kind == "failure"))
        assert totals["errors"] == str(int(kind == "error"))
        assert totals["skipped"] == str(int(kind == "skipped"))

    def test_what_xml_cannot_hold_is_replaced(self) -> None:
        """Characters that XML cannot hold are replaced."""
        row = sample.row("failed", "\x1b[31m\x00 & <b> \ud800", model="a\x07b")
        (case,) = ET.fromstring(junit.render_junit(sample.result(rows=(row,)))).findall("testsuite/testcase")
        assert case[0].text == "\ufffd[31m\ufffd & <b> \ufffd"


class TestSummary:
    """The summary is one paragraph."""

    def test_it_says_what_matters(self) -> None:
        """The paragraph holds the verdict, the counts, and the names of the problems."""
        text = night_summary.markdown_night_summary(sample.result())
        assert text.count("\n") == 1
        assert text.startswith("**Slower or worse: 1** (night night-39, exit 40). 3 artifacts of 2 models")
        assert "Regression: onnx-fp32 of resnet18 for snapdragon865 on R5CR30ABCDE." in text
        assert "the export of broken" in text

    def test_many_are_counted(self) -> None:
        """A headline names at most three rows."""
        text = night_summary.night_summary_lead(nights_of(*("failed",) * 5))
        assert text.endswith("and 2 more.")

    def test_names_cannot_become_markup(self) -> None:
        """Names are shown literally."""
        row = sample.row("failed", model="[x](http://y) <img src=z>")
        text = night_summary.markdown_night_summary(sample.result(rows=(row,)))
        assert "[x](" not in text
        assert "\\<img" in text


class TestTensorboard:
    """TensorBoard gets scalars."""

    def test_a_curve_for_each_artifact_and_phone(self, tmp_path: Path) -> None:
        """Points carry the night's time; a night written twice appears once."""
        sessions = [session for session in sample.stored() if session.run == sample.TONIGHT]
        for _ in range(2):
            night_scalars.write_night_scalars(tmp_path, sample.TONIGHT, sessions)
        (file,) = tmp_path.glob("events.out.tfevents.*")
        curves = read(file)
        session = sessions[0]
        place = f"mobilenet_v2/snapdragon865/onnx-fp32/{session.serial}"
        ((value, step),) = curves[f"{place}/p50_ms"]
        assert value == pytest.approx(session.p50_ms)
        assert step == int(session.started_at.timestamp() // 86400)
        assert len({tag.rpartition("/")[0] for tag in curves}) == len(sessions)

    def test_a_missing_package_is_told_before_the_night(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message names the command that installs the package."""
        monkeypatch.setitem(sys.modules, "tensorboardX", None)
        with pytest.raises(MissingDependencyError, match=r"export-mobile\[tensorboard\]"):
            night_scalars.check_night_scalars_writer()


def read(file: Path) -> dict[str, list[tuple[float, int]]]:
    """Read tag -> (value, step) from an event file: records of length, two checksums and a message."""
    from tensorboardX.proto.event_pb2 import Event

    raw, curves = file.read_bytes(), dict[str, list[tuple[float, int]]]()
    while raw:
        size = int.from_bytes(raw[:8], "little")
        event = Event.FromString(raw[12 : 12 + size])
        raw = raw[16 + size :]
        for value in event.summary.value:
            curves.setdefault(value.tag, []).append((value.simple_value, event.step))
    return curves


def test_a_result_reads_as_json() -> None:
    """The JSON has every row with its words and state."""
    values = json.loads(json.dumps(night_records_as_json(replace(sample.result(), notes=("x",)))))
    assert (values["state"], values["exit_code"], values["notes"]) == ("regression", 40, ["x"])
    assert [row["words"] for row in values["rows"]] == [row.words for row in sample.result().rows]
