"""The samples of a run, by their purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from exporter.data import scenes
from exporter.errors import CalibrationError
from exporter.records import Purpose, Sample, Scenes

MORE = "a hundred or more is better"


@dataclass(frozen=True)
class Origin:
    """Where a sample comes from: a file's name, or "row 3"; and a picture's width and height."""

    name: str
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Data:
    """Samples for each purpose; no scene serves for two."""

    calibration: tuple[Sample, ...]
    verification: tuple[Sample, ...]
    kind: Literal["photos", "arrays", "synthetic"]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    origins: Mapping[bytes, Origin] = field(default_factory=dict)
    """Digest of a picture or row -> its origin, for all that serve any purpose."""
    choice: tuple[Sample, ...] = ()
    """The samples that candidates are chosen by; empty when nothing is chosen."""
    scene_of: Mapping[Purpose, tuple[int, ...]] = field(default_factory=dict)
    """Number of the scene of each sample that serves a purpose."""
    scenes: Scenes = field(default_factory=Scenes)
    calibrating: tuple[Path, ...] = ()
    """The photos that calibrate or that candidates are chosen by."""


def several_scenes_in_sample_sets(
    grouping: scenes.SceneGrouping, source: str, names: Sequence[str]
) -> scenes.SceneGrouping:
    """Return the grouping unless all is one scene.

    Raises:
        CalibrationError: Nothing would be left to verify with.
    """
    if grouping.count > 1:
        return grouping
    raise CalibrationError(
        f"All {len(names)} samples of {source} are of one scene (by {grouping.reasons[0]}): "
        f"{_shown_sample_sets(names)}. "
        "Calibration and verification each need their own.",
        f"Give samples of at least two different scenes; {MORE}.",
        code="EM-FEW-SAMPLES",
    )


def note_on_grouped_sample_sets(grouping: scenes.SceneGrouping, names: Sequence[str]) -> tuple[str, ...]:
    """Return a note on the scenes of several samples; empty without any."""
    if not grouping.reasons:
        return ()
    largest = max(grouping.reasons, key=grouping.scenes.count)
    members = [name for name, scene in zip(names, grouping.scenes, strict=True) if scene == largest]
    return (
        f"{len(names)} samples are {grouping.count} scenes; a scene serves one purpose. The largest: "
        f"{_shown_sample_sets(members)} (by {grouping.reasons[largest]}).",
    )


def _shown_sample_sets(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def scene_fields_of_sample_sets(
    grouping: scenes.SceneGrouping, names: Sequence[str], owners: Mapping[Purpose, Sequence[Sequence[int]]]
) -> tuple[Mapping[Purpose, tuple[int, ...]], Scenes]:
    """Return `Data.scene_of` and `Data.scenes`.

    Args:
        grouping: The scenes of the photos or rows.
        names: Their names.
        owners: Purpose -> for each of its samples, the photos or rows that it shows.
    """
    scene_of = {
        purpose: scenes.scenes_of_samples([[grouping.scenes[i] for i in shown] for shown in samples])
        for purpose, samples in owners.items()
    }
    counts = {purpose: len(set(numbers)) for purpose, numbers in scene_of.items()}
    used = {i: purpose for purpose, samples in owners.items() for shown in samples for i in shown}
    return scene_of, Scenes(**counts, groups=scenes.make_scenes(grouping, used, names))


def copies_in_sample_sets_warning(copies: int, distinct: int, wanted: int) -> tuple[str, ...]:
    """Warn when copies leave fewer different samples than were asked for."""
    if not copies or distinct >= wanted:
        return ()
    return (
        f"{copies} sample(s) are copies of others and were left out: {distinct} different ones remain of "
        f"the {wanted} requested. Replace the copies.",
    )


def flat_sample_sets(names: Sequence[str], total: int, kind: str) -> tuple[str, ...]:
    """Warn about samples that hardly vary."""
    if not names:
        return ()
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return (
        f"{len(names)} of {total} {kind} are nearly constant ({shown}): int8 ranges learn little from them, "
        "and agreement on them is easy. Replace them.",
    )
