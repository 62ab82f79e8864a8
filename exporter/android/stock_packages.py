"""The stock Android packages: which kernels and backends each version registers, and which files it reads.

`packages.json.gz` is the table; `benchmarks/app_packages.py` makes it, and says from what.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.android.records import Needs, Operator

TABLE = Path(__file__).parent / "packages.json.gz"
EXECUTORCH = ("executorch-android", "executorch-android-vulkan")
"""Smallest first: the first that has everything is the one to take."""
ONNXRUNTIME = "onnxruntime-android"
XNNPACK = "XnnpackBackend"
SHOWN = 5
"""The most names that one message lists."""


NO_END = 2**31 - 1
"""The last version of a kernel without an end."""


@dataclass(frozen=True)
class Package:
    """One version of a package."""

    name: str
    version: str
    source: str
    """The file that this was read from."""

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    def lacks(self, needs: Needs) -> tuple[str, ...]:
        """Return what it lacks for an artifact of its runtime; empty where it has everything."""
        raise NotImplementedError


@dataclass(frozen=True)
class ExecutorchPackage(Package):
    """One version of a package of ExecuTorch."""

    identifier: str
    """The mark of the files that it reads, "ET12"."""
    backends: frozenset[str]
    operators: frozenset[str]
    delegate_operators: frozenset[str]
    """The kinds of nodes that its XNNPACK backend reads."""

    def lacks(self, needs: Needs) -> tuple[str, ...]:
        names = [operator.name for operator in needs.operators]
        nodes = needs.delegate_operators if XNNPACK in self.backends else ()
        return (
            *wrong_identifier_for_stock_package(needs.identifier, [self.identifier]),
            *lacking_in_stock_package(
                "backend", [name for name in needs.backends if name not in self.backends]
            ),
            *lacking_in_stock_package("operator", [name for name in names if name not in self.operators]),
            *lacking_in_stock_package(
                "XNNPACK operator", [name for name in nodes if name not in self.delegate_operators]
            ),
        )


@dataclass(frozen=True)
class OnnxruntimePackage(Package):
    """One version of the package of ONNX Runtime."""

    ir_version: int
    """The newest layout of .onnx files that it reads."""
    opset: int
    """The newest released opset of ONNX's own domain."""
    ort_formats: tuple[int, ...]
    """The layouts of .ort files that it reads."""
    kernels: dict[str, dict[str, list[list[int]]]] = field(repr=False, hash=False, compare=False)
    """Domain -> operator -> the opset versions of its kernels, each from first to last."""

    def lacks(self, needs: Needs) -> tuple[str, ...]:
        missing = [operator.title for operator in needs.operators if not self._provides(operator)]
        return (*self.too_old(needs), *lacking_in_stock_package("operator", missing))

    def too_old(self, needs: Needs) -> tuple[str, ...]:
        """Return which of a file's versions it does not read."""
        problems = []
        if needs.ir_version > self.ir_version:
            problems.append(f"it reads IR versions up to {self.ir_version}, the file has {needs.ir_version}")
        opset = dict(needs.opsets).get("", 0)
        if opset > self.opset:
            problems.append(f"it reads opsets up to {self.opset}, the file imports {opset}")
        if needs.ort_format and needs.ort_format not in self.ort_formats:
            layouts = ", ".join(map(str, self.ort_formats))
            problems.append(f"it reads ORT formats {layouts}, the file has {needs.ort_format}")
        return tuple(problems)

    def has_kernel(self, operator: Operator) -> bool:
        """Return whether a kernel is registered for the operator as its opset version defined it.

        A kernel without an end is for the one version at which it begins; version 0 accepts any.
        """
        ranges = self.kernels.get(operator.domain, {}).get(operator.name, [])
        version = operator.version
        if not version:
            return bool(ranges)
        return any(first == version or first <= version <= last < NO_END for first, last in ranges)

    def _provides(self, operator: Operator) -> bool:
        """Return whether a kernel is registered, or the operators of its body all have kernels."""
        if self.has_kernel(operator):
            return True
        return bool(operator.body) and all(self._provides(inner) for inner in operator.body)


def wrong_identifier_for_stock_package(identifier: str, known: Collection[str]) -> list[str]:
    """Return why a runtime of ExecuTorch does not read a program; nothing where it does."""
    if identifier in known:
        return []
    return [f"it reads programs {', '.join(known)}, this one is {identifier}"]


def lacking_in_stock_package(noun: str, missing: Sequence[str]) -> list[str]:
    """Return a sentence that lists missing names; none where nothing is missing."""
    if not missing:
        return []
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    plural = "s" if len(missing) > 1 else ""
    return [f"no {noun}{plural} {', '.join(missing[:SHOWN])}{more}"]


@functools.cache
def executorch_stock_packages(name: str) -> tuple[ExecutorchPackage, ...]:
    """Return the versions of a package of ExecuTorch, oldest first."""
    return tuple(
        ExecutorchPackage(
            name,
            version,
            entry["source"],
            entry["identifier"],
            frozenset(entry["backends"]),
            frozenset(entry["operators"]),
            frozenset(entry["delegate_operators"]),
        )
        for version, entry in _stock_package_versions(name)
    )


@functools.cache
def onnxruntime_stock_packages() -> tuple[OnnxruntimePackage, ...]:
    """Return the versions of ONNX Runtime's package, oldest first."""
    return tuple(
        OnnxruntimePackage(
            ONNXRUNTIME,
            version,
            entry["source"],
            entry["ir_version"],
            entry["opset"],
            tuple(entry["ort_formats"]),
            entry["kernels"],
        )
        for version, entry in _stock_package_versions(ONNXRUNTIME)
    )


def stock_package_version_numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers, which sort in order."""
    return tuple(int(part) for part in version.split("."))


def _stock_package_versions(name: str) -> list[tuple[str, dict[str, Any]]]:
    return sorted(
        _stock_package_table()[name].items(), key=lambda item: stock_package_version_numbers(item[0])
    )


@functools.cache
def _stock_package_table() -> dict[str, dict[str, dict[str, Any]]]:
    table: dict[str, dict[str, dict[str, Any]]] = json.loads(gzip.decompress(TABLE.read_bytes()))
    return table
