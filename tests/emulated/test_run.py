"""Tests of exchanging samples with the emulated runner, whose answer may be anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.emulated import run
from exporter.emulated.arm_tools import ArmTools
from exporter.errors import LoweringError

SAMPLES = [
    (np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.array([True, False])),
    (np.full((1, 2, 3), -1, np.float32), np.array([False, False])),
]
BASE = {
    "protocol": 1,
    "machine": "aarch64",
    "parts": [],
    "runtime": "onnxruntime 1.32.0",
    "runner": {
        "version": "1", "os": "linux", "arch": "aarch64", "android_api": 0, "compiler": "", "backends": []
    },
}  # fmt: skip
ECHO = f"""
import json, shutil, sys
job = json.load(open(sys.argv[-1]))
assert sys.argv[-2] == "outputs"
outputs = []
for i, sample in enumerate(job["samples"]):
    outputs.append([])
    for j, tensor in enumerate(sample):
        file = f"{{job['outputs']}}/{{i}}-{{j}}.bin"
        shutil.copy(tensor["file"], file)
        outputs[-1].append({{**tensor, "file": file}})
result = {{**{BASE!r}, "outputs": outputs}}
"""
WRITE = "\njson.dump(result, open(job['result'], 'w'))\n"


def run_with(folder: Path, script: str) -> run.EmulatedRun:
    """Run with a QEMU that is a Python script; its arguments are those of QEMU."""
    qemu, model = folder / "qemu", folder / "model"
    qemu.write_text(f"#!{sys.executable}\n{script}\n")
    qemu.chmod(0o755)
    model.write_text("a model")
    scratch = folder / "scratch"
    scratch.mkdir()
    return run.run_emulated(
        ArmTools(qemu, folder), folder, "cortex-a76", "onnxruntime", model, SAMPLES, scratch
    )


def test_samples_come_back_as_they_went(tmp_path: Path) -> None:
    """A program that returns its inputs returns every type and shape."""
    answer = run_with(tmp_path, ECHO + WRITE)
    assert answer.runtime == "onnxruntime 1.32.0"
    for given_sample, returned in zip(SAMPLES, answer.outputs, strict=True):
        for expected, array in zip(given_sample, returned, strict=True):
            assert array.dtype == expected.dtype
            assert np.array_equal(array, expected)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import sys; print('input: Input 0 cannot be', file=sys.stderr); sys.exit(24)", "Input 0 cannot be"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "crashes on an emulated cortex-a76"),
        ("import sys; sys.exit(132)", "crashes on an emulated cortex-a76"),
        ("", "left no result.json"),
        (ECHO + "open(job['result'], 'w')", "malformed"),
        (ECHO + "result['outputs'].pop()" + WRITE, "1 outputs for 2 samples"),
        (ECHO + "result['outputs'][0][0]['file'] = '/etc/passwd'" + WRITE, "not its own"),
        (ECHO + "result['outputs'][0][0]['shape'] = [2**62, 2**62]" + WRITE, "larger than"),
        (ECHO + "open(result['outputs'][0][0]['file'], 'a').write('more')" + WRITE, "no plain file"),
        (ECHO + "open(result['outputs'][0][0]['file'], 'w')" + WRITE, "does not fit its shape"),
        (
            ECHO + "import os; f = result['outputs'][1][0]['file']; os.unlink(f); os.mkfifo(f)" + WRITE,
            "no plain file",
        ),
        (
            ECHO + "import os; os.symlink('/dev/zero', job['result'])",
            "no plain file",
        ),
    ],
    ids=[
        "refused", "signal", "crash of the guest", "nothing", "empty", "a sample too few", "another file",
        "huge shape", "too long", "too short", "pipe", "link",
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told(tmp_path: Path, script: str, words: str) -> None:
    """A refusal, a crash, and an answer that is no answer each have a reason."""
    with pytest.raises(LoweringError, match=words):
        run_with(tmp_path, script)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_answer_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, outputs: Any) -> None:
    """Whatever the list of outputs holds, the error is one of lowering."""
    folder = tmp_path_factory.mktemp("answer")
    text = json.dumps(json.dumps({**BASE, "outputs": outputs}))
    script = f"import json, sys\nopen(json.load(open(sys.argv[-1]))['result'], 'w').write({text})"
    with pytest.raises(LoweringError):
        run_with(folder, script)
