"""Which artifact to ship. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.records import Artifact


@dataclass(frozen=True)
class Choice:
    """The artifact to ship (None when there is none) and why it is the one."""

    name: str | None
    reason: str


def choose(
    artifacts: Sequence[Artifact], runnable: Sequence[str], synthetic: bool, allow_synthetic: bool
) -> Choice:
    """The fastest passed artifact that the target can run.

    Args:
        artifacts: All that were made, judged and timed.
        runnable: Names of the variants the target's own stack executes, best first.
        synthetic: Calibration used made-up inputs.
        allow_synthetic: Choose a quantised artifact even then.
    """
    passed = [a for a in artifacts if a.status == "passed" and a.variant.name in runnable]
    doubtful = [a for a in passed if synthetic and not allow_synthetic and a.variant.precision == "int8"]
    candidates = [a for a in passed if a not in doubtful]
    if not candidates:
        return Choice(None, _why_nothing(artifacts, runnable, doubtful))
    best = min(candidates, key=lambda a: _rank(a, runnable))
    left_out = "; int8 was calibrated on synthetic inputs and left out" if doubtful else ""
    return Choice(best.variant.name, f"{_why(best, candidates)}{left_out}.")


def _rank(artifact: Artifact, runnable: Sequence[str]) -> tuple[float, int]:
    """Measured artifacts by their median; the target's own preference decides what was not measured."""
    latency = artifact.latency.p50_ms if artifact.latency else float("inf")
    return latency, list(runnable).index(artifact.variant.name)


def _why(best: Artifact, candidates: Sequence[Artifact]) -> str:
    if best.latency is None:
        return f"The target's first choice of {len(candidates)} passed artifacts; none was timed"
    return (
        f"The fastest on this host ({best.latency.p50_ms:.3g} ms p50, {best.latency.threads} threads) of "
        f"{len(candidates)} passed artifacts that the target runs; no device has measured it"
    )


def _why_nothing(artifacts: Sequence[Artifact], runnable: Sequence[str], doubtful: Sequence[Artifact]) -> str:
    if doubtful:
        return (
            "Only int8 artifacts calibrated on synthetic inputs passed. Give photos with --calibration, or "
            "--allow-synthetic."
        )
    if not any(a.variant.name in runnable for a in artifacts):
        return "None of the artifacts asked for runs on the target."
    return "No artifact that the target runs was proven equal to the original."
