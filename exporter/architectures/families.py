"""What every family of networks that a package builds (transformers, timm, ultralytics) needs from it."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from exporter import sandbox
from exporter.capture import torchvision_ops
from exporter.errors import MissingDependencyError
from exporter.sandbox.confinement import READ_SECONDS


def import_family_package(name: str, subject: str, licence: str = "") -> ModuleType:
    """Import the package that builds a network.

    Args:
        name: The package, and the extra of ours that brings it.
        subject: What needs it, in the message.
        licence: A remark on the package's licence, in the message.

    Raises:
        MissingDependencyError: It is not installed, or cannot be imported.
    """
    torchvision_ops.prepare_torchvision_ops()
    try:
        is_new = name not in sys.modules
        module = importlib.import_module(name)
        if is_new:
            sandbox.resource_limit_of_seconds_anew(
                READ_SECONDS
            )  # the import is no part of what the file makes us do
    except Exception as error:  # a package may raise anything where a part of it is broken
        words = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        broken = "" if absent else f" or broken ({words})"
        raise MissingDependencyError(
            f"{subject} is built by the package {name}, which is not installed{broken}.",
            f"Run `pip install 'export-mobile[{name}]'`.{' ' if licence else ''}{licence}",
        ) from error
    return module
