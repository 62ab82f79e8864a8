"""Changes to a release by someone without the key, who then makes every hash and list fit."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exporter.release import release_listing, sha256sums
from exporter.release import zip as archive

TITLE = "net-1.4.0"
AAR = f"maven/com/example/net/1.4.0/{TITLE}.aar"
RESOURCE = "swift/NetModel/Sources/NetModel/Resources/coreml-fp16.mlpackage"
Damage = Callable[[Path], object]


def resum(signed: Path) -> None:
    """Make the folder's hashes fit its files, whatever their names; `write_sha256sums` refuses some."""
    listed = release_listing.list_digests_of_release(signed, (sha256sums.FILE, "signatures"))
    lines = (f"{digest}  {name}\n" for name, digest in sorted(listed.items()))
    (signed / sha256sums.FILE).write_bytes("".join(lines).encode(errors="surrogateescape"))


def resummed(change: Damage) -> Damage:
    """Return a change of the folder with new hashes and the old list in the manifest."""

    def damage(signed: Path) -> None:
        change(signed)
        resum(signed)

    return damage


def repacked(change: Damage, title: str = TITLE) -> Damage:
    """Return a change inside the zip, in a valid new zip, with new hashes outside."""

    def damage(signed: Path) -> None:
        path, inside = signed / f"{title}.zip", signed.parent / "inside"
        inside.mkdir()
        archive.unpack_zip(path, inside)
        change(inside)
        repack(path, inside)
        resum(signed)

    return damage


def repack(path: Path, inside: Path) -> None:
    """Write an archive anew from a folder, with its own date; the folder is consumed."""
    with zipfile.ZipFile(path) as opened:
        date = opened.infolist()[0].date_time
    archive.write_zip(path, archive.folder_for_zip(inside), datetime(*date, tzinfo=UTC))
    shutil.rmtree(inside)


def forged(change: Damage) -> Damage:
    """Return a change of the folder with a matching list in the manifest and matching hashes."""

    def damage(signed: Path) -> None:
        change(signed)

        def relist(inside: Path) -> None:
            path = inside / "manifest.json"
            outer = release_listing.release_listing_of_folder(signed, TITLE, "signatures")
            path.write_text(
                release_listing.manifest_with_release_listing(
                    path.read_text(), outer, release_listing.release_listing_of_zip(inside)
                )
            )
            sha256sums.write_sha256sums(inside)

        repacked(relist)(signed)

    return damage


def edited(change: Callable[[Any], object]) -> Damage:
    """Return a change of the manifest in the zip, with new hashes."""

    def edit(inside: Path) -> None:
        path = inside / "manifest.json"
        listed = json.loads(path.read_text())
        change(listed)
        path.write_text(json.dumps(listed))
        sha256sums.write_sha256sums(inside)

    return repacked(edit)


def library(change: Damage) -> Damage:
    """Return a change inside the Android library, in a valid new one."""

    def damage(signed: Path) -> None:
        inside = signed.parent / "library"
        inside.mkdir()
        archive.unpack_zip(signed / AAR, inside)
        change(inside)
        content: dict[str, bytes | Path] = {**archive.folder_for_zip(inside), "res/": b""}
        archive.write_zip(signed / AAR, content, datetime(1980, 1, 1, tzinfo=UTC))

    return damage


def with_code(inside: Path) -> None:
    """Add a class to a library of data."""
    jar = {"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\r\n\r\n", "Evil.class": b"\xca\xfe\xba\xbe"}
    archive.write_zip(inside / "classes.jar", jar, datetime(1980, 1, 1, tzinfo=UTC))
