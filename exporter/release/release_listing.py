"""The closed set of a release's files: its manifest lists them all, and any other file is refused.

The lists are in the zip's manifest: `files` are those of the folder around the zip, `contents` those in it.
The zip, the two lists of hashes and the signatures cannot be in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from exporter import files
from exporter.files import MANIFEST, PAGE
from exporter.release import sha256sums
from exporter.release import zip as archive
from exporter.report.manifest.schema import Release


def list_digests_of_release(directory: Path, without: tuple[str, ...]) -> dict[str, str]:
    """Return name -> sha256 of every file below a folder, except top-level names in `without`."""
    paths = archive.folder_for_zip(directory)
    return {n: files.digest_file(p) for n, p in paths.items() if n.partition("/")[0] not in without}


def release_listing_of_zip(inside: Path) -> dict[str, str]:
    """Return the `contents` of an unpacked zip."""
    return list_digests_of_release(inside, (MANIFEST, sha256sums.FILE))


def release_listing_of_folder(directory: Path, title: str, signatures: str) -> dict[str, str]:
    """Return the `files` of a release's folder."""
    return list_digests_of_release(directory, (f"{title}.zip", sha256sums.FILE, signatures))


def manifest_with_release_listing(text: str, outer: Mapping[str, str], inner: Mapping[str, str]) -> str:
    """Return a bundle's manifest with both lists and the hash of the bundle's own page in it."""
    raw = json.loads(text)
    raw["page_sha256"] = inner[PAGE]
    raw["release"] |= {"files": outer, "contents": inner}
    return json.dumps(raw, indent=2, ensure_ascii=False) + "\n"


def release_listing_problems_in_zip(release: Release, inside: Path) -> tuple[str, ...]:
    """List how an unpacked zip differs from its manifest's list, one sentence each."""
    return _release_listing_problems(release.contents, release_listing_of_zip(inside), "its zip")


def release_listing_problems_in_folder(release: Release, directory: Path, signatures: str) -> tuple[str, ...]:
    """List how a release's folder differs from its manifest's list, one sentence each."""
    return _release_listing_problems(
        release.files, release_listing_of_folder(directory, release.title, signatures), "its folder"
    )


def _release_listing_problems(
    listed: Mapping[str, str], present: Mapping[str, str], where: str
) -> tuple[str, ...]:
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
