"""Compares what a manifest claims with what is computed again from OUT, and lists what OUT cannot prove.

Figures are compared with some room: the same file on another processor rounds differently. A figure that
is claimed to be better than it is fails, and so does one that is merely different.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
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
from exporter.pipeline.results import CheckedArtifactResult
from exporter.records import (
    QUANTIZED,
    SHIPPABLE,
    Bounds,
    Comparison,
    Limits,
    Structure,
    TaskMeasure,
    WorstChannel,
)
from exporter.report.manifest import MOST_DB, restore
from exporter.verify import reference_io, select

if TYPE_CHECKING:
    from exporter.report.manifest import schema
    from exporter.verify.reference_io import ReferenceIO

ROOM = 0.25
"""Share by which an error may differ: about 2 dB."""
ROUNDING = 1e-5
"""Errors below this share of the output's scale are float32's own rounding, which no two processors share."""
AGREEMENT_ROOM = 0.05
BOUND_ROOM_DB = 3.0
"""Decibels by which a bound of an SQNR may differ."""
ALWAYS_UNPROVEN = ("source", "tool", "calibration", "evidence.kind", "build_seconds", "seconds")
"""Fields that nothing in OUT can prove, in every manifest."""
SOMETIMES_UNPROVEN = (
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


def claims_of_evidence(out: Path, listed: schema.Manifest) -> list[str]:
    """List where the evidence differs from the manifest, a sentence each; its hash is right already.

    Raises:
        VerificationError: It cannot be read.
    """
    evidence = reference_io.load_reference(file_inside(out, EVIDENCE))
    problems = _claimed_counts(evidence, listed) + _claimed_shapes(evidence, listed)
    if listed.evidence.floor is None or not math.isclose(listed.evidence.floor, evidence.floor, rel_tol=1e-6):
        problems.append(
            f"evidence.floor is {listed.evidence.floor}, but {EVIDENCE} has {evidence.floor:.3g}."
        )
    for artifact in listed.artifacts:
        file = lowering_file(artifact.precision, artifact.name)
        if artifact.status not in SHIPPABLE or artifact.precision not in QUANTIZED:
            continue
        count = _claimed_length(reference_io.load_reference_lowering(file_inside(out, file)).outputs)
        if count != listed.evidence.count:
            problems.append(f"{file} holds {count} samples, the manifest says {listed.evidence.count}.")
    return sorted(set(problems))


def _claimed_length(stacks: reference_io.Stacks) -> int:
    """Return the number of samples of stacked arrays; -1 when they differ in it."""
    lengths = {len(stack) if stack.ndim else -1 for stack in stacks}
    return lengths.pop() if len(lengths) == 1 else -1


def _claimed_counts(evidence: ReferenceIO, listed: schema.Manifest) -> list[str]:
    claimed = listed.evidence.count
    counts = {name: _claimed_length(getattr(evidence, name)) for name in ("inputs", "reference")}
    problems = [
        f"{EVIDENCE} holds {count if count >= 0 else 'different numbers of'} samples ({name}), "
        f"the manifest says {claimed}."
        for name, count in counts.items()
        if count != claimed
    ]
    edges = (_claimed_length(evidence.edge_inputs), _claimed_length(evidence.edge_reference))
    if evidence.edge_names and edges != (len(evidence.edge_names),) * 2:
        problems.append(f"{EVIDENCE} names {len(evidence.edge_names)} edge inputs and holds others.")
    return problems


def _claimed_shapes(evidence: ReferenceIO, listed: schema.Manifest) -> list[str]:
    wanted = [(spec.shape, spec.dtype) for spec in listed.inputs]
    stored = [(stack.shape[1:], str(stack.dtype)) for stack in evidence.inputs]
    if stored == wanted:
        return []
    return [f"{EVIDENCE} holds inputs {_shown_claim(stored)}, the manifest says {_shown_claim(wanted)}."]


def _shown_claim(specs: list[tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{dtype} {list(shape)}" for shape, dtype in specs)[:200]


def claims_of_files(out: Path, listed: schema.Manifest) -> list[str]:
    """List where sizes, the page, the target or the choice differ from the manifest, a sentence each."""
    problems = [
        f"{a.name}: size_bytes is {a.size_bytes}, the file has {size}."
        for a in listed.artifacts
        if (path := a.path(out)) is not None
        and path.exists()
        and (size := file_size_bytes(path)) != a.size_bytes
    ]
    return [*problems, *_claimed_page(out, listed), *_claimed_target(listed), *_claimed_choice(listed)]


def _claimed_page(out: Path, listed: schema.Manifest) -> list[str]:
    if listed.page_sha256 is None:
        return []
    path = page_file_path(out, listed.page_sha256)
    if not path.is_file():
        return [f"{PAGE} is missing."]
    if digest_file(path) != listed.page_sha256:
        return [f"{PAGE} is not the file that was exported (its sha256 differs)."]
    return []


def _claimed_target(listed: schema.Manifest) -> list[str]:
    named = {target.name: target for target in targets.TARGETS}.get(listed.target.name)
    if named is None or named.soc == listed.target.soc:
        return []
    return [f"target.soc is {listed.target.soc!a}, but {named.name} has {named.soc}."]


def _claimed_choice(listed: schema.Manifest) -> list[str]:
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
        choices.add(select.select_artifact(rows, named.runnable, synthetic, *allowed).name)
        measured = select.select_measured(rows, named.runnable, synthetic, *allowed)
        choices |= {measured.name} if measured else set()
    if listed.selected not in choices:
        expected = " or ".join(sorted(str(name) for name in choices))
        problems.append(f"selected is {listed.selected}, but by its own figures it would be {expected}.")
    return problems


def claims_of_artifacts(listed: schema.Manifest, checked: Mapping[str, CheckedArtifactResult]) -> list[str]:
    """List where a figure of an artifact that passed differs from the computed one, a sentence each."""
    problems = []
    for row in listed.artifacts:
        computed = checked.get(row.name)
        if row.status not in SHIPPABLE or row.verification is None or computed is None:
            continue
        problems += _claimed_figures(row, computed)
        if computed.structure is not None:
            problems += _claimed_structure(row, computed.structure)
    return problems


def _claimed_figures(row: schema.Artifact, computed: CheckedArtifactResult) -> list[str]:
    claimed, verdict = row.verification, computed.verdict
    assert claimed is not None
    if verdict.comparison is None:
        return []  # it did not run: its own finding says so
    problems = _claimed_limits(row.name, claimed.limits, verdict.limits)
    for part, figures, comparison in (
        ("verification", claimed, verdict.comparison),
        ("verification.edge", claimed.edge, verdict.edge),
        ("verification.lowering", claimed.lowering, verdict.lowering),
    ):
        problems += _claimed_comparison(f"{row.name}: {part}", figures, comparison)
    problems += _claimed_task(f"{row.name}: verification.task", claimed.task, verdict.task)
    return problems + _claimed_channel(row.name, claimed.worst_channel, verdict.worst_channel)


def _claimed_limits(name: str, claimed: Mapping[str, float], computed: Mapping[str, float]) -> list[str]:
    return [
        f"{name}: limits.{key} is {claimed.get(key)}, it follows to be {computed.get(key)}."
        for key in sorted(claimed.keys() | computed.keys())
        if not math.isclose(claimed.get(key, math.nan), computed.get(key, math.nan), rel_tol=1e-6)
    ]


def _claimed_comparison(where: str, claimed: schema.Figures | None, computed: Comparison | None) -> list[str]:
    if claimed is None or computed is None:
        both = claimed is None and computed is None
        return [] if both else [f"{where} is {'missing' if computed else 'made up'}."]
    read = restore.restore_comparison(claimed)
    if read is None:
        return [f"{where} has no figures."]
    pairs: tuple[tuple[str, object, object, bool], ...] = (
        ("samples", read.samples, computed.samples, read.samples == computed.samples),
        ("max_error", read.max_error, computed.max_error, _is_claim_near(read.max_error, computed.max_error)),
        (
            "sqnr_db",
            read.sqnr_db,
            computed.sqnr_db,
            _is_claim_near(_claimed_noise(read.sqnr_db), _claimed_noise(computed.sqnr_db)),
        ),
        (
            "top1_agreement",
            read.agreement,
            computed.agreement,
            _claims_agree(read.agreement, computed.agreement),
        ),
    )
    if read.scenes:  # manifests of older versions count none
        pairs += (
            ("scenes", read.scenes, computed.scenes, read.scenes == computed.scenes),
            (
                "sqnr_bounds_db",
                read.sqnr_bounds_db,
                computed.sqnr_bounds_db,
                _bounds_near(read.sqnr_bounds_db, computed.sqnr_bounds_db, BOUND_ROOM_DB),
            ),
            (
                "agreement_bounds",
                read.agreement_bounds,
                computed.agreement_bounds,
                _bounds_near(read.agreement_bounds, computed.agreement_bounds, AGREEMENT_ROOM),
            ),
        )
    return [f"{where}.{name} is {a}, found now: {b}." for name, a, b, same in pairs if not same]


def _bounds_near(claimed: Bounds | None, computed: Bounds | None, room: float) -> bool:
    if claimed is None or computed is None:
        return claimed is computed
    finite = [min(max(bound, -MOST_DB), MOST_DB) for bound in computed]
    return all(abs(a - b) <= room for a, b in zip(claimed, finite, strict=True))


def _claimed_task(where: str, claimed: TaskMeasure | None, computed: TaskMeasure | None) -> list[str]:
    if claimed is None or computed is None:
        both = claimed is None and computed is None
        return [] if both else [f"{where} is {'missing' if computed else 'made up'}."]
    same = replace(claimed, value=computed.value, detail=computed.detail) == computed
    if same and _is_claim_near(claimed.value, computed.value):
        return []
    return [f"{where} is {claimed.name} {claimed.value:g}, found now: {computed.name} {computed.value:g}."]


def _claimed_channel(name: str, claimed: WorstChannel | None, computed: WorstChannel | None) -> list[str]:
    """Compare the worst channel's figure; which channel it is may change with rounding."""
    where = f"{name}: verification.worst_channel"
    if claimed is None or computed is None:
        both = claimed is None and computed is None
        return [] if both else [f"{where} is {'missing' if computed else 'made up'}."]
    if _is_claim_near(_claimed_noise(claimed.sqnr_db), _claimed_noise(computed.sqnr_db)):
        return []
    return [f"{where}.sqnr_db is {claimed.sqnr_db:g}, found now: {computed.sqnr_db:g}."]


def _claimed_noise(sqnr_db: float) -> float:
    """Return the noise as a share of the signal, which is near 0 for nearly equal outputs."""
    return 10.0 ** (-min(max(sqnr_db, -300.0), 300.0) / 20) if not math.isnan(sqnr_db) else math.nan


def _is_claim_near(claimed: float, computed: float) -> bool:
    if not (math.isfinite(claimed) and math.isfinite(computed)):
        return str(claimed) == str(computed)
    return abs(claimed - computed) <= max(ROOM * max(abs(claimed), abs(computed)), ROUNDING)


def _claims_agree(claimed: float | None, computed: float | None) -> bool:
    if claimed is None or computed is None:
        return claimed is computed
    return abs(claimed - computed) <= AGREEMENT_ROOM


def _claimed_structure(row: schema.Artifact, structure: Structure) -> list[str]:
    expected: dict[str, object] = {
        "quantized_weight_fraction": structure.quantized_weight_fraction,
        "delegated_fraction": structure.delegated_fraction,
    }
    claimed: dict[str, object] = {name: getattr(row, name) for name in expected}
    if row.structure is not None:
        parts = ("weight_bytes", "weight_elements", "operators")
        claimed |= {f"structure.{name}": getattr(row.structure, name) for name in parts}
        expected |= {f"structure.{name}": getattr(structure, name) for name in parts}
    return [
        f"{row.name}: {name} is {str(claimed[name])[:80]}, the file has {str(value)[:80]}."
        for name, value in expected.items()
        if claimed[name] != value
    ]


def claim_of_limits(listed: schema.Manifest) -> tuple[str, ...]:
    """Return a sentence when the artifacts had other limits than the usual ones."""
    usual, applied = asdict(Limits()), asdict(listed.limits)
    changed = [
        f"{name} {applied[name]:g} (usually {usual[name]:g})"
        for name in usual
        if applied[name] != usual[name]
    ]
    return (f"Limits were changed: {', '.join(changed)}.",) if changed else ()


def extent_of_claims(listed: schema.Manifest) -> str:
    """Return a sentence on how much the artifacts were compared on."""
    verified = [a.verification for a in listed.artifacts if a.verification]
    edges = max((verification.edge.samples for verification in verified if verification.edge), default=0)
    return f"Compared on {listed.evidence.count} samples ({listed.evidence.kind}) and {edges} edge inputs."


def unproven_claims(listed: schema.Manifest, emulated: bool = False) -> tuple[str, ...]:
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
    if any(a.arm64_emulated for a in listed.artifacts) and not emulated:
        fields.append("arm64_emulated")
    if listed.accuracy is not None or listed.task_accuracy is not None:
        fields.append("the labels of accuracy")
    if any(a.verification and a.status not in SHIPPABLE for a in listed.artifacts):
        fields.append("figures of what did not pass")
    return tuple(fields)


def claims_of_readable_evidence(out: Path, listed: schema.Manifest) -> list[str]:
    """Do the same as `claims_of_evidence`, with unreadable evidence as a problem of its own."""
    try:
        return claims_of_evidence(out, listed)
    except VerificationError as error:
        return [error.message]
