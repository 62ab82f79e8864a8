"""Makes OUT next to its place and renames it into it: nothing half-written looks whole, nothing is lost.

`.OUT.partial-*` holds `out` and `work` while a run works. To replace an earlier export, the finished files
become `new` there, OUT becomes `earlier`, `new` becomes OUT, and only then the earlier export is deleted and
the user's own files are moved from `earlier` back into OUT. Where a run is killed, the next one reads from
these names how far it got (`recover_staging`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exporter import temporary_files
from exporter.errors import FixedSizesError, OutputError, SeveralPartsError
from exporter.files import DEVICE, LOG, MANIFEST, PAGE

FORCE = "Give --force to replace an earlier export there, or another folder with -o."
NEW = "new"
EARLIER = "earlier"
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)
"""Error numbers of a rename onto a folder that holds files."""


@dataclass(frozen=True)
class Staging:
    """Folders of one run, next to OUT so that the last rename stays on one file system."""

    out: Path
    work: Path
    log: Path


@contextlib.contextmanager
def staging(destination: Path, force: bool, advice: str = FORCE) -> Iterator[Staging]:
    """Make folders to work in; they are gone afterwards, and only `publish_staged` makes OUT.

    When the run fails, the frameworks' log is kept as `<OUT>.export.log`; when it is interrupted, nothing is.

    Args:
        destination: OUT.
        force: An earlier export there may be replaced.
        advice: What to do where OUT holds files and `force` is not given.

    Raises:
        OutputError: OUT cannot be written, or holds files and `force` is not given.
    """
    check_staging_place(destination)
    recover_staging(destination)
    check_empty_before_staging(destination, force, advice)
    with contextlib.ExitStack() as stack:
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            root = stack.enter_context(
                temporary_files.temporary_folder(destination.parent, _staging_prefix(destination))
            )
            stack.callback(_settle_staging_quietly, root, destination)
            stage = Staging(root / "out", root / "work", root / "out" / LOG)
            stage.work.mkdir()
            stage.out.mkdir()
            stage.log.touch()
        except OSError as error:
            raise _unwritable_staging(destination, error) from None
        try:
            yield stage
        except OSError as error:
            _keep_staging_log(stage.log, destination)
            raise _unwritable_staging(destination, error) from error
        except (SeveralPartsError, FixedSizesError):  # nothing went wrong: each part or size gets a folder
            raise
        except Exception:  # not Ctrl-C, which leaves nothing to look into
            _keep_staging_log(stage.log, destination)
            raise


def check_staging_place(destination: Path) -> None:
    """Refuse a place that no folder can be renamed to.

    Raises:
        OutputError: It is a link, a file, or the current folder.
    """
    if destination.is_symlink():
        raise OutputError(f"{destination} is a link, expected a folder.", "Give the folder it leads to.")
    if not destination.exists():
        return
    if not destination.is_dir():
        raise OutputError(f"{destination} is a file, expected a folder.", "Choose another with -o.")
    if destination.samefile(Path.cwd()):
        raise OutputError(
            f"{destination} is the current folder, and OUT is put in place as a whole.",
            "Name a folder below it with -o.",
        )


def check_empty_before_staging(destination: Path, force: bool, advice: str = FORCE) -> None:
    """Refuse a folder that holds files, unless they may be replaced.

    Raises:
        OutputError: It holds files, or cannot be looked into.
    """
    if force or not destination.exists():
        return
    try:
        first = next(destination.iterdir(), None)
    except OSError as error:
        raise _unwritable_staging(destination, error) from None
    if first is not None:
        raise OutputError(f"{destination} is not empty (it holds {first.name}).", advice, code="EM-NOT-EMPTY")


def publish_staged(stage: Staging, destination: Path, force: bool = False, advice: str = FORCE) -> None:
    """Put the finished files in OUT's place, by one rename.

    With `force`, the files of an earlier export (those its manifest lists) are then deleted; whatever else
    is in OUT stays, and a file in the way that is not an earlier export's is refused.

    Raises:
        OutputError: OUT cannot be written, another run has published there, or a file of the user's is in
            the way.
    """
    try:
        if force:
            _replace_by_staged(stage, destination)
        else:
            _publish_staged_first(stage.out, destination, advice)
    except OSError as error:
        raise _unwritable_staging(destination, error) from error


def _publish_staged_first(new: Path, destination: Path, advice: str) -> None:
    try:
        new.rename(destination)
    except OSError:
        check_staging_place(destination)
        check_empty_before_staging(destination, False, advice)
        raise


def _replace_by_staged(stage: Staging, destination: Path) -> None:
    new, earlier = stage.work.with_name(NEW), stage.work.with_name(EARLIER)
    stage.out.rename(new)
    while True:
        check_staging_place(destination)
        if destination.exists():
            _check_nothing_in_way_of_staged(new, destination)
            destination.rename(earlier)
        try:
            new.rename(destination)
            break
        except OSError as error:
            if error.errno not in OCCUPIED or not earlier.exists():
                raise
            _take_earlier_staging_apart(
                earlier, destination
            )  # another run with --force was faster: replace its files too
    if earlier.exists():
        _take_earlier_staging_apart(earlier, destination)


def _check_nothing_in_way_of_staged(new: Path, destination: Path) -> None:
    earlier = _files_of_earlier_export(destination)
    for name in sorted(p.name for p in new.iterdir()):
        if (destination / name).exists() and name not in earlier:
            raise OutputError(
                f"{destination / name} is in the way and no earlier export's.",
                "Move it, or choose another -o.",
                code="EM-NOT-EMPTY",
            )


def _take_earlier_staging_apart(earlier: Path, destination: Path) -> None:
    """Delete an export that was replaced, and move the other files in it into OUT.

    The manifest goes last: it says what may be deleted, also to a run after this one was killed.
    """
    ours = _files_of_earlier_export(earlier)
    for name in sorted(ours - {MANIFEST}):
        _remove_staged(earlier / name)
    if any(name.startswith(f"{DEVICE}/") for name in ours):
        with contextlib.suppress(OSError):  # stays when it holds files of the user's
            (earlier / DEVICE).rmdir()
    if others := sorted(path for path in earlier.iterdir() if path.name not in ours):
        destination.mkdir(exist_ok=True)
    for path in others:
        _move_beside_staged(path, destination / path.name)
    if destination.exists():
        shutil.copymode(earlier, destination)
    if ours:
        _remove_staged(earlier / MANIFEST)
    earlier.rmdir()


def _move_beside_staged(path: Path, target: Path) -> None:
    """Move a file or folder of the user's, into a folder that is there already, and never over a file."""
    if path.is_dir() and not path.is_symlink() and target.is_dir() and not target.is_symlink():
        for inner in sorted(path.iterdir()):
            _move_beside_staged(inner, target / inner.name)
        path.rmdir()
        return
    while target.exists() or target.is_symlink():
        target = target.with_name(f"{target.name}.earlier")
    path.rename(target)


def _files_of_earlier_export(destination: Path) -> set[str]:
    try:
        manifest = json.loads((destination / MANIFEST).read_text())
        files = {str(a["file"]) for a in manifest["artifacts"] if a.get("file")}
        files |= {str(e["file"]) for e in manifest["evidence"]["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    ours = {name for name in files if _is_plain_staged_name(name.removeprefix(f"{DEVICE}/"))}
    if (destination / DEVICE).is_symlink():  # what it leads to is not ours
        ours = {name for name in ours if _is_plain_staged_name(name)}
    return ours | {MANIFEST, LOG, PAGE}


def _is_plain_staged_name(name: str) -> bool:
    return Path(name).name == name and name not in {"", ".", ".."}


def _remove_staged(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _staging_prefix(destination: Path) -> str:
    return f".{destination.name}.partial-"


def recover_staging(destination: Path) -> None:
    """Finish or undo what killed runs had begun with OUT, and remove what they left.

    Raises:
        OutputError: OUT holds other files by now, and a killed run had moved an export out of it.
    """
    for root in temporary_files.abandoned_temporary_files(destination.parent, _staging_prefix(destination)):
        with contextlib.suppress(OSError):
            _settle_staging(root, destination)


def _settle_staging_quietly(root: Path, destination: Path) -> None:
    """Settle at the end of a run, whose own error must not be hidden; the next run tries again."""
    with contextlib.suppress(OSError, OutputError):
        _settle_staging(root, destination)


def _settle_staging(root: Path, destination: Path) -> None:
    """Leave OUT whole, with the export it had before or with the new one, and remove a run's folder."""
    earlier = root / EARLIER
    if earlier.exists():
        if (root / NEW).exists():
            _put_back_staged(earlier, destination)
        else:
            _take_earlier_staging_apart(earlier, destination)
    for path in root.iterdir():
        _remove_staged(path)
    root.rmdir()


def _put_back_staged(earlier: Path, destination: Path) -> None:
    try:
        earlier.rename(destination)
    except OSError as error:
        if error.errno not in OCCUPIED:
            raise
        raise OutputError(
            f"{earlier} is the export that a killed run moved out of {destination}, which now holds others.",
            "Move or delete one of the two.",
            code="EM-NOT-EMPTY",
        ) from None


def _keep_staging_log(log: Path, destination: Path) -> None:
    with contextlib.suppress(OSError):
        if log.stat().st_size:
            shutil.copyfile(log, destination.parent / f"{destination.name}.{LOG}")


def _unwritable_staging(destination: Path, error: OSError) -> OutputError:
    why = error.strerror or str(error)
    hint = "Free some space" if error.errno == errno.ENOSPC else "Check the folder and its permissions"
    return OutputError(f"{destination} cannot be written: {why}.", f"{hint}, or choose another with -o.")
