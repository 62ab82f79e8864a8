"""Estimate common networks in ONNX Runtime on a Snapdragon 865, from counts and from the graph alone.

python -m benchmarks.estimate_orientation [NAME ...]

Networks are torchvision's, with random weights. Nothing published is compared: the table shows orders of
magnitude, and where the graph's interval does not hold what follows from counted instructions. Counting needs
what `export-mobile doctor --prepare` prepares.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import estimate_nets
from benchmarks.estimate_fit import REFERENCE
from exporter.emulated import arm_tools, cores
from exporter.estimate import instruction_counts, latency_model, operator_split, parameters, qemu_plugin
from exporter.estimate.instruction_counts import Counts
from exporter.pipeline.cache import default_cache_root
from exporter.records import EstimatedLatency, Precision

SHAPE = (1, 3, 224, 224)
NETWORKS = (
    "mobilenet_v3_small",
    "shufflenet_v2_x1_0",
    "mobilenet_v3_large",
    "mobilenet_v2",
    "mnasnet1_0",
    "squeezenet1_1",
    "efficientnet_b0",
    "regnet_y_400mf",
    "resnet18",
    "resnet50",
)
HEADER = (
    "| network | million multiply-accumulates | float32, counted | from the graph | int8, counted | "
    "from the graph |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Pair:
    """One network in one precision, estimated twice, on one and on four threads each."""

    counted: tuple[EstimatedLatency, ...]
    by_graph: tuple[EstimatedLatency, ...]

    @property
    def contradicts(self) -> bool:
        """Tell whether a counted median lies outside the graph's interval."""
        pairs = zip(self.counted, self.by_graph, strict=True)
        return any(not graph.low_ms <= counts.p50_ms <= graph.high_ms for counts, graph in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NETWORKS, help="torchvision's names; ten when left out")
    print(HEADER, flush=True)
    for name in parser.parse_args().names:
        with tempfile.TemporaryDirectory() as folder:
            print(orientation_row(name, Path(folder)), flush=True)


def orientation_row(name: str, folder: Path) -> str:
    """Return the table's row of a network."""
    files: dict[Precision, Path] = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}
    estimate_nets.write_torchvision_model(name, SHAPE, files["fp32"])
    estimate_nets.quantize_network(files["fp32"], files["int8"], SHAPE)
    described = estimate_nets.describe_network(files["fp32"], narrow=False)
    cells = [name, f"{described['flops'] / 2e6:,.0f}"]
    for precision, path in files.items():
        pair = estimated_pair(path, files["fp32"], precision, described["weight_bytes"], described["kernels"])
        cells += [_orientation_cell(pair.counted), _orientation_cell(pair.by_graph)]
        cells[-1] = f"**{cells[-1]}**" if pair.contradicts else cells[-1]
    return f"| {' | '.join(cells)} |"


def _orientation_cell(estimates: tuple[EstimatedLatency, ...]) -> str:
    return " and ".join(f"{item.p50_ms:.3g}" for item in estimates)


def estimated_pair(path: Path, graph: Path, precision: Precision, weight_bytes: int, kernels: int) -> Pair:
    """Estimate a file from counts and from the graph.

    Args:
        path: The file.
        graph: Its network in float32.
        precision: Its precision.
        weight_bytes: Those of the network in float32.
        kernels: Its convolutions and matrix products.
    """
    width = 1 if precision == "int8" else 4
    operators = operator_split.operators_to_split(graph)
    shipped, work = parameters.load_parameters(), latency_model.graph_work_for_latency_model
    fit = shipped.fits[f"onnxruntime {precision}"]
    estimates = []
    for counts in (orientation_counts(path), None):
        known = latency_model.Work(
            counts, 0, weight_bytes * width // 4, kernels, work(operators, REFERENCE, width)
        )
        estimates.append(
            tuple(
                latency_model.estimate_by_latency_model(known, REFERENCE, shipped, fit, precision, threads)
                for threads in latency_model.THREADS
            )
        )
    return Pair(*estimates)


def orientation_counts(path: Path) -> Counts:
    """Count a file in ONNX Runtime's Arm library."""
    ready = arm_tools.prepare_arm_tools(default_cache_root())
    sample = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        return instruction_counts.count_instructions(
            ready, qemu_plugin.make_qemu_plugin(ready.folder),
            arm_tools.root_of_arm_tools(REFERENCE, ready), cores.emulated_core(REFERENCE),
            "onnxruntime", path, (sample,), Path(folder),
        )  # fmt: skip


if __name__ == "__main__":
    main()
