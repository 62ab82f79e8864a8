"""What only the reference interpreter executed says so wherever its status stands, and never has a time."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from exporter.pipeline.audit import AuditFinding
from exporter.records import Comparison, Executor, Latency, Report, Status, Verdict
from exporter.report import manifest, text
from exporter.report.html import render_html
from exporter.report.manifest import restore
from exporter.report.snippets import make_snippets
from exporter.report.terminal import print_terminal_report
from tests.report import sample

WORDS = "passed (reference interpreter)"


def report() -> Report:
    """Return the sample with its Core ML fp16 artifact passed by the interpreter."""
    verdict = Verdict(
        "passed",
        None,
        "reference interpreter, coremltools 9.0",
        Comparison(20, 0.01, 42.0, 1.0),
        executor="reference interpreter",
    )
    rows = tuple(
        replace(a, status="passed", reason=None, verdict=verdict) if a.variant.name == "coreml-fp16" else a
        for a in sample.artifacts()
    )
    return replace(sample.report(), artifacts=rows)


def test_the_status_names_the_interpreter() -> None:
    """A run in its own runtime is not named; an interpreter's is, for every status."""
    assert text.status_text("passed") == "passed"
    assert text.status_text("passed", "reference interpreter") == WORDS
    assert text.status_text("not_run", "reference interpreter", short=True) == "not run (ref.)"


def test_the_terminal_says_it_in_the_row_and_below_the_table() -> None:
    """The row has room for a short form, which a sentence below the table explains."""
    console = Console(file=io.StringIO(), width=80)
    print_terminal_report(report(), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "passed (ref.)" in next(line for line in shown.splitlines() if line.startswith("coreml-fp16"))
    assert "The reference interpreter executed coreml-fp16, not Core ML" in " ".join(shown.split())
    other = Console(file=io.StringIO(), width=80)
    print_terminal_report(sample.report(), other)
    assert "interpreter" not in other.file.getvalue()  # type: ignore[attr-defined]


def test_the_page_and_the_snippets_say_it_in_full() -> None:
    """Each place that shows the status shows who executed it."""
    assert f">{WORDS}</span>" in render_html(report(), {})
    assert WORDS in {snippet.status for snippet in make_snippets(report())}


def test_the_manifest_keeps_it() -> None:
    """What is written is read back, and older manifests mean the runtime."""
    written = manifest.dump_manifest(report())
    listed = manifest.parse_manifest(written.encode(), Path("manifest.json"))
    row = next(a for a in listed.artifacts if a.name == "coreml-fp16")
    assert row.executor == "reference interpreter"
    restored = restore.restore_report(listed)
    assert {a.variant.name: a.executor for a in restored.artifacts}["coreml-fp16"] == "reference interpreter"
    older = written.replace('"executor": "reference interpreter",', "").replace('"executor": "runtime",', "")
    again = manifest.parse_manifest(older.encode(), Path("manifest.json"))
    assert {a.executor for a in again.artifacts} == {"runtime"}


def test_an_interpreter_has_no_latency() -> None:
    """A manifest that claims one is refused: its time says nothing about the runtime."""
    rows = tuple(
        replace(a, latency=Latency(1.0, 1.0, 20, 1)) if a.variant.name == "coreml-fp16" else a
        for a in report().artifacts
    )
    with pytest.raises(ValueError, match="a host latency, but executed by the reference interpreter"):
        manifest.dump_manifest(replace(report(), artifacts=rows))


@pytest.mark.parametrize(
    ("claimed_by", "found_by", "status", "holds"),
    [
        ("runtime", "runtime", "passed", True),
        ("reference interpreter", "reference interpreter", "passed", True),
        ("reference interpreter", "runtime", "passed", True),
        ("runtime", "reference interpreter", "passed", False),
        ("runtime", "reference interpreter", "failed", True),
    ],
)
def test_a_claim_holds_only_by_the_same_rung_or_a_higher_one(
    claimed_by: Executor, found_by: Executor, status: Status, holds: bool
) -> None:
    """What passed in its runtime is not shown by the interpreter alone; a failure claims nothing."""
    finding = AuditFinding("coreml-fp16", status, "passed", "", claimed_by=claimed_by, found_by=found_by)
    assert finding.holds == holds
