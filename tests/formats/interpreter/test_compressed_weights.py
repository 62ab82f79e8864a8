"""Weights that coremltools' own optimisers compress, one way or two at once, are decoded exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.formats.coreml.coreml_compress import coreml_operations_to_compress
from exporter.formats.coreml.coreml_package import coremltools_quietly_for_package
from exporter.formats.coreml.interpreter import constants, load_interpreter
from exporter.formats.coreml.interpreter import mil_program as interpreter
from exporter.formats.coreml.interpreter.mil_call import Call, Value

Compress = Callable[[Any, Any], Any]
"""Takes coremltools' `optimize.coreml` and a model; returns the compressed model."""


class Net(nn.Module):
    """Layers whose weights are zeros and sixteenths, so that pruning and palettes lose nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 16, 3, padding=1)
        self.head = nn.Linear(16, 12)
        generator = torch.Generator().manual_seed(0)
        for layer in (self.conv, self.head):
            shape = layer.weight.shape
            values = torch.randint(1, 8, shape, generator=generator) / 16
            signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
            keep = torch.rand(shape, generator=generator) < 0.4
            values.view(shape[0], -1)[:, 0], keep.view(shape[0], -1)[:, 0] = 7 / 16, True
            layer.weight = nn.Parameter(values * signs * keep)
            layer.bias = nn.Parameter(torch.arange(shape[0]) % 5 / 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return y


def converted() -> tuple[nn.Module, Any, np.ndarray]:
    """Return the network, coremltools' model of it for iOS 18 in float32, and an input."""
    ct = coremltools_quietly_for_package()
    net, x = Net().eval(), torch.linspace(-1, 1, 4 * 6 * 6).reshape(1, 4, 6, 6)
    model = ct.convert(
        torch.jit.trace(net, x),  # type: ignore[no-untyped-call]
        inputs=[ct.TensorType("x", x.shape)],
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    return net, model, x.numpy()


def pruned(cto: Any, model: Any) -> Any:
    config = cto.OpThresholdPrunerConfig(threshold=1e-3, minimum_sparsity_percentile=0.1, weight_threshold=0)
    return cto.prune_weights(model, cto.OptimizationConfig(config))


def palettized(cto: Any, model: Any, joint: bool = False) -> Any:
    config = cto.OpPalettizerConfig(mode="unique", weight_threshold=0)
    return cto.palettize_weights(model, cto.OptimizationConfig(config), joint_compression=joint)


def palettized_by_groups(cto: Any, model: Any) -> Any:
    config = cto.OpPalettizerConfig(
        mode="kmeans", nbits=4, granularity="per_grouped_channel", group_size=4, weight_threshold=0
    )
    return cto.palettize_weights(model, cto.OptimizationConfig(config))


def quantized(cto: Any, model: Any, joint: bool = False, dtype: str = "int8", **options: Any) -> Any:
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype=dtype, weight_threshold=0, **options)
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(config), joint_compression=joint)


WAYS: dict[str, tuple[Compress, set[str], float]] = {
    "pruned": (pruned, {"constexpr_sparse_to_dense"}, 1e-6),
    "a palette": (palettized, {"constexpr_lut_to_dense"}, 1e-6),
    "a palette for each four channels": (palettized_by_groups, {"constexpr_lut_to_dense"}, 1e-6),
    "int8": (quantized, {"constexpr_blockwise_shift_scale"}, 0.02),
    "int4": (
        lambda cto, model: quantized(cto, model, dtype="int4"),
        {"constexpr_blockwise_shift_scale"},
        0.2,
    ),
    "pruned, then a palette": (
        lambda cto, model: palettized(cto, pruned(cto, model), True),
        {"constexpr_lut_to_sparse", "constexpr_sparse_to_dense"},
        1e-6,
    ),
    "pruned, then int8": (
        lambda cto, model: quantized(cto, pruned(cto, model), True),
        {"constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense"},
        0.02,
    ),
    "a palette of int8": (
        lambda cto, model: quantized(cto, palettized(cto, model), True, granularity="per_tensor"),
        {"constexpr_blockwise_shift_scale", "constexpr_lut_to_dense"},
        0.02,
    ),
    "pruned, then a palette of int8": (
        lambda cto, model: quantized(
            cto, palettized(cto, pruned(cto, model), True), True, granularity="per_tensor"
        ),
        {"constexpr_lut_to_sparse", "constexpr_sparse_to_dense", "constexpr_blockwise_shift_scale"},
        0.02,
    ),
}
"""Name -> what compresses, the operators that the program must have, and the share that rounding may cost."""


@pytest.fixture(scope="module")
def model() -> tuple[nn.Module, Any, np.ndarray]:
    return converted()


@pytest.mark.parametrize("way", WAYS)
def test_compressed_weights_are_decoded(
    way: str, model: tuple[nn.Module, Any, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package that coremltools writes has the operators, and gives what PyTorch gives."""
    import coremltools.optimize.coreml as cto

    compress, operators, share = WAYS[way]
    net, original, x = model
    path = tmp_path / "net.mlpackage"
    compress(cto, original).save(str(path))
    kinds: set[str] = set()

    def seen(function: Any) -> None:
        kinds.update(operation.op_type for operation in coreml_operations_to_compress(function))

    monkeypatch.setattr(interpreter, "check_mil_program_operators", seen)
    run, _ = load_interpreter(path)
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    (actual,) = run((x,))
    assert operators <= kinds
    np.testing.assert_allclose(actual, expected, rtol=0, atol=share * np.abs(expected).max())


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sparse", [False, True])
def test_palettes_of_vectors(axis: int, sparse: bool) -> None:
    """Each position stands for a vector along one axis, also where only some positions are stored."""
    generator = np.random.default_rng(axis)
    positions = generator.integers(0, 4, (2, 4, 3)).astype(np.uint8)
    mask = generator.random(positions.shape) < 0.5
    palettes = generator.normal(size=(1, 2, 1, 4, 3)).astype(np.float16)
    expected = np.zeros(
        [size * (3 if i == axis else 1) for i, size in enumerate(positions.shape)], np.float16
    )
    for place in np.ndindex(positions.shape):
        if sparse and not mask[place]:
            continue
        for step in range(3):
            where = [p * 3 + step if i == axis else p for i, p in enumerate(place)]
            expected[tuple(where)] = palettes[0, place[1] // 2, 0, positions[place], step]
    given: dict[str, Value] = {"lut": palettes, "vector_axis": np.array(axis, np.int32)}
    if not sparse:
        dense = constants.constant_from_palette(Call("constexpr", {**given, "indices": positions}))
        np.testing.assert_array_equal(dense, expected)
        return
    stored: dict[str, Value] = {
        "indices_mask": mask.astype(np.uint8),
        "indices_nonzero_data": positions[mask],
    }
    wide, values = constants.constant_from_sparse_palette(Call("constexpr", {**given, **stored}))
    dense = constants.constant_from_sparse(Call("constexpr", {"nonzero_data": values, "mask": wide}))
    np.testing.assert_array_equal(dense, expected)
