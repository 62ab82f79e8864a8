"""Copy runners, models and inputs to the device. A file is named by its content, and copied only once."""

from __future__ import annotations

import contextlib
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
PRUNE_S = 30.0
STORE_KB = 4 << 20
"""What the store may hold, the youngest first."""
PRUNE = r"""
cd "$1" 2>/dev/null || exit 0
find jobs -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf {} + 2>/dev/null
find store programs -type f -mtime +13 -exec rm -f {} + 2>/dev/null
rmdir programs/* 2>/dev/null
used=$(du -sk store 2>/dev/null | cut -f 1)
for file in $(ls -tr store 2>/dev/null); do
    [ "${used:-0}" -le "$2" ] && break
    size=$(du -k "store/$file" | cut -f 1)
    rm -f "store/$file"
    used=$((used - size))
done
exit 0
"""
"""Names in the store are hashes, without spaces."""


@dataclass(frozen=True)
class Program:
    """A runner and the shared libraries that it needs next to it."""

    binary: Path
    libraries: tuple[Path, ...] = ()


@dataclass(frozen=True)
class DeviceFiles:
    """The paths of all files on the device."""

    programs: Mapping[Backend, str]
    models: Mapping[str, str]
    """SHA-256 -> path."""
    samples: Mapping[str, tuple[tuple[Tensor, ...], ...]]
    """The name of a task -> its inputs, and then its edge inputs."""
    """Name of the task -> its inputs."""


@dataclass(frozen=True)
class _PushedCopy:
    source: Path
    target: str
    sha256: str


def runners_to_push(
    tasks: Sequence[BenchTask], programs: Callable[[Backend], Program]
) -> Mapping[Backend, Program]:
    """Return the runner for each backend that the tasks use."""
    return {backend: programs(backend) for backend in dict.fromkeys(task.backend for task in tasks)}


def push_files(
    device: Device, tasks: Sequence[BenchTask], programs: Mapping[Backend, Program], folder: Path
) -> DeviceFiles:
    """Copy the files that the device does not have yet, and check the contents of all files.

    Args:
        device: The device to copy to.
        tasks: The tasks whose models and inputs are needed.
        programs: The runners, from `runners_to_push`.
        folder: An empty local folder for the inputs.

    Raises:
        DeviceError: A file on the device differs from the local file, the disk is full, or the device was
            disconnected.
    """
    copies: dict[str, _PushedCopy] = {}

    def add(source: Path, target: str, sha256: str) -> str:
        copies[target] = _PushedCopy(source, target, sha256)
        return target

    store = f"{device.root}/store"
    files = DeviceFiles(
        programs={backend: _push_program(device, program, add) for backend, program in programs.items()},
        models={
            t.sha256: add(t.path, f"{store}/{t.sha256}{_pushed_suffix(t.path)}", t.sha256) for t in tasks
        },
        samples={
            task.name: tuple(
                tuple(_push_input(array, store, folder, add) for array in sample)
                for sample in (*task.samples, *task.edges)
            )
            for task in tasks
        },
    )
    _pushed_copy(device, list(copies.values()), list(files.programs.values()))
    return files


def prune_pushed(device: Device) -> None:
    """Delete files that no run has used for two weeks, jobs of killed runs, and the oldest beyond 4 GB.

    What cannot be deleted only costs space, which the readiness checks see.
    """
    with contextlib.suppress(DeviceError):
        device.run("sh", "-c", PRUNE, "sh", device.root, str(STORE_KB), timeout_s=PRUNE_S)


def _push_program(device: Device, program: Program, add: Callable[[Path, str, str], str]) -> str:
    """Add a runner and its libraries, in a folder named by their contents: libraries keep their names."""
    digests = {path: digest_to_push(path) for path in (program.binary, *program.libraries)}
    folder = hashlib.sha256("".join(digests.values()).encode()).hexdigest()
    for path, sha256 in digests.items():
        add(path, f"{device.root}/programs/{folder}/{path.name}", sha256)
    return f"{device.root}/programs/{folder}/{program.binary.name}"


def _push_input(array: Array, store: str, folder: Path, add: Callable[[Path, str, str], str]) -> Tensor:
    import numpy as np

    if array.dtype.name not in get_args(Dtype):
        raise DeviceError(f"Inputs of type {array.dtype.name} cannot be sent to a device.")
    raw = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).tobytes()
    sha256 = hashlib.sha256(raw).hexdigest()
    source = folder / sha256
    source.write_bytes(raw)
    file = add(source, f"{store}/{sha256}", sha256)
    return Tensor.model_validate({"file": file, "dtype": array.dtype.name, "shape": array.shape})


def _pushed_suffix(path: Path) -> str:
    """Return the suffix of a model, because runtimes recognise formats by it; drop an unusual one."""
    return path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,16}", path.suffix) else ""


def _pushed_copy(device: Device, copies: Sequence[_PushedCopy], programs: Sequence[str]) -> None:
    folders = sorted({copy.target.rpartition("/")[0] for copy in copies})
    run_for_push(device, "mkdir", "-p", *folders)
    missing = _copies_to_push(device, copies)
    for copy in missing:
        device.push(copy.source, copy.target)
    wrong = _copies_to_push(device, missing)
    if wrong:
        raise DeviceError(
            f"{device.serial}: {wrong[0].target} differs from the file that was copied (by its SHA-256).",
            "Check the device's free space and its storage.",
        )
    run_for_push(device, "chmod", "755", *programs)
    device.run("touch", "-c", *(copy.target for copy in copies), timeout_s=QUERY_S)  # used: see `PRUNE`


def _copies_to_push(device: Device, copies: Sequence[_PushedCopy]) -> list[_PushedCopy]:
    """Return the copies whose contents the device does not have, by one call of its `sha256sum`."""
    if not copies:
        return []
    size = sum(copy.source.stat().st_size for copy in copies)
    completed = device.run(
        "sha256sum", *(copy.target for copy in copies), timeout_s=QUERY_S + size / HASHED_BYTES_PER_S
    )
    digests = {line[66:]: line[:64] for line in completed.stdout.splitlines()}
    return [copy for copy in copies if digests.get(copy.target) != copy.sha256]


def run_for_push(device: Device, *argv: str) -> str:
    """Run a short command on the device and return its output.

    Raises:
        DeviceError: The command failed; the message holds its error output.
    """
    completed = device.run(*argv, timeout_s=QUERY_S)
    if completed.exit_code:
        reason = completed.stderr.strip()[:300] or f"exit code {completed.exit_code}"
        raise DeviceError(f"{device.serial}: {argv[0]} failed: {reason}")
    return completed.stdout


def digest_to_push(path: Path) -> str:
    """Return the SHA-256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
