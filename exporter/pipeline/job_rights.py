"""What the jobs of each command may do: the files they see, the folders they change, the time they get."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.checkpoints.checkpoint_folder import find_checkpoint_folder
from exporter.checkpoints.lora import SETTINGS
from exporter.config.request import ModelRequest, Request
from exporter.emulated import arm_tools
from exporter.files import file_size_bytes
from exporter.pipeline.cache import default_cache_root
from exporter.pipeline.workers.jobs import JobRights
from exporter.sandbox import Confinement, confinement_memory, confinement_seconds
from exporter.staging import Staging

PACKAGES = ("torchvision/", "transformers/", "timm/")
"""The beginnings of `--arch` that name networks of installed packages, not the user's own code."""


def job_rights_of_own_code(request: ModelRequest) -> bool:
    """Whether code runs that the user vouches for: the checkpoint's (`--trust`), or their own network's."""
    return request.trust or bool(request.arch and not request.arch.startswith(PACKAGES))


def job_rights_to_export(request: Request, folders: Staging) -> JobRights:
    """Rights of an export's jobs: they read the checkpoint and the data, and change the run's own folders."""
    data = filter(None, (request.calibration, request.evaluation))
    listed = _folders_listed_for_job_rights(request.evaluation) if request.evaluation else ()
    return JobRights(
        Confinement(
            reads=(
                *_job_rights_to_places(*_job_rights_to_inputs(request)),
                *_job_rights_to_places(*data),
                *_job_rights_to_places(*listed),
                *_job_rights_to_arm_programs(),
            ),
            writes=(folders.work.resolve(), folders.out.resolve()),
            forks=True,
            programs=True,
            memory_bytes=confinement_memory(_weights_for_job_rights(request)),
        ),
        own_code=job_rights_of_own_code(request),
    )


def _job_rights_to_arm_programs() -> tuple[Path, ...]:
    """Return the folder of the programs that run artifacts on emulated Arm; nothing where there are none."""
    ready = arm_tools.ready_arm_tools(default_cache_root())
    return (ready.folder.resolve(),) if ready else ()


def job_rights_to_inspect(request: ModelRequest, scratch: Path) -> JobRights:
    """Rights of the one job that looks at a checkpoint: it changes nothing but `scratch`.

    Packages that build networks make folders for their settings when they are imported.
    """
    size = _weights_for_job_rights(request)
    return JobRights(
        Confinement(
            reads=_job_rights_to_places(*_job_rights_to_inputs(request)),
            writes=(scratch.resolve(),),
            forks=True,
            seconds=confinement_seconds(size),
            memory_bytes=confinement_memory(size),
        ),
        own_code=job_rights_of_own_code(request),
    )


def job_rights_to_run_parts(request: ModelRequest, out: Path, scratch: Path) -> JobRights:
    """Rights of the job that runs a network's parts together: it changes nothing but `scratch`."""
    size = 2 * _weights_for_job_rights(request)
    return JobRights(
        Confinement(
            reads=_job_rights_to_places(*_job_rights_to_inputs(request), out),
            writes=(scratch.resolve(),),
            forks=True,
            seconds=confinement_seconds(size),
            memory_bytes=confinement_memory(size),
        ),
        own_code=job_rights_of_own_code(request),
    )


def job_rights_to_merge_files(out: Path, scratch: Path, files: Sequence[Path]) -> JobRights:
    """Rights of the job that merges an export's files into one in `scratch`, and runs them."""
    size = sum(file_size_bytes(path) for path in files)
    return JobRights(
        Confinement(
            reads=(out.resolve(),),
            writes=(scratch.resolve(),),
            memory_bytes=confinement_memory(4 * size),
        )
    )


def job_rights_to_verify(out: Path, *more: Path) -> JobRights:
    """Rights of the jobs that run the artifacts of a folder, and may read more: they write nothing."""
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    reads = tuple(path.resolve() for path in (out, *more))
    return JobRights(Confinement(reads=reads, memory_bytes=confinement_memory(sum(sizes))))


def job_rights_to_read(paths: Sequence[Path]) -> JobRights:
    """Rights of the jobs that read files of unknown origin and run nothing: they write nothing.

    Args:
        paths: A folder of artifacts, and libraries; an archive among these unpacks to more than its size.
    """
    sizes = sum(_size_for_job_rights(path) for path in paths)
    reads = tuple(path.resolve() for path in paths)
    return JobRights(Confinement(reads=reads, memory_bytes=confinement_memory(sizes)))


def _folders_listed_for_job_rights(evaluation: Path) -> tuple[Path, ...]:
    """Return the folders of the photos that a file of labels names."""
    from exporter.data.labels.label_source import folders_of_label_source, is_label_source_listing

    return (
        tuple(filter(Path.is_dir, folders_of_label_source(evaluation)))
        if is_label_source_listing(evaluation)
        else ()
    )


def _job_rights_to_inputs(request: ModelRequest) -> tuple[Path, ...]:
    """Return what reading the checkpoint takes: the file, its base network, and photos of known classes."""
    base = (
        (request.checkpoint.parent / SETTINGS, find_checkpoint_folder(request.base)) if request.base else ()
    )
    return (request.checkpoint, *filter(Path.exists, base), *(Path(photo) for photo, _ in request.expect))


def _job_rights_to_places(*paths: Path) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(place for path in paths for place in _places_behind_job_rights(path)))


def _places_behind_job_rights(path: Path) -> Iterator[Path]:
    """Where a file or a folder really is, and where the links in the folder lead."""
    yield path.resolve()
    for folder, folders, names in os.walk(path):
        inside = (Path(folder) / name for name in (*folders, *names))
        yield from (item.resolve() for item in inside if item.is_symlink())


def _weights_for_job_rights(request: ModelRequest) -> int:
    return _size_for_job_rights(request.checkpoint) + (
        _size_for_job_rights(request.base) if request.base else 0
    )


def _size_for_job_rights(path: Path) -> int:
    return file_size_bytes(path) if path.exists() else 0
