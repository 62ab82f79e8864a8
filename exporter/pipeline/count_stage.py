"""Counts the instructions that artifacts execute in a phone's Arm libraries. Nothing is measured."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from exporter.config.targets import Target
from exporter.emulated import arm_tools, cores
from exporter.emulated.arm_tools import ArmTools
from exporter.emulated.run import BACKENDS
from exporter.errors import MissingDependencyError
from exporter.estimate import instruction_counts
from exporter.estimate import qemu_plugin as counting
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.qemu_plugin import Plugin
from exporter.files import EVIDENCE, digest_file_or_folder
from exporter.pipeline.cache import Cache, cache_key
from exporter.pipeline.cached_steps import Step, cached_steps
from exporter.pipeline.context import Run
from exporter.pipeline.emulation_stage import SECONDS
from exporter.pipeline.workers.jobs import Job
from exporter.records import Variant
from exporter.verify import reference_io

INSTALL = "apt install"
FORMAT = 1
"""Incremented whenever counts of the same artifact change."""


def tools_for_count_stage(cache: Path) -> tuple[ArmTools, Plugin] | None:
    """Return what counts instructions, if the Arm programs are prepared and QEMU takes plugins; else None."""
    ready = arm_tools.ready_arm_tools(cache)
    if not ready or counting.missing_for_qemu_plugin():
        return None
    try:
        return ready, counting.make_qemu_plugin(ready.folder)
    except (MissingDependencyError, OSError):
        return None


def missing_for_count_stage(cache: Path) -> str:
    """Return the command that brings what counting lacks here; empty where nothing is missing.

    Counting needs a QEMU that takes plugins, a C compiler, and Arm programs made by a cross compiler.
    """
    compiled = arm_tools.ready_arm_tools(cache) is not None
    plugin, programs = counting.missing_for_qemu_plugin(), "" if compiled else arm_tools.missing_arm_tools()
    install = " ".join(part.removeprefix(f"{INSTALL} ") for part in (plugin, programs) if part)
    if install:
        return f"{INSTALL} {install}"
    return "" if compiled else arm_tools.PREPARE


def count_artifact_in_stage(
    path: Path,
    variant: Variant,
    evidence_path: Path,
    target: Target,
    ready: ArmTools,
    plugin: Plugin,
    root: Path,
) -> Counts:
    """Count one inference of an artifact on the first verification sample, in a confined process."""
    sample = reference_io.load_reference_io(evidence_path).samples()[0]
    core, backend = cores.emulated_core(target), BACKENDS[variant.backend]
    with tempfile.TemporaryDirectory() as name:
        return instruction_counts.count_instructions(
            ready, plugin, root, core, backend, path, sample, Path(name)
        )


def run_count_stage(
    folder: Path,
    files: Sequence[tuple[Variant, str]],
    target: Target,
    tools: tuple[ArmTools, Plugin],
    run: Run,
    cache: Cache,
) -> Mapping[str, Counts]:
    """Count every artifact that has an Arm library. Variant name -> counts; what crashes there is left out.

    Args:
        folder: OUT.
        files: The artifacts and their files in OUT.
        target: The phone.
        tools: What `tools_for_count_stage` returns.
        run: Runs the jobs; they must be allowed to read the programs.
        cache: Where the counts of unchanged files are kept.
    """
    ready, plugin = tools
    root = arm_tools.root_of_arm_tools(target, ready)
    chosen = [(variant, file) for variant, file in files if variant.backend in BACKENDS]
    steps = [
        Step(
            "counts",
            cache_key(
                "counts", FORMAT, variant.backend, cores.emulated_core(target), ready.folder.name,
                plugin.library.name, digest_file_or_folder(folder / file),
                digest_file_or_folder(folder / EVIDENCE),
            ),
            Counts,
            functools.partial(
                _count_stage_job, folder, variant, file, (target, ready, plugin, root)
            ),
            failed=_not_counted_in_stage,
        )
        for variant, file in chosen
    ]  # fmt: skip
    results: list[Counts | None] = cached_steps(run, cache, "estimate", steps)
    pairs = zip(chosen, results, strict=True)
    return {variant.name: counts for (variant, _), counts in pairs if counts is not None}


def _count_stage_job(
    folder: Path, variant: Variant, file: str, rest: tuple[Target, ArmTools, Plugin, Path], _: object
) -> Job:
    return Job(
        f"counting {variant.name}",
        count_artifact_in_stage,
        (folder / file, variant, folder / EVIDENCE, *rest),
        cost_s=30.0,
        read_only=True,
        scratch=True,
        seconds=SECONDS,
    )


def _not_counted_in_stage(error: Exception) -> None:
    """Leave an artifact without counts: its emulation says why it does not run."""
