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

from benchmarks.families import inputs, packages
from benchmarks.families.table import FAMILIES, Family

TARGET = "snapdragon865"
INTRODUCTION = """# Families of networks

Each network below went from its authors' own file or folder through one command.
`python -m benchmarks.families` did it and wrote this page; nothing here is written by hand. Every export
made ExecuTorch and ONNX files in float32 and int8: `--formats executorch,onnx --precisions fp32,int8` goes
with each command. `photos/` is the demo's; `signs/` are these with words on them, `faces/` scikit-image's
faces, `lines.npz` and `words.npz` rendered words, `texts.txt` Python's reference, `pairs/` photos with their
titles, and `mels.npz` sentences of espeak-ng. Where a command names none, inputs are synthetic. Trained
weights come from packages; those that this program trained for seconds know a small task (textures, the next
token, photos by their titles); random ones show that a network of this kind is built and verified, and
nothing about what int8 costs a trained one. A row is as old as its export, whose day it says.
"""
VARIANTS = ("--formats", "executorch,onnx", "--precisions", "fp32,int8")
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
    apart: tuple[tuple[str, str], ...] = ()
    """(variant and its status, measure and reason) of what passed in each part, and not together."""
    date: str = ""
    """The day of the export."""


def run_family(name: str, work: Path, photos: Path) -> Row:
    """Export one network, and read from its manifest what passed."""
    family = FAMILIES[name]
    started = time.monotonic()
    try:
        checkpoint = family.checkpoint(work / "files")
        data = inputs.calibration_inputs(family.calibration, work / "inputs", photos)
    except Exception as error:  # whatever a package raises: the row says it
        refusal = f"The checkpoint or its inputs cannot be made: {type(error).__name__}: {error}"
        return Row(name, family.title, family.weights, family.source, "", (), (), (), refusal[:300], 0.0)
    out = work / "out" / name
    options = [*family.options, *VARIANTS, "--samples", str(family.samples)]
    options += ["--calibration", str(data)] if data else []
    command = [str(checkpoint), "--target", TARGET, *options, "-o", str(out), "--force"]
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
    together = _together(out)
    artifacts = [entry for path in manifests for entry in _artifacts(path, out)]
    return Row(
        name=name,
        title=family.title,
        weights=family.weights,
        source=family.source,
        command=_shown(family, checkpoint),
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
        refusal="" if artifacts else _last_words(finished.stderr),
        seconds=round(time.monotonic() - started, 1),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
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


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[")]
    return " ".join(lines[-3:])[:300]


def _shown(family: Family, checkpoint: Path) -> str:
    name = checkpoint.name + ("/" if checkpoint.is_dir() else "")
    words = [*family.options]
    if family.calibration:
        words += ["--calibration", family.calibration + ("" if "." in family.calibration else "/")]
    return " ".join(["export-mobile", name, "--target", TARGET, *words, "--samples", str(family.samples)])


def markdown_of_families(rows: Sequence[Row]) -> str:
    """Return the table: a line per network, and below it every reason."""
    lines = [INTRODUCTION, "| network | weights | passed | did not |", "|---|---|--:|--:|"]
    for row in rows:
        lines.append(
            f"| {row.title} | {row.weights} ({row.source}) | {len(row.passed) or '-'} | "
            f"{len(row.others) + len(row.apart) or ('refused' if row.refusal else '-')} |"
        )
    for row in rows:
        lines += ["", f"### {row.title}", "", "```text", row.command, "```", ""]
        if row.passed:
            lines.append(f"Passed: {', '.join(row.passed)} ({row.seconds:.0f} s{_day(row)}).")
        if row.together:
            lines.append(f"Together: {', '.join(row.together)}.")
        by_reason: dict[str, list[str]] = {}
        for artifact, reason in [*row.others, *((f"together, {name}", why) for name, why in row.apart)]:
            by_reason.setdefault(_plain(reason), []).append(artifact)
        if by_reason:
            lines.append("")
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
        for artifact, reason in [*row.others, *row.apart]:
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
