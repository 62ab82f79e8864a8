"""Write a night as JUnit XML: one test case for each model, target, artifact and device.

What JUnit's readers understand is small: a case passed, failed, was skipped, or had an error. A regression
and a missed budget are failures, what could not be exported or measured is an error, the rest is skipped with
its reason, so that nothing not measured looks passed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from exporter.nightly.records import WORDS, NightResult, NightRow, State

KINDS: Mapping[State, str] = {
    "regression": "failure",
    "over_budget": "failure",
    "failed": "error",
    "no_phone": "skipped",
    "inconclusive": "skipped",
    "not_measured": "skipped",
    "skipped": "skipped",
}
"""State -> kind of result. A state that is not listed passed."""
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold; device and framework messages may."""


def render_junit(result: NightResult) -> str:
    """Return the XML document. It uses only what all JUnit readers accept."""
    counts = {
        kind: sum(KINDS.get(row.state) == kind for row in result.rows)
        for kind in ("failure", "error", "skipped")
    }
    totals = {
        "tests": str(len(result.rows)),
        "failures": str(counts["failure"]),
        "errors": str(counts["error"]),
        "skipped": str(counts["skipped"]),
    }
    root = ET.Element("testsuites", {"name": "export-mobile nightly", **totals})
    suite = ET.SubElement(
        root,
        "testsuite",
        {
            "name": "nightly",
            **totals,
            "timestamp": result.started_at[:19],
            "hostname": _clean_junit_text(result.host),
        },
    )
    for row in result.rows:
        _junit_case(suite, row)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _junit_case(suite: ET.Element, row: NightRow) -> None:
    where = ".".join(part.replace(".", "_") for part in (row.model, row.target) if part) or "nightly"
    name = " on ".join(part for part in (row.artifact, row.serial) if part) or "export"
    case = ET.SubElement(
        suite, "testcase", {"classname": _clean_junit_text(where), "name": _clean_junit_text(name)}
    )
    kind = KINDS.get(row.state)
    if kind:
        attributes = {"message": f"{WORDS[row.state]}: {_clean_junit_text(row.words)[:200]}"}
        if kind != "skipped":
            attributes["type"] = row.state
        ET.SubElement(case, kind, attributes).text = _clean_junit_text(row.words)
    else:
        ET.SubElement(case, "system-out").text = _clean_junit_text(row.words)


def _clean_junit_text(words: str) -> str:
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", words)
