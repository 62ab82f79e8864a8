"""Caches finished work by content: keys cover the inputs, the options and every installed package's version.

An entry is a folder with `record.json` and files. Entries are written aside and renamed, so a killed run
leaves none half-written. The record's first line is the hash of the rest, which names the entry's kind, its
key and the hashes of its files: what was damaged, edited or moved is a miss. Whoever may write the folder can
make a whole new entry, so a folder that others may write is refused. Nothing is unpickled. What was not used
for longest goes first when the cache outgrows its limit.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from exporter import temporary_files
from exporter.errors import UsageError
from exporter.files import copy_file_or_folder, digest_file_or_folder
from exporter.files import default_cache_root as default_cache_root

RECORD = "record.json"
LIMIT_BYTES = 10 * 1024**3
"""The default size limit; `$EXPORT_MOBILE_CACHE_GB` changes it."""
WRITING = ".writing-"
OTHERS_MAY_WRITE = 0o022


def check_cache_private(root: Path) -> None:
    """Refuse a folder in which others may put what a later export would publish as passed.

    Raises:
        UsageError: It is a link, no folder, another user's, or may be written by others.
    """
    try:
        status = root.lstat()
    except OSError:
        return  # it does not exist yet, or cannot be used at all
    problem, advice = "", "Give --no-cache, or another folder in EXPORT_MOBILE_CACHE."
    if stat.S_ISLNK(status.st_mode):
        problem, advice = "is a link", f"Set EXPORT_MOBILE_CACHE to the folder it leads to: {root.resolve()}"
    elif not stat.S_ISDIR(status.st_mode):
        problem = "is not a folder"
    elif status.st_uid != os.getuid():
        problem = "belongs to another user"
    elif status.st_mode & OTHERS_MAY_WRITE:
        problem, advice = "may be written by others", f"Delete it, or if you trust it: chmod go-w {root}"
    if problem:
        raise UsageError(f"The cache {root} {problem}.", advice, code="EM-CACHE")


def cache_limit_bytes() -> int:
    """Return how large the cache may grow: `$EXPORT_MOBILE_CACHE_GB` where that is a number."""
    try:
        return int(float(os.environ["EXPORT_MOBILE_CACHE_GB"]) * 1024**3)
    except (KeyError, ValueError, OverflowError):
        return LIMIT_BYTES


def cache_key(*parts: object) -> str:
    """Hash values that print alike when they are alike (records, tuples, strings, numbers)."""
    return hashlib.sha256(json.dumps([repr(part) for part in parts]).encode()).hexdigest()


@functools.cache
def cache_toolchain_key() -> str:
    """Hash what every result depends on besides its inputs: packages, Python, processor and our source."""
    packages = sorted(
        {f"{d.name}=={d.version}" for d in metadata.distributions(path=_installed_folders_for_cache())}
    )
    source = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*")):
        if path.suffix in {".py", ".gz"}:
            source.update(path.name.encode() + path.read_bytes())
    return cache_key(
        packages, sys.version, platform.platform(), _processor_for_cache(), os.cpu_count(), source.hexdigest()
    )


def _installed_folders_for_cache() -> list[str]:
    """Return the folders of the import path that hold installed packages.

    A folder inside a package is left out: setuptools, once imported, appends its own copies of packages to
    the path, and a result must not depend on what else the process has imported.
    """
    return [folder for folder in sys.path if not (Path(folder).parent / "__init__.py").exists()]


def _processor_for_cache() -> str:
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
        """Return the record under a key, and copy its files into a folder; None when missing or damaged.

        Args:
            kind: The folder of such entries.
            entry_key: What `cache_key` returns; nothing is kept under an empty one.
            record: The record's type, in any form that pydantic reads.
            files_into: Where the entry's files are copied.
        """
        from pydantic import TypeAdapter, ValidationError

        if self._root is None or not entry_key:
            return None
        entry = self._root / kind / entry_key
        try:
            entry_record = _open_cache_record((entry / RECORD).read_text(), kind, entry_key)
            value = TypeAdapter(record).validate_python(entry_record["record"])
            if any(
                digest_file_or_folder(entry / "files" / name) != digest
                for name, digest in entry_record["files"].items()
            ):
                return None
            for name in entry_record["files"]:
                copy_file_or_folder(entry / "files" / name, files_into / name)
            os.utime(entry / RECORD)  # used now: `prune` takes the others first
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError):
            return None
        return value

    def put(
        self,
        kind: str,
        entry_key: str,
        record: object,
        files: Mapping[str, Path] | None = None,
        record_type: Any = None,
    ) -> None:
        """Store a record and files (or folders). An empty key or a full disk stores nothing.

        `record_type` is the record's type where its class does not say enough, as `tuple[str, ...]`.
        """
        from pydantic import TypeAdapter

        if self._root is None or not entry_key:
            return
        values = TypeAdapter(record_type or type(record)).dump_python(record, mode="json")
        with contextlib.suppress(OSError):
            self._write(self._root / kind / entry_key, values, files or {})

    def _write(self, entry: Path, values: Any, files: Mapping[str, Path]) -> None:
        self._make_root()
        entry.parent.mkdir(mode=0o700, exist_ok=True)
        with temporary_files.temporary_folder(entry.parent, WRITING) as aside:
            try:
                for name, path in files.items():
                    copy_file_or_folder(path, aside / "files" / name)
                digests = {name: digest_file_or_folder(aside / "files" / name) for name in files}
                content = {"kind": entry.parent.name, "key": entry.name, "record": values, "files": digests}
                (aside / RECORD).write_text(_seal_cache_record(content))
                shutil.rmtree(entry, ignore_errors=True)
                aside.rename(entry)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def _make_root(self) -> None:
        """Make the folder private from the start: a umask of 002 would let a group write."""
        assert self._root is not None
        if not self._root.exists():
            self._root.parent.mkdir(parents=True, exist_ok=True)
            self._root.mkdir(mode=0o700, exist_ok=True)

    def prune(self, limit: int) -> None:
        """Delete abandoned writes, and the least recently used entries beyond `limit` bytes."""
        if self._root is None:
            return
        left = limit
        for record in sorted(self._root.glob(f"*/*/{RECORD}"), key=_cache_file_modified, reverse=True):
            left -= sum(_cache_entry_size(path) for path in record.parent.rglob("*"))
            if left < 0:
                shutil.rmtree(record.parent, ignore_errors=True)
        for kind in self._root.glob("*/"):
            for aside in temporary_files.abandoned_temporary_files(kind, WRITING):
                shutil.rmtree(aside, ignore_errors=True)


def _seal_cache_record(content: Mapping[str, Any]) -> str:
    """Return a record's text: the hash of the second line, and that line."""
    text = json.dumps(content)
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n"


def _open_cache_record(text: str, kind: str, entry_key: str) -> Any:
    """Return the content of a record's text.

    Raises:
        ValueError: It was changed, is another entry's, or names a file outside of its folder.
    """
    seal, _, line = text.partition("\n")
    if hashlib.sha256(line.removesuffix("\n").encode()).hexdigest() != seal:
        raise ValueError("the record was changed")
    content = json.loads(line)
    if (content["kind"], content["key"]) != (kind, entry_key):
        raise ValueError("the record is another entry's")
    if any(Path(name).name != name or name in {"", ".", ".."} for name in content["files"]):
        raise ValueError("a file is outside of the entry")
    return content


def _cache_file_modified(path: Path) -> float:
    """Return when a file was modified, in seconds; 0 for one that another run has just deleted."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _cache_entry_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
