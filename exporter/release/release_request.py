"""The user's request for a release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReleaseRequest:
    """The user's request for a release."""

    out: Path
    """The folder of an export."""
    version: str
    destination: Path
    name: str | None = None
    group: str = "com.example"
    artifacts: tuple[str, ...] = ()
    allow_unmeasured: bool = False
    allow_inconclusive: bool = False
    """Whether to release an artifact whose scenes are too few to prove it."""
    allow_unverified: tuple[str, ...] = ()
    allow_wrong_on: tuple[str, ...] = ()
    """Serials of devices on which the artifact may give wrong outputs."""
    licence: Path | None = None
    card: Path | None = None
    """The model's card (`exporter.config.cards`) to include."""
    key: Path | None = None
    """The private key; it is never copied."""
