from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from exporter.records import Emulation, OperatorCost, Report, Status
from exporter.report.terminal import print_terminal_report
from tests.report import sample


def printed(report: Report, width: int = 80, colour: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=colour, color_system="truecolor" if colour else None
    )
    print_terminal_report(report, console)
    return stream.getvalue()


def joined(report: Report) -> str:
    """Return the text without the line breaks of the width."""
    return " ".join(printed(report).split())


def row(name: str, width: int = 80) -> list[str]:
    line = next(line for line in printed(sample.report(), width).splitlines() if line.startswith(name))
    return line.removeprefix(name).split()


@pytest.mark.parametrize("width", [80, 120])
def test_a_row_fits_on_one_line(width: int) -> None:
    """At 80 columns every figure of an artifact stands beside its name, whole."""
    expected = ["int8", "passed", "0.0713", "21.4", "95.0", "100", "3.71", "1.93/2.08"]
    assert row("executorch-xnnpack-int8", width) == expected
    assert max(len(line) for line in printed(sample.report(), width).splitlines()) <= width


@pytest.mark.parametrize(
    ("status", "emulated", "width", "expected"),
    [
        ("passed", False, 79, ["int8", "0.0713", "21.4", "95.0", "100"]),
        ("passed", True, 79, ["0.0713", "21.4", "95.0", "100"]),
        ("inconclusive", False, 79, ["0.0713", "21.4", "95.0", "100"]),
        ("inconclusive", True, 80, ["0.0713", "21.4", "95.0"]),
        ("inconclusive", True, 74, ["21.4", "95.0"]),
        ("inconclusive", True, 120, ["int8", "0.0713", "21.4", "95.0", "100"]),
    ],
)
def test_columns_give_way_to_keep_a_row_on_one_line(
    status: Status, emulated: bool, width: int, expected: list[str]
) -> None:
    """Columns whose figures are said elsewhere give way one after the other, as far as the width asks."""
    report = sample.report()
    arm = Emulation("passed", "", "onnxruntime 1.32", "cortex-a76", 4) if emulated else None
    rows = tuple(replace(a, status=status, arm64=arm) for a in report.artifacts)
    lines = printed(replace(report, artifacts=rows), width).splitlines()
    line = next(line for line in lines if line.startswith("executorch-xnnpack-int8")).split()[1:]
    line.remove(status)
    assert line == [*expected, "3.71", "1.93/2.08", *["passed"] * emulated]


def test_what_has_no_figure_has_a_dash() -> None:
    """Nothing is shown as zero that was never measured."""
    dash = "\N{EN DASH}"
    assert row("coreml-w4") == ["w4", "error", *[dash] * 6]
    assert row("coreml-w8") == ["w8", "not", "run", dash, dash, dash, "100", "3.59", dash]


def test_the_choice_comes_with_its_reason() -> None:
    """The file to ship, why, and that no device has measured it."""
    text = joined(sample.report())
    assert "Ship executorch-xnnpack-int8.pte. Fastest passed artifact" in text
    assert "Budget 15.0 ms on snapdragon865: not measured on a device." in text


def test_nothing_to_ship_is_said_plainly() -> None:
    """A report without a choice says so, with the reason."""
    assert "Nothing to ship. No artifact passed." in joined(sample.nothing_passed())


def test_poor_int8_comes_with_where_it_loses_most() -> None:
    """The three costliest layers with what each leaves, each layer once."""
    costs = [("features.3", 30.0), ("features.18.0", 26.0), ("features.18.0", 27.0), ("", 28.0), ("a", 60.0)]
    named = tuple(
        OperatorCost.of_decibels(f"op{n}", layer, "conv2d", db) for n, (layer, db) in enumerate(costs)
    )
    expected = (
        "int8 loses most in features.18.0 (26.0 dB alone), op3 (28.0 dB alone), features.3 (30.0 dB alone)."
    )
    assert expected in joined(replace(sample.report(), operator_costs=named))


def test_good_int8_needs_no_hint() -> None:
    """Good int8, and int8 without costs, has no hint."""
    report = sample.report()
    assert "loses most" in joined(report)
    fine = tuple(a for a in report.artifacts if a.variant.precision != "int8")
    assert "loses most" not in joined(replace(report, artifacts=fine))
    assert "loses most" not in joined(replace(report, operator_costs=()))


@pytest.mark.parametrize(("db", "hinted"), [(24.9, True), (25.1, False)])
def test_int8_that_passed_is_poor_below_25_db(db: float, hinted: bool) -> None:
    """An int8 file may pass on agreement alone and still have lost much."""
    report = sample.report()
    artifact = next(a for a in report.artifacts if a.variant.name == "executorch-xnnpack-int8")
    assert artifact.verdict is not None
    assert artifact.verdict.comparison is not None
    comparison = replace(artifact.verdict.comparison, sqnr_db=db)
    artifact = replace(artifact, verdict=replace(artifact.verdict, comparison=comparison))
    assert ("loses most" in joined(replace(report, artifacts=(artifact,)))) == hinted


def test_every_artifact_that_did_not_pass_has_its_reason() -> None:
    """Failed, not run and error alike; passed ones are not listed again."""
    text = joined(sample.report()).split("Not passed:")[1]
    for artifact in sample.artifacts():
        assert (f"{artifact.variant.name}: {artifact.reason}" in text) == (artifact.status != "passed")
    assert "(at nets/mobile.py:88)" in text


def test_warnings_are_printed() -> None:
    """Warnings end the report."""
    assert joined(sample.report()).endswith(
        "Warning: Agreement was measured on 20 photos: one photo is 5 points."
    )


def test_status_is_coloured_on_a_terminal_and_a_word_everywhere() -> None:
    """Colour is an addition: without it no escape is written and the word is still there."""
    assert "\x1b[32mpassed" in printed(sample.report(), colour=True)
    assert "\x1b" not in printed(sample.report())
    assert "passed" in printed(sample.report())


def test_text_from_outside_is_not_markup_and_has_no_escapes() -> None:
    """Shapes in brackets stay, and a file name cannot move the cursor."""
    report = replace(sample.report(), source_file="a\x1b[2J.pth", selection_reason="Input [red] is [1, 3].")
    text = printed(report)
    assert "\x1b" not in text
    assert "Input [red] is [1, 3]." in text
