"""Cache the alternatives' results in the work folder, as they do not change with the exporter.

A row is kept with its file, under a key of everything that both depend on. Latencies are never kept.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

from benchmarks import alternatives
from benchmarks.measure import Evidence, Row
from benchmarks.subjects import Subject
from exporter import files
from exporter.pipeline import cache


def key(subject: Subject, method: str, evidence: Evidence, versions: dict[str, str]) -> str:
    """Hash the model, the verification samples, the method with its code, and the packages' versions."""
    code = Path(alternatives.__file__).read_text()
    samples = [array.tobytes().hex() for array in evidence.read().inputs]
    calibration = files.digest_file_or_folder(subject.calibration)
    weights = files.digest_file(subject.checkpoint)
    return cache.cache_key(weights, calibration, samples, evidence.samples, method, code, versions)


def get(path: Path, wanted: str) -> Row | None:
    """Return the cached row of the file at `path`, if its key and the file are still the same."""
    record = _record(path)
    if not path.exists() or not record.exists():
        return None
    known = json.loads(record.read_text())
    if known["key"] != wanted or set(known["row"]) != {field.name for field in fields(Row)}:
        return None
    return Row(**known["row"])


def put(path: Path, wanted: str, row: Row) -> None:
    """Store a row whose file is at `path`; a failed one is tried again next time."""
    if row.file:
        aside = path.with_suffix(".aside")
        aside.write_text(json.dumps({"key": wanted, "row": asdict(row)}))
        aside.replace(_record(path))


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".json")
