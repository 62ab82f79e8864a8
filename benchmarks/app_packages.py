"""Makes the table of what each version of the stock Android packages registers.

    python -m benchmarks.app_packages [--wheels FOLDER]

Writes `exporter/android/packages.json.gz`, which `verify --for-app` reads. The packages themselves (AARs)
are on Maven. This takes the same versions' wheels instead, which are built from the same sources:

- ExecuTorch: the names of the kernels, backends and XNNPACK nodes in the wheel's libraries. A package
  for Android has the portable, optimised, quantised and LLM kernels and XNNPACK
  (`tools/cmake/preset/android.cmake` in ExecuTorch's sources), and `executorch-android-vulkan` Vulkan, too.
- ONNX Runtime: the wheel's own list of registered kernels, and the newest versions of files that it loads,
  found by loading files of each. Both are those of the CPU in a full build, as the Android package is.

Every entry names the wheel and its sha256. Prints a line for each.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from exporter.android.stock_packages import TABLE
from exporter.files import digest_file

EXECUTORCH = ("1.0.1", "1.1.0", "1.2.0", "1.3.1", "1.4.1", "1.5.1")
ONNXRUNTIME = (
    "1.19.2", "1.20.1", "1.21.1", "1.22.1", "1.23.2", "1.24.4", "1.25.1", "1.26.0",
    "1.27.0", "1.28.0", "1.29.0", "1.30.0", "1.31.1", "1.32.0",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64")
KERNEL = re.compile(
    rb"((?:aten|dim_order_ops|et_copy|executorch_prim|llama|quantized_decomposed)::[A-Za-z_0-9]+\.[A-Za-z_0-9]+)\0"
)
"""Kernels have overloads: names without are schemas of PyTorch's."""
NODE = re.compile(rb"(XNN[A-Z][A-Za-z0-9]+)(?=\0)")
IDENTIFIER = re.compile(rb"(ET[0-9]{2})\0")
RUNTIME_LIBRARIES = ("_portable_lib", "libquantized_ops_aot_lib", "libcustom_ops_aot_lib", "libexecutorch")
"""The beginnings of the names of the libraries with what Android packages register."""

PROBE = """
import json, sys
import onnx, onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state as state
from onnx import TensorProto, helper

def model(opset, ir, domain=""):
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    made = helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])
    return made.SerializeToString()

def loads(data, **entries):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for key, value in entries.items():
        options.add_session_config_entry("session." + key, value)
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception:
        return None

kernels = {}
for kernel in state.get_all_opkernel_def():
    if kernel.provider == "CPUExecutionProvider":
        ranges = kernels.setdefault(kernel.domain, {}).setdefault(kernel.op_name, set())
        ranges.add(tuple(kernel.version_range))
options = onnxruntime.SessionOptions()
options.optimized_model_filepath = sys.argv[1]
options.add_session_config_entry("session.save_model_format", "ORT")
onnxruntime.InferenceSession(model(13, 7), options, providers=["CPUExecutionProvider"])
saved = open(sys.argv[1], "rb").read()
mark = bytes([1, 0, 0, 0])
(own,) = [str(n) for n in range(10) if mark + str(n).encode() + bytes(1) in saved]
formats = [n for n in range(1, 10) if loads(
    saved.replace(mark + own.encode() + bytes(1), mark + str(n).encode() + bytes(1)),
    load_model_format="ORT")]
print(json.dumps({
    "ir_version": max(n for n in range(7, 30) if loads(model(13, n))),
    "opset": max(n for n in range(13, 60) if loads(model(n, 7))),
    "ort_formats": formats,
    "kernels": {d: {o: sorted(r) for o, r in sorted(ops.items())} for d, ops in sorted(kernels.items())},
}))
"""
"""Run with one version of ONNX Runtime on the path: says what it registers and which files it loads."""


def wheel(package: str, version: str, folder: Path) -> Path:
    """Return a version's wheel, downloaded unless it is in the folder."""
    if not list(folder.glob(f"{package}-{version}-*.whl")):
        platforms = [f"--platform={name}" for name in PLATFORMS]
        command = ["download", "-q", "--no-deps", "--only-binary=:all:", "--python-version=3.11", *platforms]
        requirement = f"{package}=={version}"
        subprocess.run([sys.executable, "-m", "pip", *command, "-d", str(folder), requirement], check=True)
    (path,) = folder.glob(f"{package}-{version}-*.whl")
    return path


def executorch(path: Path) -> dict[str, Any]:
    """Return what a wheel of ExecuTorch registers."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if Path(n).name.startswith(RUNTIME_LIBRARIES)]
        data = b"".join(archive.read(name) for name in names if ".so" in name)
    (identifier,) = set(IDENTIFIER.findall(data))
    return {
        "identifier": identifier.decode(),
        "backends": ["XnnpackBackend"] if b"XnnpackBackend\0" in data else [],
        "operators": _sorted(KERNEL.findall(data)),
        "delegate_operators": _sorted(NODE.findall(data)),
    }


def _sorted(names: Iterable[bytes]) -> list[str]:
    return sorted({name.decode() for name in names})


def onnxruntime(path: Path) -> dict[str, Any]:
    """Return what a wheel of ONNX Runtime registers and loads, by asking it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        code = f"import sys; sys.path.insert(0, {name!r})\n{PROBE}"
        command = [sys.executable, "-c", code, str(folder / "saved.ort")]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    description: dict[str, Any] = json.loads(printed)
    return description


def table(folder: Path) -> dict[str, Any]:
    """Return the whole table: package -> version -> what it registers."""
    stock, vulkan, onnx = {}, {}, {}
    for version in EXECUTORCH:
        path = wheel("executorch", version, folder)
        described = executorch(path) | _source(path)
        stock[version] = described
        vulkan[version] = described | {"backends": [*described["backends"], "VulkanBackend"]}
        print(f"executorch {version}: {len(described['operators'])} kernels")
    for version in ONNXRUNTIME:
        path = wheel("onnxruntime", version, folder)
        described = onnxruntime(path) | _source(path)
        onnx[version] = described
        count = sum(map(len, described["kernels"].values()))
        limits = {name: described[name] for name in ("ir_version", "opset", "ort_formats")}
        print(f"onnxruntime {version}: {count} operators, {limits}")
    return {
        "executorch-android": stock,
        "executorch-android-vulkan": vulkan,
        "onnxruntime-android": onnx,
    }


def _source(path: Path) -> dict[str, Any]:
    return {"source": path.name, "sha256": digest_file(path)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to read, and to download to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.wheels or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(table(folder), sort_keys=True, separators=(",", ":"))
    TABLE.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{TABLE}: {TABLE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
