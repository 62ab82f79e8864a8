"""Examine the packages of the optional extras: what is installed and what is missing.

`exporter.cli.doctor.phone` examines the extra for phones in more detail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from exporter.cli.doctor.findings import Finding


@dataclass(frozen=True)
class Extra:
    """The packages that one optional feature needs."""

    purpose: str
    """What the packages are needed for: "for `release`"."""
    packages: tuple[str, ...]
    """The packages that pyproject.toml lists for the extra; a test compares the two."""


EXTRAS: Mapping[str, Extra] = {
    "history": Extra("to remember measurements, and for nights", ("sqlalchemy", "alembic", "ruptures")),
    "postgresql": Extra("for a history that several hosts share", ("psycopg",)),
    "parquet": Extra("for `history export FILE.parquet`", ("pyarrow",)),
    "tensorboard": Extra("for `nightly --tensorboard`", ("tensorboardX",)),
    "transformers": Extra("for Hugging Face folders", ("transformers",)),
    "timm": Extra("for networks of timm", ("timm",)),
    "ultralytics": Extra("for networks of Ultralytics (AGPL-3.0)", ("ultralytics",)),
    "coreai": Extra("for `--formats coreai`", ("coreai-core", "coreai-torch")),
    "qnn": Extra("for `--formats onnx-qnn` (Qualcomm's licence)", ("onnxruntime-qnn",)),
    "release": Extra(
        "for `release`, and for signatures in `verify`",
        ("cyclonedx-python-lib", "jsonschema", "model-signing", "pyOpenSSL"),
    ),
}


def examine_extras() -> tuple[Finding, ...]:
    """Return a finding for each extra; import none of its packages."""
    return tuple(_extra_finding(name, extra) for name, extra in EXTRAS.items())


def _extra_finding(name: str, extra: Extra) -> Finding:
    versions = {package: _extra_version(package) for package in extra.packages}
    missing = [package for package, version in versions.items() if not version]
    if not missing:
        installed = ", ".join(f"{package} {version}" for package, version in versions.items())
        return Finding(f"Extra {name}", "ok", installed)
    detail = f"not installed: {', '.join(missing)}; only needed {extra.purpose}"
    return Finding(f"Extra {name}", "limited", detail, f"pip install 'export-mobile[{name}]'")


def _extra_version(package: str) -> str:
    """Return the installed version; empty without one."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
