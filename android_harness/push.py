"""Runners, models and inputs on the device: copied once, and known by their content, never by their names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from android_harness.errors import DeviceError
from android_harness.protocol import Dtype, Tensor
from android_harness.records import Array, Backend, BenchTask, Device

HASHED_BYTES_PER_S = 20e6
QUERY_S = 10.0


@dataclass(frozen=True)
class Program:
    """A built runner and the shared libraries that it needs beside it."""

    binary: Path
    libraries: tuple[Path, ...] = ()


@dataclass(frozen=True)
class DeviceFiles:
    """Where everything lies on the device."""

    programs: Mapping[Backend, str]
    models: Mapping[str, str]
    """SHA-256 -> path."""
    samples: Mapping[str, tuple[tuple[Tensor, ...], ...]]
    """Name of the task -> its inputs."""


@dataclass(frozen=True)
class _Copy:
    source: Path
    target: str
    sha256: str


def runners_for(
    tasks: Sequence[BenchTask], programs: Callable[[Backend], Program]
) -> Mapping[Backend, Program]:
    """The runner for each backend of the tasks."""
    return {backend: programs(backend) for backend in dict.fromkeys(task.backend for task in tasks)}


def push_files(
    device: Device, tasks: Sequence[BenchTask], programs: Mapping[Backend, Program], folder: Path
) -> DeviceFiles:
    """Copy what the device does not have yet, and check that it now has exactly these contents.

    Args:
        device: Where to.
        tasks: Their models and inputs.
        programs: Of `programs_needed`.
        folder: An empty folder here, for the inputs on their way.

    Raises:
        DeviceError: A file on the device is not what was sent; the disk is full; disconnected.
    """
    copies: dict[str, _Copy] = {}

    def add(source: Path, target: str, sha256: str) -> str:
        copies[target] = _Copy(source, target, sha256)
        return target

    store = f"{device.root}/store"
    placed = DeviceFiles(
        programs={backend: _program(device, program, add) for backend, program in programs.items()},
        models={w.sha256: add(w.path, f"{store}/{w.sha256}{_suffix(w.path)}", w.sha256) for w in tasks},
        samples={
            w.name: tuple(tuple(_input(a, store, folder, add) for a in s) for s in w.samples) for w in tasks
        },
    )
    _copy(device, list(copies.values()), list(placed.programs.values()))
    return placed


def _program(device: Device, program: Program, add: Callable[[Path, str, str], str]) -> str:
    """Libraries are found by their names, so they lie beside the program in a folder for these contents."""
    files = {path: digest(path) for path in (program.binary, *program.libraries)}
    together = hashlib.sha256("".join(files.values()).encode()).hexdigest()
    for path, sha256 in files.items():
        add(path, f"{device.root}/programs/{together}/{path.name}", sha256)
    return f"{device.root}/programs/{together}/{program.binary.name}"


def _input(array: Array, store: str, folder: Path, add: Callable[[Path, str, str], str]) -> Tensor:
    import numpy as np

    if array.dtype.name not in get_args(Dtype):
        raise DeviceError(f"Inputs of type {array.dtype.name} cannot be sent to a device.")
    raw = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).tobytes()
    sha256 = hashlib.sha256(raw).hexdigest()
    source = folder / sha256
    source.write_bytes(raw)
    file = add(source, f"{store}/{sha256}", sha256)
    return Tensor.model_validate({"file": file, "dtype": array.dtype.name, "shape": array.shape})


def _suffix(path: Path) -> str:
    """Runtimes tell formats by it."""
    return path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,16}", path.suffix) else ""


def _copy(device: Device, copies: Sequence[_Copy], programs: Sequence[str]) -> None:
    folders = sorted({copy.target.rpartition("/")[0] for copy in copies})
    run_checked(device, "mkdir", "-p", *folders)
    missing = _differing(device, copies)
    for copy in missing:
        device.push(copy.source, copy.target)
    wrong = _differing(device, missing)
    if wrong:
        raise DeviceError(
            f"{device.serial}: {wrong[0].target} is not what was copied there (its sha256 differs).",
            "Check the device's free space and its storage.",
        )
    run_checked(device, "chmod", "755", *programs)


def _differing(device: Device, copies: Sequence[_Copy]) -> list[_Copy]:
    """Those whose contents the device does not have, by one call of its `sha256sum`."""
    if not copies:
        return []
    size = sum(copy.source.stat().st_size for copy in copies)
    ended = device.run(
        "sha256sum", *(copy.target for copy in copies), timeout_s=QUERY_S + size / HASHED_BYTES_PER_S
    )
    found = {line[66:]: line[:64] for line in ended.stdout.splitlines()}
    return [copy for copy in copies if found.get(copy.target) != copy.sha256]


def run_checked(device: Device, *argv: str) -> str:
    """Run a short command that must succeed.

    Raises:
        DeviceError: It did not; says what it printed.
    """
    ended = device.run(*argv, timeout_s=QUERY_S)
    if ended.exit_code:
        said = ended.stderr.strip()[:300] or f"exit code {ended.exit_code}"
        raise DeviceError(f"{device.serial}: {argv[0]} failed: {said}")
    return ended.stdout


def digest(path: Path) -> str:
    """SHA-256 of a file here."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
