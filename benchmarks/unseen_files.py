"""Write the files that `benchmarks.unseen_scenes` compares: ours, mixed and the alternatives.

Ours is made as in an export, but all its calibration views are chosen by the benchmark. A mixed file is made
as `--search` makes one, without its timing of candidates: of the draw's scenes, the last two choose, and
the rest calibrate. The first candidate that reaches `ENOUGH_DB` on the two is taken: what `--search` makes
with `--min-sqnr 30`. At its default, 24 dB, random errors alone would change the class of 6 to 9 views in 100
(`benchmarks.int8_bound`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from benchmarks import alternatives, pairing
from exporter.formats import FORMATS, VARIANTS
from exporter.records import Array, Captured, Sample, TensorSpec, Variant

if TYPE_CHECKING:
    import torch

    from exporter.quantize.int8_recipe import Int8Program

OURS = {"ours (ExecuTorch)": "executorch-xnnpack-int8", "ours (ONNX Runtime)": "onnx-int8"}
MIXED = {"ours mixed (ExecuTorch)": "executorch-xnnpack-mixed", "ours mixed (ONNX Runtime)": "onnx-mixed"}
THEIRS = (
    "XNNPACKQuantizer",
    "quantize_static MinMax",
    "quantize_static percentile",
    "NNCF fast",
    "NNCF full",
)
METHODS = (*OURS, *MIXED, *THEIRS)

ENOUGH_DB = 30.0
"""The SQNR that a mixed file must have on the scenes that choose it."""
CHOOSING_SCENES = 2
TIMED_PAIRS = 20


class FloatNetwork(Protocol):
    """A float network that files are made of."""

    @property
    def kind(self) -> alternatives.Kind:
        """Where most of its multiplications are."""

    def load(self) -> torch.nn.Module:
        """Load it in eval mode."""


@dataclass(frozen=True, eq=False)
class Job:
    """One file to make and to run."""

    method: str
    calibration: tuple[Sample, ...]
    scenes: tuple[int, ...]
    """The scene of each calibration sample."""
    judged: tuple[Sample, ...]


@dataclass(frozen=True, eq=False)
class FileResult:
    """The outputs of a file, and what it costs."""

    outputs: tuple[Array, ...]
    """Each output, with a row per judged sample."""
    size_bytes: int
    latency_ratio: float = 1.0
    """A mixed file's latency against the int8 file of the same program, in interleaved pairs, one thread."""


def unseen_file_result(subject: FloatNetwork, job: Job, folder: Path) -> FileResult:
    """Make a method's file and run it on the judged samples."""
    import torch

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    if job.method in MIXED:
        return _mixed_file_result(subject, job, folder)
    if job.method in OURS:
        variant = VARIANTS[OURS[job.method]]
        program = _int8_program_of_file(subject, job.calibration, job.scenes)
        path = _emit_file(subject, program.program(), variant, folder)
    else:
        method = next(m for m in alternatives.METHODS if m.name == job.method)
        variant = VARIANTS[method.variant]
        path = folder / f"file{variant.suffix}"
        alternatives.quantise(method, subject.load, job.calibration, subject.kind, path)
    return FileResult(_file_outputs(path, variant, job.judged), path.stat().st_size)


def float_outputs(subject: FloatNetwork, judged: Sequence[Sample]) -> tuple[Array, ...]:
    """Return the float model's outputs."""
    module = subject.load()
    return _joined_outputs([_module_outputs(module, sample) for sample in judged])


def _module_outputs(module: torch.nn.Module, sample: Sample) -> list[Array]:
    import torch

    from exporter.quantize.graphs import graph_outputs

    with torch.no_grad():
        return [output.numpy() for output in graph_outputs(module(*alternatives.tensors(sample)))]


def _joined_outputs(outputs: Sequence[Sequence[Array]]) -> tuple[Array, ...]:
    return tuple(np.concatenate(rows) for rows in zip(*outputs, strict=True))


def split_choosing_scenes(job: Job) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return the samples that calibrate a mixed file, and those that choose it; they share no scene."""
    choosing = set(sorted(set(job.scenes))[-CHOOSING_SCENES:])
    rows = list(zip(job.calibration, job.scenes, strict=True))
    calibrate = tuple(sample for sample, scene in rows if scene not in choosing)
    return calibrate, tuple(sample for sample, scene in rows if scene in choosing)


def _mixed_file_result(subject: FloatNetwork, job: Job, folder: Path) -> FileResult:
    from exporter.quantize import int8_recipe, int8_scheme, mixed_precision, operator_ranking, sensitivity

    calibrate, choose = split_choosing_scenes(job)
    scenes = tuple(scene for scene in job.scenes if scene in set(sorted(set(job.scenes))[:-CHOOSING_SCENES]))
    whole_program = _int8_program_of_file(subject, calibrate, scenes)
    program = whole_program.without_corrections()
    samples = [int8_recipe.int8_recipe_tensors(sample) for sample in calibrate]
    choosing = [int8_recipe.int8_recipe_tensors(sample) for sample in choose]
    expected = sensitivity.run_for_sensitivity(subject.load(), choosing)  # type: ignore[arg-type]
    activations, prices = operator_ranking.measure_for_operator_ranking(
        program.module, program.float_weights, samples
    )
    module = program.module
    start = int8_scheme.sqnr_of_int8_scheme(expected, whole_program.module, choosing)
    for mix in operator_ranking.rank_operators(activations, prices):
        if start + mix.gain_db < ENOUGH_DB:  # as the search leaves out what it expects to miss
            continue
        module = mixed_precision.keep_float_in_mixed_precision(
            program.module, program.float_weights, mix.float_ops
        )
        if int8_scheme.sqnr_of_int8_scheme(expected, module, choosing) >= ENOUGH_DB:
            break
    variant = VARIANTS[MIXED[job.method]]
    path = _emit_file(subject, replace(program, module=module).program(), variant, folder)
    whole = VARIANTS[variant.name.replace("mixed", "int8")]
    other = _emit_file(subject, whole_program.program(), whole, folder)
    ratio = _file_latency_ratio(path, variant, other, whole, job.judged[0])
    return FileResult(_file_outputs(path, variant, job.judged), path.stat().st_size, ratio)


def _file_latency_ratio(path: Path, variant: Variant, other: Path, whole: Variant, sample: Sample) -> float:
    runs = [FORMATS[v.format].load(p, v, 1)[0] for p, v in ((path, variant), (other, whole))]
    return pairing.compare(lambda: runs[0](sample), lambda: runs[1](sample), TIMED_PAIRS, 1).ratio


def _int8_program_of_file(
    subject: FloatNetwork, calibration: tuple[Sample, ...], scenes: tuple[int, ...]
) -> Int8Program:
    import torch

    from exporter.quantize import int8_recipe

    example = alternatives.tensors(calibration[0])
    program = torch.export.export(subject.load(), example)
    return int8_recipe.quantize_by_int8_recipe(program, calibration, scenes)


def _emit_file(
    subject: FloatNetwork, program: torch.export.ExportedProgram, variant: Variant, folder: Path
) -> Path:
    """Lower a program for a runtime."""
    module = subject.load()
    sample = tuple(tensor.numpy() for tensor in program.example_inputs[0])
    inputs, outputs = (
        tuple(
            TensorSpec(f"{name}_{place}", array.shape, str(array.dtype)) for place, array in enumerate(arrays)
        )
        for name, arrays in (("input", sample), ("output", _module_outputs(module, sample)))
    )
    captured = Captured(module, program, "", program.example_inputs[0], inputs, outputs)
    FORMATS[variant.format].emit(captured, variant, folder)
    return folder / (variant.name + variant.suffix)


def _file_outputs(path: Path, variant: Variant, judged: Sequence[Sample]) -> tuple[Array, ...]:
    run, _ = FORMATS[variant.format].load(path, variant, 1)
    return _joined_outputs([run(sample) for sample in judged])
