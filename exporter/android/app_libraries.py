"""Compares what an artifact needs with the libraries that the user gives."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from exporter.android import elf, stock_packages
from exporter.android.records import Answer, Container, Library, Loads, Needs, Operator
from exporter.android.stock_packages import (
    OnnxruntimePackage,
    lacking_in_stock_package,
    wrong_identifier_for_stock_package,
)

NODES = ("XNNAdd", "XNNConv2d", "XNNFullyConnected")
"""A library with one of these names has the names of all nodes that its XNNPACK backend reads."""


NO_NODES = (
    "whether its XNNPACK backend has every operator of the file's graphs: the library does not name them"
)


def names_wanted_in_app_libraries(all_needs: Collection[Needs]) -> frozenset[str]:
    """Return the names to look for in libraries."""
    operators = (operator for needs in all_needs for operator in needs.operators)
    names = {name for operator in operators for name in _names_in_app_libraries(operator)}
    others = (name for needs in all_needs for name in (*needs.backends, *needs.delegate_operators))
    return frozenset({*names, *others, *NODES})


def _names_in_app_libraries(operator: Operator) -> Iterator[str]:
    yield operator.name
    for inner in operator.body:
        yield from _names_in_app_libraries(inner)


def problems_of_app_libraries(containers: Collection[Container], min_sdk: int | None) -> tuple[str, ...]:
    """Return what is wrong with the given files, whatever the artifact, one sentence each.

    Args:
        containers: The files.
        min_sdk: The app's minimum SDK; None leaves it to an AAR's own manifest.
    """
    sentences: list[str] = []
    for container in containers:
        if container.problem:
            sentences.append(f"{container.name}: {container.problem.rstrip('.')}.")
        declared = container.min_sdk if min_sdk is None else min_sdk
        for library in container.libraries:
            sentences += [
                f"{library.name}: {problem}." for problem in _problems_of_app_library(library, declared)
            ]
    return tuple(sentences)


def _problems_of_app_library(library: Library, min_sdk: int | None) -> Iterator[str]:
    if library.problem:
        yield library.problem
    if library.abi in elf.WIDE_ABIS and library.page_bytes < elf.PAGE_BYTES:
        yield (
            f"its segments are aligned to {library.page_bytes} bytes, expected {elf.PAGE_BYTES}: it does not "
            "load on devices with 16 KB pages, and Google Play refuses it"
        )
    if library.unaligned_offset is not None:
        yield (
            f"the APK stores it at byte {library.unaligned_offset}, no multiple of {elf.PAGE_BYTES}: "
            "align it with zipalign -P 16"
        )
    if min_sdk is not None and library.min_sdk is not None and library.min_sdk > min_sdk:
        yield f"it is built for API level {library.min_sdk}, but the minimum SDK is {min_sdk}"


def answer_for_app_libraries(artifact: str, needs: Needs, containers: Collection[Container]) -> Answer | None:
    """Return whether the given libraries load an artifact; None when none of them has its runtime."""
    usable = [
        library
        for container in containers
        for library in container.libraries
        if library.abi == elf.ABI and not library.problem
    ]
    if needs.runtime == "ExecuTorch":
        parts = [library for library in usable if library.executorch]
        return _executorch_app_libraries(artifact, needs, parts) if parts else None
    runtimes = [library for library in usable if library.onnx_runtime]
    answers = [_onnxruntime_app_libraries(artifact, needs, library) for library in runtimes]
    return next((item for item in answers if item.loads != "yes"), answers[0] if answers else None)


def _executorch_app_libraries(artifact: str, needs: Needs, parts: list[Library]) -> Answer:
    """Judge by names: kernels and backends are registered by name, from any of the libraries."""
    names = {name for part in parts for name in (*part.names, *part.tails)}
    identifiers = sorted({identifier for part in parts for identifier in part.identifiers})
    known_nodes = any(name in names for name in NODES)
    nodes = needs.delegate_operators if known_nodes else ()
    operators = [operator.name for operator in needs.operators]
    wrong = (
        *(wrong_identifier_for_stock_package(needs.identifier, identifiers) if identifiers else ()),
        *lacking_in_stock_package("backend", [name for name in needs.backends if name not in names]),
        *lacking_in_stock_package("operator", [name for name in operators if name not in names]),
        *lacking_in_stock_package("XNNPACK operator", [name for name in nodes if name not in names]),
    )
    unknown = () if known_nodes or not needs.delegate_operators else (NO_NODES,)
    place = ", ".join(part.name for part in parts)
    return Answer(artifact, place, "no" if wrong else "yes", wrong, unknown)


def _onnxruntime_app_libraries(artifact: str, needs: Needs, library: Library) -> Answer:
    """Judge by the library's version, by what that version registers, and by the names in the library."""
    package, at_most = _package_of_app_libraries(library.version)
    wrong: list[str] = []
    unknown: list[str] = []
    if needs.ir_version and not library.reads_onnx:
        wrong.append("it is a minimal build, which reads .ort files only")
    if package:
        wrong += package.too_old(needs)
    if not package or at_most:
        unknown.append("it is not known which files this version reads")
    missing = [
        operator.title for operator in needs.operators if not _app_library_has(operator, library, package)
    ]
    wrong += lacking_in_stock_package("operator", missing)
    if not library.reads_onnx:
        hidden = [operator.title for operator in needs.operators if operator.name in library.tails]
        unknown += [
            f"{name} is only there as the end of a longer name" for name in hidden[: stock_packages.SHOWN]
        ]
    loads: Loads = "no" if wrong else "unknown" if unknown else "yes"
    version = f" ({library.version})" if library.version else ""
    return Answer(artifact, f"{library.name}{version}", loads, tuple(wrong), tuple(unknown))


def _app_library_has(operator: Operator, library: Library, package: OnnxruntimePackage | None) -> bool:
    """Return whether a library names an operator and its version has the kernel, or both for its body."""
    named = operator.name in library.names or operator.name in library.tails
    if named and (package is None or package.has_kernel(operator)):
        return True
    return bool(operator.body) and all(_app_library_has(inner, library, package) for inner in operator.body)


def _package_of_app_libraries(version: str) -> tuple[OnnxruntimePackage | None, bool]:
    """Return the described package of the same minor version.

    For a newer version it is the newest that is described. For an older one it is the oldest, and the second
    value is true: the version has at most what that package has.
    """
    if not version:
        return None, False
    known = stock_packages.onnxruntime_stock_packages()
    wanted = stock_packages.stock_package_version_numbers(version)[:2]
    if wanted < stock_packages.stock_package_version_numbers(known[0].version)[:2]:
        return known[0], True
    return [p for p in known if stock_packages.stock_package_version_numbers(p.version)[:2] <= wanted][
        -1
    ], False
