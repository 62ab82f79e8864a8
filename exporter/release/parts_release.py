"""Releases an export of several parts or sizes: a release for each in DIR, and the file that merges them.

DIR/PART is the release of the chosen artifact of OUT/PART, named after both. Where sizes are merged,
DIR/sizes has the merged file, the code that chooses, the record of all, and SHA256SUMS.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.errors import ReleaseError, UsageError, VerificationError
from exporter.files import MANIFEST, copy_file_or_folder
from exporter.pipeline.parts_record import MERGED, PARTS, load_parts
from exporter.release import sha256sums
from exporter.release.bundle import NEVER_REPLACED, Release, release_bundle
from exporter.release.plan import network_name_for_plan
from exporter.release.release_request import ReleaseRequest
from exporter.report import manifest
from exporter.staging import publish_staged, staging

SIZES = "sizes"


def release_parts(request: ReleaseRequest, check: bool = False) -> tuple[Release, ...]:
    """Release every part of OUT; empty where OUT is an export of one network and one size.

    Args:
        request: The user's request; without `artifacts`, the variant that was chosen for all is released.
        check: Build each a second time, and refuse any difference.

    Raises:
        UsageError: A key is given for a merged file, which has no signature.
        ExportError: As `release_bundle`; then nothing is published.
    """
    parts = load_parts(request.out)
    if not parts:
        return ()
    if problem := next((problem for _, problem in parts.values() if problem), ""):
        raise VerificationError(f"{request.out}: {problem}", "Export it again.", code="EM-CHANGED")
    record = json.loads((request.out / PARTS).read_text())
    artifacts = request.artifacts or ((record["selected"],) if record["selected"] else ())
    if not artifacts:
        raise ReleaseError(f"{request.out} has no variant that may be shipped for all of its parts.")
    merged = record.get("merged") is not None and artifacts == (record["selected"],)
    if merged and request.key:
        raise UsageError(
            f"--key signs a release for each size; {MERGED}, which has all, cannot be signed.",
            "Release a size, OUT/SIZE, or leave --key out.",
        )
    with staging(request.destination, force=False, advice=NEVER_REPLACED) as stage:
        built = stage.work / "parts"
        built.mkdir()
        releases = []
        for name, (folder, _) in parts.items():
            title = request.name or network_name_for_plan(manifest.load_manifest(folder / MANIFEST))
            own = replace(
                request,
                out=folder,
                destination=built / name,
                name=f"{title}_{re.sub('[^a-z0-9]+', '_', name)}",
                artifacts=artifacts,
            )
            releases.append(replace(release_bundle(own, check), directory=request.destination / name))
        if merged:
            _release_merged_file(request, record, built / SIZES)
        publish_staged(replace(stage, out=built), request.destination, advice=NEVER_REPLACED)
    return tuple(releases)


def _release_merged_file(request: ReleaseRequest, record: dict[str, Any], folder: Path) -> None:
    folder.mkdir()
    for name in (MERGED, *record["choice"], PARTS):
        copy_file_or_folder(request.out / name, folder / name)
    sha256sums.write_sha256sums(folder)
