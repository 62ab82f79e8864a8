"""The acceptance suite on another set of versions: what it reads, and what it calls a difference."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import toolchains

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_right" time="1"/>
<testcase classname="tests.a" name="test_wrong"><failure message="3 is not 4&#10;more"/></testcase>
<testcase classname="tests.b" name="test_broken"><error message=""/></testcase>
<testcase classname="tests.b" name="test_elsewhere"><skipped message="no Mac"/></testcase>
</testsuite></testsuites>"""


def test_outcomes_of_tests_are_read_from_their_report() -> None:
    """A failure, an error and a skip are told apart from a pass, with the first line of the message."""
    assert dict(toolchains._junit_outcomes(ET.fromstring(JUNIT))) == {
        "tests.a.test_right": "passed",
        "tests.a.test_wrong": "failure: 3 is not 4",
        "tests.b.test_broken": "error: ",
        "tests.b.test_elsewhere": "skipped: no Mac",
    }


def test_outcomes_of_an_export_are_read_from_its_manifest() -> None:
    """An artifact has a status with its reason, decibels and a size; what was not made has none."""
    manifest = {
        "artifacts": [
            {
                "name": "a",
                "status": "passed",
                "reason": "",
                "size_bytes": 2_000_000,
                "verification": {"sqnr_db": 41.2},
            },
            {"name": "b", "status": "error", "reason": "no kernel", "size_bytes": None, "verification": None},
        ]
    }
    assert dict(toolchains._artifact_outcomes(manifest)) == {
        "mobilenet_v2 a": "passed",
        "mobilenet_v2 a, dB": "41",
        "mobilenet_v2 a, MB": "2.0",
        "mobilenet_v2 b": "error: no kernel",
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "rows", "lost"),
    [
        ({"a": "passed"}, {"a": "passed"}, [], []),
        ({"a": "passed"}, {"a": "failed"}, [("a", "passed", "failed")], ["a"]),
        ({"a": "failed"}, {"a": "passed"}, [("a", "failed", "passed")], []),
        ({"a": "passed"}, {}, [("a", "passed", "not tried")], ["a"]),
        ({}, {"a": "passed"}, [("a", "not tried", "passed")], []),
        ({"a, MB": "2.0"}, {"a, MB": "2.1"}, [("a, MB", "2.0", "2.1")], []),
    ],
)
def test_only_what_passes_here_and_not_there_is_a_loss(
    ours: dict[str, str], theirs: dict[str, str], rows: list[tuple[str, str, str]], lost: list[str]
) -> None:
    """Other differences are printed, and do not fail the set."""
    differences = toolchains.outcome_differences(ours, theirs)
    assert differences == rows
    assert toolchains.outcome_losses(differences) == lost


def test_pip_is_held_to_every_version(tmp_path: Path) -> None:
    """Constraints are exact."""
    toolchains.write_constraints({"torch": "2.14.1", "onnx": "1.23.2"}, tmp_path / "constraints.txt")
    assert (tmp_path / "constraints.txt").read_text() == "torch==2.14.1\nonnx==1.23.2\n"


def test_outcomes_of_the_zoo_are_read_from_its_lines() -> None:
    """Each line has a network and a variant; the last line, a count, has none."""
    text = """  0.7 passed   onnx-fp16                group norm:\x20
  1.2 error    onnx-int8                top k: There is: no kernel.
2 files, 1 that a format cannot express, 0 false failures"""
    assert dict(toolchains._zoo_lines(text)) == {
        "group norm onnx-fp16": "passed",
        "top k onnx-int8": "error: There is: no kernel.",
    }
