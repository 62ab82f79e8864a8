"""Write and check SHA256SUMS, in the format of `sha256sum -c`, over every file of a folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from exporter import files
from exporter.errors import VerificationError

FILE = "SHA256SUMS"
MAX_BYTES = 4 << 20


def sha256sums_text(directory: Path, without: Collection[str] = ()) -> str:
    """Return a line per file, sorted by name: all except the top `FILE` and files in the folders `without`.

    Raises:
        VerificationError: Something in the folder is neither a file nor a folder that holds one, or has a
            name that a line cannot hold.
    """
    lines = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        _check_sha256sums_entry(path, name.as_posix())
        if path.is_file() and name.parts[0] not in {FILE, *without}:
            lines.append(f"{files.digest_file(path)}  {name.as_posix()}\n")
    return "".join(lines)


def _check_sha256sums_entry(path: Path, name: str) -> None:
    """Refuse names that a line cannot hold: one with a line break would hide two other files."""
    plain = ascii(name)[1:-1]
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        raise VerificationError(f"{plain} is a link or a device; a bundle holds only files.")
    if not name.isprintable() or "\\" in name:
        raise VerificationError(f"{plain} is not a plain name; it is not part of the release.")
    if path.is_dir() and not any(path.iterdir()):
        raise VerificationError(f"{plain} is an empty folder; it is not part of the release.")


def write_sha256sums(directory: Path) -> None:
    (directory / FILE).write_bytes(sha256sums_text(directory).encode())


def sha256sums_problems(directory: Path, without: Collection[str] = ()) -> tuple[str, ...]:
    """List how a folder differs from its `FILE`, one sentence each; empty when it does not."""
    path = directory / FILE
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
        return (f"{FILE} is missing, or is not a list of hashes.",)
    claimed, actual = path.read_bytes(), sha256sums_text(directory, without).encode()
    if claimed == actual:
        return ()
    want, have = _sha256sums_table(claimed), _sha256sums_table(actual)
    changed = [
        f"{n} is not the file that was released."
        for n in sorted(want.keys() & have.keys())
        if want[n] != have[n]
    ]
    missing = [f"{n} is missing." for n in sorted(want.keys() - have.keys())]
    more = [f"{n} is not part of the release." for n in sorted(have.keys() - want.keys())]
    return (*changed, *missing, *more) or (f"{FILE} was changed.",)


def _sha256sums_table(content: bytes) -> dict[str, str]:
    rows = (line.partition("  ") for line in content.decode("utf-8", "replace").splitlines())
    return {ascii(name)[1:-1]: digest for digest, _, name in rows}
