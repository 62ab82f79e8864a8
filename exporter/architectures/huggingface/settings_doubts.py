"""Say which settings of a config.json the weights cannot confirm: wrong ones load without a complaint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from exporter.architectures.network_index import printable_network_index_key
from exporter.checkpoints.checkpoint_folder import CONFIG

WITHOUT_TRACE = {
    "activation", "act_fn", "feed_forward_proj", "num_attention_heads", "attention_heads",
    "encoder_attention_heads", "decoder_attention_heads", "num_heads", "n_head", "n_heads",
    "num_key_value_heads", "head_dim", "layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps",
    "norm_eps", "batch_norm_eps", "initializer_layer_norm_eps", "rope_theta", "rope_parameters",
    "rope_scaling", "rotary_pct", "partial_rotary_factor", "rotary_dim", "position_embedding_type",
    "do_layer_norm_before", "do_stable_layer_norm", "pre_norm", "normalize_before", "normalize_embedding",
    "scale_embedding", "scale_attn_weights", "attention_multiplier", "logit_scale", "residual_multiplier",
    "embedding_multiplier", "sliding_window", "relative_attention_num_buckets",
    "relative_attention_max_distance", "conv_stride", "strides", "sr_ratios", "window_size", "mlp_ratio",
    "layer_norm_type", "final_logit_softcapping", "attn_logit_softcapping", "is_decoder", "layer_types",
    "local_attention", "pos_att_type", "max_relative_positions", "classifier_pooling", "tf_padding",
    "positional_encoding_temperature", "decoder_offset_scale", "scale_decoder_outputs", "apply_layernorm",
    "head_in_index", "max_depth", "query_pre_attn_scalar", "use_bidirectional_attention",
    "use_parallel_residual", "apply_residual_connection_post_layernorm", "no_rope_layers", "attention_window",
    "pad_token_id", "output_stride", "dilations", "downsample_in_bottleneck", "downsample_in_first_stage",
    "encode_proj_layers", "extract_layers", "conditional_layer", "frequency_stride", "time_stride",
    "img_range", "pool_scales", "pool_size", "pool_q_only", "separate_cls", "truncate_seq", "block_repeats",
    "num_query_pool", "query_stride", "masked_unit_size", "use_causal_conv", "trim_right_ratio", "normalize",
}  # fmt: skip
"""Settings that change what a network computes, and no name or shape of its tensors, in most of them."""
ACTIVATIONS = ("_act", "_act_fn", "_activation", "_activation_function", "activation_function")
"""Ends of the names of activations, which each part of a network may have: `encoder_hidden_act`."""
HEADS = "attention_heads"
"""End of the names of numbers of heads, which each part of a network may have."""
LAYERS = "num_hidden_layers"
"""The number of layers, which leaves no trace where layers share their weights, as ALBERT's do."""
NAMED_AT_MOST = 16


def huggingface_settings_doubt(network: Any, stated: Mapping[str, Any]) -> str:
    """Return the warning about a network's class and settings.

    Args:
        network: A `PreTrainedModel`.
        stated: The content of the folder's config.json.
    """
    settings = dict(_settings_without_trace(network.config.to_dict()))
    if _shares_weights_of_layers(network):
        settings = {LAYERS: str(network.config.num_hidden_layers), **settings}
    said = {LAYERS: stated[LAYERS]} if LAYERS in stated else {}
    said |= dict(_settings_without_trace(stated))
    own = [f"{key}={settings[key]}" for key in settings if key in said]
    defaults = [f"{key}={settings[key]}" for key in settings if key not in said]
    sentences = [
        f"{_few(own)}: {CONFIG} says so" if own else "",
        f"{_few(defaults)}: the default of transformers, as {CONFIG} is silent" if defaults else "",
    ]
    listed = "; ".join(sentence for sentence in sentences if sentence)
    return (
        f"No name or shape of the weights confirms the class {type(network).__name__}"
        f"{'' if not listed else ', or these settings: ' + listed}. The weights would load into others as "
        "well, and compute something else: compare an output that you know from the training."
    )


def _settings_without_trace(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, value) of the settings that matter, those of parts included."""
    for key, value in settings.items():
        if (key in WITHOUT_TRACE or key.endswith((HEADS, *ACTIVATIONS))) and value is not None:
            yield f"{before}{key}", printable_network_index_key(str(value))
        elif isinstance(value, Mapping) and key.endswith(("_config", "config")):
            yield from _settings_without_trace(value, f"{before}{key}.")


def _shares_weights_of_layers(network: Any) -> bool:
    """Tell whether no list of modules is as long as the network has layers."""
    count = getattr(network.config, LAYERS, None)
    if not isinstance(count, int):
        return False
    lists = [module for module in network.modules() if type(module).__name__ in ("ModuleList", "Sequential")]
    return bool(lists) and all(len(item) < count for item in lists)


def _few(texts: list[str]) -> str:
    rest = len(texts) - NAMED_AT_MOST
    return ", ".join(texts[:NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
