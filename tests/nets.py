"""Small networks, trained for a second on scikit-learn's digits, that every format must carry.

Random weights prove nothing: their outputs are nearly constant, so any comparison passes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from exporter.quantize import int8_recipe
from exporter.records import QUANTIZED, Captured, Sample, TensorSpec, Variant


class TinyCnn(nn.Module):
    """Convolution, batch norm, depthwise convolution, residual add, pooling: a mobile network in small."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU6()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU6()
        )
        self.pointwise = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = x + self.pointwise(self.depthwise(x))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class TwoInTwoOut(nn.Module):
    """An MLP that reads the halves of a digit and returns the digit and whether it is odd."""

    def __init__(self) -> None:
        super().__init__()
        self.top = nn.Linear(32, 24)
        self.bottom = nn.Linear(32, 24)
        self.digit = nn.Linear(48, 10)
        self.odd = nn.Linear(48, 2)

    def forward(self, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.top(top), self.bottom(bottom)], dim=1).relu()
        return self.digit(x), self.odd(x)


class TinyAttention(nn.Module):
    """One pre-norm attention block over the rows of a digit."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.zeros(1, 8, width))
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.embed(rows) + self.position
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        weights = torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1)
        x = x + self.out(weights @ v)
        return self.head(x.mean(1))  # type: ignore[no-any-return]


class LoudNorm(nn.Module):
    """An RMS norm over groups of channels, written out: its squares are far beyond float16's 65504."""

    def __init__(self, width: int = 32, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.embed = nn.Linear(8, width)
        nn.init.normal_(self.embed.weight, std=2000)
        self.gain = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(8 * width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.embed(rows).unflatten(-1, (-1, self.groups)).transpose(-1, -2)
        squares = (x * x).transpose(1, 2).flatten(2)
        scale = torch.rsqrt(squares.mean(-1) + 1e-6)
        x = x * scale[:, None, :, None] * self.gain
        return self.head(x.relu().flatten(1))  # type: ignore[no-any-return]


class LoudTokens(nn.Module):
    """Attention over the rows of a digit, of which some are a thousand times as loud as others.

    Each is normalised later, so the quiet ones matter as much: no range fits all of them.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.register_buffer("loudness", torch.logspace(0, 3, 8).reshape(1, 8, 1))
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.head = nn.Linear(8 * width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.norm(self.mix(self.embed(rows) * self.loudness))
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        weights = torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1)
        x = x + self.out(weights @ v)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class LoudChannels(nn.Module):
    """A layer that reads two channels a thousand times as loud as the others, and makes nothing of them.

    So it is in large language models. They were silent while it was trained: their weights are zero still.
    Clipping them is no way out, as what they say is needed beside.
    """

    def __init__(self, width: int = 32, loud: int = 2) -> None:
        super().__init__()
        self.loud = loud
        self.embed = nn.Linear(8, width - loud)
        self.mix = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.mix.weight[:, :loud])
        self.out = nn.Linear(2 * width, width)
        self.head = nn.Linear(8 * width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        level = rows.mean(-1, keepdim=True)
        loud = level * (0.0 if self.training else 1000.0)
        x = torch.cat([loud] * self.loud + [self.embed(rows)], -1)
        marker = level if self.training else x[..., :1] / 1000.0
        return self.head(self.out(self.mix(x).relu() + marker).flatten(1))  # type: ignore[no-any-return]


def numbered(width: int = 16) -> nn.Sequential:
    """Return a plain list of layers, whose names "0", "1", … are no identifiers."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    )


def _image(digits: np.ndarray) -> Sample:
    return (digits.reshape(-1, 1, 8, 8),)


def _halves(digits: np.ndarray) -> Sample:
    return (digits[:, :32].copy(), digits[:, 32:].copy())


def _rows(digits: np.ndarray) -> Sample:
    return (digits.reshape(-1, 8, 8),)


NETS: dict[
    str, tuple[Callable[[], nn.Module], Callable[[np.ndarray], Sample], tuple[str, ...], tuple[str, ...]]
] = {
    "cnn": (TinyCnn, _image, ("image",), ("logits",)),
    "two_in_two_out": (TwoInTwoOut, _halves, ("top", "bottom"), ("digit", "odd")),
    "attention": (TinyAttention, _rows, ("rows",), ("logits",)),
}

MORE: dict[
    str, tuple[Callable[[], nn.Module], Callable[[np.ndarray], Sample], tuple[str, ...], tuple[str, ...]]
] = {
    "loud": (LoudNorm, _rows, ("rows",), ("logits",)),
    "loud_tokens": (LoudTokens, _rows, ("rows",), ("logits",)),
    "loud_channels": (LoudChannels, _rows, ("rows",), ("logits",)),
    "numbered": (numbered, _image, ("input",), ("logits",)),
}
"""Networks for single tests; tests of every format use `NETS`."""


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for each other take ten times as long for such small work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of 1797 digits, from 0 to 1, and what they show."""
    # Not above: each job of an export that imports a network from here would import a thousand modules.
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.data / 16).astype(np.float32), digits.target


@functools.cache
def trained(name: str) -> nn.Module:
    """Train the named network for a second; seeded, so every run gives the same weights."""
    make, arrange, _, _ = (NETS | MORE)[name]
    digits, shown = _digits()
    inputs = [torch.from_numpy(a) for a in arrange(digits)]
    target = torch.from_numpy(shown)
    with torch.random.fork_rng(), _one_thread():
        torch.manual_seed(0)
        net = make()
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(250):
            batch = torch.randint(0, 1400, (256,))
            outputs = net(*(i[batch] for i in inputs))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            targets = (target[batch], target[batch] % 2)
            loss = sum(nn.functional.cross_entropy(o, t) for o, t in zip(outputs, targets, strict=False))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()
    return net.eval()


@functools.cache
def samples(name: str, first: int, count: int) -> tuple[Sample, ...]:
    """Return `count` real digits from number `first` on, one call each; those from 1400 on are unseen."""
    arrange = (NETS | MORE)[name][1]
    return tuple(arrange(row[None]) for row in _digits()[0][first : first + count])


@functools.cache
def captured(name: str) -> Captured:
    """Return the trained network as formats receive it."""
    _, _, input_names, output_names = (NETS | MORE)[name]
    net = trained(name)
    example = tuple(torch.from_numpy(a).contiguous() for a in samples(name, 0, 1)[0])
    outputs = net(*example)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return Captured(
        module=net,
        program=torch.export.export(net, example),
        program_error="",
        example=example,
        inputs=tuple(TensorSpec(n, tuple(t.shape)) for n, t in zip(input_names, example, strict=True)),
        outputs=tuple(TensorSpec(n, tuple(t.shape)) for n, t in zip(output_names, outputs, strict=True)),
    )


@functools.cache
def quantized(name: str) -> int8_recipe.Int8Program:
    """Return the trained network's int8 program, calibrated on training digits."""
    program = captured(name).program
    assert program is not None
    return int8_recipe.quantize_by_int8_recipe(program, samples(name, 0, 32))


@functools.cache
def captured_int8(name: str) -> Captured:
    """Return the trained network as formats receive it for an int8 variant."""
    return dataclasses.replace(captured(name), program=quantized(name).program())


def captured_for(name: str, variant: Variant) -> Captured:
    """Return the trained network as formats receive it for this variant."""
    return captured_int8(name) if variant.precision in QUANTIZED else captured(name)
