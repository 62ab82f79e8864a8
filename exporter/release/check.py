"""Verify a release, from its folder or from its zip alone, by its bytes only."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import files, temporary_files
from exporter.emulated.arm_tools import ArmTools
from exporter.errors import VerificationError
from exporter.pipeline import audit
from exporter.pipeline.audit import Audit
from exporter.release import release_libraries, release_listing, sha256sums, sign
from exporter.release import zip as archive

if TYPE_CHECKING:
    from exporter.pipeline.context import Observer
    from exporter.report.manifest.schema import Release

Verify = Callable[[Path], Audit]
"""Verifies an export's folder, as `audit.verify_export`."""
NOT_CHECKED = "Its signature was not checked: give --key with the public key."
UNSIGNED = "It is not signed."


@dataclass(frozen=True)
class CheckedIdentity:
    """The release that is expected; an empty field accepts any."""

    name: str = ""
    version: str = ""

    def problems(self, release: Release | None) -> tuple[str, ...]:
        """Return what differs from the expected release, one sentence each."""
        pairs = (("name", self.name), ("version", self.version))
        wanted = [(field, value) for field, value in pairs if value]
        if wanted and release is None:
            return (f"It is no release, expected {' and '.join(f'{f} {v}' for f, v in wanted)}.",)
        return tuple(
            f"Its {field} is {getattr(release, field)}, expected {value}."
            for field, value in wanted
            if getattr(release, field) != value
        )


ANY = CheckedIdentity()


def check_release(
    path: Path,
    key: Path | None = None,
    workers: int = 1,
    observer: Observer | None = None,
    wanted: CheckedIdentity = ANY,
    arm64: ArmTools | None = None,
) -> Audit:
    """Verify an export's folder, a release's folder or its zip: signature, hashes, manifest, numerics.

    Cheap checks come first; numerics run only on files that are the released ones.

    Args:
        path: OUT of an export, DIR of a release, or NAME-VERSION.zip.
        key: The signer's public key; with it, an unsigned release fails.
        workers: Artifacts run at the same time.
        observer: Called at every step.
        wanted: The expected release: an older one is signed, too.
        arm64: QEMU and its programs, to run the artifacts on emulated Arm too.

    Raises:
        VerificationError: It is nothing of the kind, a hostile archive, or its signature is invalid.
    """
    verify = functools.partial(audit.verify_export, workers=workers, observer=observer, arm64=arm64)
    if path.is_file():
        return _check_release_zip(path, key, verify, wanted)
    if is_release_to_check(path):
        return _check_release_folder(path, key, verify, wanted)
    return _check_released_export_folder(path, key, verify, wanted)


@contextlib.contextmanager
def open_release_to_check(path: Path) -> Iterator[Path]:
    """Give the folder with the manifest: OUT itself, or a release's zip unpacked for as long as the block.

    Raises:
        VerificationError: It is a hostile archive, or its hashes are wrong.
    """
    zipped = zip_of_checked_release(path) if is_release_to_check(path) else path
    if zipped.is_dir():
        yield zipped
        return
    with archive.unpacked_zip(zipped) as inside:
        if wrong := sha256sums.sha256sums_problems(inside):
            raise VerificationError(wrong[0], code="EM-CHANGED")
        yield inside


def is_release_to_check(path: Path) -> bool:
    """Return whether a folder is a release, and not an export or an unpacked zip."""
    if not path.is_dir():
        return False
    signs = (
        (path / sha256sums.FILE).exists(),
        (path / sign.FOLDER).exists(),
        any(_release_zips_to_check(path)),
    )
    return any(signs) and not (path / files.MANIFEST).exists()


def _check_released_export_folder(
    out: Path,
    key: Path | None,
    verify: Verify,
    wanted: CheckedIdentity,
) -> Audit:
    """Verify OUT, or an unpacked release's zip."""
    if key:
        raise VerificationError(
            f"{out} has no signature: a release's signatures cover its folder and its zip.",
            "Give one of these.",
            code="EM-SIGNATURE",
        )
    from exporter.report import manifest

    release = manifest.load_manifest(out / files.MANIFEST).release
    if release or (out / sha256sums.FILE).exists():
        return _check_unpacked_release_zip(out, verify, wanted)
    if wrong := wanted.problems(release):
        return Audit((), None, wrong)
    return verify(out)


def _check_release_zip(
    path: Path,
    key: Path | None,
    verify: Verify,
    wanted: CheckedIdentity,
) -> Audit:
    signature = next((p for p in _signature_places_to_check_release(path) if p.exists()), None)
    if key:
        sign.check_signature(path, signature or path.with_name(f"{path.name}.sig"), key)
    statement = _check_signed_release(key, signature is not None)
    with archive.unpacked_zip(path) as inside:
        audited = _check_unpacked_release_zip(inside, verify, wanted, path.name)
        return replace(audited, facts=(*audited.facts, statement))


def _signature_places_to_check_release(path: Path) -> tuple[Path, ...]:
    """Return the places of a zip's signature: next to it, or where `release` puts it."""
    name = f"{path.name}.sig"
    return path.with_name(name), path.parent / sign.FOLDER / name


def _check_signed_release(key: Path | None, signed: bool) -> str:
    if key:
        return f"Signed with the private half of {key.name}."
    return NOT_CHECKED if signed else UNSIGNED


def _check_unpacked_release_zip(
    inside: Path,
    verify: Verify,
    wanted: CheckedIdentity,
    file: str = "",
) -> Audit:
    """Verify an unpacked zip.

    Args:
        inside: The unpacked zip.
        verify: Verifies the export in it.
        wanted: The expected release.
        file: The zip's name, which must be that of the release in it; empty when it is unknown.
    """
    from exporter.report import manifest

    if wrong := sha256sums.sha256sums_problems(inside):
        return Audit((), None, wrong)
    release = manifest.load_manifest(inside / files.MANIFEST).release
    if release is None:
        return Audit((), None, ("Its manifest does not describe a release.",))
    facts = (f"It is {release.name} {release.version} of {release.group}.",)
    wrong = (
        wanted.problems(release)
        or _check_release_name(release, file)
        or release_listing.release_listing_problems_in_zip(release, inside)
    )
    if wrong:
        return Audit((), None, wrong, facts)
    audited = verify(inside)
    return replace(audited, facts=(*facts, *audited.facts))


def _check_release_name(release: Release, file: str) -> tuple[str, ...]:
    expected = f"{release.title}.zip"
    if file in {"", expected}:
        return ()
    return (f"{file} holds {release.name} {release.version}, whose zip is called {expected}.",)


def _check_release_folder(
    path: Path,
    key: Path | None,
    verify: Verify,
    wanted: CheckedIdentity,
) -> Audit:
    wrong = sha256sums.sha256sums_problems(path, without=(sign.FOLDER,))
    signatures = path / sign.FOLDER
    signed = signatures.exists() or signatures.is_symlink()
    zipped = zip_of_checked_release(path)
    if signed and not wrong:
        wrong = _check_release_signature_folder(signatures, zipped)
    if wrong:
        return Audit((), None, wrong)
    if key:
        sign.check_signature(path, signatures / sign.BUNDLE, key)
        sign.check_signature(zipped, signatures / f"{zipped.name}.sig", key)
    with archive.unpacked_zip(zipped) as inside:
        if problems := _check_release_contradictions(path, inside):
            return Audit((), None, problems)
        audited = _check_unpacked_release_zip(inside, verify, wanted, zipped.name)
        return replace(audited, facts=(*audited.facts, _check_signed_release(key, signed)))


def _check_release_signature_folder(folder: Path, zipped: Path) -> tuple[str, ...]:
    """Return what is wrong with the folder of signatures, which no signature covers."""
    if folder.is_symlink() or not folder.is_dir():
        return (f"{folder.name} is not a folder.",)
    problems = [f"{folder.name}: {problem}" for problem in sha256sums.sha256sums_problems(folder)]
    expected = {sha256sums.FILE, sign.BUNDLE, f"{zipped.name}.sig"}
    more = sorted(p.name for p in folder.iterdir() if p.name not in expected)
    return (*problems, *(f"{folder.name}/{name} is not part of the release." for name in more))


def _release_zips_to_check(directory: Path) -> list[Path]:
    """List the zip archives, whatever the case of their names."""
    return sorted(p for p in directory.iterdir() if p.is_file() and p.suffix.lower() == ".zip")


def zip_of_checked_release(directory: Path) -> Path:
    """Return the zip of a release's folder.

    Raises:
        VerificationError: There is none, or more than one.
    """
    zips = _release_zips_to_check(directory)
    if len(zips) != 1:
        raise VerificationError(f"{directory} holds {len(zips)} zip archives, a release has one.")
    return zips[0]


def _check_release_contradictions(path: Path, inside: Path) -> tuple[str, ...]:
    """List where a release's folder contradicts the manifest in its zip."""
    from exporter.report import manifest

    if wrong := sha256sums.sha256sums_problems(inside):
        return wrong
    listed = manifest.load_manifest(inside / files.MANIFEST)
    if listed.release is None:
        return ()  # the zip's own check says so
    if wrong := release_listing.release_listing_problems_in_folder(listed.release, path, sign.FOLDER):
        return wrong
    with temporary_files.temporary_scratch("libraries") as scratch:
        return release_libraries.release_library_problems(path, listed, listed.release, scratch)
