"""The closed set of a release's files: its manifest lists them all, and nothing else may lie there.

The lists are in the zip's manifest: `files` are those of the folder around the zip, `contents` those in it.
The zip, the two lists of hashes and the signatures cannot be in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from exporter import files
from exporter.files import MANIFEST, PAGE
from exporter.release import sums
from exporter.release import zip as archive
from exporter.report.manifest.schema import Release


def digests(directory: Path, without: tuple[str, ...]) -> dict[str, str]:
    """Name -> sha256 of every file below a folder, but for those of a name, or in a folder, in `without`."""
    paths = archive.folder(directory)
    return {n: files.digest_file(p) for n, p in paths.items() if n.partition("/")[0] not in without}


def in_zip(inside: Path) -> dict[str, str]:
    """What `contents` lists of an unpacked zip."""
    return digests(inside, (MANIFEST, sums.FILE))


def in_folder(directory: Path, title: str, signatures: str) -> dict[str, str]:
    """What `files` lists of a release's folder."""
    return digests(directory, (f"{title}.zip", sums.FILE, signatures))


def written(text: str, outer: Mapping[str, str], inner: Mapping[str, str]) -> str:
    """A bundle's manifest with both lists in it, and the hash of the bundle's own page."""
    raw = json.loads(text)
    raw["page_sha256"] = inner[PAGE]
    raw["release"] |= {"files": outer, "contents": inner}
    return json.dumps(raw, indent=2, ensure_ascii=False) + "\n"


def problems_in_zip(release: Release, inside: Path) -> tuple[str, ...]:
    """Every way in which an unpacked zip is not what its manifest lists, a sentence each."""
    return _problems(release.contents, in_zip(inside), "its zip")


def problems_in_folder(release: Release, directory: Path, signatures: str) -> tuple[str, ...]:
    """Every way in which a release's folder is not what its manifest lists, a sentence each."""
    return _problems(release.files, in_folder(directory, release.title, signatures), "its folder")


def _problems(listed: Mapping[str, str], present: Mapping[str, str], where: str) -> tuple[str, ...]:
    if not listed:
        return (f"Its manifest does not list the files of {where}.",)
    missing = [f"{n} is missing: the manifest lists it." for n in sorted(listed.keys() - present.keys())]
    more = [f"{n} is not in the manifest's list of files." for n in sorted(present.keys() - listed.keys())]
    changed = [
        f"{n} is not the file that the manifest lists (its sha256 differs)."
        for n in sorted(listed.keys() & present.keys())
        if listed[n] != present[n]
    ]
    return (*missing, *more, *changed)
