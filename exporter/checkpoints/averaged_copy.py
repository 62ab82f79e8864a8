"""Find the averaged copy of a network beside the trained one in one dictionary, as ema-pytorch saves it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from exporter.checkpoints import prefixes
from exporter.checkpoints.choose_weights import is_ema_of_chosen_weights
from exporter.records import Reading

Shape = tuple[int, ...]


def find_averaged_copy(shapes: Mapping[str, Shape]) -> Reading | None:
    """Return the names of the averaged copy, without what is before them; None where there is no such pair.

    Args:
        shapes: Name -> shape of the tensors. Besides the two copies they may hold counters.
    """
    copies = copies_of_one_network(shapes)
    averaged = [name for name in copies if is_ema_of_chosen_weights(name)]
    if len(copies) != 2 or len(averaged) != 1:
        return None
    (ema,) = averaged
    (trained,) = copies.keys() - {ema}
    return Reading(copies[ema], (f"averaged (EMA) weights used: '{ema}.', instead of '{trained}.'",))


def copies_of_one_network(shapes: Mapping[str, Shape]) -> dict[str, dict[str, str]]:
    """Group the names by their first part, where each part has the same tensors; empty for other files.

    Returns:
        First part -> name without it -> whole name.
    """
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for stored in shapes:
        first, _, rest = prefixes.WRAPPERS.sub("", stored).partition(".")
        groups[first][rest] = stored
    copies = {name: group for name, group in groups.items() if not _are_counters(group, shapes)}
    tensors = [_shapes_of_copy(group, shapes) for group in copies.values()]
    are_equal = len(tensors) > 1 and all(tensors[0] == other for other in tensors[1:])
    return copies if are_equal else {}


def _are_counters(group: Mapping[str, str], shapes: Mapping[str, Shape]) -> bool:
    """Tell whether all are tensors of one value at the top, such as `initted` and `step`."""
    return set(group) == {""} and all(shapes[stored] in ((), (1,)) for stored in group.values())


def _shapes_of_copy(group: Mapping[str, str], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {name: shapes[stored] for name, stored in group.items()}
