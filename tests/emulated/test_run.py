"""Tests of exchanging samples with the emulated program, whose answer may be anything."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.emulated import run
from exporter.emulated.parts import EmulatedParts
from exporter.errors import LoweringError

SAMPLES = [
    (np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.array([True, False])),
    (np.full((1, 2, 3), -1, np.float32), np.array([False, False])),
]


def program(folder: Path, script: str) -> EmulatedParts:
    """Return parts whose QEMU is a shell script; its arguments are those of QEMU."""
    (folder / "bin").mkdir()
    qemu = folder / "qemu"
    qemu.write_text(f"#!/bin/sh\n{script}\n")
    qemu.chmod(0o755)
    return EmulatedParts(qemu, folder)


def run_with(folder: Path, script: str) -> run.EmulatedRun:
    parts = program(folder, script)
    return run.run_emulated(parts, folder, "cortex-a76", "onnxruntime", folder / "model", SAMPLES, folder)


def test_samples_come_back_as_they_went(tmp_path: Path) -> None:
    """A program that returns its inputs returns every type and shape."""
    # $7 and $8 are the files of inputs and outputs; an answer has no number of samples.
    answer = run_with(tmp_path, 'tail -c +5 "$7" > "$8"; echo onnxruntime 1.32.0')
    assert answer.runtime == "onnxruntime 1.32.0"
    for given_sample, returned in zip(SAMPLES, answer.outputs, strict=True):
        for expected, array in zip(given_sample, returned, strict=True):
            assert array.dtype == expected.dtype
            assert np.array_equal(array, expected)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo Input 0 cannot be float32 >&2; exit 24", "Input 0 cannot be float32"),
        ("kill -ILL $$", "crashes on an emulated cortex-a76"),
        ("exit 132", "crashes on an emulated cortex-a76"),
        (': > "$8"', "cut short"),
        ('head -c 20 "$7" > "$8"', "cut short"),
        (r"""printf '\377\377\377\377' > "$8" """, "damaged"),
    ],
    ids=["refused", "signal", "crash of the guest", "empty", "cut", "too many tensors"],
)
def test_what_goes_wrong_is_told(tmp_path: Path, script: str, words: str) -> None:
    """A refusal, a crash, and an answer that is no answer each have a reason."""
    with pytest.raises(LoweringError, match=words):
        run_with(tmp_path, script)


@given(st.binary(max_size=200))
def test_no_answer_takes_memory_or_raises_anything_else(data: bytes) -> None:
    """Sizes are compared with what is there before anything is made of them."""
    try:
        list(run._decoded_emulated_run(data, 2))
    except LoweringError:
        return


@pytest.mark.parametrize("shape", [(0, 2**62), (0, 2**62, 2**62), (2**62, 2**62, 2**62, 0)])
def test_a_huge_shape_without_values_is_refused(shape: tuple[int, ...]) -> None:
    """It needs no bytes, and numpy cannot make it."""
    answer = struct.pack("<III", 1, 0, len(shape)) + struct.pack(f"<{len(shape)}q", *shape)
    with pytest.raises(LoweringError, match="damaged"):
        list(run._decoded_emulated_run(answer, 1))


def test_a_huge_shape_is_refused() -> None:
    """A shape whose product overflows needs more bytes than there are."""
    answer = struct.pack("<III", 1, 0, 3) + struct.pack("<3q", 2**62, 2**62, 2**62)
    with pytest.raises(LoweringError, match="cut short"):
        list(run._decoded_emulated_run(answer, 1))
