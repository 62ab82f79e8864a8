"""The rows of the table of families: what became of each network, read from what its export wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.families.table import Family


@dataclass(frozen=True)
class Figure:
    """What was measured of an artifact."""

    name: str
    precision: str
    status: str
    sqnr_db: float | None
    """None where it was not run."""
    size_bytes: int | None
    """None where it was not built."""
    measure: str
    """The measure of its task and the value; empty where there is none."""


@dataclass(frozen=True)
class Row:
    """What became of one network."""

    name: str
    title: str
    weights: str
    source: str
    command: str
    passed: tuple[str, ...]
    together: tuple[str, ...]
    """Variants whose parts passed together; empty for a network without parts."""
    others: tuple[tuple[str, str], ...]
    """(artifact and its status, reason) of what did not pass."""
    refusal: str
    """The message that ended the export before anything was built; empty otherwise."""
    seconds: float
    apart: tuple[tuple[str, str], ...] = ()
    """(variant and its status, measure and reason) of what passed in each part, and not together."""
    date: str = ""
    """The day of the export."""
    figures: tuple[Figure, ...] = ()
    """What was measured of each artifact that was built."""


def read_row(path: Path) -> Row:
    """Read a row that `json.dumps(asdict(row))` wrote."""
    record = json.loads(path.read_text())
    record["figures"] = tuple(Figure(**figure) for figure in record.get("figures", ()))
    return Row(**record)


def row_of_export(name: str, family: Family, out: Path, command: str, last_words: str, seconds: float) -> Row:
    """Read a network's row from the folder of its export.

    Args:
        name: The network's key in `FAMILIES`.
        family: The network.
        out: The folder that `export-mobile` wrote.
        command: The command, as the page shows it.
        last_words: The end of what the command said of an error.
        seconds: How long it took.
    """
    manifests = sorted(out.glob("manifest.json")) + sorted(out.glob("*/manifest.json"))
    together = _together(out)
    artifacts = [entry for path in manifests for entry in _artifacts(path, out)]
    return Row(
        name=name,
        title=family.title,
        weights=family.weights,
        source=family.source,
        command=command,
        passed=tuple(a["name"] for a in artifacts if a["status"] == "passed"),
        together=tuple(f"{v['name']} ({v['measure']})" for v in together if v["status"] == "passed"),
        others=tuple(
            (f"{a['name']}: {a['status']}", a["reason"] or "") for a in artifacts if a["status"] != "passed"
        ),
        apart=tuple(
            (f"{v['name']}: {v['status']}", f"{v['measure']}. {v['reason'] or ''}".strip())
            for v in together
            if v["status"] != "passed"
        ),
        refusal="" if artifacts else last_words,
        seconds=round(seconds, 1),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        figures=tuple(_figure(entry) for entry in artifacts),
    )


def _artifacts(manifest: Path, out: Path) -> list[dict[str, Any]]:
    part = "" if manifest.parent == out else f"{manifest.parent.name}/"
    listed = json.loads(manifest.read_text())["artifacts"]
    return [{**entry, "name": part + entry["name"]} for entry in listed]


def _together(out: Path) -> list[dict[str, Any]]:
    """Return the verdicts on variants whose parts ran one after the other."""
    if not (out / "parts.json").exists():
        return []
    verdicts: list[dict[str, Any]] = json.loads((out / "parts.json").read_text())["together"]
    return verdicts


def _figure(artifact: dict[str, Any]) -> Figure:
    verification = artifact.get("verification") or {}
    task = verification.get("task") or {}
    return Figure(
        artifact["name"],
        artifact.get("precision", ""),
        artifact["status"],
        verification.get("sqnr_db"),
        artifact.get("size_bytes"),
        f"{task['name']} {task['value']:.4g}{task['unit'] and ' '}{task['unit']}" if task else "",
    )
