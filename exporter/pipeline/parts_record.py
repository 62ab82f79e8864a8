"""Writes and reads OUT/parts.json: the parts or sizes of one network, and what was chosen for all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exporter.errors import VerificationError
from exporter.files import MANIFEST, digest_file, digest_file_or_folder, write_text_file
from exporter.records import Report
from exporter.verify.parts_together import TogetherVerdict

PARTS = "parts.json"
MERGED = "sizes.pte"
CHOICE = ("Sizes.kt", "Sizes.swift")
"""Code by which an app chooses among the sizes of one network."""


@dataclass(frozen=True)
class MergedFile:
    """One file with a method for each part, in place of a file each."""

    file: str
    sha256: str
    size_bytes: int
    separate_bytes: int
    """The size of the files that it replaces, together."""
    methods: Mapping[str, str]
    """Part -> its method."""


@dataclass(frozen=True)
class PartsExport:
    """What became of the parts of one network."""

    reports: Mapping[str, Report]
    """Part -> its own report."""
    together: tuple[TogetherVerdict, ...]
    """A verdict for each variant that passed in every part."""
    selected: str | None
    """The variant of all parts that is chosen; None where none passed together."""
    files: Mapping[str, str]
    """Part -> its file in OUT; empty where they are merged."""
    merged: MergedFile | None = None
    choice: tuple[str, ...] = ()
    """Those of `CHOICE` that are in OUT."""
    notes: tuple[str, ...] = ()


def remove_earlier_parts(out: Path) -> None:
    """Delete parts.json of an earlier export in OUT, and the files that it lists: they are no longer its."""
    try:
        record = json.loads((out / PARTS).read_text())
        names = [e["file"] for e in record["parts"] if e["file"] and Path(e["file"]).stem == e["name"]]
        names += [MERGED] if record.get("merged") else []
        names += [name for name in CHOICE if name in record.get("choice", ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        names = []
    for name in [*names, PARTS]:
        path = out / name
        if Path(name).name != name or path.is_symlink():
            continue
        if path.suffix == ".mlpackage" and path.is_dir():
            shutil.rmtree(path)
        elif not path.is_dir():
            path.unlink(missing_ok=True)


def write_parts_record(out: Path, result: PartsExport) -> None:
    """Write OUT/parts.json."""
    write_text_file(out / PARTS, json.dumps(_parts_record(out, result), indent=2) + "\n")


def _parts_record(out: Path, result: PartsExport) -> dict[str, Any]:
    parts = [
        {
            "name": name,
            "folder": name,
            "manifest_sha256": digest_file(out / name / MANIFEST),
            "selected": report.selected,
            "file": result.files.get(name),
            "sha256": digest_file_or_folder(out / result.files[name]) if name in result.files else None,
        }
        for name, report in result.reports.items()
    ]
    return {
        "schema_version": 1,
        "parts": parts,
        "together": [asdict(verdict) for verdict in result.together],
        "selected": result.selected,
        "merged": result.merged and asdict(result.merged),
        "choice": result.choice,
        "notes": result.notes,
    }


def load_parts(out: Path) -> dict[str, tuple[Path, str]]:
    """Return part -> its folder and what is wrong with its files, from OUT/parts.json; empty without one.

    Raises:
        VerificationError: parts.json is damaged.
    """
    if not (out / PARTS).is_file():
        return {}
    try:
        record = json.loads((out / PARTS).read_text())
        merged = _problem_of_merged_parts(out, record.get("merged"))
        checked = {str(entry["name"]): _check_part(out, entry) for entry in record["parts"]}
        return {name: (folder, problem or merged) for name, (folder, problem) in checked.items()}
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise VerificationError(f"{out / PARTS} is damaged.", "Export again.") from error


def _problem_of_merged_parts(out: Path, entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    if entry["file"] != MERGED:
        raise ValueError("another file than the one that an export writes")
    if not (out / MERGED).is_file() or digest_file(out / MERGED) != entry["sha256"]:
        return f"{MERGED} is not the file that was exported (its sha256 differs)."
    return ""


def _check_part(out: Path, entry: Mapping[str, Any]) -> tuple[Path, str]:
    folder, file = str(entry["folder"]), entry["file"]
    if Path(folder).name != folder or (file is not None and Path(file).name != file):
        raise ValueError("a place outside OUT")
    if digest_file(out / folder / MANIFEST) != entry["manifest_sha256"]:
        return out / folder, "Its manifest is not the one that was exported."
    if file is not None and digest_file_or_folder(out / file) != entry["sha256"]:
        return out / folder, f"{file} is not the file that was exported (its sha256 differs)."
    return out / folder, ""
