"""Judge a device's outputs as verification does, and write its latency as a record of the manifest."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from exporter import files
from exporter.errors import ExportError
from exporter.records import SHIPPABLE, Array, Artifact, DeviceLatency, Sample
from exporter.verify.standard import Standard, judge_by_standard

QUANTILES = (5, 25, 50, 75, 95)


def judge_device_outputs(
    artifact: Artifact,
    standard: Standard,
    launches: Sequence[Sequence[Sample]],
    edge_outputs: Sequence[Sample] = (),
) -> tuple[float | None, str]:
    """Judge what every launch computed, by all that verification judges by.

    Args:
        artifact: The artifact that ran.
        standard: What its outputs are judged by.
        launches: For each launch, the model's outputs for each input.
        edge_outputs: Those for each edge input, which run once, after the launches; empty where a session
            was cut off before.

    Returns:
        The largest error of the output's scale (None when there is none to tell), and why these are not the
        model's outputs: an empty string when they are.
    """
    errors, problems = [0.0], []
    for outputs in launches:
        error, problem = _judge_device_outputs_of_launch(artifact, standard, outputs, edge_outputs)
        errors.append(error)
        problems.append(problem)
    if not launches:
        problems.append("The device sent no outputs.")
    problems.append(_differing_device_outputs(launches))
    worst = max(errors)
    finite = launches and math.isfinite(worst)
    return (worst if finite else None), next((problem for problem in problems if problem), "")


def _differing_device_outputs(launches: Sequence[Sequence[Sample]]) -> str:
    """Return which launch computed other outputs from the same inputs; an empty string when none did."""
    for number, outputs in enumerate(launches[1:], 2):
        for index, (first, again) in enumerate(zip(launches[0], outputs, strict=False)):
            if any(a.tobytes() != b.tobytes() for a, b in zip(first, again, strict=False)):
                return (
                    f"Launch {number} computes other outputs than launch 1 from the same input ({index}): "
                    "the device's results are not repeatable."
                )
    return ""


def _judge_device_outputs_of_launch(
    artifact: Artifact, standard: Standard, outputs: Sequence[Sample], edge_outputs: Sequence[Sample]
) -> tuple[float, str]:
    references = standard.references
    if len(outputs) != len(references.inputs[0]):
        return math.inf, f"The device answered {len(outputs)} of {len(references.inputs[0])} inputs."
    if not edge_outputs:
        standard = replace(standard, references=replace(references, edge_names=(), edge_floors=()))
    verdict = judge_by_standard(standard, artifact.variant, "", outputs, edge_outputs, on_device=True)
    error = verdict.comparison.max_error if verdict.comparison else math.inf
    # Too few scenes decide no more on a device than here: what was accepted here stays so.
    doubted = verdict.status == "inconclusive" and artifact.status in SHIPPABLE
    return error, "" if doubted else verdict.reason or ""


def latency_beside_device_outputs(
    fields: Mapping[str, Any], durations_ns: Sequence[Sequence[int]], budget_ms: float, samples_file: str
) -> DeviceLatency:
    """Return a latency of the harness, checked as if it had been read from a manifest.

    Args:
        fields: The fields that `android_harness.provenance.provenance_to_manifest` returns.
        durations_ns: The duration of each timed call, by launch.
        budget_ms: The budget of the verdict.
        samples_file: The name of the file of raw samples in OUT.

    Raises:
        ExportError: The harness contradicts itself.
    """
    from pydantic import ValidationError

    from exporter.report.manifest import manifest_latencies

    device = dict(fields["device"])
    extra = {
        "device": device,
        "why": device.pop("why", ()),
        "budget_ms": budget_ms,
        "samples_file": samples_file,
        "launch_ms": quantiles_of_device_outputs(durations_ns),
    }
    try:
        return manifest_latencies.check_manifest_latency({**fields, **extra})
    except ValidationError as error:
        raise ExportError(f"The harness' latency is refused: {error.errors()[0]['msg']}.") from None


def samples_file_of_device_outputs(artifact: str, serial: str, content: str = "") -> str:
    """Return the name of the file of raw samples: plain, and unique for every serial.

    Args:
        artifact: The artifact's name.
        serial: The device's serial.
        content: The samples; OUT names them by their hash too, so that no new file replaces one that the
            manifest lists. A release's names go without.
    """
    slug = re.sub(r"[^a-z0-9._-]+", "_", serial)[:60]
    if slug != serial:
        slug = f"{slug}-{hashlib.sha256(serial.encode()).hexdigest()[:8]}"
    version = f"-{hashlib.sha256(content.encode()).hexdigest()[:12]}" if content else ""
    return f"{files.DEVICE}/{artifact}-{slug}{version}.jsonl"


def quantiles_of_device_outputs(durations_ns: Sequence[Sequence[int]]) -> tuple[tuple[float, ...], ...]:
    """Compute p5, p25, p50, p75 and p95 of each launch, in ms."""
    import numpy as np

    return tuple(
        _launch_quantiles_of_device_outputs(np.asarray(launch)) for launch in durations_ns if len(launch)
    )


def _launch_quantiles_of_device_outputs(launch: Array) -> tuple[float, ...]:
    import numpy as np

    return tuple(float(value) / 1e6 for value in np.percentile(launch, QUANTILES))
