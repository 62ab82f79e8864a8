"""Warn about what tensors cannot prove: activations, strides, pooling and dilation leave no trace.

Where a known network is inferred from tensors alone, this module names the others that they also fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from exporter.architectures import network_index, packaged_index
from exporter.errors import ArchitectureError

NO_TRACE: tuple[tuple[str, str], ...] = (
    (
        r"resnet|resnext|fcn_|deeplabv3_resnet",
        "which convolution of a block has the stride (as Caffe's), dilation in place of stride, the pooling "
        "before the blocks (none for small images as CIFAR's), anti-aliasing or activation",
    ),
    (
        r"(^|_)(vit|deit|beit|eva|swin|swinv2|maxvit|xcit|cait|levit|aimv2|dinov2|clip|siglip)",
        "the number of attention heads, rotary positions, where norms stand, the activation or the norms' "
        "epsilon",
    ),
    (r"", "strides and pooling (smaller ones for small images as CIFAR's), dilation or activation"),
)
"""Pattern of networks' names -> what a variant may change without a trace; the first match counts."""

EVERY_NETWORK = (
    "padding, skip connections, the order of the outputs, epsilons, or how the inputs are normalised"
)
"""What leaves no trace in any network."""
NAMED_AT_MOST = 4
"""Other networks with the same tensors that a doubt names."""


def lookalike_doubts(
    name: str,
    title: str,
    shapes: Mapping[str, network_index.Shape],
    stated: tuple[tuple[str, str], ...],
    published: bool,
) -> tuple[str, ...]:
    """Name what else a network of torchvision may be that was inferred from tensors.

    Args:
        name: torchvision's name of the network.
        title: The network's name in messages.
        shapes: The tensors' names and shapes.
        stated: (place, text) of the names that the file gives its network.
        published: Whether the file's hash is one of torchvision's.

    Returns:
        A warning, or none where the file settles the question.

    Raises:
        ArchitectureError: The file names another network that has these tensors.
    """
    others = _other_entries_for_lookalike_doubt(name, shapes)
    for place, text in stated:
        contradicting = [
            other for other in others if packaged_index.packaged_title(other) in lookalike_doubt_words(text)
        ]
        if contradicting:
            raise ArchitectureError(
                "The file says that its network is "
                f"{network_index.printable_network_index_key(text)!r} ({place}): "
                f"{described_lookalike(contradicting[0])} has exactly the tensors of {title}, "
                "and computes something else with them.",
                f"Take it (`--arch {contradicting[0].architecture}`), name the function that makes it "
                f"(`--arch mypkg.nets:make_net`), or insist: `--arch torchvision/{name}`.",
            )
    if published or any(name in lookalike_doubt_words(text) for _, text in stated):
        return ()
    return (lookalike_doubt(name, title, [described_lookalike(other) for other in others], stated),)


def lookalike_doubt(name: str, title: str, others: Sequence[str], stated: tuple[tuple[str, str], ...]) -> str:
    """Return the warning that a network was taken for another by its tensors.

    Args:
        name: The network's own name, such as resnet50.
        title: Its name in messages.
        others: Other networks that have the same tensors.
        stated: (place, text) of the names that the file gives its network.
    """
    rest = len(others) - NAMED_AT_MOST
    listed = [*others[:NAMED_AT_MOST], *([f"{rest} more"] if rest > 0 else [])]
    several = f"{' and '.join(listed)}, and " if listed else ""
    return (
        f"The network is taken for {title} by its tensors alone. These tensors also fit {several}variants "
        f"that differ in {_no_trace_for_lookalike_doubt(name)}, and in {EVERY_NETWORK}: none of that leaves "
        f"a trace in a state_dict. {_spoken_lookalike_doubts(stated)}"
        "If in doubt, check photos whose class you know (`--expect PHOTO=CLASS`), or name your own network "
        "with `--arch mypkg.nets:make_net`."
    )


def detector_doubt(title: str) -> str:
    """Return the warning that a detector's anchors and settings do not follow from its tensors."""
    return (
        f"The network is taken for {title} by its tensors alone, with torchvision's own settings. Other "
        "sizes, ratios or order of anchors, strides, weights of the box coder, the pooling of regions, and "
        f"other {EVERY_NETWORK} leave no trace in a state_dict. If in doubt, compare a photo's boxes with "
        "those of your training, or name your own network with `--arch mypkg.nets:make_net`."
    )


def described_lookalike(entry: packaged_index.PackagedEntry) -> str:
    """Return a network's name in messages: timm's resnetaa50."""
    return f"{entry.distribution}'s {packaged_index.packaged_title(entry)}"


def _other_entries_for_lookalike_doubt(
    name: str, shapes: Mapping[str, network_index.Shape]
) -> list[packaged_index.PackagedEntry]:
    """List packages' networks with these tensors that compute something else than torchvision's `name`.

    timm's networks of torchvision's names compute the same as torchvision's.
    """
    entries = packaged_index.entries_with_tensors(shapes)
    same = {entry.structure for entry in entries if packaged_index.packaged_title(entry) == name}
    others = packaged_index.entries_of_other_structures(entries, same)
    return sorted(others, key=packaged_index.packaged_title)


def _no_trace_for_lookalike_doubt(name: str) -> str:
    return next(differences for pattern, differences in NO_TRACE if re.search(pattern, name))


def _spoken_lookalike_doubts(stated: tuple[tuple[str, str], ...]) -> str:
    if not stated:
        return ""
    names = ", ".join(
        f"{network_index.printable_network_index_key(text)!r} ({place})" for place, text in stated[:3]
    )
    return f"The file calls its network {names}. "


def lookalike_doubt_words(text: str) -> set[str]:
    """Split a name such as `torchvision.models.resnet50` or `resnet50.a1_in1k`."""
    return {word.replace("-", "_") for word in re.split(r"[/.:\s]", text.lower())}
