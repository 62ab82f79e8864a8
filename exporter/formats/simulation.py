"""Runs a float program as a narrower artifact stores and computes it: its cost, apart from any runtime.

Half precision rounds every weight and every activation to float16, but for what `half_precision` keeps in
float32. Artifacts of 8- and 4-bit weights compute in half precision too. Products are summed in float32:
the order of a runtime's own sums is no part of the model, and the limits' margin is for it.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree

from exporter.formats import half_precision
from exporter.formats.coreml.coreml_compress import (
    BLOCK,
    best_palette_for_coreml_compress,
    chosen_for_coreml_compress,
    smallest_weight_for_coreml_compress,
)
from exporter.quantize import batch_norms
from exporter.records import Precision, Runner, Sample

_OPERATORS: Mapping[str, str] = {
    aten: onnx
    for onnx, names in {
        "BatchNormalization": "batch_norm _native_batch_norm_legit_no_training",
        "LayerNormalization": "layer_norm native_layer_norm rms_norm _fused_rms_norm",
        "GroupNormalization": "group_norm native_group_norm",
        "InstanceNormalization": "instance_norm",
        "Softmax": "softmax _softmax log_softmax _log_softmax _safe_softmax",
        "ReduceSum": "sum prod var std var_mean std_mean norm linalg_vector_norm logsumexp "
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d",
        "ReduceMean": "mean",
        "AveragePool": "avg_pool1d avg_pool2d avg_pool3d",
        "CumSum": "cumsum",
        "Exp": "exp exp2 expm1",
        "Log": "log log2 log10 log1p",
        "Pow": "pow",
        "Square": "square",
        "Sqrt": "sqrt rsqrt",
        "Reciprocal": "reciprocal",
        "Reshape": "view reshape flatten unflatten expand squeeze unsqueeze permute transpose "
        "clone contiguous alias detach",
        "Tanh": "tanh sigmoid erf",
        "Add": "add sub mul div neg abs clamp clamp_min minimum maximum where rsub",
    }.items()
    for aten in names.split()
}
"""ATen operator -> the name that `half` knows one of its kind by."""
_NORMS = frozenset({"BatchNormalization"})
_ELEMENTWISE = frozenset({"Add", "Pow"})
_LARGEST_HALF = float(np.finfo(np.float16).max)


def format_simulation_runner(program: torch.export.ExportedProgram, precision: Precision) -> Runner:
    """The program with its weights and activations rounded.

    Args:
        program: A float program; left as it is.
        precision: One of `records.SIMULATED`.

    Returns:
        A runner that takes and gives what the program does.
    """
    module = copy.deepcopy(program.module())
    batch_norms.fold_batch_norms(module)
    store_simulated_weights(module, precision)
    interpreter = HalfSimulation(module)

    def run(sample: Sample) -> Sample:
        tensors = [torch.from_numpy(np.array(array)) for array in sample]
        with torch.inference_mode():
            outputs = interpreter.run(*tensors)
        return tuple(
            t.float().numpy() if t.is_floating_point() else t.numpy()
            for t in _tensor_leaves_to_simulate(outputs)
        )

    return run


def _tensor_leaves_to_simulate(outputs: Any) -> Iterator[Tensor]:
    return (leaf for leaf in _pytree.tree_leaves(outputs) if isinstance(leaf, Tensor))


class HalfSimulation(fx.Interpreter):
    """Rounds what an operator reads and writes to float16, where a half-precision artifact does.

    Parameters that only half-precision operators read are rounded in the given module, once: rounding a
    large table of words for each sample takes most of the time, and its size in memory once more.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self._float32 = float32_nodes_to_simulate(module.graph)
        self._fused = _fused_nodes_to_simulate(module.graph)
        parameters = _half_parameters_to_simulate(module, self._float32)
        for parameter in parameters:
            for rows in _rows_to_simulate(parameter.detach()):
                rows.copy_(simulate_half(rows))
        self._rounded = frozenset(map(id, parameters))  # the module keeps them

    def run_node(self, n: fx.Node) -> Any:
        """Compute a node, on rounded values unless it stays in float32."""
        if n.op != "call_function" or n in self._float32:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        args, kwargs = _pytree.tree_map(self._half, (args, kwargs))
        if _operator_name_to_simulate(n) in _ELEMENTWISE:
            args = tuple(_simulate_half_constant(value) for value in args)
        result = self.call_function(n.target, args, kwargs)
        return result if n in self._fused else _pytree.tree_map(simulate_half, result)

    def _half(self, value: Any) -> Any:
        return value if id(value) in self._rounded else simulate_half(value)


def _half_parameters_to_simulate(module: fx.GraphModule, float32: frozenset[fx.Node]) -> list[nn.Parameter]:
    """Return the parameters that no operator in float32 reads, under any of their names."""
    readers: dict[nn.Parameter, set[fx.Node]] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        if isinstance(value := operator.attrgetter(str(node.target))(module), nn.Parameter):
            readers.setdefault(value, set()).update(node.users)
    return [
        parameter
        for parameter, users in readers.items()
        if all(user.op == "call_function" and user not in float32 for user in users)
    ]


def _rows_to_simulate(weight: Tensor) -> tuple[Tensor, ...]:
    """Split a tensor into views of whole rows, of about `BLOCK` values each: copies of all take memory."""
    if not weight.dim():
        return (weight,)
    return torch.split(weight, max(1, BLOCK // max(1, weight[:1].numel())))


def simulate_half(value: Any) -> Any:
    """Round a float tensor to float16's values, kept as float32; other values stay as they are.

    What needs no rounding is returned as it is: a later operator may write into it through a view.
    """
    if not isinstance(value, Tensor) or value.dtype not in (torch.float32, torch.float64):
        return value
    rounded = value.half().to(value.dtype)
    return value if torch.equal(rounded, value) else rounded


def _simulate_half_constant(value: Any) -> Any:
    """Round a number that an elementwise operator takes, as artifacts store it as a float16 constant."""
    if not isinstance(value, float):
        return value
    rounded = float(np.float16(value)) if abs(value) <= _LARGEST_HALF else value
    return value if rounded == 0 else rounded


def float32_nodes_to_simulate(graph: fx.Graph) -> frozenset[fx.Node]:
    """Return the nodes of a captured graph that a half-precision artifact computes in float32."""
    calls = [node for node in graph.nodes if node.op == "call_function"]
    nodes = [
        half_precision.HalfNode(
            _operator_name_to_simulate(n),
            tuple(_value_names_to_simulate(n)),
            (n.name,),
            _has_simulated_matrix(n),
        )
        for n in calls
    ]
    outputs = [n.name for n in graph.output_node().all_input_nodes]
    return frozenset(calls[i] for i in half_precision.nodes_not_in_half_precision(nodes, outputs))


def _fused_nodes_to_simulate(graph: fx.Graph) -> frozenset[fx.Node]:
    """Layers that only a batch norm reads: it is folded into their weights, nothing is rounded between."""
    return frozenset(
        node
        for node in graph.nodes
        if node.users and all(_operator_name_to_simulate(user) in _NORMS for user in node.users)
    )


def _operator_name_to_simulate(node: fx.Node) -> str:
    name = str(node.target).removeprefix("aten.").partition(".")[0].rstrip("_")
    if name == "mul" and len(node.args) > 1 and node.args[0] is node.args[1]:
        return "Square"
    return _OPERATORS.get(name, name)


def _value_names_to_simulate(node: fx.Node) -> Iterator[str]:
    return (value.name for value in node.all_input_nodes if value.op != "get_attr")


def _has_simulated_matrix(node: fx.Node) -> bool:
    shapes = [n.meta["val"].shape for n in node.all_input_nodes if n.op == "get_attr" and "val" in n.meta]
    return any(half_precision.is_half_precision_matrix(shape) for shape in shapes)


def store_simulated_weights(module: fx.GraphModule, precision: Precision) -> None:
    """Give the graph's weights of two or more dimensions the values that an artifact stores, in place."""
    if precision == "fp16":
        return
    users = _attributes_to_simulate(module)
    weights = {
        name: value.detach().numpy()
        for name in users
        if _is_simulated_weight(value := operator.attrgetter(name)(module))
    }
    arrays = chosen_for_coreml_compress(
        weights, {name for name in weights if not users[name] <= _ELEMENTWISE}
    )
    small = smallest_weight_for_coreml_compress(arrays) if precision == "w4" else set(arrays)
    for name, array in arrays.items():
        weight = torch.from_numpy(array)
        _simulate_eight_bits(weight) if name in small else _simulate_four_bits(weight)


def _attributes_to_simulate(module: fx.GraphModule) -> Mapping[str, set[str]]:
    """Return the attributes that the graph reads, each with the kinds of the operators that read it."""
    users: dict[str, set[str]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            users.setdefault(str(node.target), set()).update(map(_operator_name_to_simulate, node.users))
    return users


def _is_simulated_weight(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2


def _simulate_eight_bits(weight: Tensor) -> None:
    """Round in place, linearly and symmetrically, with a scale for each output channel."""
    for rows in _rows_to_simulate(weight):
        scale = rows.abs().amax(dim=tuple(range(1, rows.dim())), keepdim=True) / 127
        scale.clamp_(min=float(np.finfo(np.float32).tiny))
        rows.copy_((rows / scale).round_().mul_(scale))


def _simulate_four_bits(weight: Tensor) -> None:
    """Round in place to the best palette of 16 values for the whole tensor, in half precision."""
    palette, positions = best_palette_for_coreml_compress(weight.numpy().astype(np.float16))
    values, places = torch.from_numpy(palette), torch.from_numpy(positions).reshape(weight.shape)
    for rows, chosen in zip(_rows_to_simulate(weight), _rows_to_simulate(places), strict=True):
        rows.copy_(values[chosen.int()])
