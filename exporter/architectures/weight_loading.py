"""Load a checkpoint's tensors into a network: wherever PyTorch takes them, and in more clear cases.

PyTorch's own strict loading is tried first, with the stored names, so load hooks and overridden loaders
run as they do in training code. What it refuses is tried without prefixes, then without unused buffers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.architectures import network_index, partial_weights, reparametrized
from exporter.architectures.weight_readings import Weights
from exporter.checkpoints import foreign_files
from exporter.errors import ArchitectureError

if TYPE_CHECKING:
    import torch

EXTRA_STATE = "_extra_state"
UNUSED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|num_batches_tracked|relative_position_index|relative_coords_table"
    r"|attn_mask|causal_mask|masked_bias|inv_freq|total_ops|total_params|n_averaged)$"
)
"""Buffers that many networks save and none learns: indices, masks, counters, leftovers of FLOP counting."""


@dataclass(frozen=True)
class LoadingMisfit:
    """The reason why one reading of the weights does not fit the network."""

    comparison: network_index.IndexComparison
    words: str
    """PyTorch's message, where names and shapes alone do not explain the misfit."""


def load_weights(
    module: torch.nn.Module,
    readings: Sequence[Weights],
    title: str,
    *,
    assign: bool = False,
    from_arch: bool = False,
) -> tuple[str, ...]:
    """Load the first reading of the weights that the network takes.

    Args:
        module: The network; it is changed in place.
        readings: The tensors by names to try, in this order.
        title: The network's name in messages.
        assign: Take the tensors themselves instead of copying into the module's (which may be on the meta
            device).
        from_arch: Keep what the module holds where the file has no tensor.

    Returns:
        Notes on what was loaded, left out and kept.

    Raises:
        ArchitectureError: The network takes none of them; the message names the first differing tensors.
    """
    own = shapes_for_weight_loading(module)
    misfits = []
    for weights in readings:
        fitted = _load_weights_as_pytorch(module, weights, own, title, assign)
        if not isinstance(fitted, LoadingMisfit):
            return fitted
    for weights in itertools.chain(
        readings, partial_weights.partial_weights_of_network(readings, own, title)
    ):
        fitted = _load_weights_leniently(module, weights, own, title, assign, from_arch)
        if not isinstance(fitted, LoadingMisfit):
            return fitted
        misfits.append(fitted)
    raise _weight_loading_refusal(
        max(misfits, key=lambda misfit: misfit.comparison.likeness), title, assign, from_arch
    )


def shapes_for_weight_loading(module: torch.nn.Module) -> dict[str, network_index.Shape]:
    """Return name -> shape of the tensors in a network's state_dict; a lazy layer's have no shape yet."""
    import torch

    return {
        key: tuple(value.shape)
        for key, value in module.state_dict().items()
        if isinstance(value, torch.Tensor) and not torch.nn.parameter.is_lazy(value)
    }


def _load_weights_as_pytorch(
    module: torch.nn.Module,
    weights: Weights,
    own: Mapping[str, network_index.Shape],
    title: str,
    assign: bool,
) -> tuple[str, ...] | LoadingMisfit:
    """Load as `load_state_dict(strict=True)` does."""
    try:
        _load_weights_of_reading(
            module,
            _convert_types_for_weight_loading(module, weights) if assign else weights,
            strict=True,
            assign=assign,
        )
    except ArchitectureError:
        raise
    except Exception as error:
        return LoadingMisfit(
            network_index.compare_with_network_index(title, own, weights.shapes),
            _weight_loading_error_words(error),
        )
    return (
        *weights.notes,
        f"{len(weights.tensors)} tensors match {title} exactly",
        *_integers_in_weight_loading(own, weights),
    )


def _load_weights_of_reading(module: torch.nn.Module, weights: Weights, *, strict: bool, assign: bool) -> Any:
    # Networks may override load_state_dict, with fewer arguments than PyTorch's has.
    more = {"assign": True} if assign else {}
    return module.load_state_dict(weights.state_dict(), strict=strict, **more)


def _load_weights_leniently(
    module: torch.nn.Module,
    weights: Weights,
    own: Mapping[str, network_index.Shape],
    title: str,
    assign: bool,
    from_arch: bool,
) -> tuple[str, ...] | LoadingMisfit:
    """Load what fits, if everything else is known to be unused or to follow from the rest."""
    weights = _versions_for_weight_loading(
        _drop_unused_buffers_for_weight_loading(module, reparametrized.adapt_reparametrized(weights, own)),
        module,
    )
    comparison = network_index.compare_with_network_index(title, own, weights.shapes)
    try:
        outcome = _load_weights_of_reading(
            module,
            _convert_types_for_weight_loading(module, weights) if assign else weights,
            strict=False,
            assign=assign,
        )
        missing, extra = list(outcome.missing_keys), list(outcome.unexpected_keys)
    except ArchitectureError:
        raise
    except Exception as error:
        return LoadingMisfit(comparison, _weight_loading_error_words(error))
    missing = [key for key in missing if not key.endswith((network_index.OPTIONAL_SUFFIX, EXTRA_STATE))]
    tied = {} if assign else _find_tied_tensors_for_weight_loading(module, missing, weights)
    absent = [key for key in missing if key not in tied]
    if extra or (absent and not from_arch):
        return LoadingMisfit(
            comparison, "" if not comparison.exact else f"it lacks {', '.join(absent or extra)}"
        )
    loaded = len(own) - len(missing)
    notes = [*weights.notes, f"{loaded} of {len(own)} tensors of {title} are loaded"]
    if tied:
        key, other = next(iter(tied.items()))
        notes.append(f"{key} is {other}, which the file stores once")
    if absent:
        notes.append(
            f"{len(absent)} tensors are those that {title} made, as asked: {_few_in_weight_loading(absent)}"
        )
    return (*notes, *_integers_in_weight_loading(own, weights))


def _drop_unused_buffers_for_weight_loading(module: torch.nn.Module, weights: Weights) -> Weights:
    """Leave out the buffers that the network does not use, or computes itself with the same values."""
    saved = module.state_dict()
    computed = {key: value for key, value in module.named_buffers() if key not in saved}
    patterns = [re.compile(text) for text in _unused_patterns_for_weight_loading(module)]
    dropped = [
        key
        for key, tensor in weights.tensors.items()
        if key not in saved
        and (
            _equal_for_weight_loading(computed[key], tensor)
            if key in computed
            else _is_unused_in_weight_loading(key, patterns)
        )
    ]
    if not dropped:
        return weights
    rest = {key: tensor for key, tensor in weights.tensors.items() if key not in dropped}
    return weights.noted(rest, _unused_in_weight_loading_note(dropped))


def weight_loading_without_unused(weights: Weights) -> Weights:
    """Leave out the buffers that no network needs; the same weights where there are none."""
    dropped = [
        key
        for key in weights.tensors
        if UNUSED.search(key) and not key.endswith(network_index.OPTIONAL_SUFFIX)
    ]
    if not dropped:
        return weights
    rest = {key: tensor for key, tensor in weights.tensors.items() if key not in dropped}
    return weights.noted(rest, _unused_in_weight_loading_note(dropped))


def _unused_in_weight_loading_note(dropped: Sequence[str]) -> str:
    return (
        f"{len(dropped)} buffers that the network does not use are left out: "
        f"{_few_in_weight_loading(dropped)}"
    )


def _unused_patterns_for_weight_loading(module: torch.nn.Module) -> list[str]:
    """Return the patterns of unused tensors that networks of `transformers` declare."""
    listed = getattr(module, "_keys_to_ignore_on_load_unexpected", None)
    return (
        [text for text in listed if isinstance(text, str)] if isinstance(listed, list | tuple | set) else []
    )


def _is_unused_in_weight_loading(key: str, patterns: Sequence[re.Pattern[str]]) -> bool:
    return bool(UNUSED.search(key)) or any(pattern.search(key) for pattern in patterns)


def _equal_for_weight_loading(computed: torch.Tensor, stored: torch.Tensor) -> bool:
    import torch

    if computed.is_meta or computed.shape != stored.shape:
        return False
    # A trainer may have stored it in bfloat16.
    return bool(torch.allclose(computed.double().cpu(), stored.double(), rtol=1e-2, atol=1e-6))


def _versions_for_weight_loading(weights: Weights, module: torch.nn.Module) -> Weights:
    """Assume today's layer formats where the file does not state them."""
    if weights.layer_versions is not None:
        return weights
    versions: Mapping[str, Mapping[str, Any]] = module.state_dict()._metadata  # type: ignore[attr-defined]
    return Weights(weights.tensors, versions, weights.extra_state, weights.notes)


def _find_tied_tensors_for_weight_loading(
    module: torch.nn.Module, missing: Sequence[str], weights: Weights
) -> dict[str, str]:
    """Find tensors that the file stores once (safetensors does) and the network uses under two names."""
    import torch

    own = {key: value for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    places = {_place_for_weight_loading(own[key]): key for key in weights.tensors if key in own}
    return {
        key: places[_place_for_weight_loading(own[key])]
        for key in missing
        if key in own and _place_for_weight_loading(own[key]) in places
    }


def _place_for_weight_loading(value: torch.Tensor) -> tuple[int, network_index.Shape]:
    return value.data_ptr(), tuple(value.shape)


def _convert_types_for_weight_loading(module: torch.nn.Module, weights: Weights) -> Weights:
    """Give the tensors the network's own types: they are not copied, so nothing else does.

    Raises:
        ArchitectureError: Integers stand where the network has floating-point weights.
    """
    import torch

    own = module.state_dict()
    tensors = {
        key: _as_type_for_weight_loading(key, tensor, own[key])
        if isinstance(own.get(key), torch.Tensor)
        else tensor
        for key, tensor in weights.tensors.items()
    }
    return Weights(tensors, weights.layer_versions, weights.extra_state, weights.notes)


def _as_type_for_weight_loading(key: str, tensor: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    import torch

    if not own.is_floating_point():
        return tensor.detach().to("cpu", own.dtype)
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ArchitectureError(
            f"{network_index.printable_network_index_key(key)} holds {kind} where "
            "floating-point weights are expected.",
            "Give the checkpoint from before quantisation.",
        )
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _integers_in_weight_loading(own: Mapping[str, network_index.Shape], weights: Weights) -> Iterator[str]:
    """Say which matrices are stored as 8-bit integers: PyTorch takes them, scale or none."""
    import torch

    quantised = [
        key
        for key, tensor in weights.tensors.items()
        if key in own and tensor.dtype in (torch.int8, torch.uint8) and tensor.dim() > 1
    ]
    if quantised:
        yield f"stored as 8-bit integers, taken as the numbers they are: {_few_in_weight_loading(quantised)}"


def _weight_loading_refusal(
    misfit: LoadingMisfit, title: str, assign: bool, from_arch: bool
) -> ArchitectureError:
    comparison = misfit.comparison
    if comparison.exact:
        return ArchitectureError(f"The weights cannot be loaded into {title}: {misfit.words}.")
    hints = []
    if comparison.missing and not (assign or from_arch):
        hints.append("`--weights-from-arch` keeps what the function made for the missing ones")
    if comparison.extra:
        hints.append(
            f"`--ignore-key '{network_index.printable_network_index_key(comparison.extra[0])}'` "
            "leaves that tensor of the file out"
        )
    if comparison.reshaped and not assign:
        hints.append("give the function's arguments as in training with `--arch-arg`")
    hint = "; ".join(hints)
    return weight_loading_mismatch(comparison, f"{hint[:1].upper()}{hint[1:]}." if hint else "")


def weight_loading_mismatch(comparison: network_index.IndexComparison, hint: str = "") -> ArchitectureError:
    """Describe weights that do not fit the network, by their kind or by the first keys that differ."""
    if kind := foreign_files.foreign_file_by_names(comparison.extra):
        own = next(key for key in comparison.extra if kind.names.search(key))
        return ArchitectureError(
            f"The file holds {kind.title}, not the weights of {comparison.title}: it has "
            f"{network_index.printable_network_index_key(own)}.",
            kind.advice,
        )
    share = f"{comparison.matched} of {len(comparison.tensors)} tensors match"
    return ArchitectureError(
        f"The weights do not fit {comparison.title}: {share}. {comparison.summary()}.", hint
    )


def _few_in_weight_loading(keys: Sequence[str]) -> str:
    shown = ", ".join(network_index.printable_network_index_key(key) for key in keys[:3])
    return f"{shown}, … ({len(keys)})" if len(keys) > 3 else shown


def _weight_loading_error_words(error: Exception) -> str:
    """Return PyTorch's reason without its first line, which only says that there are errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (
        lines[1] if len(lines) > 1 and lines[0].startswith("Error(s) in loading") else next(iter(lines), "")
    )
    return (reason or type(error).__name__).rstrip(".")
