"""Make the rows of the report's table of devices, and of where an artifact's time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.records import DeviceLatency, EstimatedLatency, OperatorTime
from exporter.report import device_text, instability_flags, text
from exporter.verify import budget, estimate_verdicts

SHOWN = 12
"""Modules and kinds of operators that a page lists."""
VERDICT_CSS = {"pass": "passed", "fail": "failed", "inconclusive": "not-run", "not_measured": "not-run"}


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


def html_device_row(
    name: str, latency: DeviceLatency, estimated: Sequence[EstimatedLatency] = ()
) -> DeviceRow:
    """Make the row of a device's latency, compared with the artifact's estimates."""
    facts = (
        *(
            (device_text.device_property_label_text(key), device_text.device_property_text(value))
            for key, value in latency.device.items()
            if value
        ),
        ("Judged against", text.milliseconds_text(latency.budget_ms) if latency.budget_ms else ""),
        ("Interval", _html_device_row_coverage(latency)),
        ("Beside its estimate", estimate_verdicts.estimate_verdict_compared(latency, estimated)),
        ("First call", text.milliseconds_text(latency.first_ms)),
        ("Load", text.milliseconds_text(latency.load_ms)),
        ("Peak memory", text.scaled_text(latency.peak_bytes, "B")),
        ("Peak PSS", text.scaled_text(latency.peak_pss_bytes, "B")),
        ("Largest error", text.sig3_text(latency.max_error)),
        ("Energy of a call", _html_device_row_energy(latency)),
        ("Time by module", html_device_row_operators(latency.operators, "module")),
        ("Time by operator", html_device_row_operators(latency.operators, "kind")),
        ("Started", latency.started_at),
        ("Raw samples", latency.samples_file or ""),
    )
    return DeviceRow(
        name=f"{name}, as an app runs" if latency.app_like else name,
        evidence=text.EVIDENCE_WORDS[latency.evidence],
        css=VERDICT_CSS[latency.verdict],
        verdict=text.VERDICT_WORDS[latency.verdict],
        device=device_text.device_text(latency),
        reasons=tuple(
            filter(
                None,
                (
                    latency.problem,
                    *latency.exceeded,
                    _html_device_row_missing(latency),
                    *instability_flags.group_instability_flags(latency.flags),
                    _html_device_row_no_proof(latency),
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


def _html_device_row_coverage(latency: DeviceLatency) -> str:
    """Return how far the interval can be trusted, by simulated sessions with as many launches."""
    spread = budget.launch_spread_for_budget(latency)
    return (
        f"{latency.launches} launches that differ by {spread:.1%}; such an interval holds the true p90 in at "
        f"least {budget.COVERAGE} of 100 simulated sessions"
    )


def _html_device_row_missing(latency: DeviceLatency) -> str:
    missing = budget.missing_evidence_for_budget(latency)
    return f"{missing}." if missing and latency.evidence == "measured" else ""


def _html_device_row_energy(latency: DeviceLatency) -> str:
    if latency.energy_mj is not None:
        return f"{text.sig3_text(latency.energy_mj)} mJ, of the whole phone"
    return f"not known: {latency.energy_problem}" if latency.energy_problem else ""


def _html_device_row_no_proof(latency: DeviceLatency) -> str:
    return " ".join(instability_flags.group_instability_flag_reasons(latency.why))


def _html_device_row_sums(operators: Sequence[OperatorTime], by: str) -> tuple[tuple[str, float, float], ...]:
    """Return (module or kind, ms, share of all), the slowest first."""
    sums: dict[str, float] = {}
    for operator in operators:
        name = getattr(operator, by)
        sums[name] = sums.get(name, 0.0) + operator.ms
    whole = sum(sums.values()) or 1.0
    return tuple((name, ms, ms / whole) for name, ms in sorted(sums.items(), key=lambda item: -item[1]))


def html_device_row_operators(operators: Sequence[OperatorTime], by: str) -> str:
    """Return the slowest modules or kinds of a profile, which is a run of its own, or of an estimate."""
    sums = _html_device_row_sums(operators, by)
    if not any(name for name, _, _ in sums):
        return "not known: the runtime's operators do not match the model's layers" if sums else ""
    parts = [
        f"{name or 'before the first layer'} {ms:.3g} ms ({share:.0%})" for name, ms, share in sums[:SHOWN]
    ]
    if rest := sums[SHOWN:]:
        parts.append(f"{len(rest)} more {sum(ms for _, ms, _ in rest):.3g} ms")
    return "; ".join(parts)
