"""A runtime's own words are part of the reason of a failure."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from exporter.capture.lowering_errors import lowering_error, lowering_error_in
from exporter.errors import LoweringError
from exporter.formats.native_output import explain_by_native_compiler_output, explain_by_native_output
from tests import proof
from tests.odd_nets import Does

XNNPACK = """[cpuinfo_utils.cpp:87] Failed to open midr file /sys/devices/soc0/image_version
[threadpool.cpp:66] Resetting threadpool to 1 threads.
[XNNCompiler.cpp:1610] Failed to create static slice node 6 with code: xnn_status_invalid_parameter
[XNNPACKBackend.cpp:143] XNNCompiler::compileModel failed: 0x1
[method.cpp:128] Init failed for backend XnnpackBackend: 0x1
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (XNNPACK, "Failed to create static slice node 6 with code: xnn_status_invalid_parameter"),
        (
            "[r.cpp:7] kernel 'aten::sort.values' not found.\n[m.cpp:1] dtype: 6",
            "kernel 'aten::sort.values' not found",
        ),
        (
            "error: tensor.fbs:4: expecting: ] instead got: inf",
            "error: tensor.fbs:4: expecting: ] instead got: inf",
        ),
        ("/x/y.py:3: UserWarning: this will fail soon\n  return cls.__new__(cls, *args)", ""),
        ("INFO:root:no error so far\nall is well", ""),
        ("", ""),
    ],
)
def test_the_line_that_says_what_went_wrong_is_found(text: str, line: str) -> None:
    """Neither what only passes it on, nor warnings."""
    assert lowering_error_in(text.replace("\\\n", "\n")) == line


def fails(message: str = "error 0x1") -> None:
    os.write(2, XNNPACK.encode())
    raise RuntimeError(message)


@pytest.mark.parametrize("stream", ["a file", "a pipe"])
def test_native_code_is_heard_wherever_it_prints(
    stream: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Into a job's own file, or anything else; what it printed is passed on."""
    before, (reader, writer) = os.dup(2), os.pipe()
    if stream == "a pipe":
        os.dup2(writer, 2)
    try:
        with (
            pytest.raises(LoweringError, match=r"0x1: Failed to create static slice node"),
            explain_by_native_output(),
        ):
            fails()
    finally:
        os.dup2(before, 2)
        os.close(writer)
        os.close(before)
    with os.fdopen(reader, "rb") as file:
        printed = file.read().decode() if stream == "a pipe" else capfd.readouterr().err
    assert printed == XNNPACK


def test_an_error_without_a_line_stays_as_it_is() -> None:
    """Nothing is made up."""
    with pytest.raises(KeyError, match="forward"), explain_by_native_output():
        raise KeyError("forward")


def test_only_a_programs_end_is_explained_by_its_output() -> None:
    """A framework's own exception says what it is; its Python code warns of much beside."""
    with pytest.raises(RuntimeError, match="plain"), explain_by_native_compiler_output():
        fails("plain")
    with (
        pytest.raises(LoweringError, match="non-zero exit status 3: error: no such schema"),
        explain_by_native_compiler_output(),
    ):
        subprocess.run(["sh", "-c", "printf err >&2; echo 'or: no such schema' >&2; exit 3"], check=True)


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_exceptions_that_cause_each_other_are_read_once(link: str) -> None:
    """A framework that raises an old exception again, while handling what it caused, makes a circle."""
    first, second = LoweringError("no such operator", "net.py:1"), RuntimeError("gave up")
    setattr(first, link, second)
    setattr(second, link, first)
    with pytest.raises(LoweringError, match="no such operator"), explain_by_native_compiler_output():
        raise first
    expected = "no such operator" if link == "__cause__" else "gave up"
    assert expected in lowering_error(second).cause


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (lambda x: torch.sort(x, dim=1).values, r"0x:14: kernel 'aten::sort.values' not found"),
        (
            lambda x: torch.ops.aten.constant_pad_nd.default(x, [-1, 2]),
            r"0x12: Check failed .*Padding values must be non-negative",
        ),
    ],
    ids=["when it loads", "when it runs"],
)
def test_executorch_says_why(then: Callable[[Tensor], Tensor], words: str, tmp_path: Path) -> None:
    """Which kernel is missing, and which argument it does not take."""
    generator = np.random.default_rng(0)
    samples = [(generator.normal(size=(1, 6)).astype(np.float32),) for _ in range(4)]
    captured = proof.capture(Does(then, 6), samples, tmp_path)
    verdict = proof.prove(captured, "executorch-xnnpack-fp32", tmp_path)
    assert verdict.status == "failed"
    assert re.search(words, str(verdict.reason))
