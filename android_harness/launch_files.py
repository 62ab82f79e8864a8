"""Sends a launch's job to the device, and fetches its result and outputs, checked before they are read."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from android_harness import parse, runner_results
from android_harness.errors import DeviceError
from android_harness.protocol import Result
from android_harness.push import DeviceFiles
from android_harness.records import BenchConfig, BenchTask, Device, Sample

HASH_S = 60.0


@dataclass(frozen=True)
class PreparedDevice:
    """A device with everything in place for a launch."""

    device: Device
    files: DeviceFiles
    config: BenchConfig
    watch: tuple[str, ...]
    """The sysfs files that the runner reads between chunks of calls."""
    folder: Path
    """A local folder for temporary files."""


def send_launch_job(prepared: PreparedDevice, text: str, target: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=prepared.folder, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        prepared.device.push(Path(file.name), target)


def fetch_launch_json(prepared: PreparedDevice, source: str) -> bytes:
    """Fetch a JSON file that the runner wrote.

    Raises:
        runner_results.NoResult: There is none, or it is too large.
    """
    (size,) = _launch_output_sizes(prepared.device, source)
    if size > runner_results.MAX_RESULT_BYTES:
        raise runner_results.NoResult(
            f"The runner's result has {size} bytes, more than {runner_results.MAX_RESULT_BYTES}."
        )
    return _pull_launch_file(prepared, source)


def _pull_launch_file(prepared: PreparedDevice, source: str) -> bytes:
    with _temporary_launch_file(prepared.folder) as target:
        prepared.device.pull(source, target)
        return target.read_bytes()


@contextlib.contextmanager
def _temporary_launch_file(folder: Path) -> Iterator[Path]:
    path = folder / secrets.token_hex(8)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _launch_output_sizes(device: Device, *paths: str) -> list[int]:
    completed = device.run("stat", "-c", "%s", *paths)
    sizes = [parse.parse_integer(line) for line in completed.stdout.splitlines()]
    known = [size for size in sizes if size is not None]
    if completed.exit_code or len(known) != len(paths):
        raise runner_results.NoResult("The runner left no result.")
    return known


def fetch_launch_outputs(
    prepared: PreparedDevice, task: BenchTask, result: Result, base: str, repeats: int
) -> tuple[tuple[Sample, ...], bool]:
    """Return the outputs of the task's samples, and whether the first sample gave the same each time."""
    runner_results.check_runner_result_outputs(result, task, f"{base}/outputs", repeats)
    samples = result.outputs[: len(task.samples)]
    tensors = [tensor for sample in samples for tensor in sample]
    sizes = dict(zip(tensors, _launch_output_sizes(prepared.device, *(t.file for t in tensors)), strict=True))
    for tensor, size in sizes.items():
        if size != runner_results.expected_runner_result_bytes(tensor):
            raise DeviceError(f"{task.name}: {tensor.file} has {size} bytes, which does not fit its shape.")
    outputs = tuple(
        tuple(
            runner_results.runner_result_to_array(tensor, _pull_launch_file(prepared, tensor.file))
            for tensor in sample
        )
        for sample in samples
    )
    first = (samples[0], *result.outputs[len(samples) :])
    return outputs, len({_launch_digests(prepared.device, [t.file for t in sample]) for sample in first}) == 1


def _launch_digests(device: Device, paths: Sequence[str]) -> tuple[str, ...]:
    """Return the digests of files of the device, which are too many to be fetched."""
    completed = device.run("sha256sum", *paths, timeout_s=HASH_S)
    digests = tuple(line.split()[0].lstrip("\\") for line in completed.stdout.splitlines() if line.strip())
    if completed.exit_code or len(digests) != len(paths):
        raise DeviceError(f"{device.serial}: the runner's outputs could not be hashed.")
    return digests
