"""Render the report as one self-contained page: no script, no request, fit for phones and dark mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from exporter.records import (
    Accuracy,
    Artifact,
    Comparison,
    DeviceLatency,
    Emulation,
    Report,
    Status,
    TaskAccuracy,
    TaskEvaluation,
)
from exporter.report import flags, plots, quantization, snippets, text
from exporter.verify import accuracy, budget, calibration_sweep

if TYPE_CHECKING:
    import numpy as np
    from jinja2 import Environment


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


@dataclass(frozen=True)
class DeviceRow:
    """One device's latency of one artifact; every cell is text."""

    name: str
    evidence: str
    css: str
    verdict: str
    device: str
    reasons: tuple[str, ...]
    cells: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]


LOST = ("Points lost", "95 % interval of it", "Lost, gained")
"""Columns of an artifact's accuracy against float32, on labelled samples."""
VERDICT_CSS = {"pass": "passed", "fail": "failed", "inconclusive": "not-run", "not_measured": "not-run"}


def render_html(report: Report, outputs: Mapping[str, np.ndarray]) -> str:
    """Render the whole page.

    Args:
        report: The run's results.
        outputs: Artifact name -> some of its output values, flat, in the model's units; the float64 model's
            under "reference". May be empty.

    Returns:
        HTML text; the same for the same arguments, byte for byte.
    """
    chosen = text.choice_text(report)
    return (
        _html_environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            text=text,
            chosen=chosen,
            figures=_html_figures(report, chosen) if chosen else (),
            steps=_html_steps(report),
            rows=[_html_artifact_row(artifact, report) for artifact in report.artifacts],
            device_rows=[
                _html_device_row(name, latency) for name, latency in text.text_rows_of_devices(report)
            ],
            no_phone=[
                text.NO_PHONE[kind]
                for kind in sorted({latency.evidence for _, latency in text.text_rows_of_devices(report)})
                if kind in text.NO_PHONE
            ],
            plots=_html_plots(report, outputs),
            quantization=quantization.quantization_view(report),
            accuracy_rows=_html_accuracy_rows(report),
            facts=_html_facts(report),
            snippets=snippets.make_snippets(report),
        )
    )


@cache
def _html_environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("exporter.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _html_steps(report: Report) -> tuple[tuple[str, str], ...]:
    """Return the steps at the top: checkpoint, network, formats, verified, chosen."""
    made = sum(1 for a in report.artifacts if a.file)
    formats = len({a.variant.format for a in report.artifacts if a.file})
    return (
        ("checkpoint", report.source_file),
        ("network", report.architecture),
        ("formats", f"{made} files in {formats} formats"),
        ("verified", text.tally_text(report.artifacts) or "nothing"),
        ("chosen", report.selected or "nothing"),
    )


def _html_figures(report: Report, chosen: Artifact) -> tuple[tuple[str, str, str], ...]:
    """Return (name, value, remark) of the chosen artifact's figures."""
    comparison = chosen.verdict.comparison if chosen.verdict else None
    latency = chosen.latency
    compared = f"on {text.data_text(report.verification_kind, report.verification_count)}"
    return (
        (
            "Size",
            text.scaled_text(chosen.size_bytes, "B"),
            f"{chosen.variant.precision}, {chosen.variant.backend}",
        ),
        (
            "Largest error",
            text.sig3_text(comparison.max_error if comparison else None),
            "of the output's scale, against float64",
        ),
        ("SQNR", text.decibels_text(comparison.sqnr_db if comparison else None), compared),
        (
            "Agreement",
            text.percent_text(comparison.agreement if comparison else None),
            f"same top class, {compared}",
        ),
        (
            "Host latency",
            text.milliseconds_text(latency.p50_ms if latency else None),
            f"p90 {text.milliseconds_text(latency.p90_ms)}, {latency.threads} threads, this host, not a phone"
            if latency
            else "not measured here",
        ),
        ("Budget", text.milliseconds_text(report.budget_ms), _html_budget_remark(chosen, report)),
    )


def _html_budget_remark(chosen: Artifact, report: Report) -> str:
    worst = budget.worst_for_budget(chosen.device_latencies, report.budget_ms)
    if worst is None or worst.evidence != "measured":
        return text.BUDGET_WORDS[report.budget]
    p90 = text.interval_text(worst.p90_ci_ms)
    return f"{text.BUDGET_WORDS[report.budget]}: p90 {p90}, {text.device_text(worst)}"


def _html_coverage(latency: DeviceLatency) -> str:
    """Return how far the interval can be trusted, by simulated sessions with as many launches."""
    return (
        f"{latency.launches} launches that differ by {budget.spread(latency):.1%}; such an interval holds "
        f"the true p90 in at least {budget.coverage(latency)} of 100 sessions (95 is the aim)"
    )


def _html_missing(latency: DeviceLatency) -> str:
    missing = budget.missing_evidence(latency)
    return f"{missing}." if missing and latency.evidence == "measured" else ""


def _html_device_row(name: str, latency: DeviceLatency) -> DeviceRow:
    facts = (
        *(
            (text.property_label_text(key), text.device_property_text(value))
            for key, value in latency.device.items()
            if value
        ),
        ("Judged against", text.milliseconds_text(latency.budget_ms) if latency.budget_ms else ""),
        ("Interval", _html_coverage(latency)),
        ("First call", text.milliseconds_text(latency.first_ms)),
        ("Load", text.milliseconds_text(latency.load_ms)),
        ("Peak memory", text.scaled_text(latency.peak_bytes, "B")),
        ("Peak PSS", text.scaled_text(latency.peak_pss_bytes, "B")),
        ("Largest error", text.sig3_text(latency.max_error)),
        ("Started", latency.started_at),
        ("Raw samples", latency.samples_file or ""),
    )
    return DeviceRow(
        name=name,
        evidence=text.EVIDENCE_WORDS[latency.evidence],
        css=VERDICT_CSS[latency.verdict],
        verdict=text.VERDICT_WORDS[latency.verdict],
        device=text.device_text(latency),
        reasons=tuple(
            filter(
                None,
                (
                    latency.problem,
                    *latency.exceeded,
                    _html_missing(latency),
                    *flags.group_flags(latency.flags),
                    _html_no_proof(latency),
                ),
            )
        ),
        cells=(
            ("p50", text.milliseconds_text(latency.p50_ms)),
            ("p90", text.milliseconds_text(latency.p90_ms)),
            ("p90 interval", text.interval_text(latency.p90_ci_ms)),
            ("p99", text.milliseconds_text(latency.p99_ms)),
            ("Launches", str(latency.launches)),
            ("Samples", str(latency.samples)),
        ),
        facts=tuple((key, value) for key, value in facts if value and value != text.NONE),
    )


def _html_accuracy_rows(report: Report) -> tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]:
    """Return (name, css, cells): float32 first, then every artifact evaluated on labelled samples."""
    if report.task_evaluation:
        return _html_score_rows(report, report.task_evaluation)
    if report.evaluation is None:
        return ()
    floats = (
        "float32",
        "",
        (*_html_shares(report.evaluation.reference), *[(name, text.NONE) for name in LOST]),
    )
    return (
        floats,
        *(_html_accuracy_row(a.variant.name, a.status, a.accuracy) for a in report.artifacts if a.accuracy),
    )


def _html_score_rows(
    report: Report, evaluation: TaskEvaluation
) -> tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]:
    """Return rows as `_html_accuracy_rows` does, for a task's measures."""
    floats = [
        cell
        for score in evaluation.reference.scores
        for cell in ((score.name, f"{score.value:.4g}"), (f"{score.name} lost", text.NONE))
    ]
    return (
        ("float32", "", tuple(floats)),
        *(
            (a.variant.name, a.status.replace("_", "-"), _html_score_cells(a.task_accuracy))
            for a in report.artifacts
            if a.task_accuracy
        ),
    )


def _html_score_cells(accuracy: TaskAccuracy) -> tuple[tuple[str, str], ...]:
    return tuple(
        cell
        for score in accuracy.scores
        for cell in ((score.name, f"{score.value:.4g}"), (f"{score.name} lost", text.lost_text(score)))
    )


def _html_accuracy_row(
    name: str, status: Status, measured: Accuracy
) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    low, high = accuracy.accuracy_drop_interval(measured)
    figures = (
        f"{accuracy.accuracy_drop(measured):.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{measured.lost}, {measured.gained}",
    )
    return name, status.replace("_", "-"), (*_html_shares(measured), *zip(LOST, figures, strict=True))


def _html_shares(measured: Accuracy) -> tuple[tuple[str, str], ...]:
    low, high = accuracy.accuracy_interval(measured.right, measured.count)
    return (
        ("Top-1", text.share_text(measured.right, measured)),
        ("95 % interval", f"{100 * low:.1f} to {100 * high:.1f}"),
        ("Top-5", text.NONE if measured.right5 is None else text.share_text(measured.right5, measured)),
    )


def _html_no_proof(latency: DeviceLatency) -> str:
    return " ".join(flags.group_flag_reasons(latency.why))


def _html_artifact_row(artifact: Artifact, report: Report) -> Row:
    comparison = artifact.verdict.comparison if artifact.verdict else None
    structure, latency = artifact.structure, artifact.latency
    return Row(
        name=artifact.variant.name,
        css=artifact.status.replace("_", "-"),
        status=text.STATUS_WORDS[artifact.status],
        chosen=artifact.variant.name == report.selected,
        reason=text.reason_text(artifact),
        precision=artifact.variant.precision,
        cells=(
            ("Max error", text.sig3_text(comparison.max_error if comparison else None)),
            ("SQNR", text.decibels_text(comparison.sqnr_db if comparison else None)),
            ("Agreement", text.percent_text(comparison.agreement if comparison else None)),
            ("≤ 8-bit weights", text.percent_text(text.quantized_share_text(artifact))),
            ("Delegated", text.percent_text(structure.delegated_fraction if structure else None)),
            *((("arm64 (emulated)", _html_on_arm(artifact)),) if _html_shows_arm(report) else ()),
            ("Size", text.scaled_text(artifact.size_bytes, "B")),
            ("Host p50", text.milliseconds_text(latency.p50_ms if latency else None)),
            ("Host p90", text.milliseconds_text(latency.p90_ms if latency else None)),
        ),
        facts=_html_artifact_facts(artifact),
        notes=artifact.notes,
    )


def _html_shows_arm(report: Report) -> bool:
    return any(artifact.arm64 for artifact in report.artifacts)


def _html_on_arm(artifact: Artifact) -> str:
    return text.STATUS_WORDS[artifact.arm64.status] if artifact.arm64 else text.NONE


def _html_emulation(result: Emulation | None) -> str:
    """Return what an artifact computed on emulated Arm, in words; empty where it was not emulated."""
    if result is None:
        return ""
    figures = f"max error {text.sig3_text(result.max_error)}, {text.decibels_text(result.sqnr_db)}"
    difference = f"differs from this host's outputs by {text.sig3_text(result.difference)} of their scale"
    return f"{result.runtime} on {result.core}: {figures}, {result.samples} inputs; {difference}"


def _html_artifact_facts(artifact: Artifact) -> tuple[tuple[str, str], ...]:
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
            ("On edge inputs", _html_comparison(verdict.edge)),
            ("Against its own quantised program", _html_comparison(verdict.lowering)),
        ]
    facts.append(("On emulated arm64", _html_emulation(artifact.arm64)))
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


def _html_comparison(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    if comparison.problem:
        return comparison.problem
    figures = f"max error {text.sig3_text(comparison.max_error)}, {text.decibels_text(comparison.sqnr_db)}"
    return f"{figures}, {comparison.samples} inputs"


def _html_plots(report: Report, outputs: Mapping[str, np.ndarray]) -> tuple[tuple[str, str, str], ...]:
    """Return (title, caption, SVG) of each plot that has data."""
    drawn = (
        (
            "Error, size and host latency",
            "Down and left is better; marker area is file size, colour is status.",
            plots.plot_tradeoff(report.artifacts, report.selected),
        ),
        (
            "Host latency",
            "All samples on this machine: box p25 to p75, whiskers p5 and p95. Not a phone.",
            plots.plot_latencies(report.artifacts, report.selected),
        ),
        (
            "On devices",
            "A line per launch: p5 to p95, thick p25 to p75, dot the median. Only «measured» is a phone.",
            plots.plot_devices(text.text_rows_of_devices(report), report.selected, report.budget_ms),
        ),
        (
            "Accuracy lost",
            "Points of top-1 below float32 on labelled samples, with 95 % intervals.",
            plots.plot_accuracy(report.artifacts, report.evaluation, report.selected),
        ),
        (
            "Calibration samples",
            calibration_sweep.sweep_sentence(report.calibration_sweep) if report.calibration_sweep else "",
            plots.plot_calibration(report.calibration_sweep),
        ),
        (
            "Output values",
            "Line: the artifact. Filled: the float64 model on the same inputs.",
            plots.plot_histograms(outputs, report.selected),
        ),
    )
    return tuple((title, caption, svg) for title, caption, svg in drawn if svg)


def _html_facts(report: Report) -> tuple[tuple[str, str], ...]:
    flops = text.scaled_text(report.flops, "FLOPs") if report.flops is not None else "not counted"
    return (
        ("Checkpoint", f"{report.source_file} ({report.source_kind})"),
        ("SHA-256", report.source_sha256),
        ("Network", report.architecture),
        ("Parameters", f"{text.scaled_text(report.parameters, '')} ({report.parameters:,})"),
        ("One call", flops),
        ("Inputs", "; ".join(text.tensor_text(spec) for spec in report.inputs)),
        ("Outputs", "; ".join(text.tensor_text(spec) for spec in report.outputs)),
        ("Preprocessing", text.preprocessing_text(report.preprocessing)),
        (
            "Calibrated on",
            text.data_text(report.calibration_kind, report.calibration_count)
            + text.scenes_text(report.scenes, "calibration"),
        ),
        *(
            [("Candidates chosen on", f"other data{text.scenes_text(report.scenes, 'choice')}")]
            if report.scenes.choice
            else []
        ),
        (
            "Verified on",
            text.data_text(report.verification_kind, report.verification_count)
            + text.scenes_text(report.scenes, "verification"),
        ),
        ("Eager float32's own error", f"{text.sig3_text(report.floor)} of the output's scale"),
        ("Target", f"{report.target_name} ({report.target_soc})"),
    )
