"""A Lightning `.ckpt`: the network is an attribute of the LightningModule, beside losses and metrics."""

from __future__ import annotations

import re
from collections import defaultdict

from exporter.checkpoints import checkpoint_weights, choose_weights, prefixes
from exporter.checkpoints.checkpoint_contents import plural_in_checkpoint_contents
from exporter.checkpoints.checkpoint_source import CheckpointSource
from exporter.checkpoints.choose_weights import ChosenWeights
from exporter.records import Checkpoint, Reading

VERSION_KEY = "pytorch-lightning_version"
NETWORKS = ("model", "net", "network", "module")
"""What people call the network in their LightningModule."""

AUXILIARY = re.compile(
    r"loss|criterion|metric|(^|_)(acc|accuracy|auroc|auc|f1|precision|recall|iou|jaccard|confusion|kappa|mae|mse|rmse"
    r"|psnr|ssim|fid|lpips|perplexity|teacher)(_|$|\d)"
)
"""Attributes that hold tensors but are no part of the network."""


def is_lightning(source: CheckpointSource) -> bool:
    """Whether Lightning wrote it, by the version it leaves."""
    return (
        source.pickled is not None
        and isinstance(source.pickled.root, dict)
        and VERSION_KEY in source.pickled.root
    )


def read_lightning(source: CheckpointSource, trust: bool) -> Checkpoint:
    """Read all tensors and say which are the network's; hyper-parameters and callbacks stay inert."""
    assert source.pickled is not None
    chosen, notes = choose_weights.choose_weights(source.pickled.root)
    return checkpoint_weights.checkpoint_of_weights(
        source, source.pickled, "lightning", chosen, notes, _lightning_network(chosen)
    )


def _lightning_network(chosen: ChosenWeights) -> Reading | None:
    """The tensors of the one attribute that is the network, if the others are clearly not part of it."""
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for stored in chosen.tensors:
        first, _, rest = prefixes.WRAPPERS.sub("", stored).partition(".")
        groups[first][rest] = stored
    network = max((g for g in NETWORKS if g in groups), key=lambda g: len(groups[g]), default=None)
    if network is None:
        return None
    averaged = next(
        (
            g
            for g in groups
            if choose_weights.is_ema_of_chosen_weights(g) and set(groups[g]) >= set(groups[network])
        ),
        None,
    )
    others = [g for g in groups if g != network]
    if not all(AUXILIARY.search(g.lower()) or choose_weights.is_ema_of_chosen_weights(g) for g in others):
        return None
    chosen_group = averaged or network
    notes = [f"averaged (EMA) weights used: '{averaged}.', instead of '{network}.'"] if averaged else []
    notes += [
        f"{plural_in_checkpoint_contents(len(groups[g]), 'tensor')} of {g!r} left "
        "out: not part of the network"
        for g in groups
        if g not in (chosen_group, network)
    ]
    return Reading(
        {f"{network}.{rest}": stored for rest, stored in groups[chosen_group].items()}, tuple(notes)
    )
