"""A language model of transformers whose cache of keys and values is an input and an output."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from exporter.architectures.huggingface.text_generation import WINDOWED


class ExternalCache:
    """Stands for transformers' cache during one call: writes new keys and values at the call's positions."""

    is_compileable = False

    def __init__(self, keys: Tensor, values: Tensor, positions: Tensor) -> None:
        self.keys = list(keys.unbind(0))
        self.values = list(values.unbind(0))
        self.positions = positions

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values of all positions, the new ones among them."""
        self.keys[layer_idx] = self.keys[layer_idx].index_copy(1, self.positions, key_states[0])
        self.values[layer_idx] = self.values[layer_idx].index_copy(1, self.positions, value_states[0])
        return self.keys[layer_idx][None], self.values[layer_idx][None]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: positions and mask are given to the network."""
        return 0

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """Return the number of positions, and the first one."""
        return int(self.keys[0].shape[1]), 0


class _SeenCache(ExternalCache):
    """Keeps nothing of a call but the shapes of each layer's keys and values, [1, heads, tokens, width]."""

    def __init__(self) -> None:
        self.shapes: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        self.shapes[layer_idx] = (tuple(key_states.shape), tuple(value_states.shape))
        return key_states, value_states

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        return 1, 0


def cache_shapes(network: Any) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    """Return (layers, heads, width) of a network's keys and of its values: a call of one token shows them.

    None where layers differ, or keep something else than keys and values.
    """
    cache = _SeenCache()
    place = torch.zeros(1, 1, dtype=torch.int64)
    try:
        with torch.no_grad():
            network(
                input_ids=place,
                attention_mask=torch.zeros(1, 1, 1, 1),
                position_ids=place,
                **{_cache_argument(network): cache},
                use_cache=True,
            )
    except (AttributeError, TypeError, ValueError, KeyError, IndexError, RuntimeError):
        return None
    layers = len(cache.shapes)
    if len(set(cache.shapes.values())) != 1 or set(cache.shapes) != set(range(layers)):
        return None
    keys, values = cache.shapes[0]
    return (layers, keys[1], keys[3]), (layers, values[1], values[3])


def _cache_argument(network: Any) -> str:
    """Return the name of forward's argument; transformers 5.2x renamed it."""
    return "cache" if "cache" in inspect.signature(network.forward).parameters else "past_key_values"


class CachedModule(nn.Module):
    """Computes logits of some tokens, and the cache with their keys and values."""

    input_names = ("input_ids", "position", "keys", "values")

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        settings = network.config.get_text_config()
        kinds = tuple(sorted(set(getattr(settings, "layer_types", None) or ())))
        self.kinds = kinds if _takes_masks_by_kind(network, kinds) else ()
        """The kinds of layers that take a mask each; empty where one mask is for all."""
        one_for_all_kinds = bool(kinds) and not self.kinds
        self.window = None if one_for_all_kinds else getattr(settings, "sliding_window", None)
        """How many tokens back a token sees in layers of a window; None without such layers."""
        self.cache_name = _cache_argument(network)

    def forward(self, input_ids: Tensor, position: Tensor, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Return the logits [1, tokens, vocabulary], and the cache's keys and values.

        Args:
            input_ids: Tokens [1, tokens].
            position: Place of the first token in the text, [1].
            keys: Cache of [layers, heads, slots, width].
            values: The same of the values.
        """
        positions = position + torch.arange(input_ids.shape[1])
        cache = ExternalCache(keys, values, positions)
        outputs = self.network(
            input_ids=input_ids,
            attention_mask=self._masks(positions, keys.shape[2]),
            position_ids=positions[None],
            **{self.cache_name: cache},
            use_cache=True,
            return_dict=True,
        )
        return {
            "logits": outputs.logits,
            "keys_out": torch.stack(cache.keys),
            "values_out": torch.stack(cache.values),
        }

    def _masks(self, positions: Tensor, slots: int) -> Tensor | dict[str, Tensor]:
        """Return what each token sees of the cache: one mask, or one for each kind of layers."""
        if not self.kinds:
            return _mask_of_cache(positions, slots, self.window)
        return {
            kind: _mask_of_cache(positions, slots, self.window if kind == WINDOWED else None)
            for kind in self.kinds
        }


def _mask_of_cache(positions: Tensor, slots: int, window: int | None) -> Tensor:
    places = torch.arange(slots)
    hidden = places[None, :] > positions[:, None]
    if window is not None and window < slots:
        hidden = hidden | (places[None, :] <= positions[:, None] - window)
    mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)
    return mask[None, None]


def _takes_masks_by_kind(network: Any, kinds: tuple[str, ...]) -> bool:
    """Tell whether a network takes a mask for each kind of its layers; others say so by an error."""
    if not kinds:
        return False
    mask = torch.zeros(1, 1, 1, 1)
    try:
        with torch.no_grad():
            network(input_ids=torch.zeros(1, 1, dtype=torch.int64), attention_mask=dict.fromkeys(kinds, mask))
    except (AttributeError, TypeError, ValueError, KeyError, RuntimeError):
        return False
    return True
