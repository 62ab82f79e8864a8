"""The runner's p50 against the same runtime's own loop in Python, on this machine.

python benchmarks/harness_overhead.py OUT [--blocks 10] [--threads 1]

OUT is an export's folder. Short blocks of both take turns, in alternating order, because other work on the
machine comes and goes; the ratio is the median over the pairs of blocks, each pair being neighbours in time,
with the quartiles of the pairs' ratios. Aim: within 2 % of 1, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from android_harness import protocol, runner_build
from android_harness.records import Backend

FILES: dict[Backend, str] = {
    "executorch": "executorch-xnnpack-fp32.pte",
    "onnxruntime": "onnx-fp32.onnx",
    "torchscript": "torchscript-lite-fp32.ptl",
}
BLOCK_NS = 10**9
WARMUP_CALLS = 30


def executorch_call(path: Path, value: Any, threads: int) -> Callable[[], object]:
    import torch
    from executorch.extension.pybindings import portable_lib

    portable_lib._unsafe_reset_threadpool(threads)
    method = portable_lib._load_for_executorch(str(path))
    tensor = torch.from_numpy(value)
    return lambda: method.forward([tensor])


def onnxruntime_call(path: Path, value: Any, threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: value}
    return lambda: session.run(None, feed)


def torchscript_call(path: Path, value: Any, threads: int) -> Callable[[], object]:
    import torch
    from torch.jit.mobile import _load_for_lite_interpreter

    torch.set_num_threads(threads)
    module = _load_for_lite_interpreter(str(path))  # type: ignore[no-untyped-call]
    tensor = torch.from_numpy(value)

    def call() -> object:
        with torch.inference_mode():
            return module(tensor)

    return call


CALLS: dict[Backend, Callable[[Path, Any, int], Callable[[], object]]] = {
    "executorch": executorch_call,
    "onnxruntime": onnxruntime_call,
    "torchscript": torchscript_call,
}


def python_p50_ms(call: Callable[[], object]) -> float:
    """Measure a block of the runtime's own loop."""
    for _ in range(WARMUP_CALLS):
        call()
    durations: list[int] = []
    while sum(durations) < BLOCK_NS:
        start = time.perf_counter_ns()
        call()
        durations.append(time.perf_counter_ns() - start)
    return median(durations) / 1e6


def write_job(backend: Backend, path: Path, value: Any, threads: int, folder: Path) -> Path:
    """Write the same work for the runner."""
    (folder / "in").write_bytes(value.tobytes())
    tensor = protocol.Tensor(file=str(folder / "in"), dtype="float32", shape=value.shape)
    job = protocol.Job(
        backend=backend,
        model=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        threads=threads,
        samples=((tensor,),),
        warmup=protocol.Warmup(min_calls=WARMUP_CALLS, min_ns=0, settled_calls=0),
        timed=protocol.Timed(min_calls=1, min_ns=BLOCK_NS, max_ns=BLOCK_NS),
        outputs=str(folder),
        result=str(folder / "result.json"),
    )
    (folder / "job.json").write_text(job.model_dump_json())
    return folder / "job.json"


def runner_p50_ms(runner: Path, job: Path) -> float:
    """Measure a block of the runner."""
    subprocess.run([str(runner), "run", str(job)], check=True, capture_output=True)
    result = protocol.Result.model_validate_json((job.parent / "result.json").read_bytes())
    return median(result.durations_ns) / 1e6


def pair(ours: Callable[[], float], theirs: Callable[[], float], swapped: bool) -> tuple[float, float]:
    """Measure a block of each; the order alternates, because the second block finds a warmer machine."""
    if swapped:
        second = theirs()
        return ours(), second
    return ours(), theirs()


def compare(backend: Backend, out: Path, blocks: int, threads: int) -> str:
    """Print one line of the table."""
    shape = json.loads((out / "manifest.json").read_text())["inputs"][0]["shape"]
    value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    path = out / FILES[backend]
    runner, call = runner_build.find_runner_build("host", backend), CALLS[backend](path, value, threads)
    with tempfile.TemporaryDirectory() as folder:
        job = write_job(backend, path, value, threads, Path(folder))
        pairs = [
            pair(lambda: runner_p50_ms(runner, job), lambda: python_p50_ms(call), swapped=bool(block % 2))
            for block in range(blocks)
        ]
    ours, theirs = (median(column) for column in zip(*pairs, strict=True))
    low, ratio, high = quantiles((a / b for a, b in pairs), n=4, method="inclusive")
    return f"{backend:12} {ours:10.3f} {theirs:10.3f} {ratio:8.3f}  {low:.3f} to {high:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    runner_build.build_runners("host", observer=print)
    print(f"{'runtime':12} {'runner ms':>10} {'Python ms':>10} {'ratio':>8}  quartiles")
    for backend in FILES:
        print(compare(backend, options.out, options.blocks, options.threads), flush=True)


if __name__ == "__main__":
    main()
