"""Check, before anything is built, that a language model computes the same with its cache outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.errors import UsageError
from exporter.records import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from exporter.architectures.huggingface.key_value_cache import CachedModule

TOLERANCE = 1e-3
"""The share of the largest logit that may differ: float32 differs by about 1e-6, another mask by far more."""
HINT = "Leave --part out: the network that reads a whole text is exported."


def check_cached_network(module: CachedModule, specs: tuple[TensorSpec, ...], subject: str) -> None:
    """Refuse a network whose tokens see later ones, or whose layers mask the cache by themselves.

    Args:
        module: The network with its cache as input and output.
        specs: Its inputs: tokens, position, keys, values.
        subject: What the message is about.

    Raises:
        UsageError: The logits are not those of the network that reads the whole text.
    """
    import torch

    slots = specs[2].shape[2]
    length = slots * 3 // 4  # some number the first token 2, and have that many positions fewer
    cut = max(1, length // 3)
    try:
        with torch.no_grad():
            rows = int(module.network.get_input_embeddings().num_embeddings)
            tokens = (torch.arange(length) * 7919 % rows)[None]
            whole = _logits_of_whole_text(module, tokens)
            if not _are_logits_close(whole[:, :cut], _logits_of_whole_text(module, tokens[:, :cut])):
                raise UsageError(
                    f"{subject} is not causal: a token's logits depend on later tokens, and a cache needs "
                    "logits that depend on earlier ones alone.",
                    HINT + " To write text, the config must have is_decoder=true, as in training.",
                )
            cached = _logits_by_cache(module, tokens, cut, specs)
    except (AttributeError, TypeError, ValueError, KeyError, IndexError, RuntimeError):
        return  # the capture, which follows, says what does not run
    if not _are_logits_close(whole, cached):
        raise UsageError(
            f"{subject} computes other logits with a cache of {slots} tokens than without: its layers mask "
            "or number tokens by themselves, as those of local attention do, which goes wrong with a cache "
            "of a fixed size.",
            HINT,
        )


def _logits_of_whole_text(module: CachedModule, tokens: Tensor) -> Tensor:
    logits: Tensor = module.network(input_ids=tokens, use_cache=False, return_dict=True).logits
    return logits


def _logits_by_cache(module: CachedModule, tokens: Tensor, cut: int, specs: tuple[TensorSpec, ...]) -> Tensor:
    """Return the logits of a text that is read by three calls: a prompt, its rest, and the last token."""
    import torch

    keys, values = (torch.zeros(spec.shape) for spec in specs[2:])
    pieces, start = [], 0
    for piece in torch.tensor_split(tokens, (cut, tokens.shape[1] - 1), dim=1):
        outputs = module(piece, torch.tensor([start]), keys, values)
        keys, values, start = outputs["keys_out"], outputs["values_out"], start + piece.shape[1]
        pieces.append(outputs["logits"])
    return torch.cat(pieces, dim=1)


def _are_logits_close(expected: Tensor, actual: Tensor) -> bool:
    largest = float((expected - expected.mean()).abs().max())
    return float((expected - actual).abs().max()) <= TOLERANCE * max(largest, 1e-12)
