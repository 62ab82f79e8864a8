"""Judges networks in Core ML and Core AI off a Mac: `python -m benchmarks.apple --work FOLDER [NAME ...]`.

The networks are those of the zoo, of the tests' digits and tasks, and the demo's trained MobileNetV2. Each
goes through capture, its packages, and verification: by the reference interpreter of Core ML, and by Core
AI's CPU runtime where the extra is installed. Every network's result is kept in FOLDER, so that a run that is
stopped goes on; `--markdown FILE` writes the table with the reasons.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from torch import nn

from benchmarks import zoo
from benchmarks.false_failures import Row, rows_of
from exporter.data import demo
from exporter.records import Sample
from tests import nets, odd_nets, task_nets

COREML = ("coreml-fp16", "coreml-w8", "coreml-w4")
COREAI = ("coreai-fp16", "coreai-fp32")
VERIFY = 48
"""Inputs that judge each network. With twelve, five of the first 22 networks were undecided in w4."""
DEMO = "MobileNetV2, the demo"
TASKS: Mapping[str, Callable[[], nn.Module]] = {
    "task: boxes": task_nets.Detector,
    "task: masks": task_nets.Segmenter,
    "task: sequences": task_nets.Reader,
    "task: regression": task_nets.Gauge,
}
ODD: dict[str, zoo.Subject] = {
    "a determinant": zoo.Subject(odd_nets.Determinant, (zoo.image(1, 1, 8, 8),)),
}
SHORT = {
    "passed": "✓",
    "inconclusive": "undecided",
    "error": "refused",
    "refused": "refused",
    "failed": "failed",
    "not_run": "not run",
}
INTRODUCTION = f"""# Networks in Core ML and Core AI

`python -m benchmarks.apple --work FOLDER --markdown docs/reference/apple.md` made this page on Linux; nothing
here is written by hand. Core ML packages are executed by the
[reference interpreter](../explanation/verification.md#core-ml-without-a-mac), Core AI assets by Apple's CPU
runtime for Linux. {VERIFY} inputs judge each small network; MobileNetV2 is the demo's, trained, with all its
photos. The weights of the zoo (names without a colon) are random: that w4 fails there says what a palette of
16 values costs such a network. ✓ passed, `undecided`: the inputs cannot tell whether the loss is within the
limit, `refused`: no file was made.
"""


Made = tuple[nn.Module, Sequence[Sample]]


def subjects(count: int = VERIFY) -> Mapping[str, Callable[[], Made]]:
    """Return what makes each small network and so many inputs, by its name."""
    pictures: dict[str, zoo.Subject] = {
        name: zoo.Subject(make, (zoo.image(1, 3, 32, 32),)) for name, make in TASKS.items()
    }
    return (
        {name: partial(_from_zoo, name, count) for name in zoo.ZOO}
        | {f"digits: {name}": partial(_from_digits, name, count) for name in nets.NETS | nets.MORE}
        | {name: partial(_from_subject, subject, count) for name, subject in (pictures | ODD).items()}
    )


def _from_zoo(name: str, count: int) -> Made:
    return zoo.build(name), zoo.ZOO[name].samples(count)


def _from_digits(name: str, count: int) -> Made:
    return nets.trained(name), nets.samples(name, 1400, count)


def _from_subject(subject: zoo.Subject, count: int) -> Made:
    return subject.make().eval(), subject.samples(count)


def judge_demo(variants: Sequence[str], work: Path) -> list[Row]:
    """Export the demo's MobileNetV2 for an iPhone by the command, and return its rows."""
    checkpoint, photos = demo.write_demo(work / "demo")
    out = work / "mobilenet_v2"
    formats = ",".join(dict.fromkeys(variant.partition("-")[0] for variant in variants))
    command = [sys.executable, "-m", "exporter", str(checkpoint), "--target", "iphone", "--force"]
    command += ["--calibration", str(photos), "--formats", formats, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not (out / "manifest.json").exists():
        raise SystemExit(f"The export of the demo failed: {done.stderr[-2000:]}")
    artifacts = json.loads((out / "manifest.json").read_text())["artifacts"]
    return [Row(DEMO, a["name"], a["status"], a["reason"] or "", 0.0) for a in artifacts]


def rows_of_network(name: str, variants: Sequence[str], work: Path) -> list[Row]:
    """Return a network's rows: those kept in the folder, or new ones, which are kept there."""
    place = work / "rows" / f"{name.replace(' ', '-').replace(':', '').replace(',', '')}.json"
    if not place.exists():
        if name == DEMO:
            rows = judge_demo(variants, work)
        else:
            net, samples = subjects()[name]()
            rows = list(rows_of(name, net, samples, variants, VERIFY))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return [Row(**row) for row in json.loads(place.read_text())]


def markdown_of_rows(rows: Sequence[Row], variants: Sequence[str]) -> str:
    """Return the table, a line for each network, and below it every reason that is not a pass."""
    by_network: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_network.setdefault(row.network, {})[row.variant] = row
    lines = [INTRODUCTION, f"| network | {' | '.join(variants)} |", f"|---|{':-:|' * len(variants)}"]
    for network, made in by_network.items():
        cells = (made.get(variant) or made.get("all") for variant in variants)
        lines.append(f"| {network} | {' | '.join(SHORT[c.status] if c else '-' for c in cells)} |")
    lines += ["", "| variant | passed | undecided | failed | refused or not run |", "|---|--:|--:|--:|--:|"]
    for variant in variants:
        states = [made[variant].status for made in by_network.values() if variant in made]
        counts = [states.count(status) for status in ("passed", "inconclusive", "failed")]
        lines.append(f"| {variant} | {' | '.join(map(str, counts))} | {len(states) - sum(counts)} |")
    lines += ["", "## What did not pass", ""]
    lines += [f"- {r.network}, {r.variant}: {SHORT[r.status]}. {_plain(r.reason)}" for r in rows if r.reason]
    return "\n".join(lines) + "\n"


def _plain(reason: str) -> str:
    return " ".join(reason.replace("|", "/").replace("<", "&lt;").split())[:400]


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the networks that have no result yet; return 1 when a file in half or single precision failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps each network's result")
    parser.add_argument("--markdown", type=Path, help="file for the table and the reasons")
    options = parser.parse_args(arguments)
    variants = (*COREML, *(COREAI if importlib.util.find_spec("coreai") else ()))
    rows: list[Row] = []
    for name in options.networks or [*subjects(), DEMO]:
        made = rows_of_network(name, variants, options.work)
        print(f"{name}: {', '.join(f'{row.variant} {SHORT[row.status]}' for row in made)}", flush=True)
        for row in made:
            if row.reason:
                print(f"    {row.variant}: {row.reason[:220]}", flush=True)
        rows += made
    print(f"\n{len(rows)} files, {sum(row.status == 'passed' for row in rows)} passed.")
    if options.markdown:
        options.markdown.write_text(markdown_of_rows(rows, variants))
    return int(any(row.status == "failed" and row.variant[-4:] in ("fp16", "fp32") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
