"""Tests that the code's figures, as `scripts/house` prints them, keep to the goals of STYLE.md."""

from __future__ import annotations

import pytest

from benchmarks import house
from tests.test_architecture_rules import TIERS

CODE = {"the packages": house.PACKAGES, "tests and benchmarks": ("tests", "benchmarks")}


def test_there_are_at_most_9_tiers_of_imports() -> None:
    """More tiers than a reader can remember are no order."""
    assert len(TIERS) <= 9


@pytest.mark.parametrize("code", CODE)
def test_values_are_named_by_their_own_noun(code: str) -> None:
    """The placeholder `found` is an identifier on fewer than 3 of 1,000 lines."""
    assert house.measure(house.python_files(*CODE[code])).per_thousand("found") < 3


@pytest.mark.parametrize("code", CODE)
def test_docstrings_begin_with_a_subject_or_a_verb(code: str) -> None:
    """No docstring begins in the middle of a sentence."""
    assert house.measure(house.python_files(*CODE[code])).without_subject == ()


def test_a_fragment_is_counted() -> None:
    """The words that begin a fragment are seen, and whole sentences are not."""
    assert "Of the file.".startswith(house.NO_SUBJECT)
    assert not "The hash of the file.".startswith(house.NO_SUBJECT)
