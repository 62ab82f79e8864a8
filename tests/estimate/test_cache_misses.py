"""Tests of the simple model of a core's caches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter.estimate.cache_misses import TensorUse, missed_bytes, reuse_distances
from exporter.estimate.graph_work import work_of_graph
from exporter.estimate.operator_split import GraphOperator

LAYERS = [("x", 10), ("w1", 100), ("h", 20), ("h", 20), ("w2", 50), ("y", 5)]
"""Two layers: x and w1 give h; h and w2 give y."""


def uses(pairs: list[tuple[str, int]]) -> list[TensorUse]:
    return [TensorUse(name, size) for name, size in pairs]


def test_a_weight_was_used_a_call_ago_and_an_activation_just_now() -> None:
    """All that a call touches lies between two uses of a weight; nothing between writing and reading h."""
    whole = 10 + 100 + 20 + 50 + 5
    assert reuse_distances(uses(LAYERS)) == (whole, whole, whole, 20, whole, whole)


def test_what_a_cache_holds_is_not_read_again() -> None:
    """Nothing is missed with room for all; with room for h, all but h; with less, h too."""
    assert missed_bytes(uses(LAYERS), 185) == 0
    assert missed_bytes(uses(LAYERS), 184) == 185
    assert missed_bytes(uses(LAYERS), 20) == 185
    assert missed_bytes(uses(LAYERS), 19) == 205


@given(
    names=st.lists(st.sampled_from("abcdef"), max_size=30),
    sizes=st.lists(st.integers(1, 50), min_size=6, max_size=6),
    cache=st.integers(0, 200),
)
def test_it_is_a_cache_that_keeps_what_was_used_last(names: list[str], sizes: list[int], cache: int) -> None:
    """The distances are those of a stack of tensors, in the second of two calls."""
    size = dict(zip("abcdef", sizes, strict=True))
    stack: list[str] = []
    distances = []
    for name in names * 2:
        place = stack.index(name) if name in stack else 0
        distances.append(sum(size[other] for other in stack[place:]))
        stack = [other for other in stack if other != name] + [name]
    calls = uses([(name, size[name]) for name in names])
    assert reuse_distances(calls) == tuple(distances[len(names) :])
    assert missed_bytes(calls, cache) <= sum(use.size_bytes for use in calls)
    assert missed_bytes(calls, cache + 1) <= missed_bytes(calls, cache)


def test_thousands_of_operators_take_no_time() -> None:
    """A language model's graph has tens of thousands of uses: each costs a logarithm."""
    many = uses([(f"w{i}", 4) for i in range(30_000)])
    assert missed_bytes(many, 1000) == 4 * 30_000


def test_depthwise_convolutions_are_apart() -> None:
    """They reuse little, so that a multiply-accumulate of theirs costs more."""
    operators = [
        GraphOperator("a", "Conv", 1000, 30, 5, touched=(("x", 10), ("w", 5), ("y", 20))),
        GraphOperator("b", "Conv", 90, 40, 9, depthwise=True, touched=(("y", 20), ("v", 9), ("z", 20))),
    ]
    work = work_of_graph(operators, bytes_per_value=4, cache_bytes=0)
    assert (work.macs, work.depthwise_macs, work.values) == (1000, 90, 70)
    assert work.missed_bytes == 4 * (10 + 5 + 20 + 20 + 9 + 20)
