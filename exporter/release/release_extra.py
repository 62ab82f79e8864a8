"""Import the packages of the `release` extra, with one message for their absence."""

from __future__ import annotations

import importlib
from types import ModuleType

from exporter.errors import MissingDependencyError


def need_release_extra(module: str, purpose: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: "model_signing.signing".
        purpose: What cannot be done without the module, for the message.

    Raises:
        MissingDependencyError: It, or a package that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs the packages of the release extra ({error}).",
            "pip install 'export-mobile[release]'",
        ) from None
