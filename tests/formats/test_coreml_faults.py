"""Faults planted in written Core ML packages fail verification for their own reason, off a Mac too."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter.formats.coreml as coreml
from benchmarks.zoo import image
from exporter.formats import VARIANTS
from exporter.formats.coreml.coreml_package import Package, read_coreml_package, write_coreml_package
from exporter.records import Captured, Sample
from tests import proof

BLOB = struct.Struct("<IIQQ40x")
DTYPES = {"FLOAT16": np.float16, "FLOAT32": np.float32, "UINT8": np.uint8, "INT8": np.int8}


class Net(nn.Module):
    """Layers whose options a package can get wrong, with two outputs of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.pool = nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False)
        self.second = nn.Conv2d(24, 24, 3)
        self.stride = 3
        self.one = nn.Linear(24, 6)
        self.other = nn.Linear(24, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.pool(self.first(x).relu())
        x = self.second(x).relu()[:, :, :, 1 :: self.stride].mean((2, 3))
        return self.one(x), self.other(x).softmax(-1)


@dataclass(frozen=True, eq=False)
class Made:
    """One network with its packages and evidence."""

    captured: Captured
    folder: Path
    files: dict[str, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("faults")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Net().eval()
    with torch.no_grad():
        for layer in (net.first, net.second, net.one, net.other):
            # 16 values a tensor, so that palettes cost next to nothing.
            step = layer.weight.abs().max() / 7
            layer.weight.copy_((layer.weight / step).round() * step)
        for head in (net.one, net.other):
            head.weight.mul_(6)
    generator = np.random.default_rng(0)
    make = image(1, 3, 17, 18)
    samples: Sequence[Sample] = [(make(generator),) for _ in range(24)]
    captured = proof.capture(net, samples, folder)
    files = {}
    for variant in ("coreml-fp16", "coreml-w8", "coreml-w4"):
        verdict = proof.prove(captured, variant, folder)
        assert verdict.status in ("passed", "inconclusive"), verdict.reason
        assert verdict.executor == "reference interpreter"
        files[variant] = folder / f"{variant}.mlpackage"
    return Made(captured, folder, files)


class Edited:
    """A package whose program and weights can be changed in place."""

    def __init__(self, path: Path) -> None:
        package = read_coreml_package(path)
        self.spec, self.weights = package.spec, bytearray(package.weights)
        function = self.spec.mlProgram.functions["main"]
        self.operations = next(iter(function.block_specializations.values())).operations

    def of_type(self, kind: str, index: int = 0) -> Any:
        return [operation for operation in self.operations if operation.type == kind][index]

    def constant(self, operation: Any, name: str) -> Any:
        """Return the message of a constant argument."""
        binding = operation.inputs[name].arguments[0]
        if binding.WhichOneof("binding") == "value":
            return binding.value
        (source,) = [o for o in self.operations if o.outputs[0].name == binding.name]
        return source.attributes["val"]

    def array(self, operation: Any, name: str) -> np.ndarray:
        """Return a view of a constant in the weight file; writing to it changes the file."""
        value = operation.attributes[name] if name in operation.attributes else self.constant(operation, name)
        _, kind, length, start = BLOB.unpack_from(self.weights, value.blobFileValue.offset)
        del kind
        types = value.type.tensorType
        dtype = DTYPES[
            types.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[types.dataType].name
        ]
        return np.frombuffer(self.weights, np.uint8)[start : start + length].view(dtype)


def one_wrong_weight(package: Edited) -> None:
    weight = package.array(package.of_type("conv"), "weight")
    weight[np.abs(weight).argmax()] *= -1


def dropped_bias(package: Edited) -> None:
    package.array(package.of_type("conv"), "bias")[:] = 0


def swapped_filters(package: Edited) -> None:
    weight = package.array(package.of_type("conv", 1), "weight").reshape(24, -1)
    weight[[3, 4]] = weight[[4, 3]].copy()


def overflow(package: Edited) -> None:
    """What the first layer multiplies the second divides by: the same in float32, infinite in float16."""
    for name in ("weight", "bias"):
        values = package.array(package.of_type("conv"), name)
        values[:] = (values.astype(np.float32) * 2.0**17).astype(np.float16)
    package.array(package.of_type("conv", 1), "weight")[:] *= np.float16(2.0**-17)


def padding_of_pool(package: Edited) -> None:
    name = "exclude_padding_from_average"
    package.constant(package.of_type("avg_pool"), name).immediateValue.tensor.bools.values[0] = False


def kernel_of_pool(package: Edited) -> None:
    package.constant(package.of_type("avg_pool"), "kernel_sizes").immediateValue.tensor.ints.values[0] = 2


def exchanged_outputs(package: Edited) -> None:
    actual = [feature.name for feature in package.spec.description.output]
    names = {actual[0]: actual[1], actual[1]: actual[0]}
    for operation in package.operations:
        for output in operation.outputs:
            output.name = names.get(output.name, output.name)


def another_activation(package: Edited) -> None:
    package.of_type("relu", 1).type = "abs"


def another_axis(package: Edited) -> None:
    package.constant(package.of_type("softmax"), "axis").immediateValue.tensor.ints.values[0] = 0


def palettes(package: Edited) -> Iterator[Any]:
    return (operation for operation in package.operations if operation.type == "constexpr_lut_to_dense")


def lookup(package: Edited, name: str) -> np.ndarray:
    """Return the palette or the packed positions of the largest palettised weight."""
    return max((package.array(operation, name) for operation in palettes(package)), key=len)


def swapped_palette_entry(package: Edited) -> None:
    palette = lookup(package, "lut")
    palette[[4, 11]] = palette[[11, 4]].copy()


def swapped_positions(package: Edited) -> None:
    positions = lookup(package, "indices")
    positions[:] = (positions >> 4) | (positions << 4)


def integers(package: Edited) -> Any:
    return package.of_type("constexpr_affine_dequantize", 1)


def doubled_scale(package: Edited) -> None:
    package.array(integers(package), "scale")[5] *= 2


def shifted_integers(package: Edited) -> None:
    stored = package.array(integers(package), "quantized_data")
    stored[:] = np.clip(stored.astype(int) + 6, -127, 127)


WORDS = "simulated error|dB SQNR|its own variation|axis"
FAULTS: dict[str, tuple[str, Callable[[Edited], None], str]] = {
    "one wrong weight": ("coreml-fp16", one_wrong_weight, WORDS),
    "a dropped bias": ("coreml-fp16", dropped_bias, WORDS),
    "two filters swapped": ("coreml-fp16", swapped_filters, WORDS),
    "an overflow of float16": ("coreml-fp16", overflow, "NaN or Inf"),
    "padding that counts": ("coreml-fp16", padding_of_pool, WORDS),
    "another pooling window": ("coreml-fp16", kernel_of_pool, WORDS),
    "exchanged outputs": ("coreml-fp16", exchanged_outputs, "outputs are exchanged"),
    "another activation": ("coreml-fp16", another_activation, WORDS),
    "softmax along another axis": ("coreml-fp16", another_axis, "constant|different|" + WORDS),
    "a swapped palette entry": ("coreml-w4", swapped_palette_entry, WORDS),
    "palette positions in the other order": ("coreml-w4", swapped_positions, WORDS),
    "a doubled scale": ("coreml-w8", doubled_scale, WORDS),
    "shifted integers": ("coreml-w8", shifted_integers, WORDS),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_fails(name: str, made: Made, tmp_path: Path) -> None:
    """The package is read, interpreted and fails; the reason is the fault's."""
    variant, damage, words = FAULTS[name]
    package = Edited(made.files[variant])
    damage(package)
    path = tmp_path / f"{variant}.mlpackage"
    write_coreml_package(Package(package.spec, bytes(package.weights)), path)
    assert_fails(made, path, variant, words)


def assert_fails(made: Made, path: Path, variant: str, words: str) -> None:
    for file in made.folder.glob("*.npz"):
        shutil.copy(file, path.parent / file.name)
    verdict = proof.judge(made.captured, path, variant)
    assert verdict.status == "failed", verdict
    assert verdict.executor == "reference interpreter", verdict.reason
    assert any(word in (verdict.reason or "") for word in words.split("|")), verdict.reason


def rounding_down(net: Net) -> None:
    net.pool.ceil_mode = False


def another_stride(net: Net) -> None:
    net.stride = 4


def another_padding_mode(net: Net) -> None:
    net.first.padding_mode = "reflect"


@pytest.mark.parametrize("change", [rounding_down, another_stride, another_padding_mode])
def test_a_wrong_conversion_fails(change: Callable[[Net], None], made: Made, tmp_path: Path) -> None:
    """A package that is whole and means another network (its pooling rounds down) fails by its outputs."""
    net = copy.deepcopy(made.captured.module)
    assert isinstance(net, Net)
    change(net)
    program = torch.export.export(net, made.captured.example)
    wrong = dataclasses.replace(made.captured, module=net, program=program)
    path = coreml.emit(wrong, VARIANTS["coreml-fp16"], tmp_path).path
    assert_fails(made, path, "coreml-fp16", WORDS)


def test_an_edit_without_a_fault_passes(made: Made, tmp_path: Path) -> None:
    """Reading, changing nothing and writing gives the same bytes: the faults above are the only change."""
    for variant, original in made.files.items():
        package = Edited(original)
        write_coreml_package(Package(package.spec, bytes(package.weights)), tmp_path / variant)
        files = sorted(f.relative_to(original) for f in original.rglob("*") if f.is_file())
        assert [(original / f).read_bytes() for f in files] == [
            (tmp_path / variant / f).read_bytes() for f in files
        ]
