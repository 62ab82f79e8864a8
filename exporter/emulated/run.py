"""Runs an artifact under QEMU, in a confined process: samples go in, outputs come back, nothing is timed.

The program is the runner that phones get, told to compute outputs only.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from android_harness import runner_results
from android_harness.errors import DeviceError
from android_harness.protocol import Job, Tensor, Timed
from android_harness.records import Backend, BenchTask
from exporter.emulated.arm_tools import ArmTools
from exporter.errors import LoweringError
from exporter.files import digest_file
from exporter.records import Array, Sample

BACKENDS: Mapping[str, Backend] = {
    "xnnpack": "executorch",
    "onnxruntime": "onnxruntime",
    "onnxruntime-mobile": "onnxruntime",
}
"""Backend of a variant -> the runner that runs it."""
SIGNALS = 128
UNTIMED = Timed(min_calls=0, min_ns=0, max_ns=0)


@dataclass(frozen=True, eq=False)
class EmulatedRun:
    """What an artifact computed under emulation."""

    runtime: str
    """"onnxruntime 1.32.0"."""
    outputs: tuple[Sample, ...]


def run_emulated(
    parts: ArmTools,
    root: Path,
    core: str,
    backend: str,
    model: Path,
    samples: Sequence[Sample],
    scratch: Path,
    options: Sequence[str] = (),
) -> EmulatedRun:
    """Run an artifact on samples.

    Args:
        parts: QEMU and the programs.
        root: The root that the program sees.
        core: QEMU's name of the processor.
        backend: "executorch" or "onnxruntime".
        model: The artifact.
        samples: The inputs of each call.
        scratch: A folder for the job, its inputs and its outputs.
        options: Further options of QEMU.

    Raises:
        LoweringError: The runtime refuses the artifact or crashes; or its answer is damaged.
    """
    (known,) = {name for name in BACKENDS.values() if name == backend}
    task = BenchTask(model.name, model, digest_file(model), known, tuple(samples))
    (scratch / "outputs").mkdir(exist_ok=True)
    (scratch / "result.json").unlink(missing_ok=True)
    (scratch / "job.json").write_text(_job_for_emulated_run(task, scratch).model_dump_json())
    program = parts.folder / "bin" / f"runner-{backend}"
    done = subprocess.run(
        [parts.qemu, "-L", root, "-cpu", core, *options, program, "outputs", scratch / "job.json"],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode < 0 or done.returncode >= SIGNALS:
        raise LoweringError(
            f"the runtime crashes on an emulated {core.partition(',')[0]}: "
            f"{_last_of_emulated_run(done.stderr)}"
        )
    if done.returncode:
        raise LoweringError(_last_of_emulated_run(done.stderr) or f"the program ended with {done.returncode}")
    try:
        runtime, outputs = runner_results.read_runner_result_outputs(
            scratch / "result.json", task, scratch / "outputs"
        )
    except DeviceError as error:
        raise LoweringError(f"the emulated program's answer is damaged: {error.message}") from None
    return EmulatedRun(runtime[:100], outputs)


def _job_for_emulated_run(task: BenchTask, scratch: Path) -> Job:
    samples = tuple(
        tuple(_input_for_emulated_run(scratch / f"{i}-{j}.in", array) for j, array in enumerate(sample))
        for i, sample in enumerate(task.samples)
    )
    return Job(
        backend=task.backend,
        model=str(task.path),
        sha256=task.sha256,
        threads=1,
        samples=samples,
        timed=UNTIMED,
        outputs=str(scratch / "outputs"),
        result=str(scratch / "result.json"),
    )


def _input_for_emulated_run(path: Path, array: Array) -> Tensor:
    path.write_bytes(np.ascontiguousarray(array).tobytes())
    return Tensor.model_validate({"file": str(path), "dtype": array.dtype.name, "shape": array.shape})


def _last_of_emulated_run(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
