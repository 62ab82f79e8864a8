"""Warn about what tensors cannot prove: activations, strides, pooling and dilation leave no trace.

Where a known network is inferred from tensors alone, this module names the others that they also fit.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence

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
        "the number of attention heads, rotary positions, where norms stand, the image's proportions (its "
        "size, too, without a table of positions), the activation or the norms' epsilon",
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
        A warning, or none where the file is a published one, or names a network that alone has the tensors.

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
    if published:
        return ()
    if any(name in lookalike_doubt_words(text) for _, text in stated):
        return stated_name_doubts(name, title, shapes)
    descriptions = [described_lookalike(other) for other in others]
    fitting = {packaged_index.packaged_title(entry) for entry in packaged_index.entries_with_tensors(shapes)}
    return (lookalike_doubt(name, title, descriptions, stated, {name, *fitting}),)


def lookalike_doubt(
    name: str,
    title: str,
    others: Sequence[str],
    stated: tuple[tuple[str, str], ...],
    fitting: Container[str],
) -> str:
    """Return the warning that a network was taken for another by its tensors.

    Args:
        name: The network's own name, such as resnet50.
        title: Its name in messages.
        others: Other networks that have the same tensors.
        stated: (place, text) of the names that the file gives its network.
        fitting: The own names of all networks that have these tensors.
    """
    several = f"{_listed_lookalikes(others)}, and " if others else ""
    return (
        f"The network is taken for {title} by its tensors alone. These tensors also fit {several}variants "
        f"that differ in {_no_trace_for_lookalike_doubt(name)}, and in {EVERY_NETWORK}: none of that leaves "
        f"a trace in a state_dict. {spoken_stated_names(stated, fitting)}"
        "If in doubt, check photos whose class you know (`--expect PHOTO=CLASS`), or name your own network "
        "with `--arch mypkg.nets:make_net`."
    )


def stated_name_doubts(name: str, title: str, shapes: Mapping[str, network_index.Shape]) -> tuple[str, ...]:
    """Name the other networks that have the tensors of the one that the file names; empty without any.

    Args:
        name: The network's own name, such as resnet50.
        title: Its name in messages.
        shapes: The tensors' names and shapes.
    """
    others = _other_entries_for_lookalike_doubt(name, shapes)
    return stated_lookalike_doubt(title, [described_lookalike(other) for other in others])


def stated_lookalike_doubt(title: str, others: Sequence[str]) -> tuple[str, ...]:
    """Return the warning that a file's own word decides between several networks; empty without others."""
    if not others:
        return ()
    return (
        f"The network is {title} because the file says so. These tensors also fit "
        f"{_listed_lookalikes(others)}, which would compute something else. If the name may be wrong, check "
        "photos whose class you know (`--expect PHOTO=CLASS`).",
    )


def stated_name_refusal(
    name: str, misfit: ArchitectureError, readings: Sequence[Mapping[str, network_index.Shape]]
) -> ArchitectureError:
    """Return the error that the file names a network whose tensors are others.

    Args:
        name: The file's name of its network.
        misfit: Says how the tensors differ.
        readings: Name -> shape of the tensors, by each way to name them; a known network may have them.
    """
    fitting = [title for shapes in readings for title in network_titles_with_tensors(shapes)]
    quoted = network_index.printable_network_index_key(name)
    return ArchitectureError(
        f"The file says that its network is {quoted!r}, and its tensors contradict it. {misfit.message}",
        f"The tensors are exactly those of {_listed_lookalikes(fitting)}: if that is the network, give "
        f"--arch {fitting[0]}."
        if fitting
        else misfit.hint,
    )


def network_titles_with_tensors(shapes: Mapping[str, network_index.Shape]) -> list[str]:
    """List what `--arch` takes for each known network with exactly these tensors, torchvision's first."""
    known = network_index.identify_in_network_index(shapes)
    own = [known[0].title] if known else []
    return [*own, *sorted(entry.architecture for entry in packaged_index.entries_with_tensors(shapes))]


def _listed_lookalikes(names: Sequence[str]) -> str:
    rest = len(names) - NAMED_AT_MOST
    return " and ".join([*names[:NAMED_AT_MOST], *([f"{rest} more"] if rest > 0 else [])])


def detector_doubt(title: str, others: Sequence[str], stated: tuple[tuple[str, str], ...]) -> str:
    """Return the warning that a detector's anchors and settings do not follow from its tensors.

    Args:
        title: torchvision's detector.
        others: torchvision's other detectors that have the same tensors.
        stated: (place, text) of the names that the file gives its network.
    """
    fitting = {known.rpartition("/")[2] for known in (title, *others)}
    several = f"These tensors also fit {_listed_lookalikes(others)}. " if others else ""
    return (
        f"The network is taken for {title} by its tensors alone, with torchvision's own settings. {several}"
        f"{spoken_stated_names(stated, fitting)}Other "
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


def spoken_stated_names(stated: tuple[tuple[str, str], ...], fitting: Container[str] = ()) -> str:
    """Say what the file calls its network, and where that cannot be; empty where it says nothing.

    Args:
        stated: (place, text) of the names.
        fitting: The own names of the networks that have the file's tensors.
    """
    if not stated:
        return ""
    names = ", ".join(
        f"{network_index.printable_network_index_key(text)!r} ({place})" for place, text in stated[:3]
    )
    wrong = [text for place, text in stated if _is_other_known_network(place, text, fitting)]
    but = ""
    if wrong:
        known = network_index.printable_network_index_key(wrong[0])
        but = f", and its tensors contradict that: the network {known} has others"
    return f"The file calls its network {names}{but}. "


def _is_other_known_network(place: str, text: str, fitting: Container[str]) -> bool:
    """Tell whether a name is that of a known network with other tensors; a backbone's name may be."""
    words = lookalike_doubt_words(text)
    if place.rpartition(".")[2].startswith(("backbone", "encoder")) or any(word in fitting for word in words):
        return False
    return any(
        network_index.network_index_entries_by_name(word) or packaged_index.is_indexed_title(word)
        for word in words
    )


def lookalike_doubt_words(text: str) -> set[str]:
    """Split a name such as `torchvision.models.resnet50` or `resnet50.a1_in1k`."""
    return {word.replace("-", "_") for word in re.split(r"[/.:\s]", text.lower())}
