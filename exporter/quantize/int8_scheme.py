"""Choose the way of int8 for a linear-heavy network: the fastest that preserves its outputs.

Static ranges are faster than dynamic ones, and those are faster than activations in float.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from torch import Tensor, fx

from exporter.quantize import activation_ranges, sensitivity
from exporter.quantize.graphs import other_graph_samples
from exporter.records import decibel_value

Way = Literal["static", "dynamic", "weights only"]
ACTIVATIONS: Mapping[Way, str] = {
    "static": "static activation ranges",
    "dynamic": "dynamic activation ranges",
    "weights only": "float activations",
}

ENOUGH_DB = 22.0
"""Static int8 is kept if it reaches the limit (20 dB) with a margin for unseen inputs,"""

CLEARLY_DB = 6.0
"""unless it loses by this much, half the error's amplitude,"""

PLENTY_DB = 30.0
"""and does not reach this: an error of 3 % of the output's amplitude changes no answer."""


class ChosenScheme(NamedTuple):
    """The chosen way, and the reason."""

    way: Way
    note: str


def note_on_too_few_int8_weights(stored: Mapping[Way, int], least_stored: int) -> str:
    """Return why static ranges are taken without a comparison; empty where both ways are to be compared.

    Args:
        stored: The number of the weights' elements that "static" and "dynamic" store in 8 bits.
        least_stored: The number that must be.
    """
    if not stored["dynamic"] < least_stored <= stored["static"]:
        return ""
    return (
        f"int8: static, because {ACTIVATIONS['dynamic']} would store {stored['dynamic']:,} weights in 8 "
        f"bits, and {least_stored:,} must be"
    )


def samples_for_int8_scheme(samples: Sequence[tuple[Tensor, ...]]) -> Sequence[tuple[Tensor, ...]]:
    """Return the calibration samples to compare on: those not used for ranges and weights, if any exist."""
    return other_graph_samples(samples, activation_ranges.MOST_SAMPLES)


def sqnr_of_int8_scheme(
    expected: Sequence[tuple[Tensor, ...]], module: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]]
) -> float:
    """Return the SQNR in dB of a way's outputs against the float program's; minus infinity where one is NaN.

    Args:
        expected: The float program's outputs of each call.
        module: The quantised program, as a runtime computes it.
        samples: The calls; preferably not those that ranges were chosen on.
    """
    outputs = sensitivity.run_for_sensitivity(module, samples)
    reached_db = decibel_value(sensitivity.sensitivity_noise(expected, outputs))
    return -math.inf if math.isnan(reached_db) else reached_db  # comparisons with NaN choose anything


def all_int8_schemes_lose(sqnr_db: Mapping[Way, float]) -> bool:
    """Return whether no way with quantised activations is good enough, so that weights alone are tried."""
    return max(sqnr_db.values()) < ENOUGH_DB


def choose_int8_scheme(sqnr_db: Mapping[Way, float]) -> ChosenScheme:
    """Choose by each way's SQNR: a faster way is kept unless it clearly loses.

    Args:
        sqnr_db: The SQNR of "static" and "dynamic"; also of "weights only" when both of them lose.
    """
    way: Way = "dynamic" if _dynamic_int8_scheme_wins(sqnr_db["static"], sqnr_db["dynamic"]) else "static"
    if sqnr_db.get("weights only", sqnr_db[way]) > sqnr_db[way]:
        way = "weights only"
    figures = [f"{ACTIVATIONS[name]} reached {db:.1f} dB" for name, db in sqnr_db.items()]
    return ChosenScheme(way, f"int8: {way}, because {' and '.join(figures)} on calibration inputs")


def _dynamic_int8_scheme_wins(static: float, dynamic: float) -> bool:
    loses = static < ENOUGH_DB or (static < PLENTY_DB and dynamic - static >= CLEARLY_DB)
    return loses and dynamic > static
