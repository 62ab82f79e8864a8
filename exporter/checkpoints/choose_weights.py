"""Chooses the dictionary of a checkpoint that holds the weights to ship."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from exporter.checkpoints import prefixes
from exporter.checkpoints.checkpoint_contents import printable_checkpoint_content
from exporter.checkpoints.inert_values import (
    AnyTensor,
    is_plain_inert_value,
    is_tensor_inert_value,
    layer_versions_inert_value,
)
from exporter.errors import CheckpointError

WEIGHTS = (
    "state_dict", "model_state_dict", "model", "model_state", "net", "network", "weights", "params", "module",
)  # fmt: skip
"""Keys under which trainers keep the network, most telling first."""

TRAINING = re.compile(
    r"optim|sched|scaler|(^|_)(amp|rng)(_|$)|loss|criterion|callback|loops|hyper|history|metric|grad"
)
"""Keys of what only training needs: never searched for weights."""

EXTRA_STATE = "_extra_state"
"""How PyTorch ends the names of what layers save beside their tensors."""

MAX_DEPTH = 6


@dataclass(frozen=True, eq=False)
class ChosenWeights:
    """One dictionary with tensors, and the keys that lead to it."""

    path: tuple[str, ...]
    tensors: Mapping[str, AnyTensor]
    ignored: tuple[str, ...]
    """Entries that are not tensors."""
    layer_versions: Mapping[str, Mapping[str, Any]] | None = None
    """What PyTorch noted of the layers' formats, where the file has it."""
    extra_state: Mapping[str, Any] = field(default_factory=dict)
    """What layers saved beside tensors, where it is plain values."""

    @property
    def title(self) -> str:
        return printable_checkpoint_content(repr(".".join(self.path))) if self.path else "the top of the file"

    @property
    def is_ema(self) -> bool:
        return any(is_ema_of_chosen_weights(key) for key in self.path)

    @property
    def rank(self) -> int:
        """Position of its most telling key in `WEIGHTS`; after the last when it has none."""
        return min((WEIGHTS.index(key) for key in self.path if key in WEIGHTS), default=len(WEIGHTS))


def is_ema_of_chosen_weights(key: str) -> bool:
    """Tell whether a key names averaged weights: ema, ema_model, model_ema, averaged_model."""
    return (
        key.startswith("ema")
        or key.endswith("_ema")
        or key in ("averaged_model", "swa_model", "swa_state_dict")
    )


def weights_to_choose(root: object) -> tuple[ChosenWeights, ...]:
    """List every dictionary that could be a network's weights, in the file's order.

    Dictionaries that are only a few counters next to or inside another one are left out.
    """
    every = list(_search_weights_to_choose(root, (), set()))
    counts = {candidate.path: len(candidate.tensors) for candidate in every}
    inside: dict[tuple[str, ...], int] = {}
    """Path -> the most tensors of a candidate below it."""
    for path, count in counts.items():
        for above in _levels_above_chosen_weights(path):
            inside[above] = max(inside.get(above, 0), count)
    return tuple(c for c in every if not _are_chosen_weights_outweighed(c, counts, inside))


def _levels_above_chosen_weights(path: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [path[:length] for length in range(len(path))]


def _are_chosen_weights_outweighed(
    candidate: ChosenWeights, counts: Mapping[tuple[str, ...], int], inside: Mapping[tuple[str, ...], int]
) -> bool:
    """Tell whether a candidate above has more tensors, or one below at least as many."""
    count = len(candidate.tensors)
    return inside.get(candidate.path, 0) >= count or any(
        counts.get(p, 0) > count for p in _levels_above_chosen_weights(candidate.path)
    )


def choose_weights(root: object) -> tuple[ChosenWeights, tuple[str, ...]]:
    """Choose the weights to ship, averaged ones first.

    Returns:
        The choice, and a note on each decision.

    Raises:
        CheckpointError: There are none, or several that nothing tells apart.
    """
    every = weights_to_choose(root)
    averaged = [_chosen_weights_without_counter(c) for c in every if c.is_ema]
    trained = sorted((c for c in every if not c.is_ema), key=lambda c: c.rank)
    if not averaged:
        return _only_weights_to_choose(trained)
    ema = averaged[0]
    if not trained:
        return ema, (f"averaged (EMA) weights used: {ema.title}",)
    last, notes = _only_weights_to_choose(trained)
    if missing := _no_weights_to_choose(ema, last):
        return last, (
            *notes,
            f"averaged (EMA) weights in {ema.title} left out: they lack {len(missing)} tensors, "
            f"first {missing[0]!r}",
        )
    return ema, (f"averaged (EMA) weights used: {ema.title}, instead of {last.title}",)


def _only_weights_to_choose(trained: list[ChosenWeights]) -> tuple[ChosenWeights, tuple[str, ...]]:
    if not trained:
        raise CheckpointError(
            "There are no weights in it.",
            "Save them with torch.save(model.state_dict(), …).",
            code="EM-NO-WEIGHTS",
        )
    first, rest = trained[0], trained[1:]
    if rest and rest[0].rank == first.rank:
        titles = ", ".join(f"{c.title} ({len(c.tensors)} tensors)" for c in trained[:6])
        raise CheckpointError(
            f"It holds several sets of weights, and nothing says which to ship: {titles}.",
            "Save the one to ship: torch.save(checkpoint[key], …).",
            code="EM-SEVERAL-WEIGHTS",
        )
    first = _chosen_weights_without_counter(first)
    notes = [f"weights taken from {first.title}"] if first.path else []
    if rest:
        titles = ", ".join(c.title for c in rest[:5]) + (", …" if len(rest) > 5 else "")
        notes.append(f"other weights left out: {titles}")
    if first.ignored:
        names = ", ".join(printable_checkpoint_content(repr(key)) for key in first.ignored[:5])
        notes.append(f"entries that are not tensors left out: {names}")
    return first, tuple(notes)


def _search_weights_to_choose(node: object, path: tuple[str, ...], seen: set[int]) -> Iterator[ChosenWeights]:
    if not isinstance(node, dict) or id(node) in seen or len(path) > MAX_DEPTH:
        return
    seen.add(id(node))
    named = {key: value for key, value in node.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if is_tensor_inert_value(value)}
    if tensors:
        yield _make_chosen_weights(node, path, named, tensors)
    # Dotted names are a network's own: what nests below them (extra state) is no other network.
    if not any("." in key for key in tensors):
        for key, value in named.items():
            if not TRAINING.search(key.lower()):
                yield from _search_weights_to_choose(value, (*path, key), seen)


def _make_chosen_weights(
    node: object, path: tuple[str, ...], named: Mapping[str, Any], tensors: Mapping[str, AnyTensor]
) -> ChosenWeights:
    extra = {
        key: value
        for key, value in named.items()
        if key.endswith(EXTRA_STATE) and is_plain_inert_value(value)
    }
    ignored = tuple(key for key in named if key not in tensors and key not in extra)
    return ChosenWeights(path, tensors, ignored, layer_versions_inert_value(node), extra)


def _chosen_weights_without_counter(candidate: ChosenWeights) -> ChosenWeights:
    """`torch.optim.swa_utils.AveragedModel` counts its updates beside the wrapped network."""
    rest: dict[str, Any] = {k: v for k, v in candidate.tensors.items() if k != "n_averaged"}
    wrapped = len(rest) < len(candidate.tensors) and rest and all(name.startswith("module.") for name in rest)
    return replace(candidate, tensors=rest) if wrapped else candidate


def _no_weights_to_choose(ema: ChosenWeights, last: ChosenWeights) -> list[str]:
    have = set(prefixes.without_prefixes(ema.tensors))
    return [name for name in prefixes.without_prefixes(last.tensors) if name not in have]
