"""Compare int8 methods on scenes that none was calibrated on, for several draws of calibration scenes.

    python -m benchmarks.unseen_scenes [--from DIR] [--photos DIR] [--draws 5] [--scenes 8]

The network is the sample MobileNetV2. Of the photos in `--from` (the demo's), each draw takes `--scenes`
scenes at random, and eight views of each calibrate every method. Each file runs in its own runtime on two
views of every scene that was not drawn, and on every photo of `--photos`, which nothing is calibrated on. A
view is no witness of its own: the interval is a bootstrap over scenes, 95 %, over all draws.

Outputs are kept in `--work`, by method, samples, code and packages: a second run takes seconds.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import alternatives, measure, subjects, tables
from exporter.data import photos, scenes
from exporter.formats import FORMATS, VARIANTS
from exporter.pipeline import cache
from exporter.records import Array, Preprocessing, Sample

if TYPE_CHECKING:
    import torch

HOW = Preprocessing()
VIEWS, JUDGED_VIEWS = 8, 2
OURS = {"ours (ExecuTorch)": "executorch-xnnpack-int8", "ours (ONNX Runtime)": "onnx-int8"}
THEIRS = (
    "XNNPACKQuantizer",
    "quantize_static MinMax",
    "quantize_static percentile",
    "NNCF fast",
    "NNCF full",
)
RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Views:
    """Views of photos, and the scene of each: (views, 3, 224, 224)."""

    images: Array
    scene: tuple[int, ...]

    def samples(self) -> tuple[Sample, ...]:
        return tuple((image[None],) for image in self.images)


@dataclass(frozen=True, eq=False)
class Judged:
    """A file's error on the views of one scene: energies and equal top classes."""

    noise: float
    signal: float
    same: int
    views: int


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


def write_ours(module: torch.nn.Module, calibration: tuple[Sample, ...], variant: str, folder: Path) -> Path:
    """Quantise by our recipe, and lower for a runtime."""
    import torch

    from exporter.quantize import int8
    from exporter.records import Captured, TensorSpec

    example = alternatives.tensors(calibration[0])
    program = int8.quantize_int8(torch.export.export(module, example), calibration).program()
    inputs, outputs = (TensorSpec("input", (1, 3, 224, 224)),), (TensorSpec("output", (1, 1000)),)
    captured = Captured(module, program, "", example, inputs, outputs)
    FORMATS[VARIANTS[variant].format].emit(captured, VARIANTS[variant], folder)
    return folder / (variant + VARIANTS[variant].suffix)


def outputs_of(
    name: str,
    subject: subjects.Subject,
    calibration: tuple[Sample, ...],
    judged: tuple[Sample, ...],
    work: Path,
) -> Array:
    """Quantise by a method and return its file's outputs; in a process of its own."""
    import torch

    torch.manual_seed(0)
    folder = work / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    method = next((m for m in alternatives.METHODS if m.name == name), None)
    variant = VARIANTS[method.variant if method else OURS[name]]
    if method is None:
        path = write_ours(subject.load(), calibration, OURS[name], folder)
    else:
        path = folder / f"file{variant.suffix}"
        alternatives.quantise(method, subject.load, calibration, subject.kind, path)
    run, _ = FORMATS[variant.format].load(path, variant, 1)
    return np.concatenate([run(sample)[0] for sample in judged])


def float_outputs(subject: subjects.Subject, judged: tuple[Sample, ...]) -> Array:
    """Return the float model's outputs."""
    import torch

    module = subject.load()
    with torch.no_grad():
        return np.concatenate([module(*alternatives.tensors(sample)).numpy() for sample in judged])


def kept(path: Path, key: str, make: Callable[[], Array]) -> Array:
    """Return an array from the work folder, or make and keep it."""
    file = path / f"{key}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, make())
    array: Array = np.load(file)
    return array


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
    every = sorted({scene for errors in draws for scene in errors})
    by_scene = [[errors[scene] for errors in draws if scene in errors] for scene in every]
    random = np.random.default_rng(0)
    resampled = [
        figures(
            [error for place in random.integers(len(every), size=len(every)) for error in by_scene[place]]
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
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
        "" if draws is first else f"{wins} : {len(draws) - wins}",
    ]


def show(title: str, judged: dict[str, list[dict[int, Judged]]], console: Console) -> None:
    headings = (
        "method",
        "SQNR dB",
        "draws",
        "95 % over scenes",
        "same top class %",
        "draws",
        "95 % over scenes",
    )
    table = Table(*headings, "ours wins : loses", title=title)
    first = next(iter(judged.values()))
    for name, draws in judged.items():
        table.add_row(*row(name, draws, first))
    console.print(table)


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
    parser.add_argument("--methods", default=",".join((*OURS, *THEIRS)), help="of %(default)s")
    parser.add_argument("--work", type=Path, default=Path("build/unseen"), help="folder, %(default)s")
    options = parser.parse_args(given)
    if unknown := set(options.methods.split(",")) - {*OURS, *THEIRS}:
        parser.error(f"--methods: {', '.join(sorted(unknown))} unknown")
    return options


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(sys.argv[1:] if given is None else given)
    console = Console(width=None if sys.stdout.isatty() else 150)
    subject = subjects.prepare(subjects.MOBILENET, options.work / "models")
    source = read_views(options.source or subject.calibration, VIEWS)
    others = read_views(options.photos, 1) if options.photos else Views(source.images[:0], ())
    own: dict[str, list[dict[int, Judged]]] = {name: [] for name in options.methods.split(",")}
    given_photos: dict[str, list[dict[int, Judged]]] = {name: [] for name in own}
    for number, name in itertools.product(range(options.draws), own):
        calibration, unseen = draw(source, number, options.scenes)
        samples = (*unseen.samples(), *others.samples())
        code = _code() if name in OURS else Path(alternatives.__file__).read_text()
        data = [
            calibration.images.tobytes().hex(),
            unseen.images.tobytes().hex(),
            others.images.tobytes().hex(),
        ]
        key = cache.cache_key(*data, tables.versions())
        expected = kept(options.work / "float", key, partial(float_outputs, subject, samples))
        actual = kept(
            options.work / name.replace(" ", "-"),
            cache.cache_key(key, code),
            partial(_apart, name, subject, calibration.samples(), samples, options.work),
        )
        split = len(unseen.images)
        own[name].append(judge(expected[:split], actual[:split], unseen.scene))
        given_photos[name].append(judge(expected[split:], actual[split:], others.scene))
        db, same = figures(list(own[name][-1].values()))
        console.print(f"[dim]draw {number}, {name}: {db:.1f} dB, {same:.1f} %[/dim]", highlight=False)
    show(f"Unseen scenes of {options.source or 'the demo'}", own, console)
    if options.photos:
        show(f"Photos of {options.photos}", given_photos, console)
    return 0


def _code() -> str:
    folder = Path(scenes.__file__).parents[1] / "quantize"
    return "".join(path.read_text() for path in sorted(folder.glob("*.py")))  # what our files depend on


def _apart(
    name: str,
    subject: subjects.Subject,
    calibration: tuple[Sample, ...],
    judged: tuple[Sample, ...],
    work: Path,
) -> Array:
    log = str(work / "log.txt")
    with ProcessPoolExecutor(1, get_context("spawn"), measure.log_to, (log,)) as pool:
        return pool.submit(outputs_of, name, subject, calibration, judged, work / "files").result()


if __name__ == "__main__":
    sys.exit(main())
