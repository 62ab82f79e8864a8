"""Small networks of many kinds, seeded, each with inputs of its own: all of them can be exported rightly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Make = Callable[[np.random.Generator], "np.ndarray[Any, Any]"]


class Does(nn.Module):
    """A few layers, and a function that calls them."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.does = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.does(self, *inputs)


@dataclass(frozen=True)
class Subject:
    """One network: what makes it, and what makes each of its inputs."""

    make: Callable[[], nn.Module]
    inputs: tuple[Make, ...]

    def samples(self, count: int, seed: int = 0) -> list[tuple[np.ndarray[Any, Any], ...]]:
        """Make inputs for so many calls."""
        generator = np.random.default_rng(seed)
        return [tuple(make(generator) for make in self.inputs) for _ in range(count)]


def floats(*shape: int) -> Make:
    return lambda generator: generator.normal(size=shape).astype(np.float32)


def image(batch: int, channels: int, height: int, width: int) -> Make:
    """Waves of a brightness, contrast and direction of their own: pooled noise would all look alike."""
    y, x = np.mgrid[:height, :width] / max(height, width)

    def make(generator: np.random.Generator) -> np.ndarray[Any, Any]:
        shape = (batch, channels, 1, 1)
        across, down, phase = (
            generator.uniform(low, high, shape) for low, high in ((0, 12), (0, 12), (0, 6))
        )
        waves = np.sin(across * x + down * y + phase)
        picture = generator.uniform(0.1, 0.9, shape) + generator.uniform(0.1, 0.5, shape) * waves
        small: np.ndarray[Any, Any] = picture.clip(0, 1).astype(np.float32)
        return small

    return make


def tokens(*shape: int, most: int = 50) -> Make:
    return lambda generator: generator.integers(1, most, shape)


def mask(length: int, kind: type = bool) -> Make:
    """Ones up to a length of at least two, and zeros after it."""
    return lambda generator: (np.arange(length) < generator.integers(2, length + 1))[None].astype(kind)


def masked_attention(net: Any, ids: Tensor, keep: Tensor) -> Tensor:
    x = net.embed(ids)
    x = net.block(x, src_key_padding_mask=keep == 0)
    weight = keep[..., None].to(x.dtype)
    return net.head((x * weight).sum(1) / weight.sum(1))  # type: ignore[no-any-return]


def block() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)


def detector(net: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = net.body(x).relu()
    boxes, scores = net.box(y).flatten(2).transpose(1, 2), net.score(y).flatten(2).transpose(1, 2).sigmoid()
    return boxes * 640, scores, net.priors.expand(1, -1, -1)


def priors(net: Does) -> Does:
    net.register_buffer("priors", torch.rand(16, 4))
    return net


def conv(i: int, o: int, **options: Any) -> nn.Module:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, **options), nn.BatchNorm2d(o), nn.ReLU())


def squeeze_excite(net: Any, x: Tensor) -> Tensor:
    y = net.body(x)
    return net.head((y * net.gate(y.mean((2, 3), keepdim=True)).sigmoid()).mean((2, 3)))  # type: ignore[no-any-return]


SMALL = image(1, 3, 16, 16)
ROWS = floats(1, 6, 8)

ZOO: dict[str, Subject] = {
    "mlp": Subject(lambda: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), (floats(1, 8),)),
    "lstm": Subject(
        lambda: Does(
            lambda n, x: n.head(n.rnn(x)[0][:, -1]),
            rnn=nn.LSTM(8, 12, batch_first=True),
            head=nn.Linear(12, 4),
        ),
        (ROWS,),
    ),
    "lstm, two layers, both ways": Subject(
        lambda: Does(lambda n, x: n.rnn(x), rnn=nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)),
        (ROWS,),
    ),
    "gru": Subject(
        lambda: Does(
            lambda n, x: n.head(n.rnn(x)[1][-1]), rnn=nn.GRU(8, 12, batch_first=True), head=nn.Linear(12, 4)
        ),
        (ROWS,),
    ),
    "rnn": Subject(lambda: Does(lambda n, x: n.rnn(x)[0], rnn=nn.RNN(8, 12, batch_first=True)), (ROWS,)),
    "masked transformer, boolean mask": Subject(
        lambda: Does(masked_attention, embed=nn.Embedding(50, 16), block=block(), head=nn.Linear(16, 4)),
        (tokens(1, 7), mask(7)),
    ),
    "masked transformer, integer mask": Subject(
        lambda: Does(masked_attention, embed=nn.Embedding(50, 16), block=block(), head=nn.Linear(16, 4)),
        (tokens(1, 7), mask(7, np.int64)),
    ),
    "masked transformer, float mask": Subject(
        lambda: Does(masked_attention, embed=nn.Embedding(50, 16), block=block(), head=nn.Linear(16, 4)),
        (tokens(1, 7), mask(7, np.float32)),
    ),
    "transformer": Subject(
        lambda: Does(
            lambda n, x: n.head(n.block(x).mean(1)),
            block=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            head=nn.Linear(8, 4),
        ),
        (ROWS,),
    ),
    "causal attention": Subject(
        lambda: Does(
            lambda n, x: n.out(
                functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=True)[
                    :, 0
                ]
            ),
            out=nn.Linear(8, 8),
        ),
        (ROWS,),
    ),
    "weight norm": Subject(
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 8, 3)),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(48, 4),
        ),
        (ROWS,),
    ),
    "old weight norm": Subject(
        lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 12)), nn.Tanh(), nn.Linear(12, 4)),
        (floats(1, 8),),
    ),
    "spectral norm": Subject(
        lambda: nn.Sequential(
            nn.utils.parametrizations.spectral_norm(nn.Linear(8, 12)), nn.ReLU(), nn.Linear(12, 4)
        ),
        (floats(1, 8),),
    ),
    "detector": Subject(
        lambda: priors(
            Does(detector, body=nn.Conv2d(3, 8, 3, 4, 1), box=nn.Conv2d(8, 4, 1), score=nn.Conv2d(8, 3, 1))
        ),
        (SMALL,),
    ),
    "segmentation": Subject(
        lambda: nn.Sequential(conv(3, 8), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 4, 1)),
        (SMALL,),
    ),
    "segmentation classes": Subject(
        lambda: Does(lambda n, x: n.body(x).argmax(1), body=nn.Conv2d(3, 4, 3, padding=1)), (SMALL,)
    ),
    "embedding": Subject(
        lambda: Does(
            lambda n, x: functional.normalize(n.head(n.body(x).mean((2, 3))), dim=1),
            body=conv(3, 8),
            head=nn.Linear(8, 16),
        ),
        (SMALL,),
    ),
    "keypoints": Subject(
        lambda: Does(
            lambda n, x: (n.heat(x).flatten(2).softmax(2) * torch.arange(256.0)).sum(2),
            heat=nn.Conv2d(3, 5, 3, padding=1),
        ),
        (SMALL,),
    ),
    "depthwise": Subject(
        lambda: nn.Sequential(
            conv(3, 8), conv(8, 8, groups=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        ),
        (SMALL,),
    ),
    "squeeze and excite": Subject(
        lambda: Does(squeeze_excite, body=conv(3, 8), gate=nn.Conv2d(8, 8, 1), head=nn.Linear(8, 4)), (SMALL,)
    ),
    "conv1d, dilated": Subject(
        lambda: nn.Sequential(nn.Conv1d(2, 8, 3, dilation=2), nn.PReLU(), nn.Conv1d(8, 3, 1)),
        (floats(1, 2, 40),),
    ),
    "conv3d": Subject(
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4 * 2, 3)),
        (floats(1, 1, 4, 6, 6),),
    ),
    "transposed convolution": Subject(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1)),
        (SMALL,),
    ),
    "pixel shuffle": Subject(
        lambda: nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)), (SMALL,)
    ),
    "group norm": Subject(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 3)
        ),
        (SMALL,),
    ),
    "instance norm": Subject(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU()),
        (floats(1, 3, 16, 16),),  # of a flat picture it would show rounding alone
    ),
    "layer norm": Subject(
        lambda: nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 2)), (ROWS,)
    ),
    "cumulative sum": Subject(lambda: Does(lambda n, x: n.f(x).cumsum(1), f=nn.Linear(8, 8)), (ROWS,)),
    "top k": Subject(
        lambda: Does(lambda n, x: torch.topk(n.f(x), 3, dim=1), f=nn.Linear(8, 12)), (floats(1, 8),)
    ),
    "class number": Subject(lambda: Does(lambda n, x: n.f(x).argmax(1), f=nn.Linear(8, 12)), (floats(1, 8),)),
    "sorted scores": Subject(
        lambda: Does(lambda n, x: torch.sort(n.f(x), dim=1).values, f=nn.Linear(8, 12)), (floats(1, 8),)
    ),
    "two outputs": Subject(
        lambda: Does(lambda n, x: (n.f(x), n.g(x).sigmoid()), f=nn.Linear(8, 3), g=nn.Linear(8, 1)),
        (floats(1, 8),),
    ),
    "dict of outputs": Subject(
        lambda: Does(lambda n, x: {"class": n.f(x), "box": n.g(x)}, f=nn.Linear(8, 3), g=nn.Linear(8, 4)),
        (floats(1, 8),),
    ),
    "optional output": Subject(lambda: Does(lambda n, x: (n.f(x), None), f=nn.Linear(8, 3)), (floats(1, 8),)),
    "embedding bag of tokens": Subject(
        lambda: Does(lambda n, x: n.f(n.e(x).mean(1)), e=nn.Embedding(50, 12), f=nn.Linear(12, 3)),
        (tokens(1, 9),),
    ),
    "bytes of a picture": Subject(
        lambda: Does(lambda n, x: n.f((x.float() / 255 - 0.5).flatten(1)), f=nn.Linear(192, 3)),
        (lambda g: g.integers(0, 256, (1, 3, 8, 8)).astype(np.uint8),),
    ),
    "where a mask says": Subject(
        lambda: Does(lambda n, x, m: torch.where(m, n.f(x), torch.zeros(())), f=nn.Linear(7, 7)),
        (floats(1, 7), mask(7)),
    ),
    "lengths": Subject(
        lambda: Does(
            lambda n, x, length: (
                (n.f(x) * (torch.arange(6)[None, :, None] < length[:, None, None])).sum(1) / length[:, None]
            ),
            f=nn.Linear(8, 3),
        ),
        (ROWS, lambda g: g.integers(1, 7, (1,))),
    ),
    "regression with an offset": Subject(
        lambda: Does(lambda n, x: n.f(x).tanh() * 600 + 101325, f=nn.Linear(8, 1)), (floats(1, 8),)
    ),
    "in place": Subject(
        lambda: Does(lambda n, x: n.f(x.sub_(0.5).div_(0.25)), f=nn.Linear(8, 3)), (floats(1, 8),)
    ),
    "as many as pass": Subject(
        lambda: Does(lambda n, x: (lambda y: (y[y > 0], y))(n.f(x)[0]), f=nn.Linear(8, 10)), (floats(1, 8),)
    ),
    "reflected edges": Subject(
        lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.AvgPool2d(2)),
        (SMALL,),
    ),
    "max pool and flatten": Subject(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.ELU(), nn.Flatten(), nn.Linear(8 * 49, 5)
        ),
        (SMALL,),
    ),
}
"""Name -> network. Its weights come from a fixed seed."""


def build(name: str) -> nn.Module:
    """Make the named network with its seeded weights, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ZOO[name].make().eval()
