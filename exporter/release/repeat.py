"""Build a release again in another process: other clock, folder, umask, time zone and hash seed.

`exporter.release.rebuild` is that process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from exporter.errors import ReleaseError
from exporter.release import zip as archive
from exporter.release.release_request import ReleaseRequest

SHOWN = 10


def check_repeat(request: ReleaseRequest, built: Path, work: Path) -> None:
    """Build once more and compare.

    Args:
        request: The user's request.
        built: The first build.
        work: A temporary folder, deleted after the run, for the second build.

    Raises:
        ReleaseError: A byte differs, or the second build failed.
    """
    again, scratch = work / "again", work / "temporary-again"
    scratch.mkdir()
    environment = os.environ | {
        "PYTHONHASHSEED": "4242",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TMPDIR": str(scratch.resolve()),
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "C",
    }
    result = subprocess.run(
        [sys.executable, "-m", "exporter.release.rebuild", str(again.resolve())],
        input=_dump_repeat_plan(request),
        env=environment,
        cwd=scratch,
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise ReleaseError(f"The second build failed: {result.stderr.strip()[-500:]}")
    if different := repeat_differences(built, again):
        more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
        raise ReleaseError(
            f"It is not reproducible: a second build differs. {'; '.join(different[:SHOWN])}{more}.",
            "Nothing was published.",
            code="EM-NOT-REPRODUCIBLE",
        )


def repeat_differences(first_folder: Path, second_folder: Path) -> tuple[str, ...]:
    """List the differences of two folders: for each file, that it is missing or where it first differs."""
    first, second = archive.folder_for_zip(first_folder), archive.folder_for_zip(second_folder)
    words = [f"{name} is only in one of them" for name in sorted(first.keys() ^ second.keys())]
    for name in sorted(first.keys() & second.keys()):
        a, b = first[name].read_bytes(), second[name].read_bytes()
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            words.append(f"{name} from byte {at} on")
    return tuple(words)


def _dump_repeat_plan(request: ReleaseRequest) -> str:
    values = dataclasses.asdict(request)
    paths = {name: str(value.resolve()) for name, value in values.items() if isinstance(value, Path)}
    return json.dumps(values | paths)
