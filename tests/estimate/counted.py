"""Small Arm programs whose instructions are known, for tests of counting."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.emulated import parts
from exporter.emulated.parts import EmulatedParts
from exporter.estimate import plugin
from exporter.estimate.plugin import Plugin

PROGRAM = r"""
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// As exporter/emulated/main.cc: MODEL is text, how often the kernel runs in a call.
static void mark() { asm volatile("hint #100" ::: "memory"); }

static char data[256];

static void kernel() {
  asm volatile(KERNEL : : "r"(data) : "v0", "v1", "v2", "v3", "x9", "x10", "memory");
}

int main(int, char** values) {
  FILE* file = fopen(values[1], "r");
  int times = 0;
  if (!file || fscanf(file, "%d", &times) != 1) return 1;
  fclose(file);
  uint32_t calls = 0;
  file = fopen(values[2], "rb");
  if (!file || fread(&calls, 4, 1, file) != 1) return 1;
  fclose(file);
  FILE* out = fopen(values[3], "wb");
  for (uint32_t call = 0; call < calls; ++call) {
    mark();
    for (int i = 0; i < times; ++i) kernel();
    mark();
    const uint32_t tensors = 0;
    fwrite(&tensors, 4, 1, out);
  }
  fclose(out);
  puts("test 1.0");
}
"""


def counting_plugin(folder: Path) -> Plugin:
    """Return the compiled plugin; skip the test where this machine cannot compile or use it."""
    if command := plugin.missing_for_plugin():
        pytest.skip(f"missing: {command}")
    return plugin.make_plugin(folder)


def program_with(folder: Path, kernel: str) -> EmulatedParts:
    """Compile a program whose "onnxruntime" executes `kernel`, as often as the model's text says."""
    compiler = shutil.which(parts.COMPILER)
    if not compiler:
        pytest.skip(f"missing: {parts.PACKAGES}")
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    quoted = "".join(f'"{line}\\n"' for line in kernel.splitlines())
    source = folder / "program.cc"
    source.write_text(PROGRAM.replace("KERNEL", quoted))
    command = [
        compiler, "-O1", "-static", "-march=armv8.6-a",
        str(source), "-o", str(folder / "bin/runner-onnxruntime"),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=120)
    return EmulatedParts(Path(), folder)
