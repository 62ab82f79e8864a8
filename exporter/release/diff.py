"""Two exports or releases side by side: what is better, what is worse, what is something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exporter import files, held
from exporter.release import check
from exporter.release import zip as archive
from exporter.report import manifest
from exporter.report.manifest.schema import Artifact, Manifest

Word = Literal["better", "worse", "same", "changed", "new", "gone"]


@dataclass(frozen=True)
class Line:
    """One thing, before and after. A figure that one side does not have is None."""

    what: str
    before: float | str | None
    after: float | str | None
    word: Word


@dataclass(frozen=True)
class ArtifactDiff:
    name: str
    word: Word
    """new, gone, same (the same bytes), or changed."""
    lines: tuple[Line, ...]
    operators: Mapping[str, tuple[int, int]]
    """Those whose count differs: name -> before, after."""


@dataclass(frozen=True)
class Diff:
    before: str
    after: str
    facts: tuple[Line, ...]
    """What the two are: model, target, choice, verdict, versions of the tools."""
    artifacts: tuple[ArtifactDiff, ...]


@dataclass(frozen=True)
class Figure:
    """How one figure of an artifact is judged."""

    higher_is_better: bool
    relative: float = 0.0
    """Closer than this share of the larger one counts as the same: a host's latencies differ by a tenth from
    run to run, an error by the order of a sum."""
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


def diff(before: Path, after: Path) -> Diff:
    """Compare two OUT folders, release folders or release zips, in any mixture.

    Nothing is refused for being too different: another target or model is a line that says so.

    Raises:
        VerificationError: One of them has no manifest that can be read.
    """
    one, other = read(before), read(after)
    rows = {a.name: a for a in one.artifacts}, {a.name: a for a in other.artifacts}
    names = dict.fromkeys((*rows[0], *rows[1]))
    return Diff(
        _label(before, one),
        _label(after, other),
        _facts(one, other),
        tuple(_artifact(name, rows[0].get(name), rows[1].get(name)) for name in names),
    )


def read(path: Path) -> Manifest:
    """The manifest of an export or a release.

    Raises:
        VerificationError: There is none, or the archive is hostile.
    """
    if path.is_dir() and check.is_release(path):
        path = check.zip_of(path)
    if not path.is_file():
        return manifest.load(path / files.MANIFEST)
    with held.scratch("diff") as scratch:
        inside = scratch / "zip"
        inside.mkdir()
        archive.unpack(path, inside)
        return manifest.load(inside / files.MANIFEST)


def _label(path: Path, listed: Manifest) -> str:
    release = listed.release
    return f"{path} ({release.name} {release.version})" if release else str(path)


def _facts(one: Manifest, other: Manifest) -> tuple[Line, ...]:
    tools = dict.fromkeys((*one.tool, *other.tool))
    pairs: dict[str, tuple[float | str | None, float | str | None]] = {
        "release": (
            one.release.version if one.release else None,
            other.release.version if other.release else None,
        ),
        "network": (one.source.architecture, other.source.architecture),
        "checkpoint": (one.source.sha256, other.source.sha256),
        "parameters": (one.source.parameters, other.source.parameters),
        "target": (one.target.name, other.target.name),
        "budget_ms": (one.budget_ms, other.budget_ms),
        "calibration": (_data(one), _data(other)),
        "selected": (one.selected, other.selected),
        "budget": (one.verdict.budget, other.verdict.budget),
        **{tool: (one.tool.get(tool), other.tool.get(tool)) for tool in tools},
    }
    return tuple(Line(what, a, b, "same" if a == b else "changed") for what, (a, b) in pairs.items())


def _data(listed: Manifest) -> str:
    return f"{listed.calibration.count} {listed.calibration.kind}"


def _artifact(name: str, one: Artifact | None, other: Artifact | None) -> ArtifactDiff:
    word: Word = "changed"
    if one is None or other is None:
        word = "new" if one is None else "gone"
    elif one.sha256 == other.sha256 and one.sha256:
        word = "same"
    status = Line(
        "status", one.status if one else None, other.status if other else None, _status_word(one, other)
    )
    values = _figures(one), _figures(other)
    lines = [
        Line(what, values[0][what], values[1][what], _word(what, one, other))
        for what in FIGURES
        if values[0][what] is not None or values[1][what] is not None
    ]
    return ArtifactDiff(name, word, (status, *lines), _operators(one, other))


def _status_word(one: Artifact | None, other: Artifact | None) -> Word:
    if one is None or other is None:
        return "new" if one is None else "gone"
    if one.status == other.status:
        return "same"
    if "passed" in {one.status, other.status}:
        return "better" if other.status == "passed" else "worse"
    return "changed"


def _figures(artifact: Artifact | None) -> dict[str, float | None]:
    if artifact is None:
        return dict.fromkeys(FIGURES)
    found, host, device = artifact.verification, artifact.host_latency, artifact.device_latency
    return {
        "size_bytes": artifact.size_bytes,
        "max_error": found.max_error if found else None,
        "sqnr_db": found.sqnr_db if found else None,
        "top1_agreement": found.top1_agreement if found else None,
        "accuracy_top1": artifact.accuracy.top1 if artifact.accuracy else None,
        "quantized_weight_fraction": artifact.quantized_weight_fraction,
        "delegated_fraction": artifact.delegated_fraction,
        "host_p50_ms": host.p50_ms if host else None,
        "device_p90_ms": device.p90_ms if device else None,
    }


def _word(what: str, one: Artifact | None, other: Artifact | None) -> Word:
    before, after = _figures(one)[what], _figures(other)[what]
    if before is None or after is None:
        return "new" if before is None else "gone"
    assert one is not None
    assert other is not None
    if what == "device_p90_ms" and (same := _device_word(one, other)):
        return same
    if what == "accuracy_top1" and _overlap(_top1(one), _top1(other)):
        return "same"
    if what == "host_p50_ms" and one.sha256 == other.sha256 and before != after:
        return "changed"  # the same file: it is the host that differs
    how = FIGURES[what]
    if abs(after - before) <= max(how.absolute, how.relative * max(abs(before), abs(after))):
        return "same"
    return "better" if (after > before) == how.higher_is_better else "worse"


def _device_word(one: Artifact, other: Artifact) -> Word | None:
    """Intervals that overlap say nothing; other devices or other evidence cannot be compared."""
    a, b = one.device_latency, other.device_latency
    assert a is not None
    assert b is not None
    keys = ("model", "soc")
    if a.evidence != b.evidence or any(a.device.get(k) != b.device.get(k) for k in keys):
        return "changed"
    return "same" if _overlap(a.p90_ci_ms, b.p90_ci_ms) else None


def _top1(artifact: Artifact) -> tuple[float, float]:
    assert artifact.accuracy is not None
    return artifact.accuracy.top1_interval


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _operators(one: Artifact | None, other: Artifact | None) -> Mapping[str, tuple[int, int]]:
    if one is None or other is None or one.structure is None or other.structure is None:
        return {}
    a, b = one.structure.operators, other.structure.operators
    return {name: (a.get(name, 0), b.get(name, 0)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}
