from __future__ import annotations

import math
from dataclasses import replace

import pytest

from exporter.records import EstimatedLatency, Preprocessing
from exporter.report import text
from tests.report import sample


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0"),
        (1.312e-6, "1.31e-6"),
        (0.07129, "0.0713"),
        (21.44, "21.4"),
        (100.0, "100"),
        (999.7, "1000"),
        (5678.0, "5678"),
        (601_617_408, "6.02e8"),
        (-3.0, "-3.00"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (math.nan, "NaN"),
    ],
)
def test_three_significant_digits(value: float | None, shown: str) -> None:
    """Numbers keep three digits whatever their size, and the special ones are named."""
    assert text.sig3_text(value) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (None, "\N{EN DASH}"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (13_998_112, "14.0 MB"),
        (3.2e9, "3.20 GB"),
    ],
)
def test_sizes_have_decimal_prefixes(size: float | None, shown: str) -> None:
    """A size is shown with its unit."""
    assert text.scaled_text(size, "B") == shown


def test_preprocessing_in_words() -> None:
    """The line says how a photo is cut and normalised, squashed or not."""
    assert text.preprocessing_text(Preprocessing()).startswith(
        "shorter side to 256 px (bilinear), centre crop 224"
    )
    assert "both sides to 256" in text.preprocessing_text(replace(Preprocessing(), squash=True))
    assert "not known" in text.preprocessing_text(None)


def test_the_tally_counts_every_status() -> None:
    """Statuses are counted in a fixed order and absent ones left out."""
    assert text.tally_text(sample.artifacts()) == "4 passed, 2 failed, 3 not run, 1 error"
    assert text.tally_text(()) == ""


def test_an_unmeasured_budget_says_so() -> None:
    """The budget is never said to be met without a device."""
    assert text.budget_text(sample.report()) == "Budget 15.0 ms on snapdragon865: not measured on a device"


def test_a_reason_names_the_users_line() -> None:
    """The source line of the user's model stands behind the cause."""
    assert text.reason_text(sample.artifacts()[-1]).endswith("distinct values. (at nets/mobile.py:88)")


def test_a_note_names_the_artifacts_that_it_is_about_unless_it_is_about_all() -> None:
    """Beside counted artifacts, "nothing was counted" is about some alone."""
    report = sample.report()
    counted = EstimatedLatency(4, 10, 8, 12, 0.9, "counts", notes=("One chip.",))
    graph = replace(counted, basis="graph", notes=("One chip.", "Nothing was counted."))
    first, second = report.artifacts[:2]
    rows = (replace(first, estimates=(counted,)), replace(second, estimates=(graph, graph)))
    _, *notes = text.estimate_notes_text(replace(report, artifacts=rows))
    assert notes == ["One chip.", f"{second.variant.name}: Nothing was counted."]


@pytest.mark.parametrize(
    ("p50_ms", "words"),
    [(5, "estimated within 15.0 ms;"), (14, "uncertain about 15.0 ms;"), (40, "estimated over 15.0 ms;")],
)
def test_the_estimates_words_on_the_budget_make_a_sentence(p50_ms: float, words: str) -> None:
    """The verdict stands before the budget."""
    report = sample.report()
    estimate = EstimatedLatency(4, p50_ms, p50_ms / 1.5, p50_ms * 1.5, 0.9, "counts")
    rows = tuple(replace(row, estimates=(estimate,)) for row in report.artifacts)
    assert words in text.estimate_text(replace(report, artifacts=rows, budget_ms=15.0))
