"""What the jobs of each command may do: the files they see, the folders they change, the time they get."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.config.request import ModelRequest, Request
from exporter.files import size_bytes
from exporter.pipeline.workers.pool import Rights
from exporter.sandbox import Confinement, memory_bound, read_seconds
from exporter.staging import Staging

TORCHVISION = "torchvision/"


def own_code(request: ModelRequest) -> bool:
    """Whether code runs that the user vouches for: the checkpoint's (`--trust`), or their own network's."""
    return request.trust or bool(request.arch and not request.arch.startswith(TORCHVISION))


def to_export(request: Request, folders: Staging) -> Rights:
    """Rights of an export's jobs: they read the checkpoint and the data, and change the run's own folders."""
    data = filter(None, (request.calibration, request.evaluation))
    listed = _listed(request.evaluation) if request.evaluation else ()
    return Rights(
        Confinement(
            reads=(*_places(*_inputs(request)), *_places(*data), *_places(*listed)),
            writes=(folders.work.resolve(), folders.out.resolve()),
            forks=True,
            programs=True,
            memory_bytes=memory_bound(_size(request.checkpoint)),
        ),
        own_code=own_code(request),
    )


def to_inspect(request: ModelRequest) -> Rights:
    """Rights of the one job that looks at a checkpoint: it writes nothing."""
    size = _size(request.checkpoint)
    return Rights(
        Confinement(
            reads=_places(*_inputs(request)),
            forks=True,
            seconds=read_seconds(size),
            memory_bytes=memory_bound(size),
        ),
        own_code=own_code(request),
    )


def to_verify(out: Path) -> Rights:
    """Rights of the jobs that run the artifacts of a folder: they write nothing."""
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    return Rights(Confinement(reads=(out.resolve(),), memory_bytes=memory_bound(sum(sizes))))


def to_read(paths: Sequence[Path]) -> Rights:
    """Rights of the jobs that read files of unknown origin and run nothing: they write nothing.

    Args:
        paths: A folder of artifacts, and libraries; an archive among these unpacks to more than its size.
    """
    sizes = sum(_size(path) for path in paths)
    reads = tuple(path.resolve() for path in paths)
    return Rights(Confinement(reads=reads, memory_bytes=memory_bound(sizes)))


def _listed(evaluation: Path) -> tuple[Path, ...]:
    """Return the folders of the photos that a file of labels names."""
    from exporter.data.labels.source import listing, read_folders

    return tuple(filter(Path.is_dir, read_folders(evaluation))) if listing(evaluation) else ()


def _inputs(request: ModelRequest) -> tuple[Path, ...]:
    """What reading the checkpoint takes: the file itself, and photos whose class is known."""
    return (request.checkpoint, *(Path(photo) for photo, _ in request.expect))


def _places(*paths: Path) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(place for path in paths for place in _leads_to(path)))


def _leads_to(path: Path) -> Iterator[Path]:
    """Where a file or a folder really lies, and where the links in the folder lead."""
    yield path.resolve()
    for folder, folders, names in os.walk(path):
        inside = (Path(folder) / name for name in (*folders, *names))
        yield from (item.resolve() for item in inside if item.is_symlink())


def _size(path: Path) -> int:
    return size_bytes(path) if path.exists() else 0
