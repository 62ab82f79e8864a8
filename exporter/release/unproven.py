"""Refuse what no runtime or no phone has proven, or say in the release that the user allowed it."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.config import targets
from exporter.errors import ReleaseError
from exporter.records import SHIPPABLE, BudgetVerdict
from exporter.release import overrides
from exporter.release.release_request import ReleaseRequest
from exporter.report.manifest.schema import Artifact, Manifest
from exporter.verify import budget


def unproven_sentence(artifact: Artifact, request: ReleaseRequest) -> str:
    """Return the bundle's sentence about an unverified artifact.

    Raises:
        ReleaseError: It failed, or the user did not allow it.
    """
    if artifact.status in SHIPPABLE and artifact.executor != "runtime":
        return _unproven_by_own_runtime(artifact, request)
    if artifact.status == "inconclusive":
        return _unproven_by_scenes(artifact, request)
    if artifact.status != "not_run" or not artifact.file:
        raise ReleaseError(f"{artifact.name} did not pass: {artifact.reason or artifact.status}")
    if artifact.name not in request.allow_unverified:
        raise ReleaseError(
            f"{artifact.name} was never executed, so nothing proves it. {artifact.reason or ''}",
            "Export where it can run.",
            code="EM-UNVERIFIED",
        )
    return f"{artifact.name} was never executed, so nothing proves it. {artifact.reason}"


def _unproven_by_own_runtime(artifact: Artifact, request: ReleaseRequest) -> str:
    """Return the bundle's sentence about an artifact that its own runtime never executed.

    Raises:
        ReleaseError: The user did not allow it.
    """
    sentence = f"{artifact.name} was executed by the {artifact.executor} only, never by its own runtime."
    if artifact.name not in request.allow_unverified:
        raise ReleaseError(sentence, "Export where it can run.", code="EM-UNVERIFIED")
    if artifact.status == "inconclusive":
        return f"{sentence} {_unproven_by_scenes(artifact, request)}"
    return sentence


def _unproven_by_scenes(artifact: Artifact, request: ReleaseRequest) -> str:
    """Return the bundle's sentence about an artifact whose scenes are too few to prove it.

    Raises:
        ReleaseError: The user did not allow it.
    """
    sentence = f"{artifact.name} is not proven. {artifact.reason}"
    if not request.allow_inconclusive:
        raise ReleaseError(sentence, "Export with more scenes.", code="EM-UNPROVEN")
    return sentence


BUDGET_WORDS: dict[BudgetVerdict, str] = {
    "not_measured": "No phone has measured {name}: whether it meets {budget:g} ms on {target} is open.",
    "inconclusive": "{name} was measured inconclusively: whether it meets {budget:g} ms on {target} is open.",
    "fail": "{name} is over its budget of {budget:g} ms on {target}: {seen}.",
}


def unproven_speed_sentences(
    request: ReleaseRequest, listed: Manifest, chosen: Sequence[Artifact]
) -> tuple[str, ...]:
    """Return a sentence for every artifact that the target runs and no phone has measured to be fast enough.

    Raises:
        ReleaseError: An artifact is over budget, or is unmeasured and that is not allowed.
    """
    target = {target.name: target for target in targets.TARGETS}.get(listed.target.name)
    words = []
    for artifact in chosen:
        verdict = budget.budget_verdict(overrides.allowed_by_overrides(request, artifact), listed.budget_ms)
        if verdict == "pass" or (target and artifact.name not in target.runnable):
            continue
        sentence = BUDGET_WORDS[verdict].format(
            name=artifact.name,
            budget=listed.budget_ms,
            target=listed.target.name,
            seen=_interval_of_unproven_speed(artifact, listed.budget_ms),
        )
        if verdict == "fail":
            raise ReleaseError(
                sentence,
                f"Make it faster, then measure it again: export-mobile bench {request.out}.",
                code="EM-OVER-BUDGET",
            )
        if not request.allow_unmeasured:
            raise ReleaseError(
                sentence,
                f"Measure it: export-mobile bench {request.out}.",
                code="EM-UNMEASURED",
            )
        words.append(sentence)
    return tuple(words)


def _interval_of_unproven_speed(artifact: Artifact, budget_ms: float) -> str:
    """Return the interval of the device that counts, with its serial, for a refusal."""
    counts = budget.worst_for_budget(artifact.measured_on(), budget_ms)
    if counts is None:
        return ""
    low, high = counts.p90_ci_ms
    if counts.exceeded:
        return " ".join((f"on {counts.serial}:", *counts.exceeded)).rstrip(".")
    return f"p90 is {low:g} to {high:g} ms on {counts.serial}"
