"""Warn about what tensors cannot prove: activations, strides, pooling and dilation leave no trace.

Where a known network is inferred from tensors alone, this module names the others that they also fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from exporter.architectures import network_index
from exporter.errors import ArchitectureError

SAME_TENSORS: Mapping[str, tuple[str, ...]] = {
    "resnet18": ("timm's resnetblur18",),
    "resnet50": ("timm's resnetaa50", "timm's resnetblur50"),
}
"""Published networks that compute something else with exactly a torchvision network's tensors: all there are
among the 1,371 of timm 1.0.31. Fifteen others have a torchvision network's tensors, name and outputs."""

NO_TRACE: tuple[tuple[str, str], ...] = (
    (
        r"resnet|resnext|fcn_|deeplabv3_resnet",
        "which convolution of a block has the stride (as Caffe's), dilation in place of stride, the pooling "
        "before the blocks (none for small images as CIFAR's), anti-aliasing or activation",
    ),
    (r"vit_|swin|maxvit", "the number of attention heads, the activation or the norms' epsilon"),
    (r"", "strides and pooling (smaller ones for small images as CIFAR's), dilation or activation"),
)
"""Pattern of torchvision's names -> what a variant may change without a trace; the first match counts."""


def lookalike_doubts(
    name: str, title: str, stated: tuple[tuple[str, str], ...], published: bool
) -> tuple[str, ...]:
    """Name what else an inferred network may be.

    Args:
        name: torchvision's name of the network.
        title: The network's name in messages.
        stated: (place, text) of the names that the file gives its network.
        published: Whether the file's hash is one of torchvision's.

    Returns:
        A warning, or none where the file settles the question.

    Raises:
        ArchitectureError: The file names another network that has these tensors.
    """
    others = SAME_TENSORS.get(name, ())
    for place, text in stated:
        contradicting = [
            other for other in others if other.rpartition(" ")[2] in _lookalike_doubt_words(text)
        ]
        if contradicting:
            raise ArchitectureError(
                "The file says that its network is "
                f"{network_index.printable_network_index_key(text)!r} ({place}): "
                f"{contradicting[0]} has exactly the tensors of {title}, "
                "and computes something else with them.",
                "Name the function that makes it (`--arch mypkg.nets:make_net`), or insist: "
                f"`--arch torchvision/{name}`.",
            )
    if published or any(name in _lookalike_doubt_words(text) for _, text in stated):
        return ()
    several = f"{' and '.join(others)}, and " if others else ""
    return (
        f"The network is taken for {title} by its tensors alone. These tensors also fit {several}variants "
        f"that differ in {_no_trace_for_lookalike_doubt(name)}: none of that leaves a trace in a state_dict. "
        f"{_spoken_lookalike_doubts(stated)}"
        "If in doubt, check photos whose class you know (`--expect PHOTO=CLASS`), or name your own network "
        "with `--arch mypkg.nets:make_net`.",
    )


def _no_trace_for_lookalike_doubt(name: str) -> str:
    return next(differences for pattern, differences in NO_TRACE if re.search(pattern, name))


def _spoken_lookalike_doubts(stated: tuple[tuple[str, str], ...]) -> str:
    if not stated:
        return ""
    names = ", ".join(
        f"{network_index.printable_network_index_key(text)!r} ({place})" for place, text in stated[:3]
    )
    return f"The file calls its network {names}. "


def _lookalike_doubt_words(text: str) -> set[str]:
    """Split a name such as `torchvision.models.resnet50` or `resnet50.a1_in1k`."""
    return {word.replace("-", "_") for word in re.split(r"[/.:\s]", text.lower())}
