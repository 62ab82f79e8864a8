"""Name torchvision's networks of videos and of pairs of frames by their tensors, for the advice of a refusal.

What they take is no photo, and its size follows from no tensor. The index of networks leaves them out, and
the user names the network and its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.architectures import network_index, skeleton

FRAMES = ("image1", "image2")
UNLISTED: Mapping[str, tuple[str, ...]] = {
    **{name: tuple(f"{frame}=1x3x256x256" for frame in FRAMES) for name in ("raft_small", "raft_large")},
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), ("1x3x16x112x112",)),
    **dict.fromkeys(("mvit_v1_b", "mvit_v2_s"), ("1x3x16x224x224",)),
    **dict.fromkeys(("s3d", "swin3d_t", "swin3d_s", "swin3d_b"), ("1x3x32x224x224",)),
}
"""Name -> shapes of the inputs with which the published weights were trained, or fit (RAFT: sides by 8)."""


def unlisted_torchvision_advice(readings: Sequence[Mapping[str, network_index.Shape]]) -> tuple[str, str]:
    """Return (title, options) of the network that has these tensors; empty texts where it is none of them.

    Args:
        readings: Name -> shape of the tensors, by each way to name them.
    """
    for shapes in readings:
        if not _may_be_unlisted_torchvision(shapes):
            continue
        for name, inputs in UNLISTED.items():
            classes = _classes_of_unlisted_torchvision(name, shapes)
            if classes is None:
                continue
            options = [f"--arch torchvision/{name}", *(f"--arch-arg num_classes={n}" for n in classes)]
            return f"torchvision/{name}", " ".join([*options, *(f"--input-shape {text}" for text in inputs)])
    return "", ""


def _may_be_unlisted_torchvision(shapes: Mapping[str, network_index.Shape]) -> bool:
    """Tell whether a kernel has three dimensions, or RAFT's encoder is there: else nothing is built."""
    return (
        any(len(shape) == 5 for shape in shapes.values()) or "feature_encoder.convnormrelu.0.weight" in shapes
    )


def _classes_of_unlisted_torchvision(
    name: str, shapes: Mapping[str, network_index.Shape]
) -> list[int] | None:
    """Return the number of classes where it is not the published one, else none; None for another network."""
    own = {
        key: tuple(value.shape) for key, value in skeleton.construct_skeleton(name, {}).state_dict().items()
    }
    if own.keys() != shapes.keys():
        return None
    others = [key for key in own if own[key] != tuple(shapes[key])]
    if any(len(own[key]) != len(shapes[key]) for key in others):
        return None
    head = [key for key in own if key.startswith(("fc.", "head.", "classifier."))]
    if not set(others) <= set(head) or any(own[key][1:] != tuple(shapes[key])[1:] for key in others):
        return None
    return [int(shapes[others[0]][0])] if others else []
