"""Check that a release's Maven repository, Swift package and BOM hold the zip's artifacts."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from exporter import files
from exporter.release import aar, maven, plan, swift
from exporter.release import zip as archive
from exporter.report.manifest.schema import Artifact, Manifest, Release

MAX_BOM_BYTES = 16 << 20


def release_library_problems(
    directory: Path, listed: Manifest, release: Release, scratch: Path
) -> tuple[str, ...]:
    """List the contradictions between a release's folder and the manifest in its zip, one sentence each.

    Args:
        directory: The release; its hashes are valid.
        listed: The manifest of its zip.
        release: That manifest's description of the release.
        scratch: An empty folder to unpack libraries in.
    """
    bill = directory / f"{release.title}.cdx.json"
    return (
        *_maven_release_library_problems(
            directory / maven.FOLDER, plan.plan_android_release(listed), release, scratch
        ),
        *_swift_release_library_problems(directory / swift.FOLDER, plan.plan_apple_release(listed), release),
        *(() if _release_library_lists(bill, listed) else ("The BOM does not list the released artifacts.",)),
    )


def _maven_release_library_problems(
    folder: Path, artifact: Artifact | None, release: Release, scratch: Path
) -> list[str]:
    expected = maven.maven_file_names(release.group, release.name, release.version) if artifact else set()
    if wrong := _other_release_library_files(folder, expected):
        return wrong
    return _aar_release_library_problems(folder, artifact, release, scratch) if artifact else []


def _aar_release_library_problems(
    folder: Path, artifact: Artifact, release: Release, scratch: Path
) -> list[str]:
    library = folder / maven.maven_library_path(release.group, release.name, release.version)
    unpacked, jar = scratch / "aar", scratch / "jar"
    unpacked.mkdir()
    archive.unpack_zip(library, unpacked)
    model = unpacked / aar.aar_asset_path(release.name, str(artifact.file))
    if not model.exists() or files.digest_file_or_folder(model) != artifact.sha256:
        return [f"{artifact.file} in {library.name} is not the one in the zip."]
    asset = aar.aar_asset_path(release.name, str(artifact.file))
    expected = {*aar.FIXED, *(f"{asset}{part}" for part in files.files_of_artifact(model))}
    if wrong := _other_release_library_files(unpacked, expected, f" of {library.name}"):
        return wrong
    jar.mkdir()
    archive.unpack_zip(unpacked / aar.JAR, jar)
    return (
        [] if set(archive.folder_for_zip(jar)) == {aar.JAR_MANIFEST_NAME} else [f"{library.name} holds code."]
    )


def _swift_release_library_problems(folder: Path, artifact: Artifact | None, release: Release) -> list[str]:
    if artifact is None:
        return _other_release_library_files(folder, set())
    resource = swift.swift_resource(release.name, str(artifact.file))
    path = folder / resource
    if not path.exists() or files.digest_file_or_folder(path) != artifact.sha256:
        return [f"{artifact.file} in the Swift package is not the one in the zip."]
    model = {f"{resource}{part}" for part in files.files_of_artifact(path)}
    return _other_release_library_files(folder, {*swift.swift_sources(release.name), *model})


def _other_release_library_files(folder: Path, expected: Collection[str], where: str = "") -> list[str]:
    """List the expected files that a folder lacks, and its unexpected files."""
    present = set(archive.folder_for_zip(folder))
    missing = [f"{folder.name}/{n}{where} is missing." for n in sorted(set(expected) - present)]
    more = [f"{folder.name}/{n}{where} is not part of the release." for n in sorted(present - set(expected))]
    return missing + more


def _release_library_lists(bill: Path, listed: Manifest) -> bool:
    try:
        if bill.stat().st_size > MAX_BOM_BYTES:
            return False
        text = json.dumps(json.loads(bill.read_text("utf-8")))
    except (OSError, ValueError, RecursionError):
        return False
    return all(str(a.sha256) in text for a in listed.artifacts)
