"""Export networks of every family with one command each: `python -m benchmarks.families [NAME ...]`.

    python -m benchmarks.families --work DIR [--photos DIR] [--markdown FILE] [--front-page README.md]
        [--only-results] [NAME ...]

Each network goes through `export-mobile` in a process of its own, from its authors' own file. Checkpoints,
exports and results stay in DIR; a network with a result there is not exported again, so that the table can be
made in several runs. `--markdown` writes the table of all results, and `--front-page` the part of it that a
page has; nothing in either is written by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.families import inputs, packages, page
from benchmarks.families.rows import Row, read_row, row_of_export
from benchmarks.families.table import FAMILIES, Family

TARGET = "snapdragon865"
VARIANTS = ("--formats", "executorch,onnx", "--precisions", "fp32,int8")
ROOT = Path(__file__).parents[2]


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
    shutil.rmtree(out, ignore_errors=True)  # or a refused export would leave an older one's manifest
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
    words = _shown(family, checkpoint), _last_words(finished.stderr)
    return row_of_export(name, family, out, *words, time.monotonic() - started)


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[")]
    return " ".join(lines[-3:])[:300]


def _shown(family: Family, checkpoint: Path) -> str:
    name = checkpoint.name + ("/" if checkpoint.is_dir() else "")
    words = [*family.options]
    if family.calibration:
        words += ["--calibration", family.calibration + ("" if "." in family.calibration else "/")]
    return " ".join(["export-mobile", name, "--target", TARGET, *words, "--samples", str(family.samples)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the networks that have no result yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="Networks; all when left out.")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--photos", type=Path, help="Folder of photos; the demo's when left out.")
    parser.add_argument("--markdown", type=Path, help="A page; networks without a result stay in it.")
    parser.add_argument("--front-page", type=Path, help="A page with a part for some of the rows.")
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
        row = read_row(place)
        rows.append(row)
        print(f"{row.seconds:6.1f} s  {row.name}: {len(row.passed)} passed", flush=True)
        for artifact, reason in [*row.others, *row.apart]:
            print(f"          {artifact}: {reason[:160]}", flush=True)
        if row.refusal:
            print(f"          refused: {row.refusal[:300]}", flush=True)
    if options.markdown:
        earlier = options.markdown.read_text() if options.markdown.exists() else ""
        titles = [family.title for family in FAMILIES.values()]
        options.markdown.write_text(page.markdown_of_families(rows, titles, earlier))
    if options.front_page:
        page.write_front_page(options.front_page, rows, {n: family.title for n, family in FAMILIES.items()})
    return 0


def _demo_photos(work: Path) -> Path:
    from exporter.data import demo

    return demo.write_demo(work / "demo")[1].parent


if __name__ == "__main__":
    sys.exit(main())
