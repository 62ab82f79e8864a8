"""Compare the figures of artifacts in a manifest with those that are computed again.

There is some room: the same file on another processor rounds differently. A figure that is claimed to be
better than it is fails, and so does one that is merely different.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.pipeline.stage_results import CheckedArtifactResult
from exporter.records import (
    SHIPPABLE,
    Bounds,
    Comparison,
    Structure,
    TaskMeasure,
    WorstChannel,
)
from exporter.report.manifest import MOST_DB, restore

if TYPE_CHECKING:
    from exporter.report.manifest import schema

ROOM = 0.25
"""Share by which an error may differ: about 2 dB."""


ROUNDING = 1e-5
"""Errors below this share of the output's scale are float32's own rounding, which no two processors share."""


AGREEMENT_ROOM = 0.05


BOUND_ROOM_DB = 3.0
"""Decibels by which a bound of an SQNR may differ."""


def audit_figures_of_artifacts(
    listed: schema.Manifest, checked: Mapping[str, CheckedArtifactResult]
) -> list[str]:
    """List where a figure of an artifact that passed differs from the computed one, a sentence each."""
    problems = []
    for row in listed.artifacts:
        computed = checked.get(row.name)
        if row.status not in SHIPPABLE or row.verification is None or computed is None:
            continue
        problems += _check_audit_figures(row, computed)
        if computed.structure is not None:
            problems += _check_audit_structure_figures(row, computed.structure)
    return problems


def _check_audit_figures(row: schema.Artifact, computed: CheckedArtifactResult) -> list[str]:
    claimed, verdict = row.verification, computed.verdict
    assert claimed is not None
    if verdict.comparison is None:
        return []  # it did not run: its own finding says so
    if verdict.executor != claimed.executor:
        return []  # they round differently: the finding says which of the two is the stronger proof
    problems = _check_audit_limit_figures(row.name, claimed.limits, verdict.limits)
    for part, figures, comparison in (
        ("verification", claimed, verdict.comparison),
        ("verification.edge", claimed.edge, verdict.edge),
        ("verification.lowering", claimed.lowering, verdict.lowering),
    ):
        problems += _check_audit_comparison_figures(f"{row.name}: {part}", figures, comparison)
    problems += _check_audit_task_figure(f"{row.name}: verification.task", claimed.task, verdict.task)
    return problems + _check_audit_channel_figure(row.name, claimed.worst_channel, verdict.worst_channel)


def _check_audit_limit_figures(
    name: str, claimed: Mapping[str, float], computed: Mapping[str, float]
) -> list[str]:
    return [
        f"{name}: limits.{key} is {claimed.get(key)}, it follows to be {computed.get(key)}."
        for key in sorted(claimed.keys() | computed.keys())
        if not math.isclose(claimed.get(key, math.nan), computed.get(key, math.nan), rel_tol=1e-6)
    ]


def _check_audit_comparison_figures(
    where: str, claimed: schema.Figures | None, computed: Comparison | None
) -> list[str]:
    if claimed is None or computed is None:
        return _missing_or_made_up_audit_figures(where, claimed, computed)
    read = restore.restore_comparison(claimed)
    if read is None:
        return [f"{where} has no figures."]
    pairs: tuple[tuple[str, object, object, bool], ...] = (
        ("samples", read.samples, computed.samples, read.samples == computed.samples),
        (
            "max_error",
            read.max_error,
            computed.max_error,
            _is_audit_figure_near(read.max_error, computed.max_error),
        ),
        (
            "sqnr_db",
            read.sqnr_db,
            computed.sqnr_db,
            _is_audit_figure_near(
                _noise_of_audit_figure(read.sqnr_db), _noise_of_audit_figure(computed.sqnr_db)
            ),
        ),
        (
            "top1_agreement",
            read.agreement,
            computed.agreement,
            _is_agreement_audit_figure_near(read.agreement, computed.agreement),
        ),
    )
    if read.scenes:  # manifests of older versions count none
        pairs += (
            ("scenes", read.scenes, computed.scenes, read.scenes == computed.scenes),
            (
                "sqnr_bounds_db",
                read.sqnr_bounds_db,
                computed.sqnr_bounds_db,
                _are_audit_figure_bounds_near(read.sqnr_bounds_db, computed.sqnr_bounds_db, BOUND_ROOM_DB),
            ),
            (
                "agreement_bounds",
                read.agreement_bounds,
                computed.agreement_bounds,
                _are_audit_figure_bounds_near(
                    read.agreement_bounds, computed.agreement_bounds, AGREEMENT_ROOM
                ),
            ),
        )
    return [f"{where}.{name} is {a}, found now: {b}." for name, a, b, same in pairs if not same]


def _missing_or_made_up_audit_figures(where: str, claimed: object, computed: object) -> list[str]:
    """Return a sentence where only one of both is None."""
    if claimed is computed:
        return []
    return [f"{where} is {'made up' if computed is None else 'missing'}."]


def _are_audit_figure_bounds_near(claimed: Bounds | None, computed: Bounds | None, room: float) -> bool:
    if claimed is None or computed is None:
        return claimed is computed
    finite = [min(max(bound, -MOST_DB), MOST_DB) for bound in computed]
    return all(abs(a - b) <= room for a, b in zip(claimed, finite, strict=True))


def _check_audit_task_figure(
    where: str, claimed: TaskMeasure | None, computed: TaskMeasure | None
) -> list[str]:
    if claimed is None or computed is None:
        return _missing_or_made_up_audit_figures(where, claimed, computed)
    same = replace(claimed, value=computed.value, detail=computed.detail) == computed
    if same and _is_audit_figure_near(claimed.value, computed.value):
        return []
    return [f"{where} is {claimed.name} {claimed.value:g}, found now: {computed.name} {computed.value:g}."]


def _check_audit_channel_figure(
    name: str, claimed: WorstChannel | None, computed: WorstChannel | None
) -> list[str]:
    """Compare the worst channel's figure; which channel it is may change with rounding."""
    where = f"{name}: verification.worst_channel"
    if claimed is None or computed is None:
        return _missing_or_made_up_audit_figures(where, claimed, computed)
    if _is_audit_figure_near(
        _noise_of_audit_figure(claimed.sqnr_db), _noise_of_audit_figure(computed.sqnr_db)
    ):
        return []
    return [f"{where}.sqnr_db is {claimed.sqnr_db:g}, found now: {computed.sqnr_db:g}."]


def _noise_of_audit_figure(sqnr_db: float) -> float:
    """Return the noise as a share of the signal, which is near 0 for nearly equal outputs."""
    return 10.0 ** (-min(max(sqnr_db, -300.0), 300.0) / 20) if not math.isnan(sqnr_db) else math.nan


def _is_audit_figure_near(claimed: float, computed: float) -> bool:
    if not (math.isfinite(claimed) and math.isfinite(computed)):
        return str(claimed) == str(computed)
    return abs(claimed - computed) <= max(ROOM * max(abs(claimed), abs(computed)), ROUNDING)


def _is_agreement_audit_figure_near(claimed: float | None, computed: float | None) -> bool:
    if claimed is None or computed is None:
        return claimed is computed
    return abs(claimed - computed) <= AGREEMENT_ROOM


def _check_audit_structure_figures(row: schema.Artifact, structure: Structure) -> list[str]:
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
