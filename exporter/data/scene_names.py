"""Reads from file names which pictures come from one source: crops of a photo, frames of a video.

A name says so by a word ("IMG_12_crop3", "frame_0001", "clip2-0007"), by a second, short number or a letter
after a number ("IMG_12_3", "IMG_12_b"), as a copy of another file ("cat (1)" beside "cat"), or together with
its neighbours: "lake_0, lake_1, tree_0, tree_1, …" are a few numbered files of each of several names. A
camera's counter ("IMG_0001, IMG_0002, …") says nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath

_PIECE = "crop|cropped|tile|patch|frame|burst|aug|augmented|flip|flipped|mirror|mirrored|rot|rotated"
_EDIT = "copy|edit|edited|resized|scaled|zoom|blur|blurred|noise|jitter|dup|duplicate|part|piece|view"
_SUFFIX = re.compile(rf"^(.*?)(?:^|[ _.-]|(?<=\d))({_PIECE}|{_EDIT})[ _.-]?\d*$")
_ALONE = re.compile(rf"^({_PIECE})[ _.-]?\d*$")
_COPY = re.compile(r"^(.+?) ?\(\d+\)$")
_VIDEO = re.compile(
    r"^(.*(?:\b|_|\d)(?:video|vid|movie|mov|clip|seq|sequence|cam|camera|footage)(?:[ _.-]?[\da-z]*)"
    r"|.*\.(?:mp4|mov|avi|mkv|webm|m4v))[ _.-](?:f|frame)?\d+$"
)
_SECOND_NUMBER = re.compile(r"^(.*\d)[ _-](?:\d{1,3}|[a-z]|left|right)$")
_NO_SOURCE = re.compile(r"(?:^|\D)(?:19|20)\d\d[-_.]?\d?\d?$|^n\d{8}$")
"""A year, a year and a month, and ImageNet's name of a class."""
_NUMBERED = re.compile(r"^(.*[^\d _.-])[ _.-]*\d{1,3}$")
FEW = 10
"""More numbered files of one name than this are a camera's counter or a class of a data set."""
MANY_NAMES = 3


def scene_name_sources(paths: Sequence[PurePath]) -> list[str]:
    """Return the source that each file's name gives; a file that gives none is its own."""
    stems = [path.stem.lower() for path in paths]
    numbered, known = _scene_names_of_few(paths, stems), frozenset(stems)
    return [
        f"{path.parent}/{_scene_name_source(stem, known) or numbered.get((str(path.parent), stem), stem)}"
        for path, stem in zip(paths, stems, strict=True)
    ]


def _scene_name_source(stem: str, known: Collection[str]) -> str:
    """Return what is left of a name without what marks it as a piece; empty when nothing marks it.

    `known` are all names: "cat (1)" is a copy only beside "cat", as some programs number photos so.
    """
    if alone := _ALONE.match(stem):
        return alone[1]
    rest = stem
    while shorter := _shorten_scene_name(rest, known):
        rest = shorter
    if video := _VIDEO.match(rest):
        return video[1]
    second = _SECOND_NUMBER.match(rest)
    if second and not _NO_SOURCE.search(second[1]):
        return second[1]
    return rest if rest != stem else ""


def _shorten_scene_name(name: str, known: Collection[str]) -> str:
    """Return a name without its last mark; empty when it has none."""
    if (piece := _SUFFIX.match(name)) and piece[1]:
        return piece[1].rstrip(" _.-")
    copy = _COPY.match(name)
    return copy[1] if copy and copy[1] in known else ""


def _scene_names_of_few(paths: Sequence[PurePath], stems: Sequence[str]) -> Mapping[tuple[str, str], str]:
    """Return (folder, stem) -> name, in folders that hold a few numbered files of each of several names."""
    folders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, stem in zip(paths, stems, strict=True):
        if match := _NUMBERED.match(stem):
            folders[str(path.parent)][match[1]].append(stem)
    return {
        (folder, stem): name
        for folder, names in folders.items()
        if _are_scene_name_sources(names)
        for name, members in names.items()
        for stem in members
    }


def _are_scene_name_sources(names: Mapping[str, Sequence[str]]) -> bool:
    several = [members for members in names.values() if len(members) > 1]
    return len(several) >= MANY_NAMES and max(map(len, several)) <= FEW
