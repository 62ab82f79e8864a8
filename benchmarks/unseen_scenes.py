"""Compare int8 methods on scenes that none was calibrated on, for several draws of calibration scenes.

    python -m benchmarks.unseen_scenes [--from DIR] [--photos DIR] [--draws 5] [--scenes 8]

The network is the sample MobileNetV2. Of the photos in `--from` (the demo's), each draw takes `--scenes`
scenes at random, and eight views of each calibrate every method. Each file runs in its own runtime on two
views of every scene that was not drawn, and on every photo of `--photos`, which nothing is calibrated on. A
view is no witness of its own: the interval is a bootstrap over scenes, 95 %, over all draws. How far ours
leads is judged on the same scenes of the same draws, in pairs.

The result of each draw and method is one file in `--work`, under a key of its samples, code and packages. A
run that was stopped goes on where it was; `--show` prints the tables of what is there and makes nothing.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import alternatives, measure, subjects, tables, unseen_files
from benchmarks.unseen_files import METHODS, MIXED, OURS, Job
from exporter.data import photos, scenes
from exporter.pipeline import cache
from exporter.records import Array, Preprocessing, Sample

HOW = Preprocessing()
VIEWS, JUDGED_VIEWS = 8, 2
RESAMPLES = 2000
HEADINGS = (
    "method",
    "SQNR dB",
    "draws",
    "95 % over scenes",
    "same top class %",
    "draws",
    "95 % over scenes",
    "ours wins : loses",
    "ours leads, dB",
    "ours leads, points",
    "s",
    "latency / int8",
)
"""The columns of a table; `s` is from the float model to the outputs, with other work on the machine."""


@dataclass(frozen=True, eq=False)
class Views:
    """Views of photos, and the scene of each: (views, 3, 224, 224)."""

    images: Array
    scene: tuple[int, ...]

    def samples(self) -> tuple[Sample, ...]:
        return tuple((image[None],) for image in self.images)


@dataclass(frozen=True)
class Judged:
    """A file's error on the views of one scene: energies and equal top classes."""

    noise: float
    signal: float
    same: float
    """How much of the answers is the float network's: views with its top class."""
    views: float
    """The most that `same` can be: the number of views."""


@dataclass(frozen=True, eq=False)
class Draw:
    """A method's result on one draw of calibration scenes."""

    number: int
    seconds: float
    size_bytes: int
    latency_ratio: float
    own: dict[int, Judged]
    """Scene -> error, of the scenes that were not drawn."""
    given: dict[int, Judged]
    """Scene -> error, of `--photos`."""

    def errors(self, given: bool) -> dict[int, Judged]:
        return self.given if given else self.own

    def write(self, path: Path) -> None:
        """Write the result so that a killed run leaves none half-written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".aside")
        aside.write_text(json.dumps(asdict(self)))
        aside.replace(path)

    @classmethod
    def read(cls, path: Path) -> Draw | None:
        """Return a written result; None where there is none."""
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        for name in ("own", "given"):
            record[name] = {int(scene): Judged(**error) for scene, error in record[name].items()}
        return cls(**record)


def read_views(folder: Path, views: int) -> Views:
    """Read every photo of a folder: the whole, then crops."""
    read, _, problems = photos.read_distinct_photos(photos.find_photos(folder), 1000, HOW, 3)
    for problem in problems:
        print(problem, file=sys.stderr)
    grouping = scenes.group_photos_into_scenes(read)
    images, owner = [], []
    for place, photo in enumerate(read):
        crops = photos.photo_crops(photo, HOW, np.random.default_rng(place))
        images += [photo.whole, *itertools.islice(crops, views - 1)]
        owner += [grouping.scenes[place]] * views
    return Views(np.stack(images), tuple(owner))


def draw(views: Views, number: int, count: int) -> tuple[Views, Views]:
    """Return the calibration views of a draw, and some of every other scene."""
    names = sorted(set(views.scene))
    if count >= len(names):
        raise SystemExit(f"--scenes {count}: the folder has {len(names)} scenes, and some must stay unseen.")
    drawn = set(np.random.default_rng(number).choice(names, count, replace=False).tolist())
    of = np.array(views.scene)
    firsts = np.arange(len(of)) % VIEWS < JUDGED_VIEWS
    inside = np.isin(of, list(drawn))
    calibration, unseen = (
        Views(views.images[rows], tuple(of[rows].tolist())) for rows in (inside, ~inside & firsts)
    )
    return calibration, unseen


def judge(expected: Array, actual: Array, owner: Sequence[int]) -> dict[int, Judged]:
    """Return the errors scene by scene."""
    errors: dict[int, Judged] = {}
    for scene in sorted(set(owner)):
        rows = np.array(owner) == scene
        y, a = expected[rows].astype(np.float64), actual[rows].astype(np.float64)
        same = int((y.argmax(1) == a.argmax(1)).sum())
        errors[scene] = Judged(float(np.square(a - y).sum()), float(np.square(y).sum()), same, len(y))
    return errors


def figures(errors: Sequence[Judged]) -> tuple[float, float]:
    """Return SQNR in dB and the percentage of equal top classes."""
    noise, signal = sum(e.noise for e in errors), sum(e.signal for e in errors)
    return 10 * np.log10(signal / noise), 100 * sum(e.same for e in errors) / sum(e.views for e in errors)


def interval(draws: Sequence[dict[int, Judged]]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return 95 % intervals of both figures: scenes are drawn with all that was measured on them."""
    return _percentiles([figures(errors) for errors in _resampled(draws)])


def leads(
    ours: Sequence[dict[int, Judged]], theirs: Sequence[dict[int, Judged]]
) -> list[tuple[float, float, float]]:
    """Return by how much ours leads in dB and in points, each with its 95 % interval.

    Args:
        ours: The errors of our file, draw by draw.
        theirs: The errors of the other file, on the same scenes of the same draws.
    """
    whole, other = (figures([e for errors in draws for e in errors.values()]) for draws in (ours, theirs))
    lead = np.subtract(whole, other)
    pairs = zip(_resampled(ours), _resampled(theirs), strict=True)
    intervals = _percentiles([tuple(np.subtract(figures(a), figures(b))) for a, b in pairs])
    return [(float(of), *interval) for of, interval in zip(lead, intervals, strict=True)]


def _resampled(draws: Sequence[dict[int, Judged]]) -> Iterator[list[Judged]]:
    """Yield all errors of scenes that are drawn with replacement: the same scenes for every file."""
    every = sorted({scene for errors in draws for scene in errors})
    by_scene = [[errors[scene] for errors in draws if scene in errors] for scene in every]
    random = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        places = random.integers(len(every), size=len(every))
        yield [error for place in places for error in by_scene[place]]


def _percentiles(
    of_figures: Sequence[tuple[float, float]],
) -> tuple[tuple[float, float], tuple[float, float]]:
    low, high = np.percentile(of_figures, [2.5, 97.5], axis=0)
    return (low[0], high[0]), (low[1], high[1])


def row(name: str, draws: Sequence[dict[int, Judged]], first: Sequence[dict[int, Judged]]) -> list[str]:
    """Return a method's line of the table; wins are draws in which our first file has more dB."""
    of_draws = np.array([figures(list(errors.values())) for errors in draws])
    ours = np.array([figures(list(errors.values())) for errors in first])
    (low_db, high_db), (low, high) = interval(draws)
    wins = int((ours[:, 0] > of_draws[:, 0]).sum())
    return [
        name,
        f"{of_draws[:, 0].mean():.1f}",
        f"{of_draws[:, 0].min():.1f} to {of_draws[:, 0].max():.1f}",
        f"{low_db:.1f} to {high_db:.1f}",
        f"{of_draws[:, 1].mean():.1f}",
        f"{of_draws[:, 1].min():.1f} to {of_draws[:, 1].max():.1f}",
        f"{low:.1f} to {high:.1f}",
        "" if draws == first else f"{wins} : {len(draws) - wins}",
        *lead_cells(first, draws),
    ]


def lead_cells(ours: Sequence[dict[int, Judged]], theirs: Sequence[dict[int, Judged]]) -> list[str]:
    """Return the table's cells of how far ours leads; empty for our own file."""
    if ours == theirs:
        return ["", ""]
    return [f"{lead:+.1f} ({low:+.1f} to {high:+.1f})" for lead, low, high in leads(ours, theirs)]


def table_of_draws(title: str, judged: Mapping[str, Sequence[Draw]], given: bool) -> Table:
    """Return the table of our files and the others', of the views that were not drawn or of `--photos`.

    A method is shown on the draws that the first method has, too.
    """
    table = Table(title=title, box=box.MARKDOWN, title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=heading == HEADINGS[0])
    first = {draw.number: draw.errors(given) for draw in next(iter(judged.values()))}
    for name, draws in judged.items():
        shared = [draw for draw in draws if draw.number in first]
        if not shared:
            continue
        seconds = f"{np.median([draw.seconds for draw in shared]):.0f}"
        ratio = f"{np.median([draw.latency_ratio for draw in shared]):.2f}" if name in MIXED else ""
        errors = [draw.errors(given) for draw in shared]
        table.add_row(*row(name, errors, [first[draw.number] for draw in shared]), seconds, ratio)
    return table


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unseen_scenes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", dest="source", type=Path, help="photos to draw from; the demo's by default")
    parser.add_argument("--photos", type=Path, help="more photos to judge on")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--scenes", type=int, default=8, help="scenes of a draw, %(default)s")
    parser.add_argument("--methods", default=",".join(METHODS), help="of %(default)s")
    parser.add_argument("--work", type=Path, default=Path("build/unseen"), help="folder, %(default)s")
    parser.add_argument("--show", action="store_true", help="print what is done, and make nothing")
    options = parser.parse_args(given)
    if unknown := set(options.methods.split(",")) - set(METHODS):
        parser.error(f"--methods: {', '.join(sorted(unknown))} unknown")
    return options


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(sys.argv[1:] if given is None else given)
    console = Console(width=None if sys.stdout.isatty() else 260)
    subject = subjects.prepare(subjects.MOBILENET, options.work / "models")
    source = read_views(options.source or subject.calibration, VIEWS)
    others = read_views(options.photos, 1) if options.photos else Views(source.images[:0], ())
    names = options.methods.split(",")
    judged: dict[str, list[Draw]] = {name: [] for name in names}
    for number, name in itertools.product(range(options.draws), names):
        calibration, unseen = draw(source, number, options.scenes)
        record = (
            options.work / "results" / f"{_slug(name)}-{number}-{_key(name, calibration, unseen, others)}"
        )
        made = Draw.read(record)
        if made is None and not options.show:
            try:
                made = make_draw(name, number, subject, (calibration, unseen, others), options.work)
            except Exception as error:  # whatever another library says of a model is a result
                console.print(f"draw {number}, {name}: {type(error).__name__}: {error}"[:300], markup=False)
                continue
            made.write(record)
        if made is not None:
            judged[name].append(made)
            db, same = figures(list(made.own.values()))
            console.print(f"draw {number}, {name}: {db:.1f} dB, {same:.1f} %", highlight=False)
    judged = {name: draws for name, draws in judged.items() if draws}
    if judged:
        console.print(table_of_draws(f"Unseen scenes of {options.source or 'the demo'}", judged, False))
    if judged and options.photos:
        console.print(table_of_draws(f"Photos of {options.photos}", judged, True))
    return 0


def make_draw(
    name: str, number: int, subject: subjects.Subject, views: tuple[Views, Views, Views], work: Path
) -> Draw:
    """Make a method's file and judge it, in a process of its own.

    Args:
        name: The method.
        number: The number of the draw.
        subject: The network.
        views: Those to calibrate with, those that were not drawn, and those of `--photos`.
        work: The work folder.
    """
    calibration, unseen, others = views
    samples = (*unseen.samples(), *others.samples())
    job = Job(name, calibration.samples(), calibration.scene, samples)
    began = time.monotonic()
    with ProcessPoolExecutor(1, get_context("spawn"), measure.log_to, (str(work / "log.txt"),)) as pool:
        arguments = (subject, job, work / "files" / _slug(name))
        result = pool.submit(unseen_files.unseen_file_result, *arguments).result()
        seconds = time.monotonic() - began
        (expected,) = pool.submit(unseen_files.float_outputs, subject, samples).result()
    split, (actual,) = len(unseen.images), result.outputs
    own = judge(expected[:split], actual[:split], unseen.scene)
    given = judge(expected[split:], actual[split:], others.scene)
    return Draw(number, seconds, result.size_bytes, result.latency_ratio, own, given)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _key(name: str, *views: Views) -> str:
    """Hash what a result depends on: the samples, the code and the packages."""
    arrays = [hashlib.sha256(part.images.tobytes()).hexdigest() for part in views]
    return cache.cache_key(name, arrays, method_code(name), tables.versions())[:16] + ".json"


def method_code(name: str) -> str:
    """Return the code that a method's file depends on."""
    return _code() if name in (*OURS, *MIXED) else Path(alternatives.__file__).read_text()


@functools.cache
def _code() -> str:
    folder = Path(scenes.__file__).parents[1] / "quantize"
    return "".join(path.read_text() for path in sorted(folder.glob("*.py")))  # what our files depend on


if __name__ == "__main__":
    sys.exit(main())
