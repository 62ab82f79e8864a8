"""Tests of counting what a program executes, with QEMU and programs whose instructions are known."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from exporter.config.targets import get_target
from exporter.emulated import run as emulated
from exporter.emulated.arm_tools import ArmTools
from exporter.errors import LoweringError
from exporter.estimate import instruction_counts, latency_model
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.latency_model import Work
from exporter.estimate.parameters import load_parameters
from exporter.estimate.qemu_plugin import Plugin
from tests.estimate.counted import counting_plugin, program_with

CORE = "max,sve=off,sme=off"
KERNELS = {
    "fmla v0.4s, v1.4s, v2.4s": {"fma": 1},
    "fmls v0.4s, v1.4s, v2.4s": {"fma": 1},
    "fmla v0.2d, v1.2d, v2.d[1]": {"fma": 1},
    "fmla v0.4s, v1.4s, v2.s[3]": {"fma": 1},
    "fmls v0.4s, v1.4s, v2.s[1]": {"fma": 1},
    ".arch_extension fp16\nfmla v0.8h, v1.8h, v2.8h": {"fma": 1},
    ".arch_extension fp16\nfmla v0.8h, v1.8h, v2.h[5]": {"fma": 1},
    "sdot v0.4s, v1.16b, v2.16b": {"dot": 1},
    "udot v0.4s, v1.16b, v2.4b[2]": {"dot": 1},
    "usdot v0.4s, v1.16b, v2.16b": {"dot": 1},
    "sudot v0.4s, v1.16b, v2.4b[1]": {"dot": 1},
    "smmla v0.4s, v1.16b, v2.16b": {"matrix": 1},
    "usmmla v0.4s, v1.16b, v2.16b": {"matrix": 1},
    "fadd v0.4s, v1.4s, v2.4s": {"simd": 1},
    "fmul v0.4s, v1.4s, v2.s[0]": {"simd": 1},
    "smlal v0.4s, v1.4h, v2.4h": {"simd": 1},
    "fmadd s0, s1, s2, s3": {"simd": 1},
    "add x9, x9, #1": {"scalar": 1},
    "madd x9, x9, x10, x9": {"scalar": 1},
    "b 1f\n1: nop": {"branch": 2},
    "ldr q0, [%0]": {"load": 1, "load_bytes": 16},
    "ldr d0, [%0, #8]": {"load": 1, "load_bytes": 8},
    "ldr w9, [%0]": {"load": 1, "load_bytes": 4},
    "ldrsb x9, [%0]": {"load": 1, "load_bytes": 1},
    "ldp q0, q1, [%0]": {"load": 1, "load_bytes": 32},
    "ldp x9, x10, [%0]": {"load": 1, "load_bytes": 16},
    "ldp s0, s1, [%0]": {"load": 1, "load_bytes": 8},
    "ld1 {v0.16b, v1.16b, v2.16b, v3.16b}, [%0]": {"load": 1, "load_bytes": 64},
    "ld1 {v0.8b}, [%0]": {"load": 1, "load_bytes": 8},
    "ld2 {v0.4s, v1.4s}, [%0]": {"load": 1, "load_bytes": 32},
    "ld1r {v0.4s}, [%0]": {"load": 1, "load_bytes": 4},
    "ld1 {v0.s}[1], [%0]": {"load": 1, "load_bytes": 4},
    "ld1 {v0.d}[1], [%0]": {"load": 1, "load_bytes": 8},
    "ld4 {v0.b, v1.b, v2.b, v3.b}[3], [%0]": {"load": 1, "load_bytes": 4},
    "ldr x9, 1f\nb 2f\n.balign 8\n1: .quad 0\n2:": {"load": 1, "load_bytes": 8, "branch": 1},
    "prfm pldl1keep, [%0]": {"load": 1},
    "str q0, [%0, #16]": {"store": 1, "store_bytes": 16},
    "strh w9, [%0]": {"store": 1, "store_bytes": 2},
    "stp q0, q1, [%0]": {"store": 1, "store_bytes": 32},
    "st1 {v0.16b, v1.16b}, [%0]": {"store": 1, "store_bytes": 32},
    "st1 {v0.h}[2], [%0]": {"store": 1, "store_bytes": 2},
}
"""Instruction -> what one execution of it adds."""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    return counting_plugin(tmp_path_factory.mktemp("plugin"))


def counted(folder: Path, plugin: Plugin, kernel: str, times: int = 1) -> Counts:
    """Count a call that executes a kernel so often: the program stands in for a runtime's runner."""
    program = program_with(folder, kernel)

    def run(*arguments: Any) -> None:
        given, samples, options = arguments[0], arguments[5], arguments[7]
        command = [given.qemu, "-cpu", CORE, *options, program, str(times), str(len(samples))]
        subprocess.run(command, check=True, timeout=120)

    with mock.patch.object(emulated, "run_emulated", run):
        nothing = ArmTools(Path(), folder)
        return instruction_counts.count_instructions(
            nothing, plugin, folder, CORE, "onnxruntime", folder, (), folder
        )


def test_each_instruction_is_of_its_class(tmp_path: Path, plugin: Plugin) -> None:
    """Every instruction adds what the table says: seven of each, with the sum of all classes beside."""
    nothing = asdict(counted(tmp_path, plugin, "\n".join(["nop"])))
    kernel = "\n".join(line for text in KERNELS for line in [text] * 7)
    expected = {
        name: nothing[name] + 7 * sum(adds.get(name, 0) for adds in KERNELS.values()) for name in nothing
    }
    expected["branch"] -= 1  # the nop of the program without a kernel, which counts among branches and hints
    assert asdict(counted(tmp_path, plugin, kernel)) == expected


@pytest.mark.parametrize(
    "instruction", ["smmla v0.4s, v1.16b, v2.16b", "ld1r {v0.4s}, [%0]", "stp q0, q1, [%0]"]
)
def test_a_class_takes_nothing_of_another(tmp_path: Path, plugin: Plugin, instruction: str) -> None:
    """Instructions are also right alone: errors of two classes could cancel in a sum."""
    less, more = (asdict(counted(tmp_path, plugin, "\n".join([instruction] * n))) for n in (10, 30))
    assert {name: (more[name] - less[name]) / 20 for name in more if more[name] != less[name]} == KERNELS[
        instruction
    ]


def test_a_count_repeats_exactly(tmp_path: Path, plugin: Plugin) -> None:
    """Two counts of one artifact are equal, and start-up is in neither."""
    kernel = "fmla v0.4s, v1.4s, v2.4s\nldr q0, [%0]"
    first, second = (counted(tmp_path, plugin, kernel, times=1000) for _ in range(2))
    assert first == second
    assert first.fma == 1000
    assert first.instructions < 20_000


def test_a_kernel_that_runs_twice_counts_twice(tmp_path: Path, plugin: Plugin) -> None:
    """The planted fault of an artifact that computes everything twice shows in every class."""
    once, twice = (
        counted(tmp_path, plugin, "fmla v0.4s, v1.4s, v2.4s\nldr q0, [%0]", n) for n in (500, 1000)
    )
    assert (twice.fma, twice.load_bytes) == (2 * once.fma, 2 * once.load_bytes)


@pytest.mark.parametrize("text", ["", "fma 3\n", "fma dot\n1 2\n", "x"])
def test_other_answers_are_refused(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no count of every call is an error, and never zero."""
    library = tmp_path / "plugin.so"

    def run(*arguments: object) -> None:
        (tmp_path / "counts.txt").write_text(text)

    monkeypatch.setattr(emulated, "run_emulated", run)
    parts = ArmTools(Path(), tmp_path)
    with pytest.raises(LoweringError, match="plugin wrote"):
        instruction_counts.count_instructions(
            parts, Plugin(Path(), library), tmp_path, CORE, "onnxruntime", tmp_path, (), tmp_path
        )


def test_a_kernel_that_runs_twice_takes_twice_as_long(tmp_path: Path, plugin: Plugin) -> None:
    """The wrong count comes from QEMU itself, and the estimate follows it, but for what a call costs once."""
    kernel = "\n".join(["fmla v0.4s, v1.4s, v2.4s", "ldr q0, [%0]"] * 4)
    fitted, target = load_parameters(), get_target("snapdragon865")
    fit = fitted.fits["onnxruntime fp32"]
    once, twice = (
        latency_model.estimate_by_latency_model(
            Work(counted(tmp_path, plugin, kernel, times), 0, 0, 0), target, fitted, fit, "fp32", 1
        ).p50_ms
        - fit.call_ms
        for times in (100_000, 200_000)
    )
    assert once > 0.1
    assert twice == pytest.approx(2 * once, rel=0.001)
