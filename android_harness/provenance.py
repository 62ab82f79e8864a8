"""Decide what a session proves. Only this module makes latencies, and it fails closed.

A latency is "measured" only if every proof of a real phone is present; without one it is "simulated".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from android_harness import cpu_clocks, energy, latency_stats, session_limits, socs
from android_harness.identity import ARM_IMPLEMENTERS
from android_harness.latencies import Figures, HostLatency, Latency, MeasuredLatency, SimulatedLatency
from android_harness.records import HOST, Identity, Launch, Session, Verdict

MIN_LAUNCHES_TO_PASS, MIN_CALLS_TO_PASS = 4, 200
"""The evidence that a PASS needs: docs/explanation/measurement-protocol.md, section 4.5."""


APP_LIKE = "shell, as an app runs"


@dataclass(frozen=True)
class ProvenanceCheck:
    """The comparison of a session's outputs with those of the float64 model."""

    max_error: float | None
    problem: str
    """Why the outputs are not the model's; empty if they are."""


def latency_with_provenance(
    session: Session, figures: Figures, check: ProvenanceCheck, budget_ms: float
) -> Latency:
    """Make the latency that a session proves: measured, simulated or of the host.

    Args:
        session: The raw evidence.
        figures: `latency_stats.latency_stats(session)`.
        check: The comparison of the session's outputs.
        budget_ms: The budget of a measured latency.
    """
    energy_mj, energy_problem = energy.energy_per_call(session)
    common: dict[str, Any] = {
        "artifact": session.task.name,
        "device": _device_of_provenance(session),
        "figures": replace(figures, flags=(*figures.flags, *_uncertain_provenance(session, check))),
        "max_error": check.max_error,
        "problem": check.problem,
        "exceeded": session_limits.exceeded_session_limits(session.config, figures),
        "peak_pss_bytes": session_limits.peak_pss_bytes_for_session_limit(session),
        "energy_mj": energy_mj,
        "energy_problem": energy_problem,
        "operators": session.operators,
        "started_at": session.started_at,
    }
    if session.identity.serial == HOST:
        return HostLatency(**common)
    missing = tuple(_missing_provenance(session))
    if missing:
        return SimulatedLatency(**common, why=missing)
    return MeasuredLatency(**common, budget_ms=budget_ms)


def _uncertain_provenance(session: Session, check: ProvenanceCheck) -> Iterator[str]:
    if not check.problem and (check.max_error is None or not math.isfinite(check.max_error)):
        yield "outputs: they were not compared with the model's"


def _missing_provenance(session: Session) -> Iterator[str]:
    identity = session.identity
    yield from identity.doubts
    if identity.machine != "aarch64":
        yield f"uname says {identity.machine!r}, not 'aarch64'."
    if not session.launches:
        yield "No launch has finished."
    for launch in session.launches:
        yield from _missing_provenance_of(launch, identity)


def _missing_provenance_of(launch: Launch, identity: Identity) -> Iterator[str]:
    subject = f"Launch {launch.index}:"
    system = (launch.runner.get("os"), launch.runner.get("arch"))
    if system != ("android", "aarch64"):
        yield f"{subject} the runner is a program for {system[0]} on {system[1]}, not for Android on aarch64."
    if launch.machine != "aarch64":
        yield f"{subject} the runner sees a {launch.machine!r} machine, not 'aarch64'."
    if not launch.parts or any(implementer not in ARM_IMPLEMENTERS for implementer, _ in launch.parts):
        yield f"{subject} the runner sees cores that no phone has, or none."
    woken = bool(identity.parked) and set(identity.parts) <= set(launch.parts)
    if launch.parts != identity.parts and not woken:
        yield f"{subject} the runner sees other cores than the device's /proc/cpuinfo lists."


def _device_of_provenance(session: Session) -> dict[str, Any]:
    identity = session.identity
    first = session.launches[0] if session.launches else None
    return {
        "serial": identity.serial,
        "manufacturer": identity.manufacturer,
        "model": identity.model,
        "soc": identity.soc or socs.UNKNOWN,
        "chip": identity.chip,
        "android": identity.android,
        "fingerprint": identity.fingerprint,
        "kernel": identity.kernel,
        "runtime": first.runtime if first else "",
        "runner": dict(first.runner) if first else {},
        "power": session.before.plugged,
        # An app may be scheduled differently, especially with several threads.
        "context": APP_LIKE if session.config.app_like else "shell",
        "launch_spread": round(latency_stats.latency_stats_of_launch_spread(session), 5),
        "clock_state": cpu_clocks.cpu_clock_state(session),
        "governors": list(session.before.governors),
        "max_khz": [cluster.max_khz for cluster in identity.clusters],
        "threads": session.config.threads,
        "affinity": session.config.affinity,
    }


def verdict_by_provenance(latency: Latency) -> Verdict:
    """Judge a latency against its budget; only a measured latency has a verdict.

    Wrong outputs fail at any speed, and so does an interval that is wholly above the budget. An unstable or
    unchecked session never passes.
    """
    if not isinstance(latency, MeasuredLatency):
        return "not_measured"
    if latency.problem or latency.exceeded:
        return "fail"
    verdict_of_interval = latency_stats.verdict_by_latency_stats(latency.figures.p90_ci_ms, latency.budget_ms)
    if verdict_of_interval == "pass" and (
        latency.figures.flags or not _is_provenance_enough_to_pass(latency)
    ):
        return "inconclusive"
    return verdict_of_interval


def _is_provenance_enough_to_pass(latency: MeasuredLatency) -> bool:
    figures = latency.figures
    return figures.launches >= MIN_LAUNCHES_TO_PASS and figures.samples >= MIN_CALLS_TO_PASS


def provenance_to_manifest(latency: Latency) -> dict[str, Any]:
    """Return a latency as the manifest's `device_latency`, with finite numbers or null."""
    figures = dict(vars(latency.figures))
    interval = [figures.pop("p90_low_ms"), figures.pop("p90_high_ms")]
    return figures | {
        "evidence": latency.evidence,
        "device": _described_provenance(latency),
        "p90_ci_ms": [finite_in_provenance(limit) for limit in interval],
        "flags": list(latency.figures.flags),
        "max_error": finite_in_provenance(latency.max_error),
        "verdict": verdict_by_provenance(latency),
        "problem": latency.problem,
        "exceeded": list(latency.exceeded),
        "peak_pss_bytes": latency.peak_pss_bytes,
        "energy_mj": latency.energy_mj,
        "energy_problem": latency.energy_problem,
        "operators": [asdict(operator) for operator in latency.operators],
        "started_at": latency.started_at,
    }


def _described_provenance(latency: Latency) -> dict[str, Any]:
    """Return the device, with the missing proof of a simulated latency."""
    missing = latency.why if isinstance(latency, SimulatedLatency) else ()
    return {**latency.device, **({"why": list(missing)} if missing else {})}


def finite_in_provenance(value: float | None) -> float | None:
    """Return a number that JSON and the history can hold; None for one that is not finite."""
    return value if value is not None and math.isfinite(value) else None
