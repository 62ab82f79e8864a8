"""Parts of a language model that generates text: one reads the prompt, one adds a token at a time.

Both are the same network with a cache of keys and values outside: the app hands each call what the last one
returned. The cache has a fixed size, and a position behind the last token is never looked at, so a prompt may
be shorter than the part that reads it.
"""

from __future__ import annotations

from typing import Any

from exporter.architectures.huggingface import config_inputs
from exporter.errors import UsageError
from exporter.records import Codes, TensorSpec

PROMPT = 64
"""Tokens of the prompt that are read at once, where the network has as many positions."""
WINDOWED = "sliding_attention"
"""transformers' name of layers in which a token sees a window of the text."""
KINDS = {"full_attention", WINDOWED}
"""transformers' names of layers that keep keys and values; others keep a state of their own."""
SLOTS = 256
"""Tokens that the cache holds, where the network has as many positions."""
PREFILL, DECODE = PARTS = "prefill", "decode"


def is_text_generation(network: Any) -> bool:
    """Tell whether a network of transformers writes text with a cache that can be kept outside."""
    import inspect

    taken = inspect.signature(network.forward).parameters
    kinds = getattr(network.config.get_text_config(), "layer_types", None) or ()
    return (
        set(kinds) <= KINDS
        and network.get_output_embeddings() is not None
        and not getattr(network.config, "is_encoder_decoder", False)
        and {"input_ids", "attention_mask", "position_ids"} <= set(taken)
        and bool({"cache", "past_key_values"} & set(taken))
        and type(network).__name__.endswith(("ForCausalLM", "LMHeadModel"))
    )


def why_no_text_parts(network: Any) -> str:
    """Return why a network has no parts that write text, to follow "without parts"; may be empty."""
    import inspect

    if network.get_output_embeddings() is None:
        return ": it writes no text"
    kinds = set(getattr(network.config.get_text_config(), "layer_types", None) or ())
    if others := sorted(kinds - KINDS):
        return (
            f": its layers of the kind {', '.join(map(str, others))} keep a state of their own from token to "
            f"token, where {PREFILL} and {DECODE} need layers that keep keys and values"
        )
    taken = set(inspect.signature(network.forward).parameters)
    lacking = sorted({"input_ids", "attention_mask", "position_ids"} - taken)
    lacking += [] if {"cache", "past_key_values"} & taken else ["past_key_values"]
    if lacking:
        return f": its forward does not take {', '.join(lacking)}, by which an app hands on the cache"
    return f": {PREFILL} and {DECODE} are parts of classes named …ForCausalLM or …LMHeadModel"


def text_generation_inputs(
    network: Any, settings: config_inputs.InputSettings, part: str
) -> tuple[TensorSpec, ...]:
    """Return the inputs of a part: tokens, the position of the first one, and the cache.

    Raises:
        UsageError: The network keeps something else from token to token than keys and values of one shape.
    """
    from exporter.architectures.huggingface.key_value_cache import cache_shapes

    shapes = cache_shapes(network)
    if shapes is None:
        raise UsageError(
            f"--part {part}: {type(network).__name__} does not keep the same keys and values in all layers.",
            "Leave --part out: the network that reads a whole text is exported.",
        )
    slots = min(SLOTS, int(settings.get("max_position_embeddings", SLOTS)))
    tokens = 1 if part == DECODE else min(PROMPT, slots // 2)
    keys, values = ((layers, heads, slots, width) for layers, heads, width in shapes)
    return (
        TensorSpec("input_ids", (1, tokens), "int64"),
        TensorSpec("position", (1,), "int64"),
        TensorSpec("keys", keys),
        TensorSpec("values", values),
    )


def text_generation_codes(specs: tuple[TensorSpec, ...]) -> dict[str, Codes]:
    """Return the legal positions: the tokens of a call must fit into the cache."""
    shapes = {spec.name: spec.shape for spec in specs}
    if not {"position", "keys"} <= set(shapes):
        return {}
    return {"position": Codes("tokens", shapes["keys"][2] - shapes["input_ids"][1] + 1)}
