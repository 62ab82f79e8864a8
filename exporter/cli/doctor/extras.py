"""What the doctor looks at for the optional commands: for each extra, what is installed and what is missing.

The extra for phones is looked at more closely, in `exporter.cli.doctor.phone`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from exporter.cli.doctor.findings import Finding


@dataclass(frozen=True)
class Extra:
    """A set of packages that one thing needs."""

    purpose: str
    """What cannot be done without: "to release"."""
    packages: tuple[str, ...]
    """As pyproject.toml has them under the extra's name; a test compares."""


EXTRAS: Mapping[str, Extra] = {
    "history": Extra(
        "to remember measurements, and for nights", ("sqlalchemy", "alembic", "ruptures", "scipy")
    ),
    "postgresql": Extra("for a history that several hosts share", ("psycopg",)),
    "parquet": Extra("for `history export FILE.parquet`", ("pyarrow",)),
    "tensorboard": Extra("for `nightly --tensorboard`", ("tensorboardX",)),
    "release": Extra(
        "for `release`, and for signatures in `verify`",
        ("cyclonedx-python-lib", "jsonschema", "model-signing", "pyOpenSSL"),
    ),
}


def examine() -> tuple[Finding, ...]:
    """A finding for each extra; imports nothing."""
    return tuple(_finding(name, extra) for name, extra in EXTRAS.items())


def _finding(name: str, extra: Extra) -> Finding:
    versions = {package: _version(package) for package in extra.packages}
    missing = [package for package, version in versions.items() if not version]
    if not missing:
        installed = ", ".join(f"{package} {version}" for package, version in versions.items())
        return Finding(f"Extra {name}", "ok", installed)
    detail = f"not installed: {', '.join(missing)}; only needed {extra.purpose}"
    return Finding(f"Extra {name}", "limited", detail, f"pip install 'export-mobile[{name}]'")


def _version(package: str) -> str:
    """Empty where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
