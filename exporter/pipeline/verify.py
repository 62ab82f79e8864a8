"""The verify stage: each artifact runs in a worker process and gets a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import CannotRunHere, LoweringError
from exporter.files import EVIDENCE, digest_path, lowering_file
from exporter.pipeline import cache, results
from exporter.pipeline.context import Context, Run, Source, preload_of
from exporter.pipeline.results import Checked, CheckedArtifact, Expected
from exporter.pipeline.workers.pool import Job, Outcome
from exporter.records import Limits, Runner, Structure, Variant, Verdict

if TYPE_CHECKING:
    from exporter.verify.reference_io import Evidence, Lowering

REPEATED = 4
"""Samples that run a second time, in reverse: a runtime must not carry anything from call to call."""
HISTOGRAM_VALUES = 4096


def verify_artifact(
    path: Path, variant: Variant, evidence_path: Path, lowering_path: Path | None, expected: Expected
) -> Checked:
    """Read the written file, run it in its own runtime on the evidence, and judge it.

    A file that crashes its runtime kills only the process this runs in.
    """
    from exporter.formats import FORMATS
    from exporter.verify import contract, reference_io

    module = FORMATS[variant.format]
    try:
        structure = module.structure(path, variant)
    except LoweringError as error:
        return Checked(None, _failed(f"It cannot be read: {error.cause}"))
    problem = contract.check_structure(
        structure, variant, expected.inputs, expected.outputs, expected.matrix_weights, expected.limits
    )
    if problem:
        return Checked(structure, _failed(problem))
    found = reference_io.load(evidence_path)
    try:
        run, runtime = module.load(path, variant, 1)
    except CannotRunHere as error:
        return Checked(structure, Verdict("not_run", _unrun(error), "", None))
    except Exception as error:
        return Checked(structure, _failed(f"Its runtime refuses it: {error}"))
    lowering = reference_io.load_lowering(lowering_path) if lowering_path else None
    return _run_and_judge(variant, run, runtime, found, lowering, expected.limits, structure)


def _run_and_judge(
    variant: Variant,
    run: Runner,
    runtime: str,
    found: Evidence,
    lowering: Lowering | None,
    limits: Limits,
    structure: Structure,
) -> Checked:
    from exporter.verify.compare import repeats
    from exporter.verify.judge import judge
    from exporter.verify.reference_io import stack

    try:
        outputs = stack([run(sample) for sample in found.samples()])
        edges = stack([run(sample) for sample in found.edges()])
        again = stack([run(sample) for sample in reversed(found.samples()[:REPEATED])])
    except Exception as error:
        return Checked(structure, _failed(f"It does not run on the model's inputs: {error}", runtime))
    verdict = judge(variant, runtime, found, outputs, edges, lowering, limits)
    first = tuple(a[:REPEATED] for a in outputs)
    if verdict.status == "passed" and (problem := repeats(first, tuple(a[::-1] for a in again))):
        verdict = replace(verdict, status="failed", reason=problem)
    return Checked(structure, verdict, outputs[0].reshape(-1)[:HISTOGRAM_VALUES])


def _unrun(why: CannotRunHere) -> str:
    return f"{str(why).rstrip('.')}. Its structure was checked."


def _failed(reason: str, runtime: str = "") -> Verdict:
    return Verdict("failed", reason, runtime, None)


def verify(context: Context, source: Source, built: Sequence[results.Built]) -> Mapping[str, CheckedArtifact]:
    """Judge every file that was made, each in a process of its own. Variant name -> finding."""
    if not context.request.verify:
        verdict = Verdict("not_run", "Verification was switched off (--no-verify).", "", None)
        return {b.variant.name: CheckedArtifact(None, verdict) for b in built if b.file}
    return check_files(
        context.folders.out,
        [(b.variant, b.file) for b in built if b.file],
        expected(context, source),
        context.run,
        context.cache,
    )


def expected(context: Context, source: Source) -> results.Expected:
    """What every artifact of this run is checked against."""
    facts = source.facts
    return results.Expected(facts.inputs, facts.outputs, facts.matrix_weights, context.request.limits)


def check_files(
    folder: Path,
    files: Sequence[tuple[Variant, str]],
    expected: results.Expected,
    run: Run,
    kept: cache.Cache,
) -> Mapping[str, CheckedArtifact]:
    """Verify files from what lies in their folder alone; findings for unchanged ones come from the cache."""
    keys = {v: _verdict_key(folder, v, file, expected) for v, file in files}
    found = {v: kept.get("verdict", key, CheckedArtifact) for v, key in keys.items()}
    work = [_verify_job(folder, v, file, expected) for v, file in files if found[v] is None]

    def on_outcome(outcome: Outcome) -> None:
        """At once: a run that is killed later need not judge this file again."""
        variant = outcome.job.arguments[1]
        found[variant] = _checked(outcome)
        if outcome.error is None:
            kept.put("verdict", keys[variant], found[variant])

    if work:
        run("verify", work, on_outcome)
    return {v.name: checked for v, checked in found.items() if checked is not None}


def _verify_job(folder: Path, variant: Variant, file: str, expected: results.Expected) -> Job:
    lowering = folder / lowering_file(variant.precision, variant.name)
    arguments = (
        folder / file,
        variant,
        folder / EVIDENCE,
        lowering if lowering.exists() else None,
        expected,
    )
    return Job(variant.name, verify_artifact, arguments, preload=preload_of(variant), cost_s=variant.cost_s)


def _verdict_key(folder: Path, variant: Variant, file: str, expected: results.Expected) -> str:
    lowering = folder / lowering_file(variant.precision, variant.name)
    digests = [digest_path(p) for p in (folder / file, folder / EVIDENCE, lowering) if p.exists()]
    return cache.key(cache.toolchain(), variant, digests, expected)


def _checked(outcome: Outcome) -> CheckedArtifact:
    if outcome.error is not None:  # its runtime crashed: that is a verdict on the file
        return CheckedArtifact(None, Verdict("failed", str(outcome.error), "", None))
    checked: results.Checked = outcome.value
    values = () if checked.outputs is None else tuple(float(x) for x in checked.outputs)
    return CheckedArtifact(checked.structure, checked.verdict, values)
