from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest

from exporter.report import plots, quantization_plots
from tests.report import sample


def all_plots() -> list[str]:
    report = sample.report()
    drawn = [
        plots.plot_tradeoff(report.artifacts, report.selected),
        plots.plot_latencies(report.artifacts, report.selected),
        plots.plot_histograms(sample.outputs(), report.selected),
        quantization_plots.plot_quantization_by_operator(report.operator_costs),
        quantization_plots.plot_quantization_mixes(report.mixed_points),
    ]
    return [svg for svg in drawn if svg]


def test_each_plot_is_drawn_from_the_sample() -> None:
    """The sample has data for all five, and each is one well-formed svg element."""
    assert [ET.fromstring(svg).tag for svg in all_plots()] == ["{http://www.w3.org/2000/svg}svg"] * 5


def test_plots_are_the_same_twice() -> None:
    """No date, no random id: equal reports give equal bytes."""
    assert all_plots() == all_plots()


def test_plots_leave_matplotlib_as_it_was() -> None:
    """A user who imports us keeps their own settings."""
    before = dict(mpl.rcParams)
    all_plots()
    assert dict(mpl.rcParams) == before


def test_ids_of_the_plots_do_not_clash() -> None:
    """Several svg elements share one page, so an id may occur only once and every reference must have one."""
    page = "".join(all_plots())
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page)) <= {(i, "") for i in ids} | {
        ("", i) for i in ids
    }


def test_colours_are_the_pages_variables() -> None:
    """No stand-in colour is left: every one became a variable that also works in the dark."""
    page = "".join(all_plots())
    assert not re.findall("#0[0-9]0[0-9]0[0-9]", page)
    assert {"var(--ink)", "var(--accent)", "var(--passed)", "var(--failed)"} <= set(
        re.findall(r"var\([^)]+\)", page)
    )


def test_the_tradeoff_names_what_was_measured() -> None:
    """Artifacts with an error and a latency are named; one without (NaN, not run) is not drawn at all."""
    svg = plots.plot_tradeoff(sample.artifacts(), None) or ""
    assert ">onnx-int8<" in svg
    assert ">torchscript-lite-fp32<" not in svg
    assert ">coreml-fp16<" not in svg


def test_the_latencies_hold_every_timed_artifact() -> None:
    """A failed artifact that was timed is drawn too."""
    svg = plots.plot_latencies(sample.artifacts(), None) or ""
    assert svg.count("torchscript-lite-fp32") == 1
    assert "coreml" not in svg


def test_nothing_to_draw_gives_no_plot() -> None:
    """A report without measurements or outputs has no empty axes."""
    bare = tuple(replace(a, latency=None, verdict=None) for a in sample.artifacts())
    assert plots.plot_tradeoff(bare, None) is None
    assert plots.plot_latencies(bare, None) is None
    assert plots.plot_histograms({}, None) is None
    assert plots.plot_histograms({"a": np.ones(3)}, None) is None


def test_histograms_need_the_reference() -> None:
    """NaN and Inf are left out, and an artifact that has nothing else is not drawn."""
    outputs = {
        "reference": np.arange(9.0),
        "good": np.array([1.0, math.nan, 3.0]),
        "bad": np.full(9, math.nan),
    }
    svg = plots.plot_histograms(outputs, None) or ""
    assert ">good<" in svg
    assert ">bad<" not in svg


@pytest.mark.parametrize("value", [0.0, -7.5, 1e30])
def test_a_constant_reference_can_be_drawn(value: float) -> None:
    """A degenerate model must not break the report that says so."""
    outputs = {"reference": np.full(10, value), "a": np.full(10, value)}
    assert "<svg" in (plots.plot_histograms(outputs, "a") or "")


def test_an_error_of_zero_can_be_drawn() -> None:
    """Equal to the last bit is a point on the logarithmic axis, not a crash."""
    first = sample.artifacts()[0]
    assert first.verdict is not None
    assert first.verdict.comparison is not None
    exact = replace(
        first, verdict=replace(first.verdict, comparison=replace(first.verdict.comparison, max_error=0.0))
    )
    assert ">executorch-xnnpack-fp32<" in (plots.plot_tradeoff([exact], None) or "")
