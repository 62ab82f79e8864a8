"""Export networks of every family with one command each: `python -m benchmarks.families [NAME ...]`.

    python -m benchmarks.families --work DIR [--photos DIR] [--markdown FILE] [--only-results] [NAME ...]

Each network goes through `export-mobile` in a process of its own, from its authors' own file. Checkpoints,
exports and results stay in DIR; a network with a result there is not exported again, so that the table can be
made in several runs. `--markdown` writes the table of all results; nothing in it is written by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.families import packages
from benchmarks.families.table import FAMILIES, PHOTOS, Family

TARGET = "snapdragon865"
INTRODUCTION = """# Families of networks

Each network below went from its authors' own file or folder through one command.
`python -m benchmarks.families` did it and wrote this page; nothing here is written by hand. Every export
made ExecuTorch and ONNX files in float32 and int8 from 8 calibration and 8 verification inputs:
`--formats executorch,onnx --precisions fp32,int8 --samples 8` goes with each command. Inputs are photos
where a command has them, and synthetic otherwise. Trained weights come from packages; random ones show that
a network of this kind is built and verified, and nothing about what int8 costs a trained one.
A row is as old as its export, whose day it says: a network that has a result is not exported again. Rows
without a day are from earlier code, and may say what is no longer true.
"""
VARIANTS = ("--formats", "executorch,onnx", "--precisions", "fp32,int8", "--samples", "8")
ROOT = Path(__file__).parents[2]


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
    date: str = ""
    """The day of the export."""


def run_family(name: str, work: Path, photos: Path) -> Row:
    """Export one network, and read from its manifest what passed."""
    family = FAMILIES[name]
    started = time.monotonic()
    try:
        checkpoint = family.checkpoint(work / "files")
    except Exception as error:  # whatever a package raises: the row says it
        refusal = f"The checkpoint cannot be made: {type(error).__name__}: {error}"
        return Row(name, family.title, family.weights, family.source, "", (), (), (), refusal[:300], 0.0)
    out = work / "out" / name
    options = [str(photos) if option == PHOTOS else option for option in family.options]
    command = [str(checkpoint), "--target", TARGET, *options, *VARIANTS, "-o", str(out), "--force"]
    files = work.resolve() / "files"
    places = [str(ROOT), str(files / packages.PLACE), os.environ.get("PYTHONPATH", "")]
    finished = subprocess.run(
        [sys.executable, "-c", "import sys; from exporter.cli import main; main(sys.argv[1:])", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONUSERBASE": str(files)},
        capture_output=True,
        text=True,
        check=False,
    )
    manifests = sorted(out.glob("manifest.json")) + sorted(out.glob("*/manifest.json"))
    artifacts = [entry for path in manifests for entry in _artifacts(path, out)]
    return Row(
        name=name,
        title=family.title,
        weights=family.weights,
        source=family.source,
        command=_shown(family, checkpoint),
        passed=tuple(a["name"] for a in artifacts if a["status"] == "passed"),
        together=_together(out),
        others=tuple(
            (f"{a['name']}: {a['status']}", a["reason"] or "") for a in artifacts if a["status"] != "passed"
        ),
        refusal="" if artifacts else _last_words(finished.stderr),
        seconds=round(time.monotonic() - started, 1),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
    )


def _artifacts(manifest: Path, out: Path) -> list[dict[str, Any]]:
    part = "" if manifest.parent == out else f"{manifest.parent.name}/"
    listed = json.loads(manifest.read_text())["artifacts"]
    return [{**entry, "name": part + entry["name"]} for entry in listed]


def _together(out: Path) -> tuple[str, ...]:
    if not (out / "parts.json").exists():
        return ()
    verdicts = json.loads((out / "parts.json").read_text())["together"]
    return tuple(f"{v['name']} ({v['measure']})" for v in verdicts if v["status"] == "passed")


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[")]
    return " ".join(lines[-3:])[:300]


def _shown(family: Family, checkpoint: Path) -> str:
    name = checkpoint.name + ("/" if checkpoint.is_dir() else "")
    words = [*("photos/" if option == PHOTOS else option for option in family.options)]
    return " ".join(["export-mobile", name, "--target", TARGET, *words])


def markdown_of_families(rows: Sequence[Row]) -> str:
    """Return the table: a line per network, and below it every reason."""
    lines = [INTRODUCTION, "| network | weights | passed | did not |", "|---|---|--:|--:|"]
    for row in rows:
        lines.append(
            f"| {row.title} | {row.weights} ({row.source}) | {len(row.passed) or '-'} | "
            f"{len(row.others) or ('refused' if row.refusal else '-')} |"
        )
    for row in rows:
        lines += ["", f"### {row.title}", "", "```text", row.command, "```", ""]
        if row.passed:
            lines.append(f"Passed: {', '.join(row.passed)} ({row.seconds:.0f} s{_day(row)}).")
        if row.together:
            lines.append(f"Together: {', '.join(row.together)}.")
        if row.others:
            lines.append("")
        by_reason: dict[str, list[str]] = {}
        for artifact, reason in row.others:
            by_reason.setdefault(_plain(reason), []).append(artifact)
        lines += [f"- {', '.join(artifacts)}. {reason}" for reason, artifacts in by_reason.items()]
        if row.refusal:
            lines.append(f"Refused: {_plain(row.refusal)}")
    return "\n".join(lines) + "\n"


def _day(row: Row) -> str:
    return f", {row.date}" if row.date else ""


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "/").replace("<", "&lt;").split())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the networks that have no result yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="Networks; all when left out.")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--photos", type=Path, help="Folder of photos; the demo's when left out.")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--only-results", action="store_true", help="Export nothing.")
    parser.add_argument("--again", action="store_true", help="Export networks that have a result, too.")
    options = parser.parse_args(arguments)
    photos = options.photos or _demo_photos(options.work)
    (options.work / "rows").mkdir(parents=True, exist_ok=True)
    rows = []
    for name in options.names or list(FAMILIES):
        place = options.work / "rows" / f"{name}.json"
        if options.only_results and not place.exists():
            continue
        if options.again or not place.exists():
            place.write_text(json.dumps(asdict(run_family(name, options.work, photos))))
        row = Row(**json.loads(place.read_text()))
        rows.append(row)
        print(f"{row.seconds:6.1f} s  {row.name}: {len(row.passed)} passed", flush=True)
        for artifact, reason in row.others:
            print(f"          {artifact}: {reason[:160]}", flush=True)
        if row.refusal:
            print(f"          refused: {row.refusal[:300]}", flush=True)
    if options.markdown:
        options.markdown.write_text(markdown_of_families(rows))
    return 0


def _demo_photos(work: Path) -> Path:
    from exporter.data import demo

    return demo.write_demo(work / "demo")[1].parent


if __name__ == "__main__":
    sys.exit(main())
