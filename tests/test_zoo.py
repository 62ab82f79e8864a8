"""Right artifacts of networks of all kinds pass: none of `benchmarks/zoo.py` fails wrongly."""

from __future__ import annotations

import pytest

from benchmarks.false_failures import RIGHTLY, VARIANTS, rows
from benchmarks.zoo import ZOO

GROUPS = 4
"""The tests are shared out among so many workers."""
INT8 = frozenset(
    {
        "mlp",
        "transformer",
        "causal attention",
        "detector",
        "segmentation classes",
        "embedding",
        "depthwise",
        "pixel shuffle",
        "group norm",
        "top k",
        "class number",
        "two outputs",
        "bytes of a picture",
        "lengths",
    }
)
"""The networks whose int8 files are made here, too; `python -m benchmarks.false_failures` makes all."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.xdist_group(f"zoo-{i % GROUPS}")) for i, name in enumerate(ZOO)],
)
def test_right_artifacts_pass(name: str) -> None:
    """In each format that can express the network, in float32 and float16, and some in int8."""
    made = list(rows([name], [v for v in VARIANTS if v != "onnx-int8" or name in INT8]))
    assert any(row.status == "passed" for row in made)
    for row in made:
        assert not row.is_false_failure, row


def test_there_are_40_networks_and_few_exceptions() -> None:
    """An exception is for one network in one format, which it names."""
    assert len(ZOO) >= 40
    assert {name for name, _ in RIGHTLY} | INT8 <= set(ZOO)
