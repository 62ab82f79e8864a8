"""Render the report as one self-contained page: no script, no request, fit for phones and dark mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from exporter.records import (
    Artifact,
    Report,
)
from exporter.report import (
    accuracy_text,
    device_text,
    html_device_rows,
    html_rows,
    plots,
    quantization_cost,
    snippets,
    templates,
    text,
)
from exporter.verify import budget, sweep_decision

if TYPE_CHECKING:
    import numpy as np


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
    estimated = {row.variant.name: row.estimates for row in report.artifacts}
    return (
        templates.template_environment("exporter.report")
        .get_template("report.html.j2")
        .render(
            report=report,
            text=text,
            chosen=chosen,
            figures=_html_figures(report, chosen) if chosen else (),
            steps=_html_steps(report),
            rows=[html_rows.html_row_of_artifact(artifact, report) for artifact in report.artifacts],
            device_rows=[
                html_device_rows.html_device_row(name, latency, estimated.get(name, ()))
                for name, latency in device_text.device_text_rows(report)
            ],
            no_phone=[
                text.NO_PHONE[kind]
                for kind in sorted({latency.evidence for _, latency in device_text.device_text_rows(report)})
                if kind in text.NO_PHONE
            ],
            plots=_html_plots(report, outputs),
            quantization=quantization_cost.quantization_cost_view(report),
            accuracy=accuracy_text.report_accuracy_text(report),
            accuracy_rows=html_rows.html_rows_of_accuracy(report),
            facts=_html_facts(report),
            snippets=snippets.make_snippets(report),
        )
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
    return f"{text.BUDGET_WORDS[report.budget]}: p90 {p90}, {device_text.device_text(worst)}"


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
            plots.plot_devices(device_text.device_text_rows(report), report.selected, report.budget_ms),
        ),
        (
            "Accuracy lost",
            "Points of top-1 below float32 on labelled samples, with 95 % intervals.",
            plots.plot_accuracy(report.artifacts, report.evaluation, report.selected),
        ),
        (
            "Calibration samples",
            sweep_decision.sweep_decision_sentence(report.calibration_sweep)
            if report.calibration_sweep
            else "",
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
