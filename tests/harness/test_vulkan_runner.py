"""Vulkan artifacts are measured by a runner of their own, here on a software driver behind the real adbd."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from android_harness import (
    adb,
    all_devices,
    latency_stats,
    parse,
    provenance,
    runner_build,
    runner_runtimes,
    software_vulkan,
)
from android_harness.errors import SetupError
from android_harness.records import BenchConfig, BenchTask, Session
from exporter.emulated.vulkan import vulkan_tools
from exporter.errors import MissingDependencyError
from tests.harness import runners, simulated

PLAN = BenchConfig(launches=2, min_iterations=5, min_seconds=0.02, max_seconds=5.0, wait_s=0.0, threads=1)


@pytest.fixture(scope="module")
def vulkan_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a build of the Vulkan runner alone; skip where its parts cannot be had."""
    if command := vulkan_tools.missing_vulkan_tools():
        pytest.skip(f"Vulkan's software runtime cannot be prepared here: {command}")
    try:
        parts = vulkan_tools.prepare_vulkan_tools(tmp_path_factory.mktemp("cache"))
    except MissingDependencyError as error:
        if "fetching" in error.message:
            pytest.skip(error.message)
        raise
    options = {
        "NLOHMANN_JSON_ROOT": str(runner_runtimes.json_headers_beside_runner_runtime()),
        "CMAKE_CXX_FLAGS_RELEASE": "-O0",  # it compiles faster, and nothing is timed
    }
    return runner_build.runner_build_with_options(
        "host", software_vulkan.software_vulkan_options(parts) | options
    )


@pytest.fixture(scope="module")
def vulkan_task(tmp_path_factory: pytest.TempPathFactory) -> BenchTask:
    """Write a model that maps a and b to relu(a - b) and a + b, on Vulkan."""
    import torch
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import to_edge_transform_and_lower

    class Net(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.relu(a - b), a + b

    path = tmp_path_factory.mktemp("model") / "tiny.pte"
    program = torch.export.export(Net(), (torch.ones(2, 3), torch.zeros(2, 3)))
    lowered = to_edge_transform_and_lower(program, partitioner=[VulkanPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)
    assert b"VulkanBackend" in path.read_bytes()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return BenchTask("tiny-vulkan", path, sha256, "vulkan", runners.inputs())


@pytest.mark.slow
@pytest.mark.xdist_group("simulated")
def test_vulkan_is_measured_through_adbd(
    vulkan_build: Path, vulkan_task: BenchTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device computes what the model does on Vulkan's driver, names it, and its latency is simulated."""
    monkeypatch.setattr(parse, "parse_load1", lambda text: 0.5)
    monkeypatch.setattr(runner_build, "_last_runner_build_folder", lambda target: vulkan_build)
    with simulated.devices() as (device,):
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(device.server_port))
        devices = [adb.AdbDevice(device.serial)]
        benched = all_devices.bench_all_devices(
            devices, [vulkan_task], PLAN, soc=None, observer=lambda serial, step: None
        )
        outcome = dict(benched)[device.serial]
    assert outcome.error is None, outcome.error
    (measured,) = outcome.results
    assert isinstance(measured, Session), measured.reason
    for launch in measured.launches:
        assert "lavapipe" in launch.runtime
        for (a, b), (relu, total) in zip(runners.inputs(), launch.outputs, strict=True):
            np.testing.assert_allclose(relu, np.maximum(a - b, 0), atol=2e-3)
            np.testing.assert_allclose(total, a + b, atol=2e-3)
    figures = latency_stats.latency_stats(measured)
    latency = provenance.latency_with_provenance(measured, figures, provenance.ProvenanceCheck(0.0, ""), 15.0)
    assert (latency.evidence, provenance.verdict_by_provenance(latency)) == ("simulated", "not_measured")


@pytest.mark.slow
@pytest.mark.xdist_group("simulated")
def test_it_runs_on_the_software_driver_alone(
    vulkan_build: Path, vulkan_task: BenchTask, tmp_path: Path
) -> None:
    """The runner fails where its driver is missing: no other Vulkan, and no CPU kernel, stands in."""
    runner = runner_build._runner_in_build(vulkan_build, "vulkan")
    beside = tmp_path / "program"
    beside.mkdir()
    for file in runner.parent.iterdir():
        (beside / file.name).symlink_to(file.resolve())
    (beside / runner.name).unlink()
    (beside / runner.name).write_bytes(runner.read_bytes())
    (beside / runner.name).chmod(0o755)
    (beside / "lavapipe.json").unlink()
    (beside / "lavapipe.json").write_text(json.dumps({"ICD": {}}))
    ran = runners.run(beside / runner.name, runners.job("vulkan", tmp_path, vulkan_task.path), tmp_path)
    assert ran.code != 0
    assert ran.result is None or ran.result.failure is not None


@pytest.mark.parametrize("target", ["android-arm64", "linux-arm64", "host"])
def test_a_missing_vulkan_runner_says_how_it_is_built(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each platform has its own way to Vulkan; one has none, and says so."""
    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path))
    with pytest.raises(SetupError, match="The vulkan runner") as refusal:
        runner_build.find_runner_build(target, "vulkan")  # type: ignore[arg-type]
    words = {
        "android-arm64": "-DEXECUTORCH_BUILD_VULKAN=ON",
        "linux-arm64": "There is none",
        "host": "doctor --prepare",
    }
    assert words[target] in refusal.value.hint
