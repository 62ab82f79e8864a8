"""Small Arm programs whose instructions are known, for tests of counting."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.emulated import arm_tools
from exporter.estimate import qemu_plugin
from exporter.estimate.qemu_plugin import Plugin

PROGRAM = r"""
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

// As android_harness/runner/main.cc: the job's model is text, how often the kernel runs in a call.
static void mark() { asm volatile("hint #100" ::: "memory"); }

static char data[256];

static void kernel() {
  asm volatile(KERNEL : : "r"(data) : "v0", "v1", "v2", "v3", "x9", "x10", "memory");
}

// On its own, so that the compiler keeps what it needs in registers, and nothing else is counted.
__attribute__((noinline)) static void call(int times) {
  mark();
  for (int i = 0; i < times; ++i) kernel();
  mark();
}

static std::string read_all(const std::string& path) {
  std::ifstream stream(path);
  return {std::istreambuf_iterator<char>(stream), {}};
}

static std::string value_of(const std::string& job, const std::string& key) {
  const size_t from = job.find("\"" + key + "\":\"") + key.size() + 4;
  return job.substr(from, job.find('"', from) - from);
}

int main(int, char** values) {
  const int times = atoi(values[1]);
  for (int call = atoi(values[2]); call > 0; --call) {
    mark();
    for (int i = 0; i < times; ++i) kernel();
    mark();
  }
}
"""


def counting_plugin(folder: Path) -> Plugin:
    """Return the compiled plugin; skip the test where this machine cannot compile or use it."""
    if command := qemu_plugin.missing_for_qemu_plugin():
        pytest.skip(f"missing: {command}")
    return qemu_plugin.make_qemu_plugin(folder)


def program_with(folder: Path, kernel: str) -> Path:
    """Compile a program whose calls execute `kernel`."""
    compiler = shutil.which(arm_tools.COMPILER)
    if not compiler:
        pytest.skip(f"missing: {arm_tools.PACKAGES}")
    quoted = "".join(f'"{line}\\n"' for line in kernel.splitlines())
    source, program = folder / "program.cc", folder / "program"
    source.write_text(PROGRAM.replace("KERNEL", quoted))
    command = [compiler, "-O1", "-static", "-march=armv8.6-a", str(source), "-o", str(program)]
    subprocess.run(command, check=True, timeout=120)
    return program
