"""Compares what an artifact needs with the stock Android packages of its runtime."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.android import stock_packages
from exporter.android.records import Answer, Needs
from exporter.android.stock_packages import Package


def answer_for_stock(artifact: str, needs: Needs, version: str) -> Answer:
    """Return whether the stock package loads an artifact, and since which version.

    Args:
        artifact: The artifact's name.
        needs: What it needs.
        version: The version of the runtime that it was made with. Where the table lacks it, the newest before
            it is asked; where all are newer, the oldest.
    """
    families: list[Sequence[Package]] = [stock_packages.onnxruntime_stock_packages()]
    if needs.runtime == "ExecuTorch":
        families = [stock_packages.executorch_stock_packages(name) for name in stock_packages.EXECUTORCH]
    answers = [_stock_of_family(artifact, needs, family, version) for family in families]
    return next((item for item in answers if item.loads == "yes"), answers[-1])


def _stock_of_family(artifact: str, needs: Needs, family: Sequence[Package], version: str) -> Answer:
    lacks = {package.version: package.lacks(needs) for package in family}
    package = package_of_stock_version(family, version)
    problems = lacks[package.version]
    since = next((name for name, reasons in lacks.items() if not reasons), "")
    return Answer(artifact, package.title, "no" if problems else "yes", problems, since=since)


def package_of_stock_version(family: Sequence[Package], version: str) -> Package:
    """Return the package of a version, or the newest before it, or the oldest."""
    try:
        wanted = stock_packages.stock_package_version_numbers(version)
    except ValueError:
        return family[-1]
    before = [
        package
        for package in family
        if stock_packages.stock_package_version_numbers(package.version) <= wanted
    ]
    return before[-1] if before else family[0]
