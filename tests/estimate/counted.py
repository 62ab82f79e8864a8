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
  const std::string job = read_all(values[2]), folder = value_of(job, "outputs");
  const int times = std::stoi(read_all(value_of(job, "model")));
  std::string outputs;
  size_t calls = 0;
  for (size_t at = job.find("\"samples\":[") + 11; job[at] == '['; at += 3, ++calls) {
    call(times);
    const std::string file = folder + "/" + std::to_string(calls) + "-0.bin";
    std::ofstream{file};
    outputs += (calls ? ",[" : "[");
    outputs += "{\"file\":\"" + file + "\",\"dtype\":\"float32\",\"shape\":[0]}]";
  }
  std::ofstream(value_of(job, "result"))
      << "{\"protocol\":1,\"machine\":\"\",\"parts\":[],\"runtime\":\"test 1.0\",\"runner\":{\"version\":"
         "\"\","
         "\"os\":\"linux\",\"arch\":\"\",\"android_api\":0,\"compiler\":\"\",\"backends\":[]},\"outputs\":["
      << outputs << "]}";
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
