"""Build a release in a temporary folder, sign it, and rename it into place."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.errors import OutputError
from exporter.files import EVIDENCE, MANIFEST, PAGE, copy_file_or_folder, digest_file, file_inside
from exporter.release import (
    examples,
    maven,
    release_card,
    release_listing,
    release_snippets,
    repeat,
    sbom,
    serials,
    sha256sums,
    sign,
    swift,
)
from exporter.release import zip as archive
from exporter.release.plan import Plan, plan_release
from exporter.release.release_request import ReleaseRequest
from exporter.staging import publish_staged, staging

SBOM = "sbom.cdx.json"
README = "README.md"
MODEL_CARD = "MODEL_CARD.md"
LICENCE = "LICENSE"
CARD = "model_card.toml"
NEVER_REPLACED = "A release replaces nothing: give another folder with -o."


@dataclass(frozen=True)
class Release:
    """The published release."""

    directory: Path
    title: str
    """The name and version."""
    files: Mapping[str, str]
    """File name -> sha256, without the signatures."""
    signed: bool
    checked: bool
    """Whether a second build, elsewhere and at another time, gave the same bytes."""
    not_measured: tuple[str, ...]
    not_verified: tuple[str, ...]
    overridden: tuple[str, ...]
    remarks: tuple[str, ...]


def release_bundle(request: ReleaseRequest, check: bool = False) -> Release:
    """Make a release and publish it as a folder that did not exist.

    Args:
        request: The user's request.
        check: Build it a second time in another process with another clock, and refuse any difference.

    Raises:
        ExportError: For the reasons of `plan_release`, `sign.write_signatures` and `repeat.check_repeat`;
            then nothing is published.
    """
    planned = plan_release(request)
    with staging(request.destination, force=False, advice=NEVER_REPLACED) as stage:
        built = stage.work / planned.title
        build_bundle(planned, built, stage.work / "scratch")
        if check:
            repeat.check_repeat(request, built, stage.work)
        files = {n: digest_file(p) for n, p in archive.folder_for_zip(built).items()}
        if request.key:
            sign.write_signatures(built, built / f"{planned.title}.zip", request.key)
        publish_staged(replace(stage, out=built), request.destination, advice=NEVER_REPLACED)
    return Release(
        request.destination,
        planned.title,
        files,
        request.key is not None,
        check,
        planned.not_measured,
        planned.not_verified,
        planned.overridden,
        planned.remarks,
    )


def build_bundle(planned: Plan, directory: Path, scratch: Path) -> None:
    """Build everything except the signatures. The same plan gives the same bytes anywhere, at any time."""
    directory.mkdir()
    scratch.mkdir()
    bill, code = sbom.sbom_document(planned), release_snippets.release_snippet_files(planned)
    face = {
        MODEL_CARD: release_card.write_release_card(planned),
        **release_card.release_card_caveats(planned),
        **code,
    }
    if planned.request.licence:
        face[LICENCE] = planned.request.licence.read_bytes()
    maven.write_maven(planned, directory, scratch)
    swift.write_swift(planned, directory)
    outer = {
        f"{planned.title}.cdx.json": bill,
        README: release_card.release_card_readme_of_folder(planned, planned.request.key is not None),
    }
    _write_into_bundle(directory, face | outer)
    inner = face | {SBOM: bill, README: release_card.release_card_readme_of_zip(planned)}
    _bundle_zip(planned, inner, directory, scratch / "zip")
    sha256sums.write_sha256sums(directory)


def _bundle_zip(planned: Plan, inner: Mapping[str, bytes], directory: Path, root: Path) -> None:
    """Write the zip for the app team. Unpacked, it is a folder that `export-mobile verify` can check.

    Args:
        planned: The release.
        inner: The zip's files that describe it.
        directory: The release's folder, complete except for the zip and the hashes; the manifest lists it.
        root: A folder in which the zip's content is collected.
    """
    root.mkdir()
    out = planned.request.out
    listed = planned.manifest
    evidence = (e.file for e in listed.evidence.files if e.file not in planned.samples)
    for file in (*(str(a.file) for a in listed.artifacts), *evidence):
        copy_file_or_folder(file_inside(out, file), root / file)
    files = {**inner, **examples.example_files(out / EVIDENCE, listed)}
    files |= {**planned.samples, PAGE: serials.page_without_serials(out, planned.devices, listed.page_sha256)}
    if planned.request.card:
        files[CARD] = planned.request.card.read_bytes()
    _write_into_bundle(root, files)
    text = release_listing.manifest_with_release_listing(
        planned.text,
        release_listing.release_listing_of_folder(directory, planned.title, sign.FOLDER),
        release_listing.release_listing_of_zip(root),
    )
    _write_into_bundle(root, {MANIFEST: text.encode()})
    sha256sums.write_sha256sums(root)
    archive.write_zip(directory / f"{planned.title}.zip", archive.folder_for_zip(root), planned.date)
    shutil.rmtree(root)


def _write_into_bundle(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = directory / name
        if path.exists():
            raise OutputError(f"{name} is the name of an artifact and of a file of the release.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
