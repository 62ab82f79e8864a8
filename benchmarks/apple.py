"""Judges every small network in Core ML and Core AI on this machine: `python -m benchmarks.apple [NAME ...]`.

The networks are those of the zoo, of the tests' digits and of the tests' tasks. Each goes through capture,
its packages, and verification: by the reference interpreter of Core ML, and by Core AI's CPU runtime where
the extra is installed. Prints a table in Markdown, and below it why the rest did not pass.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import nn

from benchmarks import zoo
from benchmarks.false_failures import SAMPLES, Row, rows_of
from exporter.records import Sample
from tests import nets, task_nets

COREML = ("coreml-fp16", "coreml-w8", "coreml-w4")
COREAI = ("coreai-fp16", "coreai-fp32")
TASKS: Mapping[str, Callable[[], nn.Module]] = {
    "task: boxes": task_nets.Detector,
    "task: masks": task_nets.Segmenter,
    "task: sequences": task_nets.Reader,
    "task: regression": task_nets.Gauge,
}
SHORT = {
    "passed": "✓",
    "inconclusive": "few scenes",
    "error": "refused",
    "failed": "failed",
    "not_run": "not run",
}


def subjects() -> Iterator[tuple[str, nn.Module, Sequence[Sample]]]:
    """Yield every network with its name and inputs."""
    for name, subject in zoo.ZOO.items():
        yield name, zoo.build(name), subject.samples(2 * SAMPLES)
    for name in nets.NETS | nets.MORE:
        yield f"digits: {name}", nets.trained(name), nets.samples(name, 1400, 2 * SAMPLES)
    for name, make in TASKS.items():
        picture = zoo.Subject(make, (zoo.image(1, 3, 32, 32),))
        yield name, make().eval(), picture.samples(2 * SAMPLES)


def main(names: Sequence[str]) -> int:
    """Print the table; return 1 when something failed."""
    variants = (*COREML, *(COREAI if importlib.util.find_spec("coreai") else ()))
    print(f"| network | {' | '.join(variants)} |\n|---|{'---|' * len(variants)}")
    rest: list[Row] = []
    count = 0
    for name, net, samples in subjects():
        if names and name not in names:
            continue
        made = list(rows_of(name, net, samples, variants))
        count += len(made)
        print(f"| {name} | {' | '.join(SHORT[row.status] for row in made)} |", flush=True)
        rest += [row for row in made if row.status != "passed"]
    print(f"\n{count} files, {count - len(rest)} passed.\n")
    for row in rest:
        print(f"- {row.network}, {row.variant}: {row.status}: {row.reason}"[:200])
    return int(any(row.status == "failed" for row in rest))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NAME", help="only these")
    sys.exit(main(parser.parse_args().networks))
