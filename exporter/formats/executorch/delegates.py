"""Reads the delegates of a `.pte`: the graphs that XNNPACK and Vulkan execute themselves.

Both are flatbuffers behind a small header. They are turned into JSON by ExecuTorch's `flatc` with the
schemas that the backends ship, in a process of its own: a damaged graph cannot crash ours.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

from exporter.formats.executorch.epsilon_place import epsilon_place
from exporter.formats.executorch.operator_work import (
    Work,
    is_operator_work_elementwise,
    operator_work,
    total_operator_work,
)

Json: TypeAlias = "dict[str, Any]"

BARE_INFINITY = re.compile(rb":\s*(-?)inf\b")
XNNPACK_DTYPES = {
    "xnn_datatype_fp32": "float32",
    "xnn_datatype_fp16": "float16",
    "xnn_datatype_bf16": "bfloat16",
    "xnn_datatype_qint8": "int8",
    "xnn_datatype_quint8": "uint8",
    "xnn_datatype_qint32": "int32",
    "xnn_datatype_qcint8": "int8",
    "xnn_datatype_qcint32": "int32",
    "xnn_datatype_qcint4": "int4",
    "xnn_datatype_qbint4": "int4",
    "xnn_datatype_int32": "int32",
}
VULKAN_COPY = "et_vk.prepack.default"
"""The operator that copies a constant to the GPU: its last argument is the copy."""
XNNPACK_ELEMENTWISE = frozenset(
    {"XNNAdd", "XNNSubtract", "XNNMultiply", "XNNDiv", "XNNMaximum", "XNNMinimum"}
)


@dataclass(frozen=True)
class DelegateWeight:
    """A constant tensor. Two values with the same `key` are one tensor in the file."""

    key: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class DelegateGraph:
    """The graph that a delegate executes."""

    operators: Counter[str]
    weights: tuple[DelegateWeight, ...]
    """Constants, without those that are only added or multiplied elementwise."""
    work: Work
    layer_arguments: frozenset[int]
    """Positions of the call's arguments that an operator other than an elementwise one reads."""
    epsilons: tuple[float, ...] = ()
    """What its norms add to a variance; XNNPACK has no norms."""


def read_delegate(backend_id: str, blob: bytes) -> DelegateGraph:
    """Read a delegate's own graph.

    Args:
        backend_id: "XnnpackBackend" or "VulkanBackend".
        blob: The delegate's payload.

    Raises:
        ValueError: The backend is another, or the payload is damaged.
    """
    if backend_id == "XnnpackBackend":
        return _xnnpack_delegate(_xnnpack_delegate_json(blob))
    if backend_id == "VulkanBackend":
        return _vulkan_delegate(_vulkan_delegate_json(blob))
    raise ValueError(f"unknown delegate {backend_id}")


def _xnnpack_delegate_json(blob: bytes) -> Json:
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    header = XNNHeader.from_bytes(blob[: XNNHeader.EXPECTED_LENGTH])
    start, size = header.flatbuffer_offset, header.flatbuffer_size
    return _delegate_flatbuffer_json("executorch.backends.xnnpack.serialization", blob[start : start + size])


def _vulkan_delegate_json(blob: bytes) -> Json:
    from executorch.backends.vulkan.serialization.vulkan_graph_serialize import extract_vk_flatbuffer

    return _delegate_flatbuffer_json("executorch.backends.vulkan.serialization", extract_vk_flatbuffer(blob))


def _delegate_flatbuffer_json(package: str, flatbuffer: bytes) -> Json:
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    schema = importlib.resources.files(package).joinpath("schema.fbs").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "schema.fbs").write_bytes(schema)
        (directory / "graph.bin").write_bytes(flatbuffer)
        _flatc_decompile(name, str(directory / "schema.fbs"), str(directory / "graph.bin"))
        # flatc writes unbounded activations as bare `inf`, which is no JSON; Python's reader knows Infinity.
        text = BARE_INFINITY.sub(b": \\1Infinity", (directory / "graph.json").read_bytes())
        graph: Json = json.loads(text)
        return graph


def _xnnpack_delegate(graph: Json) -> DelegateGraph:
    tensors = [_xnnpack_delegate_tensor(value) for value in graph["xvalues"]]
    by_id = {tensor["id_out"]: tensor for tensor in tensors}
    nodes = [(node["xnode_union_type"], node["xnode_union"]) for node in graph["xnodes"]]
    layers = _xnnpack_delegate_layer_inputs(nodes)
    return DelegateGraph(
        operators=Counter(kind for kind, _ in nodes),
        weights=tuple(
            _xnnpack_delegate_weight(t, graph["constant_data"])
            for t in tensors
            if t["constant_buffer_idx"] and t["id_out"] in layers
        ),
        work=total_operator_work(_xnnpack_delegate_work(kind, node, by_id) for kind, node in nodes),
        layer_arguments=frozenset(t["external_id"] for t in tensors if t["id_out"] in layers),
    )


def _xnnpack_delegate_layer_inputs(nodes: list[tuple[str, Json]]) -> set[int]:
    """Return the values that an operator other than an elementwise one reads."""
    return {
        value
        for kind, node in nodes
        if kind not in XNNPACK_ELEMENTWISE
        for name, value in node.items()
        if name.endswith("_id")
    }


def _xnnpack_delegate_tensor(value: Json) -> Json:
    union: Json = value["xvalue_union"]
    tensor: Json = union.get("tensor_value", union)
    return tensor


def _xnnpack_delegate_weight(tensor: Json, constants: list[Json]) -> DelegateWeight:
    constant = constants[tensor["constant_buffer_idx"]]
    key = constant["named_key"] or f"offset {constant['offset']}"
    dtype: str = tensor["datatype"]
    return DelegateWeight(key, XNNPACK_DTYPES.get(dtype, dtype), tuple(tensor["dims"]))


def _xnnpack_delegate_work(kind: str, node: Json, tensors: Mapping[int, Json]) -> Work:
    output = tensors[node["output_id" if "output_id" in node else "output_value_id"]]["dims"]
    return Work(_xnnpack_delegate_macs(kind, node, tensors, prod(output)), prod(output))


def _xnnpack_delegate_macs(kind: str, node: Json, tensors: Mapping[int, Json], outputs: int) -> int:
    if kind in ("XNNConv2d", "XNNDepthwiseConv2d"):
        # Every output pixel uses every weight once; a pixel is groups * group_output_channels elements.
        channels: int = node["groups"] * node["group_output_channels"]
        return outputs // channels * _delegate_elements(tensors[node["filter_id"]])
    if kind == "XNNConvTranspose2d":
        channels = int(node["groups"] * node["group_input_channels"])
        return (
            _delegate_elements(tensors[node["input1_id"]])
            // channels
            * _delegate_elements(tensors[node["filter_id"]])
        )
    if kind in ("XNNFullyConnected", "XNNBatchMatrixMultiply"):
        return outputs * int(tensors[node["input1_id"]]["dims"][-1])
    if kind == "XNNScaledDotProductAttention":
        query, key = tensors[node["query_id"]], tensors[node["key_id"]]
        return 2 * _delegate_elements(query) * int(key["dims"][-2])
    return 0


def _delegate_elements(tensor: Json) -> int:
    return int(prod(tensor["dims"]))


def _vulkan_delegate(graph: Json) -> DelegateGraph:
    values = [value["value"] for value in graph["values"]]
    layers = _vulkan_delegate_layer_inputs(graph["chain"])
    tensors = [
        v["value"] for i, v in enumerate(graph["values"]) if v["value_type"] == "VkTensor" and i in layers
    ]
    return DelegateGraph(
        operators=Counter(call["name"] for call in graph["chain"]),
        weights=tuple(
            _vulkan_delegate_weight(t, graph["constants"]) for t in tensors if t["constant_id"] >= 0
        ),
        work=total_operator_work(_vulkan_delegate_work(call, values) for call in graph["chain"]),
        layer_arguments=frozenset(i for i, value in enumerate(graph["input_ids"]) if value in layers),
        epsilons=tuple(_vulkan_delegate_epsilons(graph["chain"], values)),
    )


def _vulkan_delegate_epsilons(chain: list[Json], values: list[Json]) -> Iterator[float]:
    for call in chain:
        namespace, _, name = call["name"].partition(".")
        place = epsilon_place(*name.rsplit(".", 1)) if namespace == "aten" and "." in name else None
        if place is not None and "double_val" in values[call["args"][place]]:
            yield float(values[call["args"][place]]["double_val"])


def _vulkan_delegate_layer_inputs(chain: list[Json]) -> set[int]:
    """Return the values that an operator other than an elementwise one reads."""
    layers: set[int] = set()
    for call in reversed(chain):
        copied = call["name"] == VULKAN_COPY and call["args"][-1] not in layers
        if not (copied or is_operator_work_elementwise(call["name"])):
            layers.update(call["args"])
    return layers


def _vulkan_delegate_weight(tensor: Json, constants: list[Json]) -> DelegateWeight:
    constant = constants[tensor["constant_id"]]
    key = constant["named_key"] or f"offset {constant['offset']}"
    dtype = tensor["staging_datatype"] if tensor["staging_datatype"] != "UNSET" else tensor["datatype"]
    return DelegateWeight(key, dtype.lower(), tuple(tensor["dims"]))


def _vulkan_delegate_work(call: Json, values: list[Json]) -> Work:
    arguments = [values[index] for index in call["args"]]
    tensors = [argument["dims"] for argument in arguments if "dims" in argument]
    return operator_work(call["name"], tensors, any(argument.get("bool_val") for argument in arguments))
