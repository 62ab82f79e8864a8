"""Replaces internals of frameworks for a while, in versions where the result is proven to stay the same."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def are_versions_proven(versions: Mapping[str, str]) -> bool:
    """Tell whether exactly these versions of the packages are installed."""
    # A build of the same source says 2.13.0+cpu.
    return all(importlib.metadata.version(k).split("+")[0] == v for k, v in versions.items())


@contextmanager
def replaced_internal(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give the module or class another attribute inside the block."""
    missing = object()
    # vars(), not getattr(): an inherited attribute must be inherited again afterwards.
    before = vars(owner).get(name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
