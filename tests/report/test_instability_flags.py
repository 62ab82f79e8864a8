"""Tests of grouped flags: each kind appears once, and nothing is lost."""

from __future__ import annotations

import pytest

from exporter.report.instability_flags import group_instability_flag_reasons, group_instability_flags


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            [f"spread: launch {n}: p90 is {x} times p50" for n, x in enumerate(("1.25", "1.87", "1.3"))],
            ["spread: launches 0, 1, 2: p90 is 1.25-1.87 times p50"],
        ),
        (
            [
                "trend: launch 0: the last third took +4.1% against the first",
                "trend: launch 3: the last third took -13.1% against the first",
            ],
            ["trend: launches 0, 3: the last third took -13.1 to +4.1% against the first"],
        ),
        (
            ["samples: launch 0 has 60 calls in 0.5 s", "samples: launch 3 has 61 calls in 0.5 s"],
            ["samples: launches 0, 3 have 60-61 calls in 0.5 s"],
        ),
        (
            [
                "affinity: launch 0 was allowed cores 0-7, not 4, 5",
                "affinity: launch 1 was allowed cores 0-7, not 4, 5",
            ],
            ["affinity: launches 0, 1 were allowed cores 0-7, not 4, 5"],
        ),
        (
            ["warm-up: launch 1 never settled", "warm-up: launch 2 never settled"],
            ["warm-up: launches 1, 2 never settled"],
        ),
    ],
)
def test_several_launches_are_one_line(given: list[str], expected: list[str]) -> None:
    """The line has the range of the figures; "p90" is a word."""
    assert group_instability_flags(given) == tuple(expected)


@pytest.mark.parametrize(
    "flags",
    [
        ["warm-up: launch 1 never settled"],
        ["thermal: status 2 before the run", "thermal: status 2 after the run"],
        ["canary: a fixed computation differed by 7.0% in the course of the run"],
        [
            "cap: launch 1: cores 4, 5, 6 were held to 100 of 200 kHz",
            "cap: launch 1: cores 0, 1, 2 were held to 100 of 200 kHz",
        ],
        ["spread: launch 0: p90 is 1.2 times p50", "trend: launch 0: the last third took +4% more"],
        ["", "x", "launch 1: \0 5", "cores: launch 9", "a: launch 2: 1e5, 1_0, 9" + "9" * 400],
    ],
)
def test_what_differs_stays_apart(flags: list[str]) -> None:
    """A single launch, other cores, another moment or another sign stays a line of its own."""
    assert group_instability_flags(flags) == tuple(flags)


def test_a_reason_is_given_once() -> None:
    """A reason appears once, however many launches and sources give it."""
    other = "uname says 'x86_64', not 'aarch64'."
    given = [
        other,
        other,
        *(f"Launch {n}: {words}" for n in range(3) for words in ("it is old.", "it is odd.")),
    ]
    expected = (other, "Launches 0, 1, 2: it is old.", "Launches 0, 1, 2: it is odd.")
    assert group_instability_flag_reasons(given) == expected
    assert group_instability_flag_reasons(["Launch 1: it is old."]) == ("Launch 1: it is old.",)
