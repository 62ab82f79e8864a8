"""Compare what a manifest claims of its evidence, files and choice with OUT, and list what OUT cannot prove.

`figure_claims` compares the artifacts' figures.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.config import targets
from exporter.errors import VerificationError
from exporter.files import (
    EVIDENCE,
    PAGE,
    digest_file,
    file_inside,
    file_size_bytes,
    lowering_file,
    page_file_path,
)
from exporter.pipeline.stage_results import CheckedArtifactResult
from exporter.records import (
    QUANTIZED,
    SHIPPABLE,
    Limits,
)
from exporter.report.manifest import restore
from exporter.verify import reference_io, select_artifact

if TYPE_CHECKING:
    from exporter.report.manifest import schema
    from exporter.verify.reference_io import ReferenceIO

ALWAYS_UNPROVEN = ("source", "tool", "calibration", "evidence.kind", "build_seconds", "seconds")
"""Fields that nothing in OUT can prove, in every manifest."""
SOMETIMES_UNPROVEN = (
    "toolchain",
    "export_budget_ms",
    "task",
    "preprocessing",
    "labels",
    "notes",
    "warnings",
    "not_offered",
    "scenes",
    "calibration_sweep",
    "operator_costs",
    "mixed_points",
)


def audit_claims_of_evidence(out: Path, listed: schema.Manifest) -> list[str]:
    """List where the evidence differs from the manifest or cannot be read, a sentence each."""
    try:
        return _audit_claims_of_readable_evidence(out, listed)
    except VerificationError as error:
        return [error.message]


def _audit_claims_of_readable_evidence(out: Path, listed: schema.Manifest) -> list[str]:
    references = reference_io.load_reference_io(file_inside(out, EVIDENCE))
    problems = _check_audit_claimed_counts(references, listed) + _check_audit_claimed_shapes(
        references, listed
    )
    if listed.evidence.floor is None or not math.isclose(
        listed.evidence.floor, references.floor, rel_tol=1e-6
    ):
        problems.append(
            f"evidence.floor is {listed.evidence.floor}, but {EVIDENCE} has {references.floor:.3g}."
        )
    for artifact in listed.artifacts:
        file = lowering_file(artifact.precision, artifact.name)
        if artifact.status not in SHIPPABLE or artifact.precision not in QUANTIZED:
            continue
        count = _sample_count_of_audit_claim(
            reference_io.load_reference_io_lowering(file_inside(out, file)).outputs
        )
        if count != listed.evidence.count:
            problems.append(f"{file} holds {count} samples, the manifest says {listed.evidence.count}.")
    return sorted(set(problems))


def _sample_count_of_audit_claim(stacks: reference_io.Stacks) -> int:
    """Return the number of samples of stacked arrays; -1 when they differ in it."""
    lengths = {len(stack) if stack.ndim else -1 for stack in stacks}
    return lengths.pop() if len(lengths) == 1 else -1


def _check_audit_claimed_counts(references: ReferenceIO, listed: schema.Manifest) -> list[str]:
    claimed = listed.evidence.count
    counts = {
        name: _sample_count_of_audit_claim(getattr(references, name)) for name in ("inputs", "reference")
    }
    problems = [
        f"{EVIDENCE} holds {count if count >= 0 else 'different numbers of'} samples ({name}), "
        f"the manifest says {claimed}."
        for name, count in counts.items()
        if count != claimed
    ]
    edges = (
        _sample_count_of_audit_claim(references.edge_inputs),
        _sample_count_of_audit_claim(references.edge_reference),
    )
    if references.edge_names and edges != (len(references.edge_names),) * 2:
        problems.append(f"{EVIDENCE} names {len(references.edge_names)} edge inputs and holds others.")
    return problems


def _check_audit_claimed_shapes(references: ReferenceIO, listed: schema.Manifest) -> list[str]:
    wanted = [(spec.shape, spec.dtype) for spec in listed.inputs]
    stored = [(stack.shape[1:], str(stack.dtype)) for stack in references.inputs]
    if stored == wanted:
        return []
    return [
        f"{EVIDENCE} holds inputs {_format_audit_claim(stored)}, the manifest says "
        f"{_format_audit_claim(wanted)}."
    ]


def _format_audit_claim(specs: list[tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{dtype} {list(shape)}" for shape, dtype in specs)[:200]


def audit_claims_of_files(out: Path, listed: schema.Manifest) -> list[str]:
    """List where sizes, the page, the target or the choice differ from the manifest, a sentence each."""
    problems = [
        f"{a.name}: size_bytes is {a.size_bytes}, the file has {size}."
        for a in listed.artifacts
        if (path := a.path(out)) is not None
        and path.exists()
        and (size := file_size_bytes(path)) != a.size_bytes
    ]
    return [
        *problems,
        *_check_audit_claimed_page(out, listed),
        *_check_audit_claimed_target(listed),
        *_check_audit_claimed_choice(listed),
    ]


def _check_audit_claimed_page(out: Path, listed: schema.Manifest) -> list[str]:
    if listed.page_sha256 is None:
        return []
    path = page_file_path(out, listed.page_sha256)
    if not path.is_file():
        return [f"{PAGE} is missing."]
    if digest_file(path) != listed.page_sha256:
        return [f"{PAGE} is not the file that was exported (its sha256 differs)."]
    return []


def _check_audit_claimed_target(listed: schema.Manifest) -> list[str]:
    named = {target.name: target for target in targets.TARGETS}.get(listed.target.name)
    if named is None or named.soc == listed.target.soc:
        return []
    return [f"target.soc is {listed.target.soc!a}, but {named.name} has {named.soc}."]


def _check_audit_claimed_choice(listed: schema.Manifest) -> list[str]:
    """Check that the manifest's figures lead to its choice; a release's may be chosen by name."""
    numerics = listed.verdict.numerics
    problems = []
    statuses = {a.name: a.status for a in listed.artifacts}
    if numerics == "passed" if listed.selected is None else numerics != statuses[listed.selected]:
        problems.append(f"verdict.numerics is {numerics}, but selected is {listed.selected}.")
    named = {target.name: target for target in targets.TARGETS}.get(listed.target.name)
    if listed.release is not None or named is None:
        return problems
    rows = restore.restore_report(listed).artifacts
    synthetic = listed.calibration.kind == "synthetic"
    choices: set[str | None] = set()
    for allowed in itertools.product((False, True), repeat=2):
        choices.add(select_artifact.select_artifact(rows, named.runnable, synthetic, *allowed).name)
        measured = select_artifact.select_measured_artifact(rows, named.runnable, synthetic, *allowed)
        choices |= {measured.name} if measured else set()
    if listed.selected not in choices:
        expected = " or ".join(sorted(str(name) for name in choices))
        problems.append(f"selected is {listed.selected}, but by its own figures it would be {expected}.")
    return problems


def audit_claim_of_limits(listed: schema.Manifest) -> tuple[str, ...]:
    """Return a sentence when the artifacts had other limits than the usual ones."""
    usual, applied = asdict(Limits()), asdict(listed.limits)
    changed = [
        f"{name} {applied[name]:g} (usually {usual[name]:g})"
        for name in usual
        if applied[name] != usual[name]
    ]
    return (f"Limits were changed: {', '.join(changed)}.",) if changed else ()


def extent_of_audit_claims(listed: schema.Manifest, checked: Mapping[str, CheckedArtifactResult]) -> str:
    """Return a sentence on how many samples and edge inputs the artifacts ran on now.

    Args:
        listed: The manifest.
        checked: Artifact name -> what it computed now. A runtime that stands in for a phone's runs fewer.
    """
    ran: dict[tuple[int, int], list[str]] = {}
    for name, result in checked.items():
        if comparison := result.verdict.comparison:
            edges = result.verdict.edge.samples if result.verdict.edge else 0
            ran.setdefault((comparison.samples, edges), []).append(name)
    if not ran:
        return "No artifact ran."
    counts, *fewer = sorted(ran, reverse=True)
    others = [f"{', '.join(ran[few])} on {_format_extent_of_audit_claims(*few)}" for few in fewer]
    whole = f"Compared on {_format_extent_of_audit_claims(*counts, f' ({listed.evidence.kind})')}"
    return f"{'; '.join([whole, *others])}."


def _format_extent_of_audit_claims(samples: int, edges: int, kind: str = "") -> str:
    plural = ["" if count == 1 else "s" for count in (samples, edges)]
    return f"{samples} sample{plural[0]}{kind} and {edges} edge input{plural[1]}"


def unproven_audit_claims(listed: schema.Manifest, emulated: bool = False) -> tuple[str, ...]:
    """List the manifest's fields that nothing in OUT can prove: only a signature vouches for them.

    Args:
        listed: The manifest.
        emulated: Whether the artifacts were run on emulated Arm again.
    """
    fields = [*ALWAYS_UNPROVEN, *(name for name in SOMETIMES_UNPROVEN if getattr(listed, name))]
    if listed.page_sha256 is None:
        fields.append(PAGE)
    if any(a.host_latency for a in listed.artifacts):
        fields.append("host_latency")
    if any(a.device_latencies or a.device_latency for a in listed.artifacts):
        fields.append("device_latencies")
    if any(a.estimated_latencies for a in listed.artifacts):
        fields.append("estimated_latencies")
    if any(a.arm64_emulated for a in listed.artifacts) and not emulated:
        fields.append("arm64_emulated")
    if listed.accuracy is not None or listed.task_accuracy is not None:
        fields.append("the labels of accuracy")
    if any(a.verification and a.status not in SHIPPABLE for a in listed.artifacts):
        fields.append("figures of what did not pass")
    return tuple(fields)
