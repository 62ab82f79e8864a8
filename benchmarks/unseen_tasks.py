"""Compare int8 methods on five trained networks by their tasks' measures, on scenes that none calibrated on.

    python -m benchmarks.unseen_tasks [--photos DIR] [--draws 3] [--scenes 16] [--networks craft,crnn]

The networks are EfficientNet-Lite0, CRAFT (finds text), MiniLM (embeds texts), EasyOCR's recogniser of
English, and MTCNN's O-Net (finds faces); their weights come from packages. Each draw takes `--scenes` scenes
at random to calibrate every method on, one sample each, and judges each file on 48 others in its own runtime.
The task's measure says how much of the float network's answer is left: same class, words found (F-measure),
nearest text, characters read (less the edits), face or none.

The result of each draw and method is one file in `--work`. A run that was stopped goes on where it was;
`--show` prints the tables of what is there and makes nothing.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import measure, unseen_files, unseen_networks, unseen_samples, unseen_scenes
from benchmarks.alternatives import Kind
from benchmarks.unseen_files import THEIRS, Job
from benchmarks.unseen_networks import HELD_OUT, NETWORKS, Network, Outputs
from benchmarks.unseen_scenes import Draw, Judged
from exporter.data import demo
from exporter.pipeline import cache
from exporter.records import Sample

if TYPE_CHECKING:
    import torch

OURS = "ours (ONNX Runtime)"
METHODS = (OURS, *THEIRS)
MOST_JUDGED = 48
SECONDS = 600
"""A method that takes longer for one file is stopped; the table says so."""
HEADINGS = (
    "network",
    "method",
    "draws",
    "SQNR dB",
    "95 % over scenes",
    "task %",
    "95 % over scenes",
    "ours, dB",
    "ours, task",
    "ours leads, dB",
    "ours leads, points",
    "MB",
    "s",
)
"""The columns; "ours" counts the draws in which our file wins, equals and loses."""


@dataclass(frozen=True)
class PackagedNetwork:
    """A network's name and the folder of its packages: what another process needs to load it."""

    name: str
    folder: Path

    @property
    def network(self) -> Network:
        return NETWORKS[self.name]

    @property
    def kind(self) -> Kind:
        return self.network.kind

    def load(self) -> torch.nn.Module:
        """Load the float network."""
        return self.network.load(self.folder)

    def samples(self, photos: Path) -> list[Sample]:
        """Return the network's samples, one per scene."""
        return self.network.samples(photos, self.folder)


def draw_samples(samples: Sequence[Sample], number: int, count: int) -> tuple[list[int], list[int]]:
    """Return the places of a draw's calibration samples, and of at most `MOST_JUDGED` others.

    Raises:
        SystemExit: No sample would be left to judge on.
    """
    if count >= len(samples):
        raise SystemExit(f"--scenes {count}: there are {len(samples)}, and some must stay unseen.")
    order = np.random.default_rng(number).permutation(len(samples)).tolist()
    return sorted(order[:count]), sorted(order[count : count + MOST_JUDGED])


def judge_outputs(
    network: Network, expected: Outputs, actual: Outputs, scenes: Sequence[int]
) -> dict[int, Judged]:
    """Return each scene's error. Energies are shares of an output's own, so that all outputs count alike."""
    noise, energy = np.zeros(len(scenes)), np.zeros(len(scenes))
    for theirs, ours in zip(expected, actual, strict=True):
        y, a = (rows.reshape(len(scenes), -1).astype(np.float64) for rows in (theirs, ours))
        whole = np.square(y).sum()
        noise += np.square(a - y).sum(1) / whole
        energy += np.square(y).sum(1) / whole
    answers = network.answers(expected, actual)
    return {
        scene: Judged(float(noise[place]), float(energy[place]), *answers[place])
        for place, scene in enumerate(scenes)
    }


def make_draw_of_task(
    packaged: PackagedNetwork, name: str, number: int, samples: Sequence[Sample], count: int, work: Path
) -> Draw:
    """Make a method's file and judge it, in a process of its own.

    Raises:
        TimeoutError: The method took longer than `SECONDS`.
    """
    calibrating, judged = draw_samples(samples, number, count)
    job = Job(name, *_of_scenes(samples, calibrating), tuple(samples[place] for place in judged))
    folder = work / "files" / packaged.name / name.replace(" ", "-")
    began = time.monotonic()
    with ProcessPoolExecutor(1, get_context("spawn"), measure.log_to, (str(work / "log.txt"),)) as pool:
        expected = pool.submit(unseen_files.float_outputs, packaged, job.judged).result()
        result = pool.submit(_file_result_in_time, packaged, job, folder).result()
    own = judge_outputs(packaged.network, expected, result.outputs, judged)
    return Draw(number, time.monotonic() - began, result.size_bytes, 1.0, own, {})


def _of_scenes(
    samples: Sequence[Sample], places: Sequence[int]
) -> tuple[tuple[Sample, ...], tuple[int, ...]]:
    return tuple(samples[place] for place in places), tuple(places)


def _file_result_in_time(packaged: PackagedNetwork, job: Job, folder: Path) -> unseen_files.FileResult:
    def stop(*_: object) -> None:
        raise TimeoutError(f"stopped after {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        return unseen_files.unseen_file_result(packaged, job, folder)
    finally:
        signal.alarm(0)


def rows_of_network(network: Network, judged: Mapping[str, Sequence[Draw]]) -> list[list[str]]:
    """Return the table's lines of a network: a method is compared on the draws that ours has, too."""
    ours = {draw.number: draw for draw in judged.get(OURS, ())}
    rows = []
    for name, draws in judged.items():
        if not draws:
            rows.append([network.name, name, "0", *["-"] * (len(HEADINGS) - 3)])
            continue
        figures = np.array([unseen_scenes.figures(list(draw.own.values())) for draw in draws])
        (low_db, high_db), (low, high) = unseen_scenes.interval([draw.own for draw in draws])
        both = [(ours[draw.number], draw) for draw in draws if draw.number in ours and name != OURS]
        rows.append(
            [
                network.name,
                name,
                str(len(draws)),
                f"{figures[:, 0].mean():.1f}",
                f"{low_db:.1f} to {high_db:.1f}",
                f"{figures[:, 1].mean():.1f}",
                f"{low:.1f} to {high:.1f}",
                *(_wins(both, column) for column in (0, 1)),
                *_leads(both),
                f"{draws[0].size_bytes / 1e6:.2f}",
                f"{np.median([draw.seconds for draw in draws]):.0f}",
            ]
        )
    return rows


def _wins(pairs: Sequence[tuple[Draw, Draw]], column: int) -> str:
    if not pairs:
        return ""
    differences = [
        round(of[0][column] - of[1][column], 6)
        for of in (tuple(unseen_scenes.figures(list(draw.own.values())) for draw in pair) for pair in pairs)
    ]
    signs = np.sign(differences)
    return " : ".join(str(int((signs == sign).sum())) for sign in (1, 0, -1))


def _leads(pairs: Sequence[tuple[Draw, Draw]]) -> list[str]:
    ours, theirs = ([pair[place].own for pair in pairs] for place in (0, 1))
    return unseen_scenes.lead_cells(ours, theirs)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unseen_tasks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photos", type=Path, default=demo.PHOTOS, help="folder, the demo's by default")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=16, help="scenes of a draw, %(default)s")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="of %(default)s")
    parser.add_argument("--methods", default=",".join(METHODS), help="of %(default)s")
    parser.add_argument("--work", type=Path, default=Path("build/unseen-tasks"), help="folder, %(default)s")
    parser.add_argument("--show", action="store_true", help="print what is done, and make nothing")
    options = parser.parse_args(given)
    for option, known in (("networks", NETWORKS), ("methods", METHODS)):
        if unknown := set(getattr(options, option).split(",")) - set(known):
            parser.error(f"--{option}: {', '.join(sorted(unknown))} unknown")
    return options


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(sys.argv[1:] if given is None else given)
    console = Console(width=None if sys.stdout.isatty() else 260)
    table = Table(box=box.MARKDOWN)
    for heading in HEADINGS:
        table.add_column(heading)
    for network in options.networks.split(","):
        packaged = PackagedNetwork(network, options.work / "packages")
        judged = _draws_of_network(packaged, options, console)
        for row in rows_of_network(packaged.network, judged):
            table.add_row(*row)
    console.print(table)
    console.print(f"Never used to tune the recipe: {', '.join(HELD_OUT)}.")
    return 0


def _draws_of_network(
    packaged: PackagedNetwork, options: argparse.Namespace, console: Console
) -> dict[str, list[Draw]]:
    packaged.load()  # its packages are unpacked before samples need them
    samples = packaged.samples(options.photos)
    names = options.methods.split(",")
    judged: dict[str, list[Draw]] = {name: [] for name in names}
    for number, name in itertools.product(range(options.draws), names):
        record = _record(options.work, packaged.name, name, number, options.scenes)
        made = Draw.read(record)
        if made is None and not options.show:
            try:
                made = make_draw_of_task(packaged, name, number, samples, options.scenes, options.work)
            except Exception as error:  # whatever another library says of a network is a result
                line = f"{packaged.name}, draw {number}, {name}: {type(error).__name__}: {error}"
                console.print(line[:400], markup=False)
                continue
            made.write(record)
        if made is not None:
            judged[name].append(made)
            db, task = unseen_scenes.figures(list(made.own.values()))
            line = f"{packaged.name}, draw {number}, {name}: {db:.1f} dB, {task:.1f} %, {made.seconds:.0f} s"
            console.print(line, highlight=False)
    return judged


def _record(work: Path, network: str, method: str, number: int, count: int) -> Path:
    """Name a result by what it depends on: the method, the samples and the code."""
    code = unseen_scenes.method_code(method) + _code_of_tasks()
    key = cache.cache_key(network, method, number, count, code)[:16]
    return work / "results" / f"{network}-{method.replace(' ', '-')}-{number}-{key}.json"


@functools.cache
def _code_of_tasks() -> str:
    files = (unseen_networks.__file__, unseen_samples.__file__)
    return "".join(Path(str(file)).read_text() for file in files)


if __name__ == "__main__":
    sys.exit(main())
