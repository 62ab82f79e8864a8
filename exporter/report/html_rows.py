"""Make the rows of the report's tables of artifacts, and of accuracy on labelled samples."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.records import (
    Accuracy,
    Artifact,
    Comparison,
    Emulation,
    Report,
    Status,
    TaskAccuracy,
    TaskEvaluation,
)
from exporter.report import accuracy_text, html_device_rows, text
from exporter.verify import accuracy, estimate_verdicts


@dataclass(frozen=True)
class Row:
    """One artifact; every cell is text."""

    name: str
    css: str
    status: str
    chosen: bool
    reason: str
    precision: str
    cells: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


LOST = ("Points lost", "95 % interval of it", "Lost, gained")
"""Columns of an artifact's accuracy against float32, on labelled samples."""


def html_rows_of_accuracy(report: Report) -> tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]:
    """Return (name, css, cells): float32 first, then every artifact evaluated on labelled samples."""
    if report.task_evaluation:
        return _html_rows_of_scores(report, report.task_evaluation)
    if report.evaluation is None:
        return ()
    floats = (
        "float32",
        "",
        (*_html_row_shares(report.evaluation.reference), *[(name, text.NONE) for name in LOST]),
    )
    return (
        floats,
        *(
            _html_row_of_accuracy(a.variant.name, a.status, a.accuracy)
            for a in report.artifacts
            if a.accuracy
        ),
    )


def _html_rows_of_scores(
    report: Report, evaluation: TaskEvaluation
) -> tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]:
    """Return rows as `html_rows_of_accuracy` does, for a task's measures."""
    floats = [
        cell
        for score in evaluation.reference.scores
        for cell in ((score.name, f"{score.value:.4g}"), (f"{score.name} lost", text.NONE))
    ]
    return (
        ("float32", "", tuple(floats)),
        *(
            (a.variant.name, a.status.replace("_", "-"), _html_row_score_cells(a.task_accuracy))
            for a in report.artifacts
            if a.task_accuracy
        ),
    )


def _html_row_score_cells(accuracy: TaskAccuracy) -> tuple[tuple[str, str], ...]:
    return tuple(
        cell
        for score in accuracy.scores
        for cell in (
            (score.name, f"{score.value:.4g}"),
            (f"{score.name} lost", accuracy_text.lost_accuracy_text(score)),
        )
    )


def _html_row_of_accuracy(
    name: str, status: Status, measured: Accuracy
) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    low, high = accuracy.accuracy_drop_interval(measured)
    figures = (
        f"{accuracy.accuracy_drop(measured):.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{measured.lost}, {measured.gained}",
    )
    return name, status.replace("_", "-"), (*_html_row_shares(measured), *zip(LOST, figures, strict=True))


def _html_row_shares(measured: Accuracy) -> tuple[tuple[str, str], ...]:
    low, high = accuracy.accuracy_interval(measured.right, measured.count)
    return (
        ("Top-1", accuracy_text.accuracy_share_text(measured.right, measured)),
        ("95 % interval", f"{100 * low:.1f} to {100 * high:.1f}"),
        (
            "Top-5",
            text.NONE
            if measured.right5 is None
            else accuracy_text.accuracy_share_text(measured.right5, measured),
        ),
    )


def html_row_of_artifact(artifact: Artifact, report: Report) -> Row:
    comparison = artifact.verdict.comparison if artifact.verdict else None
    structure, latency = artifact.structure, artifact.latency
    return Row(
        name=artifact.variant.name,
        css=artifact.status.replace("_", "-"),
        status=text.status_text(artifact.status, artifact.executor),
        chosen=artifact.variant.name == report.selected,
        reason=text.reason_text(artifact),
        precision=artifact.variant.precision,
        cells=(
            ("Max error", text.sig3_text(comparison.max_error if comparison else None)),
            ("SQNR", text.decibels_text(comparison.sqnr_db if comparison else None)),
            ("Agreement", text.percent_text(comparison.agreement if comparison else None)),
            ("≤ 8-bit weights", text.percent_text(text.quantized_share_text(artifact))),
            ("Delegated", text.percent_text(structure.delegated_fraction if structure else None)),
            *((("arm64 (emulated)", _html_row_on_arm(artifact)),) if _html_rows_show_arm(report) else ()),
            ("Size", text.scaled_text(artifact.size_bytes, "B")),
            *((("Estimated", _html_row_estimate(artifact)),) if _html_rows_show_estimates(report) else ()),
            ("Host p50", text.milliseconds_text(latency.p50_ms if latency else None)),
            ("Host p90", text.milliseconds_text(latency.p90_ms if latency else None)),
        ),
        facts=_html_row_facts(artifact),
        notes=artifact.notes,
    )


def _html_rows_show_arm(report: Report) -> bool:
    return any(artifact.arm64 for artifact in report.artifacts)


def _html_row_on_arm(artifact: Artifact) -> str:
    return text.STATUS_WORDS[artifact.arm64.status] if artifact.arm64 else text.NONE


def _html_rows_show_estimates(report: Report) -> bool:
    return any(artifact.estimates for artifact in report.artifacts)


def _html_row_estimate(artifact: Artifact) -> str:
    best = estimate_verdicts.best_estimate_verdict(artifact)
    return estimate_verdicts.estimate_verdict_text(best) if best else text.NONE


def _html_row_estimates(artifact: Artifact) -> list[tuple[str, str]]:
    """Return a fact for each number of threads: the interval, what it follows from, what bounds it."""
    bases = {"counts": "counted instructions", "graph": "the graph, nothing counted"}
    facts = [
        (
            f"Estimated on {item.where}",
            f"{estimate_verdicts.estimate_verdict_text(item)}, from {bases[item.basis]}; "
            f"{estimate_verdicts.estimate_verdict_bound(item)}",
        )
        for item in artifact.estimates
    ]
    notes = dict.fromkeys(note for item in artifact.estimates for note in item.notes)
    facts += [("Why its intervals are wide", " ".join(notes))] if notes else []
    for item in artifact.estimates:
        if item.operators:
            where = f"on {item.where}, divided by the graph and not counted"
            facts += [
                (
                    "Estimated time by module",
                    f"{html_device_rows.html_device_row_operators(item.operators, 'module')} ({where})",
                ),
                (
                    "Estimated time by operator",
                    f"{html_device_rows.html_device_row_operators(item.operators, 'kind')} ({where})",
                ),
            ]
    return facts


def _html_row_emulation(result: Emulation | None) -> str:
    """Return what an artifact computed on emulated Arm, in words; empty where it was not emulated."""
    if result is None:
        return ""
    figures = f"max error {text.sig3_text(result.max_error)}, {text.decibels_text(result.sqnr_db)}"
    difference = f"differs from this host's outputs by {text.sig3_text(result.difference)} of their scale"
    return f"{result.runtime} on {result.core}: {figures}, {result.samples} inputs; {difference}"


def _html_row_facts(artifact: Artifact) -> tuple[tuple[str, str], ...]:
    verdict, structure = artifact.verdict, artifact.structure
    facts = [("File", artifact.file), ("SHA-256", artifact.sha256)]
    if verdict:
        limits = ", ".join(f"{name} {text.sig3_text(value)}" for name, value in verdict.limits.items())
        facts += [
            ("Runtime", verdict.runtime),
            ("Limits", limits),
            ("Over scenes", text.over_scenes_text(verdict.comparison)),
            ("Worst channel", text.worst_channel_text(verdict.worst_channel)),
            ("Task", text.task_text(verdict.task)),
            ("On edge inputs", _html_row_comparison(verdict.edge)),
            ("Against its own quantised program", _html_row_comparison(verdict.lowering)),
        ]
    facts += [("On emulated arm64", _html_row_emulation(artifact.arm64)), *_html_row_estimates(artifact)]
    if structure:
        weights = ", ".join(
            f"{text.scaled_text(n, '')} {dtype}" for dtype, n in sorted(structure.weight_elements.items())
        )
        operators = sorted(structure.operators.items(), key=lambda item: (-item[1], item[0]))
        facts += [
            ("Weights", f"{weights}; {text.scaled_text(structure.weight_bytes, 'B')}"),
            ("Operators", ", ".join(f"{name} ×{count}" for name, count in operators[:40])),  # noqa: RUF001
        ]
    facts.append(("Built in", text.seconds_text(artifact.build_seconds)))
    return tuple((name, value) for name, value in facts if value)


def _html_row_comparison(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    if comparison.problem:
        return comparison.problem
    figures = f"max error {text.sig3_text(comparison.max_error)}, {text.decibels_text(comparison.sqnr_db)}"
    return f"{figures}, {comparison.samples} inputs"
