"""The operators of MIL that the interpreter computes, by name. What is not here is refused by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from exporter.formats.coreml.interpreter import activations, arrangements, constants, convolutions
from exporter.formats.coreml.interpreter import elementwise as element
from exporter.formats.coreml.interpreter import indexing, lists, matrices, norms, ordering, pooling, recurrent
from exporter.formats.coreml.interpreter import reductions as reduce
from exporter.formats.coreml.interpreter import resizing
from exporter.formats.coreml.interpreter.call import Call, Result
from exporter.formats.coreml.interpreter.inference import inference

Operator: TypeAlias = Callable[[Call], Result]

OPERATORS: Mapping[str, Operator] = {
    # convolutions.py
    "conv": convolutions.convolution,
    "conv_transpose": convolutions.transposed_convolution,
    # pooling.py
    "avg_pool": pooling.average_pooling,
    "max_pool": pooling.largest_pooling,
    "l2_pool": pooling.l2_pooling,
    # norms.py
    "batch_norm": norms.batch_norm,
    "instance_norm": norms.instance_norm,
    "layer_norm": norms.layer_norm,
    "l2_norm": norms.l2_norm,
    "local_response_norm": norms.local_response_norm,
    # matrices.py
    "matmul": matrices.matrix_product,
    "linear": matrices.matrix_linear,
    "einsum": matrices.matrix_einsum,
    "scaled_dot_product_attention": matrices.matrix_attention,
    # recurrent.py
    "rnn": recurrent.recurrent_simple,
    "gru": recurrent.recurrent_gru,
    "lstm": recurrent.recurrent_lstm,
    # activations.py
    "clamped_relu": activations.activation_clamped_relu,
    "clip": activations.activation_clip,
    "elu": activations.activation_elu,
    "gelu": activations.activation_gelu,
    "leaky_relu": activations.activation_leaky_relu,
    "linear_activation": activations.activation_linear,
    "prelu": activations.activation_prelu,
    "relu": activations.activation_relu,
    "relu6": activations.activation_relu6,
    "scaled_tanh": activations.activation_scaled_tanh,
    "sigmoid": activations.activation_sigmoid,
    "sigmoid_hard": activations.activation_sigmoid_hard,
    "silu": activations.activation_silu,
    "softmax": activations.activation_softmax,
    "softplus": activations.activation_softplus,
    "softplus_parametric": activations.activation_softplus_parametric,
    "softsign": activations.activation_softsign,
    "threshold": activations.activation_threshold,
    "thresholded_relu": activations.activation_thresholded_relu,
    # elementwise.py: of one value
    "abs": element.elementwise_unary(torch.abs),
    "acos": element.elementwise_unary(torch.acos),
    "asin": element.elementwise_unary(torch.asin),
    "atan": element.elementwise_unary(torch.atan),
    "atanh": element.elementwise_unary(torch.atanh),
    "cast": element.elementwise_cast,
    "ceil": element.elementwise_unary(torch.ceil),
    "cos": element.elementwise_unary(torch.cos),
    "cosh": element.elementwise_unary(torch.cosh),
    "erf": element.elementwise_unary(torch.erf),
    "exp": element.elementwise_unary(torch.exp),
    "exp2": element.elementwise_unary(torch.exp2),
    "floor": element.elementwise_unary(torch.floor),
    "identity": element.elementwise_unary(torch.clone),
    "inverse": element.elementwise_inverse,
    "log": element.elementwise_log,
    "logical_not": element.elementwise_unary(torch.logical_not),
    "round": element.elementwise_unary(torch.round),
    "rsqrt": element.elementwise_rsqrt,
    "sign": element.elementwise_unary(torch.sign),
    "sin": element.elementwise_unary(torch.sin),
    "sinh": element.elementwise_unary(torch.sinh),
    "sqrt": element.elementwise_unary(torch.sqrt),
    "square": element.elementwise_unary(torch.square),
    "tan": element.elementwise_unary(torch.tan),
    "tanh": element.elementwise_unary(torch.tanh),
    # elementwise.py: of several values
    "add": element.elementwise_binary(torch.add),
    "equal": element.elementwise_binary(torch.eq),
    "floor_div": element.elementwise_binary(torch.floor_divide),
    "greater": element.elementwise_binary(torch.gt),
    "greater_equal": element.elementwise_binary(torch.ge),
    "less": element.elementwise_binary(torch.lt),
    "less_equal": element.elementwise_binary(torch.le),
    "logical_and": element.elementwise_binary(torch.logical_and),
    "logical_or": element.elementwise_binary(torch.logical_or),
    "logical_xor": element.elementwise_binary(torch.logical_xor),
    "maximum": element.elementwise_binary(torch.maximum),
    "minimum": element.elementwise_binary(torch.minimum),
    "mod": element.elementwise_binary(torch.remainder),
    "mul": element.elementwise_binary(torch.mul),
    "not_equal": element.elementwise_binary(torch.ne),
    "pow": element.elementwise_binary(torch.pow),
    "real_div": element.elementwise_binary(element.elementwise_real_division),
    "select": element.elementwise_select,
    "sub": element.elementwise_binary(torch.sub),
    # reductions.py
    "cumsum": reduce.reduction_cumulative,
    "reduce_argmax": reduce.reduction_position(largest=True),
    "reduce_argmin": reduce.reduction_position(largest=False),
    "reduce_l1_norm": reduce.reduction(reduce.reduction_l1_norm),
    "reduce_l2_norm": reduce.reduction(reduce.reduction_l2_norm),
    "reduce_log_sum": reduce.reduction(reduce.reduction_log_sum),
    "reduce_log_sum_exp": reduce.reduction(torch.logsumexp),
    "reduce_max": reduce.reduction(torch.amax),
    "reduce_mean": reduce.reduction(reduce.reduction_mean),
    "reduce_min": reduce.reduction(torch.amin),
    "reduce_prod": reduce.reduction(reduce.reduction_product),
    "reduce_sum": reduce.reduction(torch.sum),
    "reduce_sum_square": reduce.reduction(reduce.reduction_sum_square),
    # ordering.py
    "argsort": ordering.ordering_positions,
    "non_maximum_suppression": ordering.ordering_suppression,
    "topk": ordering.ordering_top,
    # indexing.py
    "gather": indexing.index_gather,
    "gather_along_axis": indexing.index_gather_along,
    "gather_nd": indexing.index_gather_many,
    "one_hot": indexing.index_one_hot,
    "scatter": indexing.index_scatter,
    "scatter_along_axis": indexing.index_scatter_along,
    "scatter_nd": indexing.index_scatter_many,
    # resizing.py
    "affine": resizing.resize_affine,
    "crop_resize": resizing.resize_crops,
    "resample": resizing.resize_at_coordinates,
    "resize": resizing.resize_any,
    "resize_bilinear": resizing.resize_bilinear,
    "resize_nearest_neighbor": resizing.resize_nearest,
    "upsample_bilinear": resizing.resize_bilinear_by_factor,
    "upsample_nearest_neighbor": resizing.resize_nearest_by_factor,
    # arrangements.py
    "batch_to_space": arrangements.arrange_batch_to_space,
    "crop": arrangements.arrange_crop,
    "depth_to_space": arrangements.arrange_depth_to_space,
    "pixel_shuffle": arrangements.arrange_pixel_shuffle,
    "pixel_unshuffle": arrangements.arrange_pixel_unshuffle,
    "reshape_like": arrangements.arrange_reshape_like,
    "sliding_windows": arrangements.arrange_windows,
    "space_to_batch": arrangements.arrange_space_to_batch,
    "space_to_depth": arrangements.arrange_space_to_depth,
    # constants.py
    "constexpr_affine_dequantize": constants.constant_from_scale,
    "constexpr_blockwise_shift_scale": constants.constant_from_blocks,
    "constexpr_cast": constants.constant_cast,
    "constexpr_lut_to_dense": constants.constant_from_palette,
    "constexpr_sparse_to_dense": constants.constant_from_sparse,
    # lists.py
    "list_gather": lists.list_gathered,
    "list_length": lists.list_length,
    "list_read": lists.list_read,
    "list_scatter": lists.list_scattered,
    "list_write": lists.list_written,
    "make_list": lists.list_made,
    # inference.py: coremltools' own
    **dict.fromkeys(
        (
            "band_part",
            "concat",
            "expand_dims",
            "fill",
            "fill_like",
            "flatten2d",
            "non_zero",
            "pad",
            "range_1d",
            "reshape",
            "reverse",
            "reverse_sequence",
            "shape",
            "slice_by_index",
            "slice_by_size",
            "slice_update",
            "split",
            "squeeze",
            "stack",
            "tile",
            "transpose",
        ),
        inference,
    ),
}
"""MIL name -> function. `cond` and `while_loop` are in `program.py`, which runs their blocks."""
