"""`export-mobile verify` of what `release` made, a folder or the zip alone. Believes only its bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import files, held
from exporter.errors import VerificationError
from exporter.pipeline import audit
from exporter.pipeline.audit import Audit
from exporter.release import maven, sign, sums, swift
from exporter.release import zip as archive

if TYPE_CHECKING:
    from exporter.pipeline.context import Observer
    from exporter.report.manifest.schema import Manifest

NOT_CHECKED = "Its signature was not checked: give --key with the public key."
UNSIGNED = "Nobody signed it."


def verify(path: Path, key: Path | None = None, workers: int = 1, observer: Observer | None = None) -> Audit:
    """Check an export's folder, a release's folder or a release's zip: signature, hashes, manifest, numerics.

    Cheap checks come first, and numerics only run on files that are the released ones.

    Args:
        path: OUT of an export, DIR of a release, or NAME-VERSION.zip.
        key: The signer's public key; a release without its signature then does not hold.
        workers: Artifacts run at the same time.
        observer: Told at every step.

    Raises:
        VerificationError: Nothing of that kind, a hostile archive, or a signature that does not hold.
    """
    if path.is_file():
        return _verify_zip(path, key, workers, observer)
    if is_release(path):
        return _verify_folder(path, key, workers, observer)
    return _verify_out(path, key, workers, observer)


def is_release(path: Path) -> bool:
    """Whether a folder is what `release` publishes, rather than an export or an unpacked zip."""
    signs = ((path / sums.FILE).exists(), (path / sign.FOLDER).exists(), any(path.glob("*.zip")))
    return any(signs) and not (path / files.MANIFEST).exists()


def _verify_out(out: Path, key: Path | None, workers: int, observer: Observer | None) -> Audit:
    """OUT itself, or what came out of a release's zip."""
    if key:
        raise VerificationError(
            f"{out} has no signature: those of a release are over its folder and its zip.",
            "Give one of these.",
            code="EM-SIGNATURE",
        )
    from exporter.report import manifest

    released = manifest.load(out / files.MANIFEST).release is not None
    if (released or (out / sums.FILE).exists()) and (wrong := sums.problems(out)):
        return Audit((), None, wrong)
    return audit.verify_export(out, workers, observer)


def _verify_zip(path: Path, key: Path | None, workers: int, observer: Observer | None) -> Audit:
    signature = next((p for p in _signatures(path) if p.exists()), None)
    if key:
        sign.check(path, signature or path.with_name(f"{path.name}.sig"), key)
    said = _said(key, signature is not None)
    with held.scratch("verify") as scratch:
        inside = scratch / "zip"
        inside.mkdir()
        archive.unpack(path, inside)
        return replace(_verify_inside(inside, workers, observer), facts=(said,))


def _signatures(path: Path) -> tuple[Path, ...]:
    """Where the signature of a zip may lie: beside it, or as `release` puts it."""
    name = f"{path.name}.sig"
    return path.with_name(name), path.parent / sign.FOLDER / name


def _said(key: Path | None, signed: bool) -> str:
    if key:
        return f"Signed with the private half of {key.name}."
    return NOT_CHECKED if signed else UNSIGNED


def _verify_inside(inside: Path, workers: int, observer: Observer | None) -> Audit:
    from exporter.report import manifest

    if wrong := sums.problems(inside):
        return Audit((), None, wrong)
    if manifest.load(inside / files.MANIFEST).release is None:
        return Audit((), None, ("Its manifest does not say that it is a release.",))
    return audit.verify_export(inside, workers, observer)


def _verify_folder(path: Path, key: Path | None, workers: int, observer: Observer | None) -> Audit:
    wrong = sums.problems(path, without=(sign.FOLDER,))
    signatures = path / sign.FOLDER
    signed = signatures.exists() or signatures.is_symlink()
    if signed and not wrong:
        wrong = _signature_problems(signatures)
    if wrong:
        return Audit((), None, wrong)
    if key:
        sign.check(path, signatures / sign.BUNDLE, key)
    (zipped,) = _one(path, "*.zip")
    with held.scratch("verify") as scratch:
        inside = scratch / "zip"
        inside.mkdir()
        archive.unpack(zipped, inside)
        found = _verify_inside(inside, workers, observer)
        problems = found.problems or _mismatches(path, inside, scratch)
        return replace(found, problems=problems, facts=(_said(key, signed),))


def _signature_problems(folder: Path) -> tuple[str, ...]:
    if folder.is_symlink() or not folder.is_dir():
        return (f"{folder.name} is not a folder.",)
    return tuple(f"{folder.name}: {problem}" for problem in sums.problems(folder))


def _one(directory: Path, pattern: str) -> tuple[Path]:
    found = [p for p in directory.glob(pattern) if p.is_file()]
    if len(found) != 1:
        raise VerificationError(f"{directory} holds {len(found)} files {pattern}, a release has one.")
    return (found[0],)


def _mismatches(path: Path, inside: Path, scratch: Path) -> tuple[str, ...]:
    """Whether the libraries carry what the zip's manifest describes, and the BOM its hashes."""
    from exporter.report import manifest

    listed = manifest.load(inside / files.MANIFEST)
    released = {files.digest_path(inside / str(a.file)): str(a.file) for a in listed.artifacts if a.file}
    problems = []
    for number, library in enumerate(sorted((path / maven.FOLDER).rglob("*.aar"))):
        unpacked = scratch / f"aar{number}"
        unpacked.mkdir()
        archive.unpack(library, unpacked)
        problems += _foreign(unpacked / "assets", released, library.name)
    problems += _foreign(path / swift.FOLDER, released, "the Swift package")
    bill = next(path.glob("*.cdx.json"), None)
    if bill is None or not _lists(bill, listed):
        problems.append("The BOM does not list the released artifacts.")
    return tuple(problems)


def _foreign(folder: Path, released: dict[str, str], where: str) -> list[str]:
    """A model in a library must be one of the released ones."""
    found = [p for name in set(released.values()) for p in folder.rglob(name)]
    if folder.exists() and not found:
        return [f"{where} carries none of the released artifacts."]
    return [
        f"{p.name} in {where} is not the one in the zip."
        for p in found
        if released.get(files.digest_path(p)) != p.name
    ]


def _lists(bill: Path, listed: Manifest) -> bool:
    try:
        text = json.dumps(json.loads(bill.read_text("utf-8")))
    except ValueError:
        return False
    return all(str(a.sha256) in text for a in listed.artifacts)
