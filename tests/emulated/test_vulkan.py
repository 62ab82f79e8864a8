"""Vulkan artifacts are executed on Mesa's software driver, in a confined process, and judged."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import exporter.formats.executorch as executorch
from exporter import sandbox
from exporter.capture.captured_program import captured_program_matrix_weights
from exporter.capture.float64_reference import run_float64_reference
from exporter.emulated.vulkan import bionic, vulkan_tools
from exporter.errors import CannotRunHere, LoweringError, MissingDependencyError
from exporter.formats import VARIANTS
from exporter.pipeline.stage_results import ExpectedResult
from exporter.pipeline.verify_stage import verify_artifact_in_stage
from exporter.records import Captured, Limits
from exporter.sandbox.child import call_in_child
from exporter.verify import reference_io
from tests.nets import captured, samples

VARIANT = VARIANTS["executorch-vulkan-fp16"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache with the prepared libraries; skip where they cannot be had."""
    if command := vulkan_tools.missing_vulkan_tools():
        pytest.skip(f"Vulkan's software runtime cannot be prepared here: {command}")
    folder = tmp_path_factory.mktemp("cache")
    try:
        vulkan_tools.prepare_vulkan_tools(folder)
    except MissingDependencyError as error:
        if "fetching" in error.message:
            pytest.skip(error.message)
        raise
    return folder


@pytest.fixture
def prepared(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(cache))
    ready = vulkan_tools.ready_vulkan_tools(cache)
    assert ready
    return ready


def verdict(net: nn.Module, folder: Path, ready: Path) -> list[str]:
    """Lower a network, and return the verdict on it as "cnn": status, reason and runtime."""
    model = captured("cnn")
    lowered = Captured(
        net, torch.export.export(net, model.example), "", model.example, model.inputs, model.outputs
    )
    path = executorch.emit(lowered, VARIANT, folder).path
    references, _ = run_float64_reference(model, samples("cnn", 1400, 8), {})
    reference_io.save_reference_io(references, folder / "verification.npz")
    expected = ExpectedResult(model.inputs, model.outputs, captured_program_matrix_weights(model), Limits())

    def judge() -> list[str]:
        judged = verify_artifact_in_stage(path, VARIANT, folder / "verification.npz", None, expected).verdict
        return [judged.status, str(judged.reason), judged.runtime]

    scratch = folder / "scratch"
    scratch.mkdir()
    confinement = sandbox.Confinement(reads=(folder, ready), writes=(scratch,), forks=True, programs=True)
    answer: list[str] = call_in_child(judge, confinement)
    return answer


def exchanged() -> nn.Module:
    """Return the network with its classes in another order: no reader of the file can tell."""
    net = copy.deepcopy(captured("cnn").module)
    tensors = dict(net.named_parameters())
    with torch.no_grad():
        for name in ("head.weight", "head.bias"):
            tensors[name].copy_(tensors[name].roll(1, dims=0))
    return net


class Indexed(nn.Module):
    """Ends with an operator that the older library does not execute as today's exporter writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = captured("cnn").module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image)[:, [*range(10)]]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_it_passes_on_the_software_driver(prepared: Path, tmp_path: Path) -> None:
    """The verdict names what executed the artifact."""
    answer = verdict(captured("cnn").module, tmp_path, prepared)
    assert answer == ["passed", "None", "react-native-executorch 0.9.3 (lavapipe)"]


@pytest.mark.slow
def test_only_execution_finds_the_fault(prepared: Path, tmp_path: Path) -> None:
    """A well-formed file that computes something else fails."""
    status, reason, runtime = verdict(exchanged(), tmp_path, prepared)
    assert (status, runtime) == ("failed", "react-native-executorch 0.9.3 (lavapipe)"), reason
    assert "agreement" in reason or "dB" in reason


@pytest.mark.slow
def test_what_the_older_library_refuses_is_not_failed(prepared: Path, tmp_path: Path) -> None:
    """The artifact may be right: nobody can tell here, so it is neither failed nor passed."""
    status, reason, _ = verdict(Indexed().eval(), tmp_path, prepared)
    assert status == "not_run"
    assert "refuses it" in reason


def test_without_the_libraries_it_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing was prepared says that it cannot tell."""
    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path))
    with pytest.raises(CannotRunHere, match="VulkanBackend"):
        executorch.load(tmp_path / "any.pte", VARIANT, 1)


def test_libraries_that_others_may_change_are_not_loaded(prepared: Path, cache: Path) -> None:
    """A library of the cache is code: nobody else may have written it."""
    prepared.chmod(0o777)
    try:
        assert vulkan_tools.ready_vulkan_tools(cache) is None
    finally:
        prepared.chmod(0o755)


def fails_to_fetch(command: list[str], step: str) -> None:
    raise vulkan_tools._step_error_of_vulkan_tools(step, "no network")


def fetches_another_file(command: list[str], step: str) -> None:
    Path(command[-1], "package.tgz").write_bytes(b"another file")


@pytest.mark.parametrize(
    ("run", "words"), [(fails_to_fetch, "no network"), (fetches_another_file, "not the file that is known")]
)
def test_a_failed_preparation_leaves_nothing(
    run: Callable[[list[str], str], None], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 10 with the step that failed; the next attempt starts anew."""
    monkeypatch.setattr(vulkan_tools, "missing_vulkan_tools", lambda: "")
    monkeypatch.setattr(vulkan_tools, "_run_step_of_vulkan_tools", run)
    with pytest.raises(MissingDependencyError, match=words) as refusal:
        vulkan_tools.prepare_vulkan_tools(tmp_path)
    assert (refusal.value.exit_code, refusal.value.code) == (10, "EM-VULKAN")
    assert vulkan_tools.ready_vulkan_tools(tmp_path) is None


def test_what_is_missing_is_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each missing program and driver is a package of one command."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("shutil.which", lambda program: None)
    monkeypatch.setattr(vulkan_tools, "DRIVERS", ())
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert vulkan_tools.missing_vulkan_tools() == "apt install npm gcc g++ mesa-vulkan-drivers libvulkan1"


def test_a_library_of_this_machine_is_refused(tmp_path: Path) -> None:
    """Only a library that asks for Android's C library has trampolines."""
    source = tmp_path / "empty.c"
    source.touch()
    library = tmp_path / "other.o"
    subprocess.run(["gcc", "-c", str(source), "-o", str(library)], check=True)
    with pytest.raises(LoweringError, match="no library for Android"):
        bionic.bionic_trampolines(library)
