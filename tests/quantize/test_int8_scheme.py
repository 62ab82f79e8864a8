"""Tests of the choice between ways of int8."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import fx

from exporter.quantize import int8_recipe, int8_scheme, sensitivity
from exporter.quantize.int8_scheme import Way, choose_int8_scheme


@pytest.mark.parametrize(
    ("static", "other", "expected"),
    [
        (14.2, 31.0, "dynamic"),  # below the limit
        (21.0, 23.0, "dynamic"),  # above it, without a margin
        (25.0, 30.0, "static"),  # fine as it is
        (25.0, 31.0, "dynamic"),  # fine, but far behind
        (33.0, 45.0, "static"),  # more than anybody needs
        (12.0, 11.0, "static"),  # nothing is won
    ],
)
def test_static_must_lose_to_go(static: float, other: float, expected: str) -> None:
    """Static ranges stay unless they miss the limit or clearly lose."""
    assert choose_int8_scheme({"static": static, "dynamic": other}).way == expected


@pytest.mark.parametrize(
    ("sqnr_db", "expected"),
    [
        ({"static": 12.0, "dynamic": 15.0, "weights only": 40.0}, "weights only"),
        ({"static": 12.0, "dynamic": 11.0, "weights only": 40.0}, "weights only"),
        ({"static": 12.0, "dynamic": 15.0, "weights only": 14.0}, "dynamic"),
        ({"static": 12.0, "dynamic": 11.0, "weights only": 11.5}, "static"),
    ],
)
def test_weights_alone_are_kept_where_they_are_better(sqnr_db: Mapping[Way, float], expected: str) -> None:
    """Weights alone win only if better than both ways that quantise activations."""
    assert choose_int8_scheme(sqnr_db).way == expected


@pytest.mark.parametrize(
    ("static", "dynamic", "lose"),
    [(12.0, 21.9, True), (12.0, 22.0, False), (22.0, 12.0, False), (21.9, 12.0, True)],
)
def test_weights_alone_are_tried_where_both_lose(static: float, dynamic: float, lose: bool) -> None:
    """Weights alone are tried when neither other way reaches the limit of static ranges."""
    assert int8_scheme.all_int8_schemes_lose({"static": static, "dynamic": dynamic}) is lose


def test_the_note_says_what_each_way_reached() -> None:
    """The note is one sentence, which begins with the chosen way."""
    assert choose_int8_scheme({"static": 12.0, "dynamic": 46.0}).note == (
        "int8: dynamic, because static activation ranges reached 12.0 dB and dynamic activation ranges "
        "reached 46.0 dB on calibration inputs"
    )
    assert choose_int8_scheme({"static": 12.0, "dynamic": 10.0, "weights only": 55.0}).note == (
        "int8: weights only, because static activation ranges reached 12.0 dB and dynamic activation ranges "
        "reached 10.0 dB and float activations reached 55.0 dB on calibration inputs"
    )


class Patches(torch.nn.Module):
    """A convolution cuts a picture into tokens, as a vision transformer does: two fifths of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 16, 4, stride=4)
        self.wide, self.narrow = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.narrow(self.wide(self.patches(x).flatten(2).mT).relu())
        return tokens


@pytest.mark.parametrize(
    ("least", "note"),
    [
        (1024, "int8: static, because static activation ranges reached "),
        (
            1025,
            "int8: static, because dynamic activation ranges would store 1,024 weights in 8 bits, and 1,025",
        ),
    ],
)
def test_a_way_that_leaves_too_many_weights_in_float_is_no_choice(least: int, note: str) -> None:
    """Convolutions stay in float in the dynamic way, which is left out where they are too large a share."""
    torch.manual_seed(0)
    rows = torch.rand(4, 1, 3, 8, 8)
    program = torch.export.export(Patches().eval(), (rows[0],))
    calibration = [(row.numpy(),) for row in rows]
    made = int8_recipe.quantize_by_int8_recipe(program, calibration, least_stored=least)
    assert made.note.startswith(note)
    assert int8_recipe.stored_weights_of_int8_recipe(made.module) == 1024 + 16 * 3 * 4 * 4


@pytest.mark.parametrize(
    ("static", "dynamic", "least", "left_out"),
    [
        (100, 80, 90, True),
        (100, 95, 90, False),
        (80, 70, 90, False),
        (90, 89, 90, True),
        (100, 90, 90, False),
    ],
)
def test_the_number_that_must_be_stored_decides(
    static: int, dynamic: int, least: int, left_out: bool
) -> None:
    """The dynamic way is left out only where static ranges store enough, and it does not."""
    note = int8_scheme.note_on_too_few_int8_weights({"static": static, "dynamic": dynamic}, least)
    assert bool(note) is left_out


def test_a_tenth_of_the_output_is_20_db() -> None:
    """An error of a tenth is 20 dB, and no error is infinity."""

    def scaled(by: float) -> fx.GraphModule:
        return fx.symbolic_trace(lambda x: x * by)

    calls = [(torch.tensor([1.0, 2.0]),), (torch.tensor([3.0, -1.0]),)]
    expected = sensitivity.run_for_sensitivity(scaled(1.0), calls)
    assert int8_scheme.sqnr_of_int8_scheme(expected, scaled(1.1), calls) == pytest.approx(20, abs=1e-4)
    assert int8_scheme.sqnr_of_int8_scheme(expected, scaled(1.0), calls) == float("inf")
