"""Tells which parts of a network an export is of, by what the user named."""

from __future__ import annotations

from collections.abc import Iterable


def parts_to_export(asked: str, parts: Iterable[str]) -> tuple[str, ...]:
    """Return the parts that are exported one after the other.

    Args:
        asked: What `--part` says: several names joined by commas, or nothing.
        parts: The network's.

    Returns:
        All parts where none is named; none where a name is not the network's.
    """
    if not asked:
        return tuple(parts)
    names = tuple(asked.split(","))
    return names if set(names) <= set(parts) else ()
