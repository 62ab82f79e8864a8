"""Checkpoints of torchvision networks, as the readers hand them over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from exporter.architectures import skeleton
from exporter.records import Checkpoint


def checkpoint(tensors: dict[str, torch.Tensor], sha256: str = "0" * 64) -> Checkpoint:
    return Checkpoint(Path("model.pth"), sha256, "state_dict", tensors)


def state(name: str, **arguments: Any) -> dict[str, torch.Tensor]:
    """Return the state_dict of a torchvision network, its weights small seeded positive noise."""
    module = skeleton.construct_skeleton(name, arguments)
    generator = torch.Generator().manual_seed(0)
    return {
        key: value if not value.is_meta else torch.rand(value.shape, generator=generator) * 0.05
        for key, value in module.state_dict().items()
    }
