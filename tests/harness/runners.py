"""Runners that are built once per machine, a tiny model of each format, and jobs for them."""

from __future__ import annotations

import functools
import hashlib
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from android_harness import protocol, runner_build, wheels
from android_harness.errors import SetupError
from android_harness.records import Backend, Build
from android_harness.simulator import base

SUFFIX = {"executorch": ".pte", "onnxruntime": ".onnx", "torchscript": ".ptl"}
Arrays = tuple[NDArray[Any], ...]


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="export-mobile-runner-"))


def _base_exists() -> bool:
    return (base.base_cache_folder() / f"{base.RELEASE}-{base.FORMAT}").is_dir()


def simulator_root() -> Path:
    """Return the Debian root of the simulated devices, with ONNX Runtime for arm64; make it if necessary."""
    if not _base_exists() and (reason := base.missing_for_base()):
        pytest.skip(reason)
    return base.base_root()


def _fetched_wheels(machine: str) -> None:
    """Bring the wheels that runners are linked with; skip the test without the package index."""
    try:
        wheels.fetch_wheels(machine)
    except SetupError as error:
        pytest.skip(str(error))


@functools.cache
def host_build() -> tuple[Path, ...]:
    _fetched_wheels(platform.machine())
    return runner_build.build_runners("host")


@functools.cache
def arm64_build() -> tuple[Path, ...]:
    """Build the runners for arm64 Linux with the libraries of the wheels."""
    if not shutil.which("aarch64-linux-gnu-g++"):
        pytest.skip("there is no aarch64-linux-gnu-g++")
    _fetched_wheels(wheels.ARM64)
    return runner_build.build_runners("linux-arm64")


def host_runner(backend: Backend) -> Path:
    """Return this machine's runner."""
    (path,) = (path for path in host_build() if path.name == f"runner-{backend}")
    return path


def find(target: Build, backend: Backend) -> Path | SetupError:
    try:
        return runner_build.find_runner_build(target, backend)
    except SetupError as error:
        return error


@functools.cache
def model(backend: Backend, keeps_state: bool = False) -> Path:
    """Return a model that maps a and b, each float32 [2, 3], to relu(a @ b.T) and a - b.

    One that keeps state maps them to the sum of ones, of every a so far, and of b.
    """
    import torch

    class Net(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.relu(a @ b.T), a - b

    class Summing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.ones(2, 3))

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            self.total.add_(a)  # type: ignore[operator]
            return self.total + b  # type: ignore[operator]

    net = Summing() if keeps_state else Net()
    path = folder() / f"{'summing' if keeps_state else 'tiny'}{SUFFIX[backend]}"
    example = (torch.ones(2, 3), torch.zeros(2, 3))
    if backend == "torchscript":
        torch.jit.script(net)._save_for_lite_interpreter(str(path))  # type: ignore[no-untyped-call]
    elif backend == "executorch":
        from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
        from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass

        how = ExecutorchBackendConfig(
            passes=[InitializedMutableBufferPass(["b_total"])] if keeps_state else []
        )
        program = to_edge_transform_and_lower(torch.export.export(net, example)).to_executorch(how)
        path.write_bytes(program.buffer)
    else:
        path.write_bytes(_onnx())
    return path


def _onnx() -> bytes:
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["b"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["a", "t"], ["m"]),
            helper.make_node("Relu", ["m"], ["y"]),
            helper.make_node("Sub", ["a", "b"], ["z"]),
        ],
        "tiny",
        [info(name, TensorProto.FLOAT, [2, 3]) for name in "ab"],
        [info("y", TensorProto.FLOAT, [2, 2]), info("z", TensorProto.FLOAT, [2, 3])],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def pixels_model(folder: Path, backend: Backend) -> Path:
    """Write a model that maps bytes of shape [1, 3, height, width] to their 255th parts, for any size."""
    path = folder / f"pixels{SUFFIX[backend]}"
    if backend == "executorch":
        import torch
        from executorch.exir import to_edge_transform_and_lower

        class Scaled(torch.nn.Module):
            def forward(self, pixels: torch.Tensor) -> torch.Tensor:
                return pixels.to(torch.float32) / 255

        sides = {2: torch.export.Dim("height", min=2, max=16), 3: torch.export.Dim("width", min=2, max=16)}
        example = (torch.zeros(1, 3, 8, 12, dtype=torch.uint8),)
        program = torch.export.export(Scaled(), example, dynamic_shapes=(sides,))
        path.write_bytes(to_edge_transform_and_lower(program).to_executorch().buffer)
        return path
    from onnx import TensorProto, helper

    shape: list[str | int | None] = [1, 3, "height", "width"]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["values", "most"], ["y"]),
        ],
        "pixels",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("most", TensorProto.FLOAT, [], [255.0])],
    )
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    return path


@functools.cache
def inputs() -> tuple[Arrays, ...]:
    random = np.random.default_rng(5)
    return tuple(tuple(random.normal(size=(2, 3)).astype(np.float32) for _ in range(2)) for _ in range(3))


def answers(sample: Arrays) -> Arrays:
    a, b = sample
    return np.maximum(a @ b.T, 0), a - b


@dataclass(frozen=True)
class Ran:
    code: int
    stderr: str
    result: protocol.Result | None


def job(backend: Backend, where: Path, path: Path | None = None) -> dict[str, Any]:
    """Return a job as plain JSON values, so that a test can make it invalid."""
    path = path or model(backend)
    samples = []
    for i, sample in enumerate(inputs()):
        for j, array in enumerate(sample):
            (where / f"in-{i}-{j}").write_bytes(array.tobytes())
        shape, files = (2, 3), [str(where / f"in-{i}-{j}") for j in range(len(sample))]
        samples.append(tuple(protocol.Tensor(file=file, dtype="float32", shape=shape) for file in files))
    return protocol.Job(
        backend=backend,
        model=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        threads=1,
        samples=tuple(samples),
        warmup=protocol.Warmup(max_ns=2 * 10**8, min_ns=10**6),
        timed=protocol.Timed(min_calls=50, min_ns=2 * 10**7, max_ns=2 * 10**9, chunk_ns=5 * 10**6),
        watch=("/proc/loadavg", "/no/such/file"),
        outputs=str(where),
        result=str(where / "result.json"),
    ).model_dump(mode="json")


def run(runner: Path, values: dict[str, Any], where: Path, *before: str, command: str = "run") -> Ran:
    """Run `before runner command JOB.json`."""
    import json

    (where / "job.json").write_text(json.dumps(values))
    done = subprocess.run(
        [*before, str(runner), command, str(where / "job.json")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    result = where / "result.json"
    parsed = protocol.Result.model_validate_json(result.read_text()) if result.exists() else None
    return Ran(done.returncode, done.stderr, parsed)
