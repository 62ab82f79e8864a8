"""Find files inside installed packages, or name the package to install."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import MissingDependencyError


@dataclass(frozen=True)
class PackagedFile:
    """A file inside an installed package."""

    package: str
    path: str
    command: str
    """The command that installs the package."""


def find_packaged(item: PackagedFile) -> Path:
    """Return the path of an item, without importing its package.

    Raises:
        MissingDependencyError: The package is not installed, or the file is not in it.
    """
    spec = importlib.util.find_spec(item.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, item.path)
        if path.is_file():
            return path
    problem = "is not installed" if spec is None else f"has no {item.path} inside"
    raise MissingDependencyError(f"The package {item.package} {problem}.", f"Run `{item.command}`.")
