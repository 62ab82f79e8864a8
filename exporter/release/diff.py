"""Compare two exports or releases: what is better, what is worse, what else changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exporter import files
from exporter.release import check
from exporter.release import zip as archive
from exporter.report import manifest
from exporter.report.manifest.schema import Artifact, Manifest

Word = Literal["better", "worse", "same", "changed", "new", "gone"]


@dataclass(frozen=True)
class Line:
    """One value before and after. A figure that one side does not have is None."""

    what: str
    before: float | str | None
    after: float | str | None
    word: Word


@dataclass(frozen=True)
class ArtifactDiff:
    name: str
    word: Word
    """The change: new, gone, same (the same bytes), or changed."""
    lines: tuple[Line, ...]
    operators: Mapping[str, tuple[int, int]]
    """The operators whose count differs: name -> before, after."""


@dataclass(frozen=True)
class Diff:
    before: str
    after: str
    facts: tuple[Line, ...]
    """Facts about the two: model, target, choice, verdict, versions of the tools."""
    artifacts: tuple[ArtifactDiff, ...]


@dataclass(frozen=True)
class Figure:
    """The rule by which one figure of an artifact is compared."""

    higher_is_better: bool
    relative: float = 0.0
    """A difference below this share of the larger value counts as the same: a host's latencies differ by
    a tenth from run to run, an error by the order of a sum."""
    absolute: float = 0.0


FIGURES: Mapping[str, Figure] = {
    "size_bytes": Figure(False),
    "max_error": Figure(False, relative=0.05),
    "sqnr_db": Figure(True, absolute=0.1),
    "top1_agreement": Figure(True),
    "accuracy_top1": Figure(True),
    "quantized_weight_fraction": Figure(True, absolute=0.005),
    "delegated_fraction": Figure(True, absolute=0.005),
    "host_p50_ms": Figure(False, relative=0.1),
    "device_p90_ms": Figure(False),
}


def diff_releases(before: Path, after: Path) -> Diff:
    """Compare two OUT folders, release folders or release zips, in any mixture.

    Nothing is refused for being too different: another target or model is reported as a line.

    Raises:
        VerificationError: One of them has no manifest that can be read.
    """
    first, second = read_for_diff(before), read_for_diff(after)
    rows = {a.name: a for a in first.artifacts}, {a.name: a for a in second.artifacts}
    names = dict.fromkeys((*rows[0], *rows[1]))
    return Diff(
        _diff_label(before, first),
        _diff_label(after, second),
        _diff_facts(first, second),
        tuple(_diff_artifact(name, rows[0].get(name), rows[1].get(name)) for name in names),
    )


def read_for_diff(path: Path) -> Manifest:
    """Read the manifest of an export or a release.

    Raises:
        VerificationError: There is none, or the archive is hostile.
    """
    if path.is_dir() and check.is_release_to_check(path):
        path = check.zip_of_checked_release(path)
    if not path.is_file():
        return manifest.load_manifest(path / files.MANIFEST)
    with archive.unpacked_zip(path) as inside:
        return manifest.load_manifest(inside / files.MANIFEST)


def _diff_label(path: Path, listed: Manifest) -> str:
    release = listed.release
    return f"{path} ({release.name} {release.version})" if release else str(path)


def _diff_facts(first: Manifest, second: Manifest) -> tuple[Line, ...]:
    tools = dict.fromkeys((*first.tool, *second.tool))
    pairs: dict[str, tuple[float | str | None, float | str | None]] = {
        "release": (
            first.release.version if first.release else None,
            second.release.version if second.release else None,
        ),
        "network": (first.source.architecture, second.source.architecture),
        "checkpoint": (first.source.sha256, second.source.sha256),
        "parameters": (first.source.parameters, second.source.parameters),
        "target": (first.target.name, second.target.name),
        "budget_ms": (first.budget_ms, second.budget_ms),
        "calibration": (_diff_data(first), _diff_data(second)),
        "selected": (first.selected, second.selected),
        "budget": (first.verdict.budget, second.verdict.budget),
        **{tool: (first.tool.get(tool), second.tool.get(tool)) for tool in tools},
    }
    return tuple(Line(title, a, b, "same" if a == b else "changed") for title, (a, b) in pairs.items())


def _diff_data(listed: Manifest) -> str:
    return f"{listed.calibration.count} {listed.calibration.kind}"


def _diff_artifact(name: str, before: Artifact | None, after: Artifact | None) -> ArtifactDiff:
    word: Word = "changed"
    if before is None or after is None:
        word = "new" if before is None else "gone"
    elif before.sha256 == after.sha256 and before.sha256:
        word = "same"
    status = Line(
        "status",
        before.status if before else None,
        after.status if after else None,
        _diff_status_word(before, after),
    )
    values = _diff_figures(before), _diff_figures(after)
    lines = [
        Line(figure, values[0][figure], values[1][figure], _diff_word(figure, before, after))
        for figure in FIGURES
        if values[0][figure] is not None or values[1][figure] is not None
    ]
    return ArtifactDiff(name, word, (status, *lines), _diff_operators(before, after))


def _diff_status_word(before: Artifact | None, after: Artifact | None) -> Word:
    if before is None or after is None:
        return "new" if before is None else "gone"
    if before.status == after.status:
        return "same"
    if "passed" in {before.status, after.status}:
        return "better" if after.status == "passed" else "worse"
    return "changed"


def _diff_figures(artifact: Artifact | None) -> dict[str, float | None]:
    if artifact is None:
        return dict.fromkeys(FIGURES)
    verification, host, device = artifact.verification, artifact.host_latency, artifact.device_latency
    return {
        "size_bytes": artifact.size_bytes,
        "max_error": verification.max_error if verification else None,
        "sqnr_db": verification.sqnr_db if verification else None,
        "top1_agreement": verification.top1_agreement if verification else None,
        "accuracy_top1": artifact.accuracy.top1 if artifact.accuracy else None,
        "quantized_weight_fraction": artifact.quantized_weight_fraction,
        "delegated_fraction": artifact.delegated_fraction,
        "host_p50_ms": host.p50_ms if host else None,
        "device_p90_ms": device.p90_ms if device else None,
    }


def _diff_word(what: str, one: Artifact | None, other: Artifact | None) -> Word:
    before, after = _diff_figures(one)[what], _diff_figures(other)[what]
    if before is None or after is None:
        return "new" if before is None else "gone"
    assert one is not None
    assert other is not None
    if what == "device_p90_ms" and (same := _diff_device_word(one, other)):
        return same
    if what == "accuracy_top1" and _diff_intervals_overlap(_diff_top1(one), _diff_top1(other)):
        return "same"
    if what == "host_p50_ms" and one.sha256 == other.sha256 and before != after:
        return "changed"  # the same file: it is the host that differs
    how = FIGURES[what]
    if abs(after - before) <= max(how.absolute, how.relative * max(abs(before), abs(after))):
        return "same"
    return "better" if (after > before) == how.higher_is_better else "worse"


def _diff_device_word(before: Artifact, after: Artifact) -> Word | None:
    """Return "same" for overlapping intervals, "changed" for other devices or evidence, else None."""
    a, b = before.device_latency, after.device_latency
    assert a is not None
    assert b is not None
    keys = ("model", "soc")
    if a.evidence != b.evidence or any(a.device.get(k) != b.device.get(k) for k in keys):
        return "changed"
    return "same" if _diff_intervals_overlap(a.p90_ci_ms, b.p90_ci_ms) else None


def _diff_top1(artifact: Artifact) -> tuple[float, float]:
    assert artifact.accuracy is not None
    return artifact.accuracy.top1_interval


def _diff_intervals_overlap(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return first[0] <= second[1] and second[0] <= first[1]


def _diff_operators(before: Artifact | None, after: Artifact | None) -> Mapping[str, tuple[int, int]]:
    if before is None or after is None or before.structure is None or after.structure is None:
        return {}
    a, b = before.structure.operators, after.structure.operators
    return {name: (a.get(name, 0), b.get(name, 0)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}
