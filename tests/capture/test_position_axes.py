"""Which axes of outputs are positions that a network computes alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.capture.position_axes import position_axes

IMAGE = torch.randn(1, 3, 8, 12)


class Maps(nn.Module):
    """Two scores for each pixel, and what is made of them."""

    def __init__(self, finish: Callable[..., Tensor]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 2, 1)
        )
        self.last = nn.Linear(2, 5)
        self.classes = nn.Linear(2 * 8 * 12, 5)
        self.position = nn.Parameter(torch.randn(1, 1, 8, 1))
        self.finish = finish

    def forward(self, image: Tensor) -> Tensor:
        return self.finish(self, self.body(image))


def axes(finish: Callable[..., Tensor], **dynamic: object) -> tuple[int, ...]:
    exported = torch.export.export(Maps(finish).eval(), (IMAGE,), **dynamic)  # type: ignore[arg-type]
    (own,) = position_axes(exported)
    return own


KEPT: dict[str, tuple[Callable[..., Tensor], tuple[int, ...]]] = {
    "the map": (lambda net, y: y, (2, 3)),
    "channels last": (lambda net, y: y.permute(0, 2, 3, 1), (1, 2)),
    "transposed": (lambda net, y: y.transpose(-1, 1), (1, 2)),
    "probabilities": (lambda net, y: y.softmax(1), (2, 3)),
    "enlarged": (lambda net, y: functional.interpolate(y, scale_factor=2, mode="bilinear"), (2, 3)),
    "pooled": (lambda net, y: functional.max_pool2d(y, 2), (2, 3)),
    "a list of pixels": (lambda net, y: y.flatten(2).transpose(1, 2), (1,)),
    "a layer of each pixel": (lambda net, y: net.last(y.permute(0, 2, 3, 1)), (1, 2)),
    "a list made a map again": (lambda net, y: y.flatten(2).unflatten(2, (8, 12)), (2, 3)),
    "one of the scores": (lambda net, y: y[:, 1], (1, 2)),
    "the mean of the scores": (lambda net, y: y.mean(1, keepdim=True), (2, 3)),
    "both scores and their product": (lambda net, y: torch.cat([y, y * y], 1), (2, 3)),
    "a crop": (lambda net, y: y[:, :, 1:-1], (2, 3)),
}
LOST: dict[str, tuple[Callable[..., Tensor], tuple[int, ...]]] = {
    "classes": (lambda net, y: net.classes(y.flatten(1)), ()),
    "scores and pixels in one axis": (lambda net, y: y.flatten(1), ()),
    "the mean of all pixels": (lambda net, y: y.mean((2, 3)), ()),
    "rows with weights of their own": (lambda net, y: y * net.position, (3,)),
    "probabilities of a row": (lambda net, y: y.softmax(-1), (2,)),
    "two maps side by side": (lambda net, y: torch.cat([y, 2 * y], 3), (2,)),
    "a layer of a row": (lambda net, y: functional.linear(y, torch.ones(4, 12)), (2,)),
    "a product of maps": (lambda net, y: y @ y.transpose(2, 3), ()),
}


@pytest.mark.parametrize("name", KEPT)
def test_positions_are_followed(name: str) -> None:
    finish, expected = KEPT[name]
    assert axes(finish) == expected


@pytest.mark.parametrize("name", LOST)
def test_what_has_weights_of_its_own_is_no_position(name: str) -> None:
    finish, expected = LOST[name]
    assert axes(finish) == expected


def test_open_sizes_are_followed() -> None:
    sizes = {"image": {2: torch.export.Dim("height", min=4, max=64)}}
    assert axes(lambda net, y: y.flatten(2).transpose(1, 2), dynamic_shapes=sizes) == (1,)


def test_nothing_is_known_without_a_graph() -> None:
    assert position_axes(None) == ()
