"""Counts right artifacts that verification fails: `python -m benchmarks.false_failures [NAME ...]`.

Every network of the zoo goes through capture, reference, its files in float32, float16 and int8, and
verification, in this process. A format that cannot express a network is no false failure; a file that fails
is, unless `RIGHTLY` says why it must. `tests/test_zoo.py` runs the same. With `--kept FILE` a run that was
stopped goes on after the last whole network.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from benchmarks.zoo import ZOO, build
from exporter.capture.captured_program import captured_program_matrix_weights
from exporter.errors import ExportError, LoweringError
from exporter.formats import VARIANTS as VARIANTS_OF
from exporter.records import Sample
from tests import proof

VARIANTS = ("onnx-fp32", "onnx-fp16", "executorch-xnnpack-fp32", "torchscript-lite-fp32", "onnx-int8")
SAMPLES = 12
"""That many samples verify, and as many others calibrate."""

RIGHTLY: dict[tuple[str, str], str] = {
    ("regression with an offset", "onnx-fp16"): "dB SQNR",  # float16 ends at 65504, the output is 101325
    ("regression with an offset", "onnx-int8"): "different value(s)",  # a step of 400 for 600 of variation
    ("conv3d", "executorch-xnnpack-fp32"): "Expect input tensor to be 3-D or 4-D",
    ("sorted scores", "executorch-xnnpack-fp32"): "kernel 'aten::sort.values' not found",
}
"""Network and variant -> words of the reason why it fails, where the file is wrong or does not run."""


@dataclass(frozen=True)
class Row:
    """What became of one network in one format."""

    network: str
    variant: str
    status: str
    reason: str
    seconds: float

    @property
    def is_false_failure(self) -> bool:
        """Tell whether a right file failed, or a network that can be exported was refused."""
        rightly = RIGHTLY.get((self.network, self.variant), "")
        return self.status in ("failed", "refused") and not (rightly and rightly in self.reason)


def rows(names: Sequence[str], variants: Sequence[str] = VARIANTS) -> Iterator[Row]:
    """Yield a row for each network and variant."""
    for name in names:
        yield from rows_of(name, build(name), ZOO[name].samples(2 * SAMPLES), variants)


def rows_of(
    name: str, net: nn.Module, samples: Sequence[Sample], variants: Sequence[str], verify: int = SAMPLES
) -> Iterator[Row]:
    """Yield a row of one network for each variant; the first `verify` inputs verify, the rest calibrate."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _rows(name, net, samples[:verify], samples[verify:], variants, Path(folder))


def _rows(
    name: str,
    net: nn.Module,
    samples: Sequence[Sample],
    calibration: Sequence[Sample],
    variants: Sequence[str],
    folder: Path,
) -> Iterator[Row]:
    started = time.monotonic()
    try:
        captured = proof.capture(net, samples, folder)
    except ExportError as error:
        yield Row(name, "all", "refused", str(error), time.monotonic() - started)
        return
    matrices = captured_program_matrix_weights(captured)
    for variant in variants:
        made_from = captured
        if VARIANTS_OF[variant].precision == "int8":
            try:
                made_from = proof.quantize(captured, calibration, folder)
            except (ExportError, LoweringError, ValueError) as error:
                yield Row(name, variant, "error", str(error), time.monotonic() - started)
                continue
        verdict = proof.prove(made_from, variant, folder, matrices)
        yield Row(name, variant, verdict.status, verdict.reason or "", time.monotonic() - started)
        started = time.monotonic()


def kept_rows(names: Sequence[str], kept: Path | None) -> Iterator[Row]:
    """Yield the rows that a file holds, and those of other networks as they are made and written to it."""
    lines = kept.read_text("utf-8").splitlines() if kept and kept.exists() else []
    known = [Row(**json.loads(line)) for line in lines]
    for name in names:
        done = [row for row in known if row.network == name]
        made = done or list(rows([name]))
        if kept and not done:
            with kept.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(asdict(row)) + "\n" for row in made))
        yield from made


def printed_row(row: Row) -> str:
    """Return a row as a line of the output."""
    verdict = "FALSE" if row.is_false_failure else row.status
    return f"{row.seconds:5.1f} {verdict:12} {row.variant:24} {row.network}: {row.reason}"[:220]


def main(arguments: Sequence[str]) -> int:
    """Print a line per network and format, and the count; return 1 when there are false failures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.false_failures")
    parser.add_argument("--kept", type=Path, help="file of rows, to go on with after a stop")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    made = []
    for row in kept_rows(options.names or list(ZOO), options.kept):
        made.append(row)
        print(printed_row(row), flush=True)
    counts = Counter(row.status for row in made)
    false = sum(row.is_false_failure for row in made)
    print(
        f"{len({row.network for row in made})} networks, {len(made)} files: "
        f"{', '.join(f'{count} {status}' for status, count in counts.most_common())}; {false} false failures"
    )
    return int(false > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
