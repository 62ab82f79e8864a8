"""Check that OUT still matches its manifest: files are hashed again before their release."""

from __future__ import annotations

import re
from pathlib import Path

from exporter import files
from exporter.errors import VerificationError
from exporter.files import EVIDENCE, file_inside, page_file_path
from exporter.report.manifest.schema import Manifest

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_intact(out: Path, manifest: Manifest) -> None:
    """Refuse an export whose files differ from its manifest.

    Args:
        out: The export.
        manifest: Its manifest, reduced to what is to be released.

    Raises:
        VerificationError: A file is missing or was changed, or its name is invalid.
    """
    listed = [(a.file, a.sha256) for a in manifest.artifacts if a.file]
    listed += [(item.file, item.sha256) for item in manifest.evidence.files]
    if EVIDENCE not in {file for file, _ in listed}:
        raise VerificationError(f"The manifest of {out} lists no {EVIDENCE}.", "Export again.")
    for artifact in manifest.artifacts:
        if not PLAIN.fullmatch(str(artifact.file)):  # it goes into source code and XML
            raise VerificationError(f"{artifact.file!a} is not a name that an export gives to an artifact.")
    for file, digest in listed:
        path = file_inside(out, file)
        if any(p.is_symlink() for p in path.rglob("*")):
            raise VerificationError(f"{path} holds a link; an artifact holds only files.")
        if not path.exists() or files.digest_file_or_folder(path) != digest:
            raise VerificationError(
                f"{path} is {'not the file that was exported' if path.exists() else 'missing'}.",
                "Export it again.",
                code="EM-CHANGED",
            )
    page = page_file_path(out, manifest.page_sha256)
    if not page.is_file():
        raise VerificationError(f"{page} is missing.", "Export it again.", code="EM-CHANGED")
    if manifest.page_sha256 is not None and files.digest_file(page) != manifest.page_sha256:
        raise VerificationError(
            f"{page} is not the file that was exported.", "Export it again.", code="EM-CHANGED"
        )
