"""Format numbers and words for readers; shared by the page and the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from exporter.records import (
    Artifact,
    Comparison,
    Executor,
    Preprocessing,
    Purpose,
    Report,
    Scenes,
    SizesVerdict,
    Status,
    TaskMeasure,
    TensorSpec,
    WorstChannel,
)
from exporter.verify import estimate_verdicts

STATUS_WORDS: dict[Status, str] = {
    "passed": "passed",
    "failed": "failed",
    "inconclusive": "inconclusive",
    "not_run": "not run",
    "error": "error",
}
SHORT_EXECUTOR: Mapping[Executor, str] = {
    "reference interpreter": "ref.",
    "CPU runtime": "CPU",
    "NPU simulator": "sim.",
    "software driver": "soft.",
}
"""What stands for an executor where there is no room."""
EXECUTED_BY: Mapping[Executor, str] = {
    "reference interpreter": "The reference interpreter executed {names}, not Core ML: it computes what the "
    "file says. What Core ML, the GPU and the Neural Engine make of it, only a Mac can show.",
    "CPU runtime": "Apple's runtime for the CPU executed {names}. What iOS makes of it on the GPU and the "
    "Neural Engine, only a Mac or an iPhone can show.",
    "NPU simulator": "Qualcomm's simulator executed {names}. Whether a phone's driver takes it, and how fast "
    "it is, only a phone can show.",
    "software driver": "Mesa's software driver executed {names}. What a phone's GPU and its driver compute, "
    "only a phone can show.",
}
BUDGET_WORDS = {
    "pass": "within budget on the device",
    "fail": "over budget on the device",
    "inconclusive": "inconclusive on the device",
    "not_measured": "not measured on a device",
}
VERDICT_WORDS = {
    "pass": "PASS",
    "fail": "FAIL",
    "inconclusive": "INCONCLUSIVE",
    "not_measured": "NOT MEASURED",
}
EVIDENCE_WORDS = {"measured": "measured", "simulated": "SIMULATED", "host": "HOST"}
NO_PHONE = {
    "simulated": "Simulated: this device did not prove to be a phone; the figures say nothing about one.",
    "host": "Host: the runner ran on this machine, so the figures say nothing about a phone.",
}
NONE = "\N{EN DASH}"


def status_text(status: Status, executor: Executor = "runtime", short: bool = False) -> str:
    """Return a status in words, with what executed the artifact where that was not its own runtime."""
    words = STATUS_WORDS[status]
    return words if executor == "runtime" else f"{words} ({SHORT_EXECUTOR[executor] if short else executor})"


def executor_text(artifacts: Iterable[Artifact]) -> str:
    """Say what a status by another executor shows; an empty string where every runtime executed its own."""
    texts = []
    for executor, words in EXECUTED_BY.items():
        names = [a.variant.name for a in artifacts if a.executor == executor]
        if names:
            texts.append(f"({SHORT_EXECUTOR[executor]}) {words.format(names=', '.join(names))}")
    return " ".join(texts)


def sig3_text(value: float | None) -> str:
    """Format three significant digits: 1.31e-6, 0.0713, 21.4, 601; a dash for None."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "-∞"}.get(value, "NaN")
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e4:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:#.3g}".rstrip(".") if abs(value) < 999.5 else f"{value:.0f}"


def scaled_text(value: float | None, unit: str) -> str:
    """Format with a decimal prefix: 13998112 "B" is "14.0 MB"."""
    if value is None:
        return NONE
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{sig3_text(value / factor)} {prefix}{unit}".rstrip()
    return f"{value:g} {unit}".rstrip()


def percent_text(share: float | None) -> str:
    return NONE if share is None else f"{sig3_text(100 * share)} %"


def milliseconds_text(value: float | None) -> str:
    return NONE if value is None else f"{sig3_text(value)} ms"


def decibels_text(value: float | None) -> str:
    return NONE if value is None else f"{sig3_text(value)} dB"


def worst_channel_text(worst: WorstChannel | None) -> str:
    """Return where an artifact has the least room to its limit; an empty string when nothing was compared."""
    if worst is None:
        return ""
    label = f" ({worst.label})" if worst.label else ""
    return (
        f"{worst.channel}{label}: {decibels_text(worst.sqnr_db)} against its own variation, "
        f"at least {decibels_text(worst.limit_db)} expected"
    )


def task_text(measure: TaskMeasure | None) -> str:
    """Return the measure of a model's task; an empty string when there is none."""
    if measure is None:
        return ""
    unit = f" {measure.unit}" if measure.unit else ""
    within = "" if measure.passed else f", beyond {measure.limit:g}"
    return f"{measure.task}, {measure.name} {measure.value:.4g}{unit}{within} ({measure.detail})"


def points_text(value: float | None) -> str:
    """Format points, which are samples of a hundred: 0.62, -0.31."""
    return NONE if value is None else f"{value:.2f}"


def seconds_text(value: float) -> str:
    return f"{sig3_text(value)} s"


def shape_text(spec: TensorSpec) -> str:
    return f"[{', '.join(str(size) for size in spec.shape)}]"


def tensor_text(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} {shape_text(spec)}"


def preprocessing_text(how: Preprocessing | None) -> str:
    """Describe in one line how a photo becomes the input."""
    if how is None:
        return "not known: the inputs are taken as they are"
    side = "both sides" if how.squash else "shorter side"
    taken = f"artifacts take these {how.pixels} bytes: within them " if how.pixels else ""
    if how.photo_sizes:
        low, high = how.photo_sizes
        side, taken = f"artifacts take the {how.pixels} bytes of photos of {low} to {high} px: {side}", ""
    mean, std = (", ".join(sig3_text(v) for v in values) for values in (how.mean, how.std))
    return (
        f"{side} to {how.resize} px ({how.interpolation}), centre crop {how.crop[0]} × {how.crop[1]}, "  # noqa: RUF001
        f"{taken}values 0 to {how.scale:g}, mean ({mean}), std ({std})"
    )


def sizes_text(sizes: SizesVerdict | None) -> tuple[str, ...]:
    """Say at which sizes an artifact was verified, and what it does outside its ranges."""
    if sizes is None:
        return ()
    notes = [f"Verified at {'; '.join(sizes.verified)}."]
    if sizes.refused:
        notes.append(f"It refuses {', '.join(sizes.refused)}.")
    if sizes.accepted:
        notes.append(f"It takes {', '.join(sizes.accepted)} without an error.")
    return tuple(notes)


def choice_text(report: Report) -> Artifact | None:
    return next((a for a in report.artifacts if a.variant.name == report.selected), None)


def reason_text(artifact: Artifact) -> str:
    """Say why an artifact has its status, with the line of the user's model where known."""
    where = f" (at {artifact.source_line})" if artifact.source_line else ""
    return f"{artifact.reason or ''}{where}".strip()


def tally_text(artifacts: Iterable[Artifact]) -> str:
    """Count the artifacts by status: 5 passed, 2 failed, 1 error."""
    counts = Counter(a.status for a in artifacts)
    return ", ".join(f"{counts[status]} {word}" for status, word in STATUS_WORDS.items() if counts[status])


def budget_text(report: Report) -> str:
    """Format the verdict on the budget, with the export's own budget where `bench --budget` gave another."""
    own = report.export_budget_ms
    beside = f" (the export's own is {milliseconds_text(own)})" if own else ""
    return (
        f"Budget {milliseconds_text(report.budget_ms)}{beside} on {report.target_name}: "
        f"{BUDGET_WORDS[report.budget]}"
    )


def interval_text(bounds: tuple[float, float]) -> str:
    return f"{sig3_text(bounds[0])} to {sig3_text(bounds[1])} ms"


def quantized_share_text(artifact: Artifact) -> float | None:
    """Format the share of weights in 8 bits or fewer, where the file could be read."""
    return artifact.structure.quantized_weight_fraction if artifact.structure else None


def data_text(kind: str, count: int) -> str:
    return "none" if kind == "none" else f"{count} {kind}"


def scenes_text(counts: Scenes, purpose: Purpose) -> str:
    """Return the scenes that serve a purpose, in brackets; an empty string where they were not counted."""
    count = getattr(counts, purpose)
    return f" ({count} scene{'' if count == 1 else 's'})" if count else ""


def over_scenes_text(comparison: Comparison | None) -> str:
    """Return the bounds of an artifact's figures; an empty string where scenes were not counted."""
    if comparison is None or not comparison.scenes:
        return ""
    words = []
    if comparison.sqnr_bounds_db:
        low, high = comparison.sqnr_bounds_db
        words.append(f"SQNR {sig3_text(low)} to {sig3_text(high)} dB")
    if comparison.agreement_bounds:
        low, high = comparison.agreement_bounds
        words.append(f"agreement {sig3_text(100 * low)} to {sig3_text(100 * high)} %")
    scenes = f"{comparison.scenes} scene{'' if comparison.scenes == 1 else 's'}"
    return f"{', '.join(words)} (95 % bounds over {scenes})" if words else ""


def estimate_text(report: Report) -> str:
    """Return the chosen artifact's estimate and its words on the budget; empty where there is none."""
    chosen = choice_text(report)
    estimate = chosen and estimate_verdicts.best_estimate_verdict(chosen)
    if not estimate:
        return ""
    verdict = estimate_verdicts.estimate_verdict(estimate, report.budget_ms)
    words = f"{verdict} about" if verdict == "uncertain" else verdict
    return (
        f"On {report.target_name}'s CPU, {estimate.where}: "
        f"{estimate_verdicts.estimate_verdict_text(estimate)}: {words} "
        f"{milliseconds_text(report.budget_ms)}; only a phone's measurement meets a budget."
    )


def estimate_notes_text(report: Report) -> tuple[str, ...]:
    """Return why estimates are uncertain, and how often their intervals are meant to hold; once each.

    A sentence that is not true of every estimated artifact begins with the names of those that it is about.
    """
    every = [item for artifact in report.artifacts for item in artifact.estimates]
    if not every:
        return ()
    about: dict[str, list[str]] = {}
    for artifact in report.artifacts:
        for note in dict.fromkeys(note for item in artifact.estimates for note in item.notes):
            about.setdefault(note, []).append(artifact.variant.name)
    estimated = sum(bool(artifact.estimates) for artifact in report.artifacts)
    notes = (
        note if len(names) == estimated else f"{', '.join(names)}: {note}" for note, names in about.items()
    )
    low, high = (f(item.coverage for item in every) for f in (min, max))
    shares = f"{low:.0%}" if low == high else f"{low:.0%} to {high:.0%}"
    return (f"The intervals are meant to hold in {shares} of cases.", *notes)
