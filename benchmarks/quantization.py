"""Compare our int8 and mixed artifacts with plain library calls and NNCF: quality, size, time, latency.

    python -m benchmarks.quantization [--models A,B] [--quick] [--json FILE]

Run it from a clone with `pip install -e '.[dev,benchmarks]'`. Every method gets the same float model and the
same calibration samples, writes a file, and that file is run in its own runtime on the same verification
samples, which nothing was calibrated on. "Ours" are the files of an ordinary `export`. SQNR and agreement are
against the float64 model, as in every report. Each method works in a process of its own, one at a time.

quantise  Seconds from the float module to the written file. Ours, int8: until all int8 files of both runtimes
          are written, and the quantised program and the float64 model were run on the verification samples;
          mixed: the whole search.
total     Seconds of the whole: imports, quantisation, and running the file. Ours: the whole `export` of all
          its artifacts, verified and timed.
ms        A call's median. Beside it the ratio to our full int8 of the same runtime: the median of the ratios
          of neighbouring blocks of calls in one process, which take turns, with its quartiles.

`--quick` takes 16 samples and 5 pairs of blocks and leaves out full bias correction and the search: it shows
that everything works, its figures are not for quoting. What the alternatives made is kept in `--work`, and
used again while model, samples, code and packages are the same; ours, and every latency, are always new.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from benchmarks import alternatives, kept, measure, subjects, tables
from benchmarks.alternatives import Method
from benchmarks.measure import Evidence, Row
from benchmarks.subjects import Subject
from exporter import export
from exporter.config.request import Request
from exporter.errors import ExportError
from exporter.formats import VARIANTS
from exporter.records import Artifact, Report

Result = TypeVar("Result")
RUNTIMES = {"xnnpack": "executorch-xnnpack-int8", "onnxruntime": "onnx-int8"}
"""Backend -> our full int8 artifact, which its other artifacts are timed against."""
TARGET = "snapdragon865"


@dataclass(frozen=True)
class Plan:
    work: Path
    samples: int
    pairs: int
    threads: int
    without: tuple[str, ...]
    search: bool
    slow: bool
    again: bool = False


def apart(plan: Plan, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call in a fresh process, so that libraries' patches and thread pools do not mix."""
    log = str(plan.work / "log.txt")
    with ProcessPoolExecutor(1, get_context("spawn"), measure.log_to, (log,)) as pool:
        return pool.submit(function, *arguments).result()


def ours(subject: Subject, plan: Plan) -> tuple[list[Row], Evidence | None]:
    """Export as a user would: int8 with defaults, timed; then float, and mixed where it is offered."""
    rows, report = _exported(subject, plan, "int8", {"precisions": ("int8",)})
    evidence = None
    if report is not None:
        out = _folder(plan, subject, "int8")
        evidence = Evidence(out, report.inputs, report.preprocessing, plan.samples)
    more, _ = _exported(subject, plan, "more", _more(plan))
    return rows + [row for row in more if row.precision != "int8"], evidence


def _more(plan: Plan) -> dict[str, Any]:
    if plan.search and "search" in {field.name for field in fields(Request)}:
        return {"precisions": ("fp32", "int8", "mixed"), "search": True}
    return {"precisions": ("fp32",), "formats": ("executorch", "onnx")}


def _folder(plan: Plan, subject: Subject, purpose: str) -> Path:
    return plan.work / subject.name / purpose


def _exported(
    subject: Subject, plan: Plan, purpose: str, options: dict[str, Any]
) -> tuple[list[Row], Report | None]:
    began = time.monotonic()
    try:
        report = export(
            subject.checkpoint,
            TARGET,
            out=_folder(plan, subject, purpose),
            samples=plan.samples,
            cache=False,
            force=True,
            **subject.options,
            **options,
        )
    except ExportError as error:
        return [Row(subject.name, f"ours {purpose}", "", purpose, reason=str(error))], None
    seconds = time.monotonic() - began
    out = _folder(plan, subject, purpose)
    return [
        _our_row(subject, a, out, _made_in(a, report), seconds)
        for a in report.artifacts
        if a.variant.backend in RUNTIMES
    ], report


def _made_in(artifact: Artifact, report: Report) -> float | None:
    """Return the seconds: int8 files come from one program, and a search makes many mixed ones."""
    stages = {"int8": "build", "mixed": "search"}
    stage = stages.get(artifact.variant.precision)
    return report.stage_seconds[stage] if stage else artifact.build_seconds


def _our_row(
    subject: Subject, artifact: Artifact, out: Path, quantise_s: float | None, seconds: float
) -> Row:
    comparison = artifact.verdict.comparison if artifact.verdict else None
    variant = artifact.variant
    return Row(
        subject.name,
        f"ours {variant.name}",
        variant.backend,
        variant.precision,
        settings=" ".join(artifact.notes),
        status=artifact.status,
        reason=artifact.reason or "",
        file=str(out / artifact.file) if artifact.file else "",
        size_bytes=artifact.size_bytes,
        quantized=artifact.structure.quantized_weight_fraction if artifact.structure else None,
        sqnr_db=comparison.sqnr_db if comparison else None,
        agreement=comparison.agreement if comparison else None,
        quantise_s=quantise_s,
        total_s=seconds,
    )


def theirs(subject: Subject, plan: Plan, evidence: Evidence, console: Console) -> list[Row]:
    """Run every alternative, one after the other."""
    folder = _folder(plan, subject, "alternatives")
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [m for m in alternatives.methods(subject.kind, plan.without) if plan.slow or not m.slow]
    return [_theirs(subject, method, plan, evidence, folder, console) for method in chosen]


def _theirs(
    subject: Subject, method: Method, plan: Plan, evidence: Evidence, folder: Path, console: Console
) -> Row:
    backend = VARIANTS[method.variant].backend
    path = folder / f"{method.name.replace(' ', '-')}{VARIANTS[method.variant].suffix}"
    key = kept.key(subject, method.name, evidence, tables.versions())
    if not plan.again and (row := kept.get(path, key)) is not None:
        console.print(f"[dim]{subject.name}: {method.name}: kept from before[/dim]", highlight=False)
        return row
    console.print(f"[dim]{subject.name}: {method.name}[/dim]", highlight=False)
    try:
        row = apart(plan, measure.quantise, subject, method.name, evidence, path)
    except BrokenProcessPool:
        return Row(subject.name, method.name, backend, "int8", method.settings, reason="its process crashed")
    kept.put(path, key, row)
    return row


def timed(rows: Sequence[Row], plan: Plan, evidence: Evidence) -> list[Row]:
    """Add each row's latency against ours, pair by pair in its own process."""
    base = {row.runtime: row for row in rows if row.method in {f"ours {n}" for n in RUNTIMES.values()}}
    return [_timed(row, base.get(row.runtime), plan, evidence) for row in rows]


def _timed(row: Row, base: Row | None, plan: Plan, evidence: Evidence) -> Row:
    if base is None or not row.file or not base.file or row.sqnr_db is None or base.sqnr_db is None:
        return row
    variant = RUNTIMES[row.runtime]
    files = (Path(row.file), Path(base.file))
    try:
        return replace(
            row, latency=apart(plan, measure.latency, *files, variant, evidence, plan.pairs, plan.threads)
        )
    except BrokenProcessPool:
        return replace(row, reason=f"{row.reason} Its process crashed while it was timed.".lstrip())


def run(name: str, plan: Plan, console: Console) -> tuple[Subject, list[Row]]:
    """Measure everything about one model."""
    subject = subjects.prepare(name, plan.work / "models")
    console.print(f"[dim]{name}: export[/dim]", highlight=False)
    rows, evidence = ours(subject, plan)
    if evidence is not None:
        rows = timed(theirs(subject, plan, evidence, console) + rows, plan, evidence)
    return subject, rows


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default=",".join(subjects.NAMES), help="of %(default)s")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the figures as a table")
    parser.add_argument("--without", default="", metavar="nncf", help="leave out what needs this package")
    parser.add_argument("--work", type=Path, default=Path("build/quantization"), help="folder, %(default)s")
    parser.add_argument("--again", action="store_true", help="also run the alternatives again that were kept")
    parser.add_argument("--pairs", type=int, default=40, help="of blocks of calls, %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of the runtimes when timed, %(default)s")
    options = parser.parse_args(given)
    if unknown := set(options.models.split(",")) - set(subjects.NAMES):
        parser.error(f"--models: {', '.join(sorted(unknown))} unknown; there are {', '.join(subjects.NAMES)}")
    if options.pairs < 2:
        parser.error(f"--pairs: {options.pairs}, expected 2 or more")
    return options


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(sys.argv[1:] if given is None else given)
    plan = Plan(
        work=options.work,
        samples=16 if options.quick else 64,
        pairs=min(options.pairs, 5) if options.quick else options.pairs,
        threads=options.threads,
        without=tuple(filter(None, options.without.split(","))),
        search=not options.quick,
        slow=not options.quick,
        again=options.again,
    )
    console = Console(width=None if sys.stdout.isatty() else 140)
    facts = tables.machine()
    tables.print_machine(facts, plan.threads, console)
    everything: list[Row] = []
    try:
        alternatives.methods("attention", plan.without)  # before minutes are spent
        for name in options.models.split(","):
            subject, rows = run(name, plan, console)
            tables.print_model(subject, rows, console)
            everything += rows
            if options.json:
                content = {
                    "machine": facts,
                    "plan": asdict(plan),
                    "rows": [asdict(row) for row in everything],
                }
                options.json.write_text(json.dumps(content, indent=1, default=str))
            if options.markdown:
                options.markdown.write_text(tables.markdown(everything))
    except ExportError as error:
        console.print(f"error: {error}", style="red", highlight=False)
        return error.exit_code
    tables.print_settings(everything, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
