"""List what a release ships although a device's outputs or the export's own budget speak against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.errors import ReleaseError, UsageError
from exporter.records import DeviceLatency
from exporter.report.manifest.schema import Artifact, Manifest

if TYPE_CHECKING:
    from exporter.release.release_request import ReleaseRequest

HOST = "host"


def override_sentences(
    request: ReleaseRequest, listed: Manifest, chosen: Sequence[Artifact], labels: Mapping[str, str]
) -> tuple[str, ...]:
    """Return a sentence for every override: wrong outputs on a device, and another budget than the export's.

    Args:
        request: The request, whose `allow_wrong_on` names devices.
        listed: OUT's manifest.
        chosen: The artifacts of the release.
        labels: Serial -> the release's label for that device.

    Raises:
        UsageError: `allow_wrong_on` names a device that measured nothing of OUT.
        ReleaseError: An artifact gives wrong outputs on a device that is not named.
    """
    unknown = [name for name in request.allow_wrong_on if name not in {HOST, *labels}]
    if unknown:
        devices = ", ".join(labels) or "none"
        raise UsageError(f"--allow-wrong-on {unknown[0]!a}: no such device in OUT.", f"It has: {devices}.")
    return (*_wrong_without_override(request, chosen, labels), *_budget_override(listed))


def allowed_by_overrides(request: ReleaseRequest, artifact: Artifact) -> tuple[DeviceLatency, ...]:
    """Return an artifact's latencies, without the problem where the user allows wrong outputs."""
    return tuple(
        replace(item, problem="") if item.serial in request.allow_wrong_on else item
        for item in artifact.measured_on()
    )


def _wrong_without_override(
    request: ReleaseRequest, chosen: Sequence[Artifact], labels: Mapping[str, str]
) -> Iterator[str]:
    for artifact in chosen:
        for item in artifact.measured_on():
            if not item.problem:
                continue
            if not _is_allowed_by_override(request, item):
                raise ReleaseError(
                    f"{artifact.name} gives wrong outputs on {item.serial}: {item.problem}",
                    f"Find the cause, then measure it there again: export-mobile bench {request.out} "
                    f"--device {item.serial}.",
                    code="EM-WRONG-ON-DEVICE",
                )
            yield f"{artifact.name} gives wrong outputs on {labels.get(item.serial, item.serial)}: " + (
                item.problem
            )


def _is_allowed_by_override(request: ReleaseRequest, latency: DeviceLatency) -> bool:
    """Tell whether the user accepts this device's outputs; --allow-unmeasured accepts only this machine's."""
    unmeasured = request.allow_unmeasured and latency.evidence == HOST
    return latency.serial in request.allow_wrong_on or unmeasured


def _budget_override(listed: Manifest) -> Iterator[str]:
    own_ms = listed.export_budget_ms
    if own_ms is not None:
        yield (
            f"The verdicts are about a budget of {listed.budget_ms:g} ms that `bench --budget` gave; the "
            f"export's own is {own_ms:g} ms."
        )
