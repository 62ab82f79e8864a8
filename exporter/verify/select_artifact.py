"""Chooses the artifact to ship. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.records import QUANTIZED, SHIPPABLE, Artifact, Status
from exporter.verify import estimate_verdicts

UNMEASURED = "no device has measured it"


@dataclass(frozen=True)
class Selected:
    """The artifact to ship (None when there is none) and the reason of the choice."""

    name: str | None
    reason: str


def select_artifact(
    artifacts: Sequence[Artifact],
    runnable: Sequence[str],
    synthetic: bool,
    allow_synthetic: bool,
    allow_inconclusive: bool = False,
) -> Selected:
    """Choose the fastest passed artifact that the target can run: by estimates, else by this host's latency.

    Where there are estimates, what has none (a GPU's artifact) is not chosen: nothing tells its latency.
    Where estimates from FLOPs cannot be told apart, the target's preference decides.

    Args:
        artifacts: All artifacts that were made, judged and timed.
        runnable: Names of the variants the target's own stack executes, best first.
        synthetic: Calibration used synthetic inputs.
        allow_synthetic: Choose a quantised artifact even then.
        allow_inconclusive: Choose what too few scenes were seen of to pass it, too.
    """
    accepted = _statuses_to_select_artifact(allow_inconclusive)
    passed = [a for a in artifacts if a.status in accepted and a.variant.name in runnable]
    doubtful = [a for a in passed if _is_artifact_too_doubtful_to_select(a, synthetic, allow_synthetic)]
    candidates = [a for a in passed if a not in doubtful]
    if not candidates:
        return Selected(None, _why_no_artifact_selected(artifacts, runnable, doubtful))
    estimated = [a for a in candidates if a.estimates]
    best = min(estimated or candidates, key=lambda a: _rank_to_select_artifact(a, runnable))
    tied = estimate_verdicts.tied_estimate_verdicts(best, estimated)
    best = min(tied, key=lambda a: list(runnable).index(a.variant.name), default=best)
    left_out = "; what was calibrated on synthetic inputs was left out" if doubtful else ""
    proven = best.status != "inconclusive"
    unproven = "" if proven else "; too few scenes were seen to prove it, which was allowed"
    less = f"; only the {best.executor} executed it" if best.executor != "runtime" else ""
    return Selected(
        best.variant.name, f"{_why_artifact_selected(best, candidates, tied)}{left_out}{unproven}{less}."
    )


def _statuses_to_select_artifact(allow_inconclusive: bool) -> frozenset[Status]:
    return SHIPPABLE if allow_inconclusive else frozenset({"passed"})


def select_measured_artifact(
    artifacts: Sequence[Artifact],
    runnable: Sequence[str],
    synthetic: bool,
    allow_synthetic: bool,
    allow_inconclusive: bool = False,
) -> Selected | None:
    """Choose the artifact that is fastest on the device, once every one that might ship was measured there.

    Args:
        artifacts: All artifacts of the export, with the devices' latencies.
        runnable: Names of the variants the target's own stack executes.
        synthetic: Calibration used synthetic inputs.
        allow_synthetic: Choose a quantised artifact even then.
        allow_inconclusive: Choose what too few scenes were seen of to pass it, too.

    Returns:
        None while a candidate was not measured, or the candidates share no real phone. What gives
        wrong outputs on the device comes last.
    """
    candidates = [
        a
        for a in artifacts
        if a.status in _statuses_to_select_artifact(allow_inconclusive)
        and a.variant.name in runnable
        and not _is_artifact_too_doubtful_to_select(a, synthetic, allow_synthetic)
    ]
    measured = {a.variant.name: _phone_latencies_to_select_artifact(a) for a in candidates}
    shared = set.intersection(*(set(by_serial) for by_serial in measured.values())) if measured else set()
    if not shared:
        return None
    ranks = {name: max(by_serial[serial] for serial in shared) for name, by_serial in measured.items()}
    best = min(ranks, key=lambda name: ranks[name])
    wrong, p90_ms = ranks[best]
    if wrong:
        return Selected(
            best, "Every passed artifact gives wrong outputs on the device; nothing is fit to ship."
        )
    phones = "the device" if len(shared) == 1 else f"the slowest of {len(shared)} devices"
    return Selected(
        best,
        f"The fastest on {phones} ({p90_ms:.3g} ms p90, measured) of {len(candidates)} passed artifacts that "
        "the target runs.",
    )


def _is_artifact_too_doubtful_to_select(artifact: Artifact, synthetic: bool, allow_synthetic: bool) -> bool:
    """Tell whether an artifact's ranges come from synthetic inputs."""
    return synthetic and not allow_synthetic and artifact.variant.precision in QUANTIZED


def remark_on_selected_artifact(reason: str, chosen: Artifact | None) -> str:
    """Return the reason of a choice, without the claim that no device has measured it once one has."""
    measured = (
        [p90_ms for _, p90_ms in _phone_latencies_to_select_artifact(chosen).values()] if chosen else []
    )
    if not measured:
        return reason
    return reason.replace(
        UNMEASURED, f"a device measured it ({max(measured):.3g} ms p90), but not all of them"
    )


def _phone_latencies_to_select_artifact(artifact: Artifact) -> dict[str, tuple[bool, float]]:
    """Return serial -> whether the outputs were wrong, and p90; for real phones and pinned threads only."""
    return {
        latency.serial: (bool(latency.problem), latency.p90_ms)
        for latency in artifact.device_latencies
        if latency.evidence == "measured" and not latency.app_like
    }


def _rank_to_select_artifact(artifact: Artifact, runnable: Sequence[str]) -> tuple[bool, float, int]:
    """Rank by the estimated or the host's median; the target's own preference decides what has neither.

    What only the reference interpreter executed comes after everything that its own runtime did.
    """
    median = estimate_verdicts.best_estimate_verdict(artifact) or artifact.latency
    latency = median.p50_ms if median else float("inf")
    return artifact.executor != "runtime", latency, list(runnable).index(artifact.variant.name)


def _why_artifact_selected(best: Artifact, candidates: Sequence[Artifact], tied: Sequence[Artifact]) -> str:
    if len(tied) > 1:
        return f"{estimate_verdicts.estimate_verdict_tie_reason(best, tied)}; {UNMEASURED}"
    if best.estimates:
        return f"{estimate_verdicts.estimate_verdict_choice_reason(best, candidates)}; {UNMEASURED}"
    if best.latency is None:
        return f"The target's first choice of {len(candidates)} passed artifacts; none was timed"
    return (
        f"The fastest on this host ({best.latency.p50_ms:.3g} ms p50, {best.latency.threads} threads) of "
        f"{len(candidates)} passed artifacts that the target runs; {UNMEASURED}"
    )


def _why_no_artifact_selected(
    artifacts: Sequence[Artifact], runnable: Sequence[str], doubtful: Sequence[Artifact]
) -> str:
    if doubtful:
        return (
            "Only artifacts calibrated on synthetic inputs passed. Give photos with --calibration, or "
            "--allow-synthetic."
        )
    if not any(a.variant.name in runnable for a in artifacts):
        return "None of the artifacts asked for runs on the target."
    if any(a.status == "inconclusive" and a.variant.name in runnable for a in artifacts):
        return (
            "Too few scenes were seen to prove an artifact that the target runs. Give more with "
            "--calibration, or --allow-inconclusive."
        )
    return "No artifact that the target runs was proven equal to the original."
