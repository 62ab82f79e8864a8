"""The weights of a network that an artifact must hold are counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporter.capture import matmul_weights


class Added(nn.Module):
    """A network that adds a position embedding larger than its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.position = nn.Parameter(torch.randn(1, 50, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.position[:, : x.shape[1]]  # type: ignore[no-any-return]


class LookedUpAtConstants(nn.Module):
    """A network that looks its positions up at 0, 1, 2, …, which gives one constant."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.position = nn.Embedding(50, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.position(torch.arange(x.shape[1]))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """A network that reads tokens and writes them with one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens) @ self.table.weight.t()  # type: ignore[no-any-return]


class Sliced(nn.Module):
    """A network that multiplies with three of the eight rows of its matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :3] @ self.matrix[:3]


class CrossAttention(nn.Module):
    """An attention whose three projections are parts of one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, x * 2, x * 3)[0]  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]  # type: ignore[no-any-return]


class Auxiliary(nn.Module):
    """Computes what only its loss in training reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.auxiliary = nn.Linear(8, 4), nn.Linear(4, 100)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        self.auxiliary(y).relu()
        return y


class InPlace(nn.Module):
    """Reads a tensor that was changed in place, and not what the change returns."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        y[..., :2].mul_(self.gate(x)[..., :2])
        return y


class RelativePositions(nn.Module):
    """Multiplies a constant table by a parameter, and the inputs by the product."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4, bias=False)
        self.register_buffer("table", torch.randn(50, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :4] @ self.layer(self.table).T  # type: ignore[no-any-return]


FLOATS = torch.randn(1, 6, 8)
TOKENS = torch.arange(6).reshape(1, 6)


@pytest.mark.parametrize(
    ("net", "example", "expected"),
    [
        (Added(), FLOATS, 4 * 8),
        (LookedUpAtConstants(), FLOATS, 4 * 8),
        (Tied(), TOKENS, 20 * 4),
        (Sliced(), FLOATS, 3 * 4),
        (CrossAttention(), FLOATS, 4 * 8 * 8),
        (RelativePositions(), FLOATS, 4 * 8),
        (Auxiliary(), FLOATS, 4 * 8),
        (InPlace(), FLOATS, 4 * 8 + 4 * 8),
        (Recurrent(), FLOATS, 16 * 8 + 16 * 4),
        (nn.utils.parametrizations.weight_norm(nn.Linear(8, 4)), FLOATS, 4 * 8),
        (nn.Conv1d(6, 5, 3), FLOATS, 6 * 5 * 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_the_inputs_are_multiplied_with_counts(net: nn.Module, example: Tensor, expected: int) -> None:
    """Each weight counts once, no more of it than is used, and nothing that is only added."""
    assert matmul_weights.count_matmul_weights(torch.export.export(net.eval(), (example,))) == expected
