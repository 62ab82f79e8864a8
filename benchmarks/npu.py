"""Measures how far the NPU is from the quantised program: `python -m benchmarks.npu --work FOLDER`.

Small networks of many kinds, trained ones of digits and seeded ones, are quantised and compiled for every
generation of the NPU. For each output the table has three SQNRs: of the quantised program and of the artifact
with the model, and of the artifact with the program, which is what the gate of lowering limits. Results
are kept in FOLDER, so that a run that is stopped goes on; `--markdown FILE` writes the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.apple import subjects
from exporter.capture.captured_program import captured_program_matrix_weights
from exporter.errors import ExportError, LoweringError
from exporter.formats import FORMATS, VARIANTS
from exporter.formats.qnn import GENERATIONS
from exporter.records import Array
from exporter.verify import reference_io
from exporter.verify.compare_outputs import compare_sqnr_db
from tests import proof

VERIFY = 24
"""Inputs that judge; as many others calibrate."""


@dataclass(frozen=True)
class Row:
    """One network compiled for one generation; figures are the worst float output's, in dB."""

    network: str
    generation: str
    status: str
    reason: str
    program_db: float = 0.0
    """The quantised program's SQNR with the model."""
    artifact_db: float = 0.0
    """The artifact's with the model, on the simulator."""
    between_db: float = 0.0
    """The artifact's with the program."""
    offset: float = 0.0
    """The mean difference from the program over the samples, in multiples of the program's own error."""


def rows_of_npu(name: str, generations: Sequence[str]) -> list[Row]:
    """Quantise one network, compile it for each generation, and judge and measure the artifacts."""
    net, samples = subjects(2 * VERIFY)[name]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            captured = proof.capture(net, samples[:VERIFY], folder)
            quantized = proof.quantize(captured, samples[VERIFY:], folder)
        except (ExportError, LoweringError, ValueError) as error:
            return [Row(name, "all", "refused", str(error))]
        matrices = captured_program_matrix_weights(captured)
        rows = []
        for generation in generations:
            variant = f"onnx-qnn-{generation}-int8"
            verdict = proof.prove(quantized, variant, folder, matrices)
            figures = _figures(folder, variant) if verdict.comparison is not None else ()
            rows.append(Row(name, generation, verdict.status, verdict.reason or "", *figures))
        return rows


def _figures(folder: Path, variant: str) -> tuple[float, float, float, float]:
    references = reference_io.load_reference_io(folder / proof.EVIDENCE)
    program = reference_io.load_reference_io_lowering(folder / proof.LOWERING)
    how = VARIANTS[variant]
    run, _ = FORMATS[how.format].load(folder / f"{variant}{how.suffix}", how, 1)
    outputs = reference_io.stack_reference_io([run(sample) for sample in references.samples()])
    triples = [
        (y, p, a)
        for y, p, a in zip(references.reference, program.outputs, outputs, strict=True)
        if y.dtype.kind == "f" and y.shape == a.shape
    ]
    if not triples:
        return 0.0, 0.0, 0.0, 0.0
    return (
        min(compare_sqnr_db(y, p) for y, p, _ in triples),
        min(compare_sqnr_db(y, a) for y, _, a in triples),
        min(compare_sqnr_db(p, a) for _, p, a in triples),
        max(_rms((a - p).mean(axis=0)) / max(_rms(p - y), 1e-30) for y, p, a in triples),
    )


def _rms(array: Array) -> float:
    return float(np.sqrt((array.astype(np.float64) ** 2).mean()))


def markdown_of_npu(rows: Sequence[Row]) -> str:
    """Return the table: a line for each network and generation that gives other figures."""
    lines = [
        "| network | generation | status | program | artifact | between | margin | offset |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    by_result: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.reason and not row.between_db:
            continue
        key = row.network, row.status, f"{row.artifact_db:.1f} {row.between_db:.1f}"
        by_result.setdefault(key, []).append(row)
    for group in by_result.values():
        row = group[0]
        names = ", ".join(r.generation for r in group)
        lines.append(
            f"| {row.network} | {names} | {row.status} | {row.program_db:.1f} | {row.artifact_db:.1f} "
            f"| {row.between_db:.1f} | {row.between_db - row.program_db:+.1f} | {row.offset:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the networks that have no result yet, and print each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--generations", default=",".join(GENERATIONS), help="comma-separated")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps each network's result")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in options.networks or list(subjects(2 * VERIFY)):
        place = options.work / f"{name.replace(' ', '-').replace(':', '').replace(',', '')}.json"
        if not place.exists():
            made = rows_of_npu(name, options.generations.split(","))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps([asdict(row) for row in made], indent=1))
        made = [Row(**row) for row in json.loads(place.read_text())]
        for row in made:
            print(
                f"{name}, {row.generation}: {row.status}, program {row.program_db:.1f} dB, artifact "
                f"{row.artifact_db:.1f}, between {row.between_db:.1f}, offset {row.offset:.2f}. "
                f"{row.reason[:160]}",
                flush=True,
            )
        rows += made
    if options.markdown:
        options.markdown.write_text(markdown_of_npu(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
