"""Count and describe the networks of published latencies, once. `benchmarks/estimate.py` is the program."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import estimate_fit, estimate_nets, estimate_pixel_nets
from benchmarks.estimate_judging import row_key
from benchmarks.estimate_rows import Row
from exporter.emulated import arm_tools, cores
from exporter.estimate import instruction_counts
from exporter.estimate import qemu_plugin as counting
from exporter.estimate.graph_work import GraphWork
from exporter.estimate.instruction_counts import Counts
from exporter.estimate.latency_model import Work
from exporter.pipeline.cache import default_cache_root


def gathered_works(
    rows: Sequence[Row], kept: Path, counted: bool = False
) -> tuple[dict[str, Work], dict[str, float]]:
    """Count what has not been counted yet, and time it on this host; return both by row's key."""
    known = json.loads(kept.read_text()) if kept.exists() else {}
    works, hosts = {}, {}
    for row in {row_key(row): row for row in rows}.values():
        key = row_key(row)
        if not _is_described(known.get(key)) and not counted:
            begin = time.monotonic()
            known[key] = _described(row, known.get(key))
            kept.write_text(json.dumps(known, indent=1))
            print(f"{key}: written, counted and described in {time.monotonic() - begin:.0f} s", flush=True)
        item = known.get(key, {})
        graph = _graph_of_kept(item.get("graph"))
        if row.flops:
            works[key] = Work(None, int(row.flops), int(row.weight_bytes), 0, graph)
        elif item:
            counts = Counts(**item["counts"])
            works[key] = Work(counts, item["flops"], item["weight_bytes"], item["kernels"], graph)
            hosts[key] = item["host_ms"]
    return works, hosts


OF_GRAPH = tuple(item.name for item in fields(GraphWork) if item.name != "missed_bytes")
"""What is kept of a graph, beside what it misses in each cache."""


def _is_described(item: Mapping[str, Any] | None) -> bool:
    """Tell whether a network was described with all that is kept today."""
    return set(OF_GRAPH) <= set((item or {}).get("graph", ()))


def _graph_of_kept(item: Mapping[str, int] | None) -> GraphWork | None:
    if not item:
        return None
    return GraphWork(missed_bytes=item["missed_last"], **{name: item[name] for name in OF_GRAPH})


def _described(row: Row, item: dict[str, Any] | None) -> dict[str, Any]:
    """Return a row's network with its graph; count it unless it was."""
    if row.flops:
        return {"graph": estimate_pixel_nets.describe_pixel_network(row.model, row.flops)}
    if not item:
        return _counted(row)
    with tempfile.TemporaryDirectory() as name:
        path, _ = estimate_nets.write_network(row.model, "fp32", Path(name))
        return {**item, **estimate_nets.describe_network(path, row.precision == "int8")}


def _counted(row: Row) -> dict[str, Any]:
    cache = default_cache_root()
    ready = arm_tools.prepare_arm_tools(cache)
    plugin = counting.make_qemu_plugin(ready.folder)
    target = estimate_fit.REFERENCE
    root = arm_tools.root_of_arm_tools(target, ready)
    with tempfile.TemporaryDirectory() as name:
        path, shape = estimate_nets.write_network(row.model, row.precision, Path(name))
        sample = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        counts = instruction_counts.count_instructions(
            ready, plugin, root, cores.emulated_core(target), "onnxruntime", path, (sample,), Path(name)
        )
        return {
            "counts": asdict(counts),
            **estimate_nets.describe_network(
                path.with_name(path.name.replace("-int8", "-fp32")), row.precision == "int8"
            ),
            "host_ms": estimate_nets.time_network(path, sample),
        }
