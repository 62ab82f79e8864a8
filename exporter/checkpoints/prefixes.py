"""Ways to read the names of tensors: as stored, then without what DDP, torch.compile and Lightning add.

No prefix is cut for good: `model.` may be a wrapper's or the network's own, which only the network knows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from exporter.records import Reading

WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""No module of one's own is called so: taken out wherever they stand (a compiled submodule)."""

INNER_WRAPPER = re.compile(r"(?:(?<=\.)|^)module\.")
"""DDP around a submodule only; also an honest name of a submodule, so the last to be tried."""

MAX_PREFIXES = 8


def prefix_readings(names: Collection[str], network: Reading | None = None) -> tuple[Reading, ...]:
    """List the names that the bare network may have.

    Args:
        names: The tensors' names as stored.
        network: The tensors that are the network's, where the file holds others beside them.

    Returns:
        The stored names first, then fewer and fewer prefixes; never two tensors of one name.
    """
    stored = Reading({name: name for name in names})
    distinct = [stored]
    for reading in _shorter_prefix(network or stored):
        if all(reading.names != other.names for other in distinct):
            distinct.append(reading)
    return tuple(distinct)


def without_prefixes(names: Collection[str]) -> tuple[str, ...]:
    """Return the names without every wrapper and shared prefix, in the same order."""
    return tuple(prefix_readings(names)[-1].names)


def _shorter_prefix(start: Reading) -> Iterator[Reading]:
    yield start
    unwrapped = _without_prefix(start, WRAPPERS)
    shorter = [unwrapped, *_without_shared_prefix(unwrapped)]
    yield from shorter
    inner = _without_prefix(shorter[-1], INNER_WRAPPER)
    if inner is not shorter[-1]:
        yield inner
        yield from _without_shared_prefix(inner)


def _without_prefix(reading: Reading, pattern: re.Pattern[str]) -> Reading:
    """Take a wrapper's name out wherever it stands."""
    removed = sorted({match for name in reading.names for match in pattern.findall(name)})
    if not removed:
        return reading
    return (
        _rename_without_prefix(reading, {name: pattern.sub("", name) for name in reading.names}, removed)
        or reading
    )


def _without_shared_prefix(reading: Reading) -> Iterator[Reading]:
    """Take off the first part of the names, as long as all share it."""
    for _ in range(MAX_PREFIXES):
        firsts = {name.partition(".")[0] for name in reading.names}
        prefix = f"{next(iter(firsts), '')}."
        if len(firsts) != 1 or not all(name.startswith(prefix) for name in reading.names):
            return
        shorter = _rename_without_prefix(
            reading, {name: name[len(prefix) :] for name in reading.names}, [prefix]
        )
        if shorter is None:
            return
        reading = shorter
        yield reading


def _rename_without_prefix(
    reading: Reading, renamed: Mapping[str, str], removed: list[str]
) -> Reading | None:
    """None where two tensors would get one name, or one none."""
    if len(set(renamed.values())) != len(renamed) or "" in renamed.values():
        return None
    names = {renamed[name]: stored for name, stored in reading.names.items()}
    note = f"{', '.join(map(repr, removed))} taken off the names of the tensors"
    return Reading(names, (*reading.notes, note))
