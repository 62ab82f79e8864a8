"""The work that is left out of ExecuTorch's compiler changes no byte of its files."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter.formats.executorch import executorch_lowering, skipped_compiler_work
from exporter.formats.executorch.skipped_compiler_work import XNNPACK_PATTERNS, skip_compiler_work
from exporter.formats.replaced_internals import are_versions_proven
from tests import nets
from tests.nets import captured


class Resizing(nn.Module):
    """A network with the patterns searched for: bilinear upsampling, and attention with a mask."""

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        big = nn.functional.interpolate(image, scale_factor=2.0, mode="bilinear")
        return nn.functional.scaled_dot_product_attention(big, big, big, attn_mask=mask)


def _program(net: str, quantized: bool) -> torch.export.ExportedProgram:
    if net == "resizing":
        return torch.export.export(Resizing(), (torch.randn(1, 2, 4, 4), torch.zeros(8, 8)))
    program = captured(net).program
    assert program is not None
    return nets.quantized(net).program() if quantized else program


def _bytes(program: torch.export.ExportedProgram, backend: str) -> bytes:
    return bytes(executorch_lowering.lower_to_executorch(copy.deepcopy(program), backend).buffer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "backend", "quantized"),
    [("resizing", "xnnpack", False), ("cnn", "xnnpack", True), ("attention", "vulkan", False)],
)
def test_same_bytes_with_and_without(
    monkeypatch: pytest.MonkeyPatch, net: str, backend: str, quantized: bool
) -> None:
    """The file is the same to the last byte, also for networks that have the patterns searched for."""
    program = _program(net, quantized)
    lean = _bytes(program, backend)
    monkeypatch.setattr(executorch_lowering, "skip_compiler_work", contextlib.nullcontext)
    assert lean == _bytes(program, backend)


@pytest.mark.slow
def test_searches_are_skipped_only_where_they_must_fail() -> None:
    """Every pattern of a pass contains all the operators that the pass is skipped without."""
    from executorch.backends.vulkan.patterns import fusable_patterns
    from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa

    patterns: list[tuple[frozenset[str], list[Any]]] = [
        (XNNPACK_PATTERNS["ConvertToUpsampleBilinear2d"], bilinear_2d.get_graphs()),
        (XNNPACK_PATTERNS["ConvertToSDPAPass"], sdpa.get_graphs()),
        *(
            (needed, fusable_patterns[n].get_graphs_fn())
            for n, needed in skipped_compiler_work.VULKAN_PATTERNS.items()
        ),
    ]
    for needed, graphs in patterns:
        assert graphs
        for module in graphs:
            assert needed <= skipped_compiler_work._operators_to_skip_search(module.graph)


def _patched() -> list[Any]:
    from executorch.backends.vulkan import patterns
    from executorch.backends.xnnpack._passes import ConvertToSDPAPass, ConvertToUpsampleBilinear2d
    from executorch.exir.pass_base import ExportPass
    from torch.fx.traceback import NodeSource

    return [
        vars(NodeSource).get("__deepcopy__"),
        vars(ExportPass).get("call"),
        ConvertToSDPAPass.call,
        ConvertToUpsampleBilinear2d.call,
        patterns.get_all_fusable_subgraphs,
        patterns.replace_all_fusable_subgraphs,
        patterns.fusable_patterns,
    ]


def test_internals_are_restored_after_a_failure() -> None:
    """Everything replaced is put back, also when lowering raises."""
    if not are_versions_proven(skipped_compiler_work.PROVEN_VERSIONS):
        pytest.skip("nothing is replaced in these versions")
    before = _patched()

    def fail() -> None:
        with skip_compiler_work():
            inside = _patched()
            assert all(now is not then for now, then in zip(inside[:-1], before, strict=False))
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - raised just above
        fail()
    assert all(now is then for now, then in zip(_patched(), before, strict=True))


@pytest.mark.parametrize("package", skipped_compiler_work.PROVEN_VERSIONS)
def test_other_versions_are_left_alone(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Nothing is replaced with any other version of executorch or torch."""
    monkeypatch.setitem(skipped_compiler_work.PROVEN_VERSIONS, package, "0.0.1")
    before = _patched()
    with skip_compiler_work():
        assert all(now is then for now, then in zip(_patched(), before, strict=True))


def test_local_builds_of_a_proven_version_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local version such as 2.13.0+cpu, of PyTorch's own CPU wheels, counts as the version."""
    monkeypatch.setattr(
        importlib.metadata, "version", lambda k: skipped_compiler_work.PROVEN_VERSIONS[k] + "+cpu"
    )
    assert are_versions_proven(skipped_compiler_work.PROVEN_VERSIONS)


@pytest.mark.slow
def test_search_is_done_where_it_can_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network with bilinear upsampling still gets its upsampling pass."""
    from executorch.backends.xnnpack.partition.graphs import bilinear_2d

    asked: list[str] = []
    original = bilinear_2d.get_graphs_dict

    def get_graphs() -> Any:
        asked.append("bilinear")
        return original()

    monkeypatch.setattr(bilinear_2d, "get_graphs_dict", get_graphs)
    _bytes(_program("cnn", False), "xnnpack")
    assert not asked
    _bytes(_program("resizing", False), "xnnpack")
    assert asked
