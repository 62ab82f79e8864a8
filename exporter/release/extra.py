"""The packages of the `release` extra: imported here, so that their absence has one answer."""

from __future__ import annotations

import importlib
from types import ModuleType

from exporter.errors import MissingDependencyError


def need(module: str, what: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: "model_signing.signing".
        what: What cannot be done without it, for the message.

    Raises:
        MissingDependencyError: It, or something that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs the packages of the release extra ({error}).",
            "pip install 'export-mobile[release]'",
        ) from None
