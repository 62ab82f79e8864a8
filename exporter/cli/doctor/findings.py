"""The record of one finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "limited"]


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    `missing` stops exports, `limited` makes them do less, and `fix` is the command (or sentence) that helps.
    """

    what: str
    state: State
    detail: str
    fix: str = ""
