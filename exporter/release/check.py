"""`export-mobile verify` of what `release` made, a folder or the zip alone. Believes only its bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import files, held
from exporter.errors import VerificationError
from exporter.pipeline import audit
from exporter.pipeline.audit import Audit
from exporter.release import libraries, listing, sign, sums
from exporter.release import zip as archive

if TYPE_CHECKING:
    from exporter.pipeline.context import Observer
    from exporter.report.manifest.schema import Release

NOT_CHECKED = "Its signature was not checked: give --key with the public key."
UNSIGNED = "Nobody signed it."


@dataclass(frozen=True)
class Wanted:
    """Which release it must be; empty: any."""

    name: str = ""
    version: str = ""

    def problems(self, release: Release | None) -> tuple[str, ...]:
        """What is another than the wanted one, a sentence each."""
        pairs = (("name", self.name), ("version", self.version))
        wanted = [(field, value) for field, value in pairs if value]
        if wanted and release is None:
            return (f"It is no release, expected {' and '.join(f'{f} {v}' for f, v in wanted)}.",)
        return tuple(
            f"Its {field} is {getattr(release, field)}, expected {value}."
            for field, value in wanted
            if getattr(release, field) != value
        )


ANY = Wanted()


def verify(
    path: Path,
    key: Path | None = None,
    workers: int = 1,
    observer: Observer | None = None,
    wanted: Wanted = ANY,
) -> Audit:
    """Check an export's folder, a release's folder or a release's zip: signature, hashes, manifest, numerics.

    Cheap checks come first, and numerics only run on files that are the released ones.

    Args:
        path: OUT of an export, DIR of a release, or NAME-VERSION.zip.
        key: The signer's public key; a release without its signature then does not hold.
        workers: Artifacts run at the same time.
        observer: Told at every step.
        wanted: The release must be this one: an older one is signed as well.

    Raises:
        VerificationError: Nothing of that kind, a hostile archive, or a signature that does not hold.
    """
    if path.is_file():
        return _verify_zip(path, key, workers, observer, wanted)
    if is_release(path):
        return _verify_folder(path, key, workers, observer, wanted)
    return _verify_out(path, key, workers, observer, wanted)


def is_release(path: Path) -> bool:
    """Whether a folder is what `release` publishes, rather than an export or an unpacked zip."""
    if not path.is_dir():
        return False
    signs = ((path / sums.FILE).exists(), (path / sign.FOLDER).exists(), any(_zips(path)))
    return any(signs) and not (path / files.MANIFEST).exists()


def _verify_out(
    out: Path, key: Path | None, workers: int, observer: Observer | None, wanted: Wanted
) -> Audit:
    """Check OUT itself, or what came out of a release's zip."""
    if key:
        raise VerificationError(
            f"{out} has no signature: those of a release are over its folder and its zip.",
            "Give one of these.",
            code="EM-SIGNATURE",
        )
    from exporter.report import manifest

    release = manifest.load(out / files.MANIFEST).release
    if release or (out / sums.FILE).exists():
        return _verify_inside(out, workers, observer, wanted)
    if wrong := wanted.problems(release):
        return Audit((), None, wrong)
    return audit.verify_export(out, workers, observer)


def _verify_zip(
    path: Path, key: Path | None, workers: int, observer: Observer | None, wanted: Wanted
) -> Audit:
    signature = next((p for p in _signatures(path) if p.exists()), None)
    if key:
        sign.check(path, signature or path.with_name(f"{path.name}.sig"), key)
    statement = _said(key, signature is not None)
    with held.scratch("verify") as scratch:
        inside = scratch / "zip"
        inside.mkdir()
        archive.unpack(path, inside)
        audited = _verify_inside(inside, workers, observer, wanted, path.name)
        return replace(audited, facts=(*audited.facts, statement))


def _signatures(path: Path) -> tuple[Path, ...]:
    """Where the signature of a zip may lie: beside it, or as `release` puts it."""
    name = f"{path.name}.sig"
    return path.with_name(name), path.parent / sign.FOLDER / name


def _said(key: Path | None, signed: bool) -> str:
    if key:
        return f"Signed with the private half of {key.name}."
    return NOT_CHECKED if signed else UNSIGNED


def _verify_inside(
    inside: Path, workers: int, observer: Observer | None, wanted: Wanted, file: str = ""
) -> Audit:
    """Check what came out of a zip.

    Args:
        inside: The unpacked zip.
        workers: As for `verify`.
        observer: As for `verify`.
        wanted: As for `verify`.
        file: The zip's own name, which must be that of the release in it; empty when it is not known.
    """
    from exporter.report import manifest

    if wrong := sums.problems(inside):
        return Audit((), None, wrong)
    release = manifest.load(inside / files.MANIFEST).release
    if release is None:
        return Audit((), None, ("Its manifest does not say that it is a release.",))
    facts = (f"It is {release.name} {release.version} of {release.group}.",)
    wrong = wanted.problems(release) or _renamed(release, file) or listing.problems_in_zip(release, inside)
    if wrong:
        return Audit((), None, wrong, facts)
    audited = audit.verify_export(inside, workers, observer)
    return replace(audited, facts=(*facts, *audited.facts))


def _renamed(release: Release, file: str) -> tuple[str, ...]:
    expected = f"{release.title}.zip"
    if file in {"", expected}:
        return ()
    return (f"{file} holds {release.name} {release.version}, whose zip is called {expected}.",)


def _verify_folder(
    path: Path, key: Path | None, workers: int, observer: Observer | None, wanted: Wanted
) -> Audit:
    wrong = sums.problems(path, without=(sign.FOLDER,))
    signatures = path / sign.FOLDER
    signed = signatures.exists() or signatures.is_symlink()
    zipped = zip_of(path)
    if signed and not wrong:
        wrong = _signature_problems(signatures, zipped)
    if wrong:
        return Audit((), None, wrong)
    if key:
        sign.check(path, signatures / sign.BUNDLE, key)
        sign.check(zipped, signatures / f"{zipped.name}.sig", key)
    with held.scratch("verify") as scratch:
        inside = scratch / "zip"
        inside.mkdir()
        archive.unpack(zipped, inside)
        if problems := _contradictions(path, inside, scratch):
            return Audit((), None, problems)
        audited = _verify_inside(inside, workers, observer, wanted, zipped.name)
        return replace(audited, facts=(*audited.facts, _said(key, signed)))


def _signature_problems(folder: Path, zipped: Path) -> tuple[str, ...]:
    """What is wrong with the folder of signatures, which no signature covers."""
    if folder.is_symlink() or not folder.is_dir():
        return (f"{folder.name} is not a folder.",)
    problems = [f"{folder.name}: {problem}" for problem in sums.problems(folder)]
    expected = {sums.FILE, sign.BUNDLE, f"{zipped.name}.sig"}
    more = sorted(p.name for p in folder.iterdir() if p.name not in expected)
    return (*problems, *(f"{folder.name}/{name} is not part of the release." for name in more))


def _zips(directory: Path) -> list[Path]:
    """Its zip archives, however their names are written."""
    return sorted(p for p in directory.iterdir() if p.is_file() and p.suffix.lower() == ".zip")


def zip_of(directory: Path) -> Path:
    """The zip of a release's folder.

    Raises:
        VerificationError: There is none, or more than one.
    """
    zips = _zips(directory)
    if len(zips) != 1:
        raise VerificationError(f"{directory} holds {len(zips)} zip archives, a release has one.")
    return zips[0]


def _contradictions(path: Path, inside: Path, scratch: Path) -> tuple[str, ...]:
    """Where a release's folder is not what the manifest in its zip says."""
    from exporter.report import manifest

    if wrong := sums.problems(inside):
        return wrong
    listed = manifest.load(inside / files.MANIFEST)
    if listed.release is None:
        return ()  # the zip's own check says so
    return listing.problems_in_folder(listed.release, path, sign.FOLDER) or libraries.problems(
        path, listed, listed.release, scratch
    )
