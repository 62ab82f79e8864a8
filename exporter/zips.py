"""What every reader of a zip archive from elsewhere must refuse, and what its names may be. Pure."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

ENCRYPTED = 0x1
"""Of an entry's flags."""
MAX_NAME = 255


def duplicates(entries: Sequence[zipfile.ZipInfo]) -> str:
    """Why two entries are one on some file system; an empty string when none are."""
    names = {entry.filename.casefold() for entry in entries}
    return "" if len(names) == len(entries) else "The archive holds two records of one name"


def expands(entries: Sequence[zipfile.ZipInfo], size_bytes: int, expansion: int, slack_bytes: int) -> str:
    """Why unpacking would take more than the archive can hold; an empty string when it would not.

    Args:
        entries: As the archive lists them.
        size_bytes: Of the archive.
        expansion: How many times its own size it may unpack to.
        slack_bytes: Granted on top, so that a small archive of text passes.
    """
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > expansion * size_bytes + slack_bytes:
        return (
            f"The archive of {size_bytes} bytes claims to unpack to {unpacked} bytes, expected at most about "
            f"{expansion} times its size."
        )
    stored = sum(entry.file_size for entry in entries if entry.compress_type == zipfile.ZIP_STORED)
    if stored > size_bytes:
        return f"The archive of {size_bytes} bytes claims to store {stored} bytes."
    return ""


def strange(entry: zipfile.ZipInfo) -> str:
    """Why an entry must not become a file below a folder of ours; an empty string when it may."""
    name = entry.filename
    parts = name.removesuffix("/").split("/")
    if PurePosixPath(name).is_absolute() or any(part in {"", ".", ".."} for part in parts):
        return f"{name!a} leads out of the archive's folder"
    if "\\" in name or ":" in name or "\0" in entry.orig_filename or not name.isprintable():
        return f"{name!a} is no plain name"
    if len(name) > MAX_NAME:
        return f"{name[:40]!a}… is longer than {MAX_NAME} characters"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR} or ((kind == stat.S_IFDIR) != name.endswith("/") and kind):
        return f"{name!a} is a link or a device, not a file"
    return f"{name!a} is encrypted" if entry.flag_bits & ENCRYPTED else ""
