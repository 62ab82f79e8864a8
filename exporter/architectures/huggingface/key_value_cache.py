"""A language model of transformers whose cache of keys and values is an input and an output."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn


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


class CachedModule(nn.Module):
    """Computes logits of some tokens, and the cache with their keys and values."""

    input_names = ("input_ids", "position", "keys", "values")

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        # transformers 5.2x renamed it.
        taken = inspect.signature(network.forward).parameters
        self.cache_name = "cache" if "cache" in taken else "past_key_values"

    def forward(self, input_ids: Tensor, position: Tensor, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Return the logits [1, tokens, vocabulary], and the cache's keys and values.

        Args:
            input_ids: Tokens [1, tokens].
            position: Place of the first token in the text, [1].
            keys: Cache of [layers, heads, slots, width].
            values: The same of the values.
        """
        positions = position + torch.arange(input_ids.shape[1])
        slots = torch.arange(keys.shape[2])
        hidden = slots[None, :] > positions[:, None]
        mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)
        cache = ExternalCache(keys, values, positions)
        outputs = self.network(
            input_ids=input_ids,
            attention_mask=mask[None, None],
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
