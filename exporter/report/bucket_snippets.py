"""Write code by which an app chooses one of the sizes that a network was exported for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from exporter.report import templates

TEMPLATES = {"Sizes.kt": "sizes.kt.j2", "Sizes.swift": "sizes.swift.j2"}


def bucket_snippets(sizes: Sequence[Sequence[int]], merged: bool, files: Mapping[str, str]) -> dict[str, str]:
    """Return file name -> code, for Kotlin and Swift.

    Args:
        sizes: Of each bucket, the axes that differ.
        merged: Whether one file has a method for each.
        files: Bucket -> its file, where it has one of its own.
    """
    suffix = PurePath(next(iter(files.values()), "")).suffix
    environment = templates.template_environment("exporter.report", autoescape=False)
    return {
        name: environment.get_template(template).render(sizes=sizes, merged=merged, suffix=suffix)
        for name, template in TEMPLATES.items()
    }
