"""The C++ runner, built for this machine and for arm64 Linux, with real files."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from android_harness import protocol, runner_results
from android_harness.records import Backend, BenchTask
from exporter.config.targets import get_target
from exporter.emulated import arm_tools
from tests.harness import runners

pytestmark = pytest.mark.slow
BACKENDS: tuple[Backend, ...] = ("executorch", "onnxruntime", "torchscript")


def _check_outputs(result: protocol.Result) -> None:
    assert len(result.outputs) == len(runners.inputs())
    for tensors, sample in zip(result.outputs, runners.inputs(), strict=True):
        for tensor, expected in zip(tensors, runners.answers(sample), strict=True):
            actual = np.fromfile(tensor.file, tensor.dtype).reshape(tensor.shape)
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_its_outputs_are_those_of_the_model(backend: Backend, tmp_path: Path) -> None:
    """Every sample's outputs are those of the model, with each runtime."""
    ran = runners.run(runners.host_runner(backend), runners.job(backend, tmp_path), tmp_path)
    assert ran.code == 0, ran.stderr
    assert ran.result is not None
    assert ran.result.failure is None
    _check_outputs(ran.result)


@pytest.mark.parametrize("backend", ["executorch", "torchscript"])
def test_a_model_with_state_answers_as_it_was_loaded(backend: Backend, tmp_path: Path) -> None:
    """Timed calls change what a model keeps; the outputs that are checked begin with the file's state."""
    values = runners.job(backend, tmp_path, runners.model(backend, keeps_state=True)) | {"fresh": True}
    ran = runners.run(runners.host_runner(backend), values, tmp_path)
    assert ran.code == 0, ran.stderr
    assert ran.result is not None
    total = np.ones((2, 3), np.float32)  # what the file holds
    for tensors, (a, b) in zip(ran.result.outputs, runners.inputs(), strict=True):
        total = total + a
        answer = np.fromfile(tensors[0].file, tensors[0].dtype).reshape(2, 3)
        np.testing.assert_allclose(answer, total + b, rtol=1e-5, atol=1e-5)


def test_it_keeps_every_timed_call(tmp_path: Path) -> None:
    """Durations and offsets are consistent, both minima are met, and clocks are read around each chunk."""
    values = runners.job("torchscript", tmp_path)
    result = runners.run(runners.host_runner("torchscript"), values, tmp_path).result
    assert result is not None
    durations, offsets = np.array(result.durations_ns), np.array(result.offsets_ns)
    assert len(durations) == len(offsets) >= 50
    assert offsets[0] == 0
    assert np.all(np.diff(offsets) >= durations[:-1])
    assert offsets[-1] + durations[-1] >= 2 * 10**7
    assert len(result.clocks) == 1 + _chunks(values, durations, offsets)
    assert all(set(moment.texts) == {"/proc/loadavg"} for moment in result.clocks)
    assert result.first_ns > 0
    assert result.load_ns > 0
    assert (result.peak_bytes or 0) > 10**6


def _chunks(job: dict[str, Any], durations: NDArray[np.int64], offsets: NDArray[np.int64]) -> int:
    """Return the number of chunks of these calls; waiting for a core makes fewer and longer chunks."""
    count, began = 0, 0
    for end in offsets + durations:
        if end - began >= job["timed"]["chunk_ns"]:
            count, began = count + 1, end
    return count + bool(began != end)


def test_it_stops_at_the_maximum(tmp_path: Path) -> None:
    """Minima that cannot be met in time do not keep a device busy."""
    values = runners.job("torchscript", tmp_path)
    values["timed"] = {"min_calls": 10**7, "min_ns": 0, "max_ns": 10**8, "chunk_ns": 10**7}
    result = runners.run(runners.host_runner("torchscript"), values, tmp_path).result
    assert result is not None
    assert 0 < len(result.durations_ns) < 10**7
    # The last call may begin late if the process waited for a core, but none begins after the maximum.
    assert result.offsets_ns[-2] + result.durations_ns[-2] < 10**8


def test_it_runs_on_the_requested_cores(tmp_path: Path) -> None:
    """The kernel reports the requested affinity mask."""
    values = runners.job("torchscript", tmp_path) | {"affinity": "1"}
    result = runners.run(runners.host_runner("torchscript"), values, tmp_path).result
    assert result is not None
    assert result.cores_allowed == "0"


Spoil = Callable[[dict[str, Any]], None]


def _set(name: str, value: object) -> Spoil:
    return lambda job: job.__setitem__(name, value)


def _tensor(name: str, value: object) -> Spoil:
    return lambda job: job["samples"][0][0].__setitem__(name, value)


def _broken_model(job: dict[str, Any]) -> None:
    path = Path(job["outputs"]) / "broken.onnx"
    path.write_bytes(b"no model at all")
    job |= {"model": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


FAILURES: dict[str, tuple[Spoil, int, str, str]] = {
    "protocol": (_set("protocol", 2), 20, "protocol", "knows only protocol 1"),
    "unknown key": (_set("surprise", 1), 20, "protocol", "surprise"),
    "no flag": (_set("fresh", 1), 20, "protocol", "fresh is neither true nor false"),
    "missing key": (lambda job: job.pop("threads"), 20, "protocol", "threads"),
    "broken model": (_broken_model, 22, "model", ""),
    "no model": (_set("model", "/no/such/model"), 22, "model", "/no/such/model"),
    "hash": (_set("sha256", "0" * 64), 23, "hash", "has sha256"),
    "no input file": (_tensor("file", "/no/such/input"), 24, "input", "/no/such/input"),
    "wrong size": (_tensor("shape", [2, 4]), 24, "input", "takes 32"),
    "missing input": (lambda job: job["samples"][0].pop(), 24, "input", "takes 2 inputs, not 1"),
    "wrong dtype": (_tensor("dtype", "int32"), 24, "input", ""),
    "no samples": (_set("samples", []), 24, "input", "no sample"),
    "outputs nowhere": (_set("outputs", "/no/such/folder"), 27, "io", "/no/such/folder"),
    "another runtime": (_set("backend", "executorch"), 28, "unsupported", "built for"),
    "no such core": (_set("affinity", "8000000000000000"), 28, "unsupported", "cores"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_it_reports_why_it_failed(name: str, tmp_path: Path) -> None:
    """Each failure has its own exit code, and the result contains its kind and reason."""
    spoil, code, kind, words = FAILURES[name]
    values = runners.job("onnxruntime", tmp_path)
    spoil(values)
    ran = runners.run(runners.host_runner("onnxruntime"), values, tmp_path)
    assert ran.result is not None
    assert ran.result.failure is not None
    assert (ran.code, ran.result.failure.kind) == (code, kind)
    assert words in ran.result.failure.reason
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("backend", ["executorch", "torchscript"])
def test_every_runtime_refuses_a_file_that_is_not_a_model(backend: Backend, tmp_path: Path) -> None:
    """A file that is not a model is a failure of kind model, not a crash."""
    values = runners.job(backend, tmp_path)
    _broken_model(values)
    ran = runners.run(runners.host_runner(backend), values, tmp_path)
    assert ran.result is not None
    assert ran.result.failure is not None
    assert (ran.code, ran.result.failure.kind) == (22, "model")


def test_it_reports_that_memory_ran_out(tmp_path: Path) -> None:
    """An allocation that the system refuses is a failure of kind memory, not a crash."""
    values = runners.job("onnxruntime", tmp_path)
    huge = tmp_path / "huge"
    with huge.open("wb") as stream:
        stream.truncate(3 * 2**30)
    values["samples"][0][0] |= {"file": str(huge), "shape": [3 * 2**28]}
    runner = runners.host_runner("onnxruntime")
    ran = runners.run(runner, values, tmp_path, "prlimit", f"--as={2**31}")
    assert ran.result is not None
    assert ran.result.failure is not None
    assert (ran.code, ran.result.failure.kind) == (25, "memory")


@pytest.mark.parametrize("size", [0, 55, 56, 63, 64, 65, 65536, 100001])
def test_sha256_is_hashlibs(size: int, tmp_path: Path) -> None:
    """The runner's SHA-256 agrees with hashlib's around every block boundary."""
    path = tmp_path / "data"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    command = [str(runners.host_runner("torchscript")), "sha256", str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert printed == hashlib.sha256(path.read_bytes()).hexdigest()


def test_int8_products_are_summed_exactly(tmp_path: Path) -> None:
    """The runner sums exactly, also without VNNI.

    Two products of 255 and 127 do not fit into the 16 bits in which x86-64 would sum them.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.full((64, 3), 127, np.int8), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["a"], ["u"], to=TensorProto.UINT8),
            helper.make_node("MatMulInteger", ["u", "w"], ["m"]),
            helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
        ],
        "sums",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [weights],
    )
    path = tmp_path / "sums.onnx"
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    values = runners.job("onnxruntime", tmp_path, path)
    (tmp_path / "in-0-0").write_bytes(np.full((2, 64), 255, np.float32).tobytes())
    values["samples"] = [[values["samples"][0][0] | {"shape": [2, 64]}]]
    ran = runners.run(runners.host_runner("onnxruntime"), values, tmp_path)
    assert ran.code == 0, ran.stderr
    sums = np.frombuffer((tmp_path / "0-0.bin").read_bytes(), np.float32)
    assert sums.tolist() == [64 * 255 * 127] * 6


def test_canary(tmp_path: Path) -> None:
    """The canary takes some milliseconds each time, so it was not optimised away."""
    runner = runners.host_runner("torchscript")
    subprocess.run([str(runner), "canary", "5", str(tmp_path / "c.json"), "1"], check=True)
    canary = protocol.Canary.model_validate_json((tmp_path / "c.json").read_text())
    assert len(canary.durations_ns) == 5
    assert 10**6 < min(canary.durations_ns) < 10**8


def test_version() -> None:
    """`--version` prints the protocol's Runner."""
    command = [str(runners.host_runner("torchscript")), "--version"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    runner = protocol.Runner.model_validate(json.loads(text))
    assert (runner.os, runner.backends, runner.android_api) == ("linux", ("torchscript",), 0)


@pytest.mark.parametrize(
    "arguments", [[], ["run"], ["canary", "x", "y"], ["canary", "0", "y"], ["run", "/none"]]
)
def test_bad_usage(arguments: list[str]) -> None:
    """An invalid command line ends with the usage exit code."""
    command = [str(runners.host_runner("torchscript")), *arguments]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 21


@pytest.mark.parametrize("backend", ["executorch", "onnxruntime"])
@pytest.mark.parametrize("command", ["run", "outputs"])
def test_arm64(tmp_path: Path, backend: Backend, command: str) -> None:
    """The cross-built runners give the same outputs under emulation, and report arm64."""
    runner = next(path for path in runners.arm64_build() if path.name == f"runner-{backend}")
    root = arm_tools.root_of_arm_tools(
        get_target("865"), arm_tools.prepare_arm_tools(runners.folder() / "arm")
    )
    values = runners.job(backend, tmp_path)
    wrapper = ("qemu-aarch64-static", "-cpu", "cortex-a76", "-L", str(root))
    ran = runners.run(runner, values, tmp_path, *wrapper, command=command)
    assert ran.code == 0, ran.stderr
    assert ran.result is not None
    assert (ran.result.machine, ran.result.runner.arch) == ("aarch64", "aarch64")
    assert bool(ran.result.durations_ns) == (command == "run")
    _check_outputs(ran.result)


@pytest.mark.parametrize("backend", ["executorch", "onnxruntime"])
def test_only_the_torchscript_runner_is_linked_with_torch(backend: Backend) -> None:
    """The runners of ExecuTorch and ONNX Runtime need neither torch nor Python."""
    binary = runners.host_runner(backend)
    listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=True).stdout
    assert "not found" not in listed
    assert not re.search(r"libtorch|libc10|libpython", listed), listed


KINDS = {"onnxruntime": {"MatMul", "Relu", "Sub"}, "executorch": {"portable or"}}
"""The tiny ExecuTorch program delegates nothing."""


@pytest.mark.parametrize("backend", ["executorch", "onnxruntime"])
@pytest.mark.parametrize("threads", [0, 1])
def test_operators_are_timed(backend: Backend, threads: int, tmp_path: Path) -> None:
    """Each operator has a duration for every profiled call, with any number of threads."""
    values = runners.job(backend, tmp_path) | {"threads": threads}
    ran = runners.run(runners.host_runner(backend), values, tmp_path, command="profile")
    assert ran.code == 0, ran.stderr
    assert ran.result is not None
    assert not ran.result.durations_ns, "a profiled call is no measured call"
    assert {len(item.durations_ns) % protocol.PROFILED_CALLS for item in ran.result.operators} == {0}
    kinds = {item.kind for item in ran.result.operators}
    assert any(kind.startswith(known) for known in KINDS[backend] for kind in kinds), kinds
    assert not [*tmp_path.glob("profile*")], "the profiler's own file is deleted"
    raw = (tmp_path / "result.json").read_bytes()
    task = BenchTask("tiny", tmp_path, "", backend, ())
    assert len(runner_results.read_profile_runner_result(raw, task)) == len(ran.result.operators)


def test_a_runtime_without_a_profiler_says_so(tmp_path: Path) -> None:
    """LibTorch's lite interpreter does not time its operators; the launches are not affected."""
    values = runners.job("torchscript", tmp_path)
    ran = runners.run(runners.host_runner("torchscript"), values, tmp_path, command="profile")
    assert ran.code == 28
    assert "does not time its operators" in ran.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_number_of_threads_is_the_runtimes_own(backend: Backend, tmp_path: Path) -> None:
    """0 threads runs, as in an app that sets none."""
    values = runners.job(backend, tmp_path) | {"threads": 0}
    ran = runners.run(runners.host_runner(backend), values, tmp_path)
    assert ran.code == 0, ran.stderr
    assert ran.result is not None
    _check_outputs(ran.result)
