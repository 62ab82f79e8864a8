"""Draw the page's plots as SVG text: identical for identical reports, coloured by the page's variables."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.records import Artifact, CurvePoint, DeviceLatency, Evaluation, Latency, Status
from exporter.verify.accuracy import accuracy_drop, accuracy_drop_interval
from exporter.verify.sweep_decision import enough_by_sweep_decision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE = "reference"
"""The key of the float64 model's values among the outputs."""
WIDTH = 5.0
"""The width of a plot in inches: one column of the page, so that text stays readable on a phone."""
BINS = 48

# matplotlib cannot write CSS variables: it draws in these, and the SVG text is changed afterwards.
INK, FAINT, ACCENT = "#010101", "#020202", "#030303"
STATUS_COLOURS: dict[Status, str] = {
    "passed": "#040404",
    "failed": "#050505",
    "inconclusive": "#080808",
    "not_run": "#060606",
    "error": "#070707",
}
VARIABLES = {INK: "--ink", FAINT: "--faint", ACCENT: "--accent"} | {
    colour: f"--{status.replace('_', '-')}" for status, colour in STATUS_COLOURS.items()
}
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def plot_tradeoff(artifacts: Sequence[Artifact], selected: str | None) -> str | None:
    """Plot host latency against error, marker area by file size; None when no artifact has both."""
    measured = [(a, *pair) for a in artifacts if (pair := _plotted_latency_and_error(a))]
    if not measured:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.15, 0.15, 0.37, 0.81))
        axes.set(yscale="log", xlabel="host p50, ms", ylabel="largest error, of the output's scale")
        axes.margins(0.15)
        for artifact, p50_ms, error in measured:
            area = 24 + (artifact.size_bytes or 0) / 1e5
            edge = ACCENT if artifact.variant.name == selected else "none"
            colour = STATUS_COLOURS[artifact.status]
            axes.scatter(p50_ms, error, s=area, color=colour, alpha=0.75, edgecolor=edge, linewidth=2)
        axes.set_xlim(left=0)
        name_plotted_points(axes, [(a.variant.name, x, y) for a, x, y in measured], selected)

    return plot_svg("tradeoff", 3.6, draw)


def _plotted_latency_and_error(artifact: Artifact) -> tuple[float, float] | None:
    comparison = artifact.verdict.comparison if artifact.verdict else None
    if comparison is None or artifact.latency is None or not math.isfinite(comparison.max_error):
        return None
    # The error axis is logarithmic: equal to the last bit is drawn at float32's resolution.
    return artifact.latency.p50_ms, max(comparison.max_error, 1e-8)


def name_plotted_points(axes: Axes, points: Sequence[tuple[str, float, float]], selected: str | None) -> None:
    """Write names in a column next to the axes, evenly spaced in the points' order, so that none overlap."""
    ordered = sorted(points, key=lambda point: (point[2], -point[1]))
    for index, (name, x, y) in enumerate(ordered):
        axes.annotate(
            name,
            (x, y),
            xytext=(1.14, (index + 0.5) / len(ordered)),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=ACCENT if name == selected else INK,
            arrowprops={
                "arrowstyle": "-",
                "color": FAINT,
                "linewidth": 0.6,
                "shrinkA": 2,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def plot_latencies(artifacts: Sequence[Artifact], selected: str | None) -> str | None:
    """Draw a box plot of all samples, whiskers at p5 and p95; None without samples."""
    timed = [(a, a.latency) for a in artifacts if a.latency and a.latency.samples_ns]
    if not timed:
        return None
    timed.sort(key=lambda pair: -pair[1].p50_ms)
    names = [a.variant.name for a, _ in timed]
    height = 0.7 + 0.34 * len(timed)

    def draw(figure: Figure) -> None:
        bottom = 0.5 / height
        axes = figure.add_axes((0.42, bottom, 0.56, 0.98 - bottom))
        boxes = axes.boxplot([_plot_milliseconds(latency) for _, latency in timed], orientation="horizontal",
                             whis=(5, 95), showfliers=False, widths=0.5, patch_artist=True)  # fmt: skip
        for name, box, median in zip(names, boxes["boxes"], boxes["medians"], strict=True):
            box.set(facecolor=ACCENT if name == selected else FAINT, alpha=0.55, edgecolor=INK)
            median.set(color=INK, linewidth=1.5)
        for line in (*boxes["whiskers"], *boxes["caps"]):
            line.set(color=INK)
        axes.set_yticks(range(1, len(names) + 1), names)
        axes.set_xlim(left=0)
        axes.set_xlabel("ms per call on this host")

    return plot_svg("latencies", height, draw)


def plot_devices(
    measured: Sequence[tuple[str, DeviceLatency]], selected: str | None, budget_ms: float
) -> str | None:
    """Draw a strip of launches per artifact and device, p5 to p95, with the budget; None without launches.

    Args:
        measured: (artifact, its latency on a device).
        selected: The chosen artifact.
        budget_ms: The budget, drawn as a line.
    """
    shown = [(name, item) for name, item in measured if item.launch_ms]
    if not shown:
        return None
    shown.sort(key=lambda pair: -pair[1].p90_ms)
    height = 0.9 + 0.5 * len(shown)

    def draw(figure: Figure) -> None:
        bottom = 0.5 / height
        axes = figure.add_axes((0.42, bottom, 0.56, 0.9 - bottom))
        for row, (name, item) in enumerate(shown):
            _plot_launches(axes, row, item, ACCENT if name == selected else INK)
        labels = [f"{name}\n{_plotted_device_label(item)}" for name, item in shown]
        axes.set_yticks(range(len(shown)), labels, fontsize=9)
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.axvline(budget_ms, color=STATUS_COLOURS["failed"], linestyle="--", linewidth=1.2)
        axes.annotate(f"budget {budget_ms:g} ms", (budget_ms, 1.01), xycoords=("data", "axes fraction"),
                      ha="center", fontsize=9, color=STATUS_COLOURS["failed"])  # fmt: skip
        axes.set_xlim(left=0)
        axes.set_xlabel("ms per call")

    return plot_svg("devices", height, draw)


def _plotted_device_label(item: DeviceLatency) -> str:
    serial = item.serial if len(item.serial) <= 20 else item.serial[:19] + "…"
    word = item.evidence if item.evidence == "measured" else item.evidence.upper()
    return literal_plot_text(f"{word}, {serial}")


def _plot_launches(axes: Axes, row: int, item: DeviceLatency, colour: str) -> None:
    """Draw one line per launch: p5 to p95 thin, p25 to p75 thick, the median as a dot."""
    count = len(item.launch_ms)
    for index, (p5, p25, p50, p75, p95) in enumerate(item.launch_ms):
        y = row + 0.5 * ((index + 0.5) / count - 0.5)
        axes.plot((p5, p95), (y, y), color=colour, linewidth=0.8)
        axes.plot((p25, p75), (y, y), color=colour, linewidth=3, alpha=0.5, solid_capstyle="butt")
        axes.plot((p50,), (y,), marker="o", markersize=2.5, color=colour)


def plot_accuracy(
    artifacts: Sequence[Artifact], evaluation: Evaluation | None, selected: str | None
) -> str | None:
    """Plot points of top-1 lost against float32, with intervals and the limit; None without labels."""
    shown = [(a.variant.name, a.accuracy) for a in artifacts if a.accuracy]
    if evaluation is None or not shown:
        return None
    shown.sort(key=lambda pair: -accuracy_drop(pair[1]))
    height = 0.8 + 0.34 * len(shown)

    def draw(figure: Figure) -> None:
        bottom = 0.5 / height
        axes = figure.add_axes((0.42, bottom, 0.56, 0.9 - bottom))
        for row, (name, counts) in enumerate(shown):
            colour = ACCENT if name == selected else INK
            axes.plot(accuracy_drop_interval(counts), (row, row), color=colour, linewidth=1.2)
            axes.plot((accuracy_drop(counts),), (row,), marker="o", markersize=5, color=colour)
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.axvline(0, color=FAINT, linewidth=1)
        axes.axvline(evaluation.max_drop, color=STATUS_COLOURS["failed"], linestyle="--", linewidth=1.2)
        axes.annotate("may be lost", (evaluation.max_drop, 1.01), xycoords=("data", "axes fraction"),
                      ha="center", fontsize=9, color=STATUS_COLOURS["failed"])  # fmt: skip
        axes.set_xlabel("points of top-1 lost")

    return plot_svg("accuracy", height, draw)


def plot_calibration(points: Sequence[CurvePoint]) -> str | None:
    """Plot SQNR and agreement over the number of calibration samples; the sufficient number is marked."""
    shown = [point for point in points if math.isfinite(point.sqnr_db)]
    if len(shown) < 2:
        return None
    least = enough_by_sweep_decision(shown)

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.14, 0.18, 0.72, 0.74))
        counts = [point.count for point in shown]
        axes.plot(counts, [point.sqnr_db for point in shown], marker="o", markersize=4, color=INK)
        axes.plot((least.count,), (least.sqnr_db,), marker="o", markersize=9, color=ACCENT)
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set(xlabel="calibration samples", ylabel="SQNR, dB")
        shares = [point.agreement for point in shown if point.agreement is not None]
        if len(shares) == len(shown):
            right = axes.twinx()
            right.spines["right"].set_visible(True)
            right.plot(counts, [100 * share for share in shares], color=FAINT, linestyle="--")
            right.set_ylabel("agreement, % (dashed)")

    return plot_svg("calibration", 2.6, draw)


def _plot_milliseconds(latency: Latency) -> list[float]:
    return [ns / 1e6 for ns in latency.samples_ns]


def plot_histograms(outputs: Mapping[str, np.ndarray], selected: str | None) -> str | None:
    """Draw each artifact's outputs (line) over the float64 model's (filled); None without a reference."""
    values = {name: _finite_plot_values(array) for name, array in outputs.items()}
    reference = values.pop(REFERENCE, np.empty(0))
    shown = {name: array for name, array in sorted(values.items()) if array.size}
    if not reference.size or not shown:
        return None
    edges = _plot_bin_edges(reference)
    rows = math.ceil(len(shown) / 2)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, 2, sharex=True, squeeze=False)
        for axes, (name, array) in zip(grid.flat, shown.items(), strict=False):
            _plot_histogram(axes, edges, reference, array, ACCENT if name == selected else INK)
            axes.set_title(name, fontsize=9, color=INK, loc="left")
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        figure.supxlabel("output value", fontsize=10)
        figure.tight_layout()

    return plot_svg("histograms", 0.7 + 1.15 * rows, draw)


def _plot_histogram(
    axes: Axes, edges: np.ndarray, reference: np.ndarray, array: np.ndarray, colour: str
) -> None:
    # Clipped, so that values outside the reference's range show as a peak at the border.
    clipped = np.clip(array, edges[0], edges[-1])
    axes.stairs(np.histogram(reference, edges)[0] / reference.size, edges, fill=True, color=FAINT, alpha=0.45)
    axes.stairs(np.histogram(clipped, edges)[0] / array.size, edges, color=colour, linewidth=1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _plot_bin_edges(reference: np.ndarray) -> np.ndarray:
    """Return the edges of BINS equal bins over the reference; a constant reference gets a range around it."""
    low, high = float(reference.min()), float(reference.max())
    scale = max(abs(low), abs(high)) or 1.0
    if high - low < 1e-6 * scale:
        low, high = low - 0.5 * scale, high + 0.5 * scale
    return np.linspace(low, high, BINS + 1)


def _finite_plot_values(array: np.ndarray) -> np.ndarray:
    flat = np.asarray(array, dtype=np.float64).reshape(-1)
    return flat[np.isfinite(flat)]


def literal_plot_text(text: str) -> str:
    """Escape text from outside: matplotlib reads a dollar sign as mathematics."""
    return text.replace("$", r"\$")


def plot_svg(name: str, height: float, draw: Callable[[Figure], None]) -> str:
    """Draw on a figure of its own (no pyplot, no global state) and return the bare `<svg>` element."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {**SETTINGS, "svg.hashsalt": name}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    return _inline_plot_svg(buffer.getvalue())


def _inline_plot_svg(text: str) -> str:
    """Remove prologue, fixed size and the groups' ids, which would clash; make colours CSS variables."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
