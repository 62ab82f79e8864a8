"""Plan a release: check the request by OUT's manifest, and refuse what must not be shipped."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from exporter import files
from exporter.config import cards
from exporter.config.cards import Card
from exporter.errors import ReleaseError, UsageError
from exporter.files import EVIDENCE
from exporter.records import SHIPPABLE
from exporter.release import intact, overrides, serials, source_date
from exporter.release.release_request import ReleaseRequest
from exporter.release.unproven import unproven_sentence, unproven_speed_sentences
from exporter.report import manifest, text
from exporter.report.manifest.schema import Artifact, Manifest
from exporter.verify import budget

VERSION = re.compile(r"\d+(\.\d+){0,3}(-[0-9A-Za-z]+(\.[0-9A-Za-z]+)*)?")
NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
GROUP = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
ANDROID = ("executorch", "onnx", "torchscript")
"""Formats that an Android library can hold."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A release that passed every check."""

    request: ReleaseRequest
    name: str
    date: datetime
    manifest: Manifest
    """The bundle's manifest: OUT's, with the chosen artifacts only."""
    text: str
    """The same as JSON, with every field of OUT's manifest."""
    devices: Mapping[str, str]
    """Serial -> label: the bundle's name for a device."""
    samples: Mapping[str, bytes]
    """The bundle's files of raw samples: OUT's without serials."""
    not_measured: tuple[str, ...]
    """Sentences about what no phone has measured but should have."""
    not_verified: tuple[str, ...]
    """Sentences about what could not be executed and is included because the user allowed it."""
    overridden: tuple[str, ...] = ()
    """Sentences about what the user overrode: wrong outputs on a device, the export's own budget."""
    card: Card | None = None
    remarks: tuple[str, ...] = field(default=())
    """Sentences for the user about what is left out, and why."""

    @property
    def title(self) -> str:
        return f"{self.name}-{self.request.version}"

    @property
    def android(self) -> Artifact | None:
        """Return the artifact for the Android library."""
        return plan_android_release(self.manifest)

    @property
    def apple(self) -> Artifact | None:
        """Return the artifact for the Swift package."""
        return plan_apple_release(self.manifest)

    def path(self, artifact: Artifact) -> Path:
        return self.request.out / str(artifact.file)


def plan_android_release(listed: Manifest) -> Artifact | None:
    """Return the artifact of a bundle that its Android library holds; None when none fits."""
    return next((a for a in listed.artifacts if a.format in ANDROID), None)


def plan_apple_release(listed: Manifest) -> Artifact | None:
    """Return the artifact of a bundle that its Swift package holds: Core ML before ExecuTorch on the CPU."""
    rows = listed.artifacts
    core_ml = next((a for a in rows if a.format == "coreml"), None)
    return core_ml or next((a for a in rows if a.format == "executorch" and a.backend == "xnnpack"), None)


def plan_release(request: ReleaseRequest) -> Plan:
    """Choose the artifacts, and refuse what must not be released.

    Raises:
        UsageError: A name, version, file or artifact is invalid.
        VerificationError: OUT differs from its manifest.
        ReleaseError: An artifact did not pass, gives wrong outputs on a device, is over budget, or is
            unmeasured, and that is not allowed.
    """
    _check_planned_words(request)
    listed = manifest.load_manifest(request.out / files.MANIFEST)
    chosen = _plan_released_artifacts(request, listed)
    not_verified = tuple(
        unproven_sentence(artifact, request)
        for artifact in chosen
        if artifact.status != "passed" or artifact.executor != "runtime"
    )
    labels = serials.serial_labels(listed)
    overridden = overrides.override_sentences(request, listed, chosen, labels)
    not_measured = unproven_speed_sentences(request, listed, chosen)
    name = request.name or network_name_for_plan(listed)
    statements = {"not_measured": not_measured, "not_verified": not_verified, "overridden": overridden}
    narrowed = _make_manifest_for_plan(request, listed, chosen, name, statements)
    intact.check_intact(request.out, _parse_manifest_of_plan(request, _manifest_text_of_plan(narrowed)))
    hidden, samples = serials.hide_serials(request.out, narrowed, labels)
    return Plan(
        request,
        name,
        source_date.source_date_clock(),
        _parse_manifest_of_plan(request, _manifest_text_of_plan(hidden)),
        _manifest_text_of_plan(hidden),
        labels,
        samples,
        not_measured,
        not_verified,
        overridden,
        _read_card_for_plan(request, listed),
        _explain_left_out_of_plan(request, listed, chosen),
    )


def _read_card_for_plan(request: ReleaseRequest, listed: Manifest) -> Card | None:
    """Read the card of `--card`, which must describe the exported checkpoint.

    Raises:
        UsageError: It is no model card, or it describes another model.
    """
    if request.card is None:
        return None
    card = cards.load_card(request.card)
    meant = card.listed.checkpoint.sha256
    if not listed.source.sha256.startswith(meant):
        raise UsageError(
            f"{card} describes another model: its checkpoint has sha256 {meant}, the one that {request.out} "
            f"was exported from has {listed.source.sha256}.",
            "Give the card of this model, or export the other.",
        )
    return card


def _check_planned_words(request: ReleaseRequest) -> None:
    words = (
        ("--version", request.version, VERSION, "1.4.0 or 1.4.0-rc.1"),
        ("--group", request.group, GROUP, "com.example.models"),
        ("--name", request.name or "model", NAME, "mobilenet_v2 (small letters, digits, - and _)"),
    )
    for option, word, pattern, example in words:
        if not pattern.fullmatch(word) or len(word) > 100:
            raise UsageError(f"{option} {word!a} cannot be used.", f"Expected something like {example}.")
    if "snapshot" in request.version.lower():
        raise UsageError(f"--version {request.version}: a snapshot changes, a release does not.")
    for option, file in (("--license", request.licence), ("--card", request.card), ("--key", request.key)):
        if file is not None and not file.is_file():
            raise UsageError(f"{option} {file}: {'not a file' if file.exists() else 'no such file'}.")


def network_name_for_plan(listed: Manifest) -> str:
    """Return the network's name: torchvision/resnet18 gives "resnet18", mypkg.nets:make_net "make_net"."""
    last = re.split(r"[/:.]", listed.source.architecture)[-1].lower()
    name = re.sub(r"[^a-z0-9]+", "_", last).lstrip("_0123456789").rstrip("_")
    return name if NAME.fullmatch(name) else "model"


BY_NAME_ONLY: Mapping[str, str] = {
    "onnx-qnn": "Qualcomm's compiler wrote a part of it, and Qualcomm's licence decides who may pass that on"
}
"""Format -> why its artifacts enter a release only where the user names them."""


def _plan_released_artifacts(request: ReleaseRequest, listed: Manifest) -> tuple[Artifact, ...]:
    rows = {artifact.name: artifact for artifact in listed.artifacts}
    unknown = [n for n in (*request.artifacts, *request.allow_unverified) if n not in rows]
    if unknown:
        raise UsageError(f"OUT has no artifact {unknown[0]!a}.", f"It has: {', '.join(rows)}.")
    names = list(request.artifacts)
    if not names:
        if listed.selected is None:
            raise ReleaseError(
                f"Nothing in {request.out} can be shipped. {listed.selection_reason}".strip(),
                "report.html says what did not pass, and why.",
            )
        if rows[listed.selected].format in BY_NAME_ONLY:
            raise ReleaseError(
                f"{listed.selected} is not released unasked: {BY_NAME_ONLY[rows[listed.selected].format]}.",
                f"If you may pass it on, give --artifacts {listed.selected}.",
                code="EM-LICENCE-OF-TOOL",
            )
        names = [listed.selected]
        names += [
            a.name
            for a in listed.artifacts
            if a.format == "coreml" and a.status == "passed" and a.executor == "runtime"
        ][:1]
    return tuple(rows[n] for n in dict.fromkeys((*names, *request.allow_unverified)))


def _explain_left_out_of_plan(
    request: ReleaseRequest, listed: Manifest, chosen: Sequence[Artifact]
) -> tuple[str, ...]:
    words = []
    core_ml = [a for a in listed.artifacts if a.format == "coreml" and a.file]
    if core_ml and not any(a.format == "coreml" for a in chosen):
        first = core_ml[0]
        words.append(
            f"{first.name} is left out: {first.reason or first.status}"
            if first.status == "not_run"
            else f"{first.name} is left out: it is {text.status_text(first.status, first.executor)}."
        )
    if request.licence is None:
        words.append("No licence is included: give --license FILE.")
    return tuple(words)


def _make_manifest_for_plan(
    request: ReleaseRequest,
    listed: Manifest,
    chosen: Sequence[Artifact],
    name: str,
    statements: Mapping[str, tuple[str, ...]],
) -> dict[str, Any]:
    """Reduce OUT's manifest to the chosen artifacts and their evidence, and describe the release in it."""
    raw: dict[str, Any] = json.loads((request.out / files.MANIFEST).read_text("utf-8"))
    order = [artifact.name for artifact in chosen]
    rows = {row["name"]: row for row in raw["artifacts"]}
    raw["artifacts"] = [rows[name] for name in order]
    first = next((artifact for artifact in chosen if artifact.status in SHIPPABLE), None)
    selected = listed.selected if listed.selected in order else first and first.name
    raw["selected"] = selected
    if first and selected != listed.selected:
        raw["selection_reason"] = "Chosen by name for this release."
        raw["verdict"]["budget"] = budget.budget_verdict(first.measured_on(), listed.budget_ms)
        raw["verdict"]["numerics"] = first.status
    if first is None:
        raw["verdict"] = {"numerics": "not_run", "budget": "not_measured"}
    needed = _evidence_files_of_plan(chosen)
    raw["evidence"]["files"] = [row for row in raw["evidence"]["files"] if row["file"] in needed]
    raw["release"] = {"name": name, "version": request.version, "group": request.group, **statements}
    return raw


def _manifest_text_of_plan(raw: dict[str, Any]) -> str:
    return json.dumps(raw, indent=2, ensure_ascii=False) + "\n"


def _parse_manifest_of_plan(request: ReleaseRequest, text: str) -> Manifest:
    return manifest.parse_manifest(text.encode(), request.out / files.MANIFEST)


def _evidence_files_of_plan(chosen: Sequence[Artifact]) -> set[str]:
    """Return the names of the files that prove what the chosen artifacts claim."""
    samples = {latency.samples_file for a in chosen for latency in a.measured_on() if latency.samples_file}
    programs = {files.lowering_file(a.precision, a.name) for a in chosen}
    return {EVIDENCE, *programs, *(files.simulation_file(a.precision) for a in chosen), *samples}
