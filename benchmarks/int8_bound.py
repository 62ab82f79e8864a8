"""Ask how well int8 can do at best: quantise the sample MobileNetV2 on the very scenes that judge it.

    python -m benchmarks.int8_bound [--photos DIR] [--scenes 120]

No recipe can know the scenes that it will be judged on. This program gives ours that knowledge: scales,
ranges, rounding and corrections are all fitted to the judged scenes. It prints what is left then, with
activations and weights in int8, with activations alone, and what errors of a given size cost in agreement
when they fall at random. What these rows do not reach, calibration of this scheme (activations int8 per
tensor, weights int8 per channel) reaches on unseen scenes by luck alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import alternatives, subjects, unseen_scenes
from exporter.records import Array, Sample

if TYPE_CHECKING:
    from torch import fx

    from exporter.quantize.int8_recipe import Int8Program

NOISE_DB = (20.0, 22.0, 24.0, 26.0, 28.0, 30.0, 32.0)
HEADINGS = ("in int8, fitted to the judged scenes", "SQNR dB", "95 % over scenes", "same class %", "95 %")
BOTH, ACTIVATIONS = "activations and weights", "activations alone"


def outputs_with_parts_of_int8(program: Int8Program, samples: Sequence[Sample]) -> dict[str, Array]:
    """Return the outputs with everything rounded, and with activations alone."""
    return {
        BOTH: _bound_outputs(program, samples, weights=True),
        ACTIVATIONS: _bound_outputs(program, samples, weights=False),
    }


def _bound_outputs(program: Int8Program, samples: Sequence[Sample], weights: bool) -> Array:
    import torch

    from exporter.quantize.graphs import DEQUANTIZE_CHANNELS, GraphWalk, graph_outputs

    floats = program.float_weights

    def around(walk: GraphWalk, node: fx.Node) -> Any | None:
        if node.target is DEQUANTIZE_CHANNELS and not weights:
            readers = [user.name for user in node.users]
            return next((floats[name] for name in readers if name in floats), None)
        return None

    walk = GraphWalk(program.module, around, keep=True)
    with torch.no_grad():
        rows = [graph_outputs(walk.run(*alternatives.tensors(sample)))[0] for sample in samples]
    return torch.cat(rows).numpy()


def noisy_outputs(expected: Array, decibels: float, seed: int) -> Array:
    """Return the outputs with random errors of a given energy."""
    noise = np.random.default_rng(seed).standard_normal(expected.shape)
    scale = np.sqrt(np.square(expected, dtype=np.float64).sum() / np.square(noise).sum())
    noisy: Array = expected + noise * scale * 10 ** (-decibels / 20)
    return noisy


def row_of_bound(name: str, draws: Sequence[dict[int, unseen_scenes.Judged]]) -> list[str]:
    """Return a line of the table."""
    means = np.mean([unseen_scenes.figures(list(errors.values())) for errors in draws], axis=0)
    (low_db, high_db), (low, high) = unseen_scenes.interval(draws)
    return [
        name,
        f"{means[0]:.1f}",
        f"{low_db:.1f} to {high_db:.1f}",
        f"{means[1]:.1f}",
        f"{low:.1f} to {high:.1f}",
    ]


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8_bound",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photos", type=Path, help="folder of photos, the demo's by default")
    parser.add_argument("--scenes", type=int, default=120, help="at most so many scenes, %(default)s")
    parser.add_argument("--work", type=Path, default=Path("build/int8-bound"), help="folder, %(default)s")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    import torch

    from exporter.quantize import int8_recipe

    options = arguments(sys.argv[1:] if given is None else given)
    subject = subjects.prepare(subjects.MOBILENET, options.work / "models")
    views = unseen_scenes.read_views(options.photos or subject.calibration, 1)
    views = unseen_scenes.Views(views.images[: options.scenes], views.scene[: options.scenes])
    samples = views.samples()
    network = subject.load()
    with torch.no_grad():
        expected = torch.cat([network(*alternatives.tensors(sample)) for sample in samples]).numpy()
    exported = torch.export.export(network, alternatives.tensors(samples[0]))
    program = int8_recipe.quantize_by_int8_recipe(exported, samples, views.scene)
    table = Table(box=box.MARKDOWN)
    for heading in HEADINGS:
        table.add_column(heading)
    for name, outputs in outputs_with_parts_of_int8(program, samples).items():
        table.add_row(*row_of_bound(name, [unseen_scenes.judge(expected, outputs, views.scene)]))
    for decibels in NOISE_DB:
        noisy = [
            unseen_scenes.judge(expected, noisy_outputs(expected, decibels, seed), views.scene)
            for seed in range(20)
        ]
        table.add_row(*row_of_bound(f"random errors of {decibels:.0f} dB", noisy))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
