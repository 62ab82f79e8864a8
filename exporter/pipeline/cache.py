"""Finished work, kept by content: keys cover the inputs, the options and every installed package's version.

An entry is a folder with `record.json` and files. Entries are written aside and renamed, so a killed run
leaves none half-written, and their files are hashed again when read: a damaged entry is a miss. Nothing is
unpickled. What was not used for longest goes first when the cache outgrows its limit.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from exporter.files import digest_path

RECORD = "record.json"
LIMIT_BYTES = 10 * 1024**3
"""`$EXPORT_MOBILE_CACHE_GB` changes it."""
ABANDONED_S = 24 * 3600


def default_root() -> Path:
    """`$EXPORT_MOBILE_CACHE`, else `export-mobile` in the user's cache folder."""
    if chosen := os.environ.get("EXPORT_MOBILE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "export-mobile"


def limit_bytes() -> int:
    """How large the cache may grow; what `$EXPORT_MOBILE_CACHE_GB` says where that is a number."""
    try:
        return int(float(os.environ["EXPORT_MOBILE_CACHE_GB"]) * 1024**3)
    except (KeyError, ValueError, OverflowError):
        return LIMIT_BYTES


def key(*parts: object) -> str:
    """A sha256 over values that print alike when they are alike (records, tuples, strings, numbers)."""
    return hashlib.sha256(json.dumps([repr(part) for part in parts]).encode()).hexdigest()


@functools.cache
def toolchain() -> str:
    """What every result depends on besides its inputs: packages, Python, the processor and our own source."""
    packages = sorted({f"{d.name}=={d.version}" for d in metadata.distributions()})
    source = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*")):
        if path.suffix in {".py", ".gz"}:
            source.update(path.name.encode() + path.read_bytes())
    return key(packages, sys.version, platform.platform(), _processor(), os.cpu_count(), source.hexdigest())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.machine())


class Cache:
    """A folder of entries; `Cache(None)` keeps nothing and finds nothing."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def get(self, kind: str, entry_key: str, record: Any, files_into: Path = Path()) -> Any:
        """The record kept under a key, its files copied into a folder; None when missing or damaged.

        Args:
            kind: The folder of such entries.
            entry_key: What `key` returns; nothing is kept under an empty one.
            record: The record's type, in any form that pydantic reads.
            files_into: Where the entry's files are copied.
        """
        from pydantic import TypeAdapter, ValidationError

        if self._root is None or not entry_key:
            return None
        entry = self._root / kind / entry_key
        try:
            kept = json.loads((entry / RECORD).read_text())
            found = TypeAdapter(record).validate_python(kept["record"])
            if any(digest_path(entry / "files" / name) != digest for name, digest in kept["files"].items()):
                return None
            for name in kept["files"]:
                _copy(entry / "files" / name, files_into / name)
            os.utime(entry / RECORD)  # used now: `prune` takes the others first
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
            return None
        return found

    def put(
        self,
        kind: str,
        entry_key: str,
        record: object,
        files: Mapping[str, Path] | None = None,
        record_type: Any = None,
    ) -> None:
        """Keep a record and files (or folders). An empty key keeps nothing; a full disk is no error here.

        `record_type` is the record's type where its class does not say enough, as `tuple[str, ...]`.
        """
        from pydantic import TypeAdapter

        if self._root is None or not entry_key:
            return
        values = TypeAdapter(record_type or type(record)).dump_python(record, mode="json")
        with contextlib.suppress(OSError):
            self._write(self._root / kind / entry_key, values, files or {})

    def _write(self, entry: Path, values: Any, files: Mapping[str, Path]) -> None:
        entry.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=entry.parent))
        try:
            for name, path in files.items():
                _copy(path, aside / "files" / name)
            digests = {name: digest_path(aside / "files" / name) for name in files}
            (aside / RECORD).write_text(json.dumps({"record": values, "files": digests}))
            shutil.rmtree(entry, ignore_errors=True)
            aside.rename(entry)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def prune(self, limit: int) -> None:
        """Delete what was not used for longest until at most `limit` bytes are left, and abandoned writes."""
        if self._root is None:
            return
        left = limit
        for record in sorted(self._root.glob(f"*/*/{RECORD}"), key=_modified, reverse=True):
            left -= sum(_size(path) for path in record.parent.rglob("*"))
            if left < 0:
                shutil.rmtree(record.parent, ignore_errors=True)
        for aside in self._root.glob("*/.writing-*"):
            if time.time() - _modified(aside) > ABANDONED_S:
                shutil.rmtree(aside, ignore_errors=True)


def _modified(path: Path) -> float:
    """Seconds; 0 for what another run has just deleted."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
