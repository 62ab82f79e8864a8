"""The target table: every name it uses exists, and every refusal has a reason."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exporter.config import targets
from exporter.config.targets import TARGETS, Target
from exporter.errors import UsageError

every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)


@every_target
def test_variants_exist(target: Target) -> None:
    """Every variant a target names is one that some format makes."""
    from exporter.formats import VARIANTS

    assert {*target.variants, *target.on_request} <= set(VARIANTS)
    assert not set(target.variants) & set(target.on_request)


@every_target
def test_runnable_is_part_of_variants(target: Target) -> None:
    """Only what is emitted can be selected, and something always can."""
    assert target.runnable
    assert set(target.runnable) <= {*target.variants, *target.on_request}
    assert len(set(target.variants)) == len(target.variants)


@every_target
def test_what_is_not_runnable_has_a_reason(target: Target) -> None:
    """A variant that is emitted but may not be selected says why."""
    assert {*target.variants, *target.on_request} - set(target.runnable) <= set(target.why_not)


@every_target
def test_what_runs_has_no_excuse(target: Target) -> None:
    """A variant that can run is not also explained away."""
    assert not set(target.runnable) & set(target.why_not)


every_snapdragon = pytest.mark.parametrize(
    "target", [t for t in TARGETS if t.name.startswith("snapdragon")], ids=lambda t: t.name
)


def _qualcomm_schema() -> Any:
    """ExecuTorch's table, from its file: importing the Qualcomm package needs more than the wheel brings."""
    package = importlib.util.find_spec("executorch")
    if package is None or not package.submodule_search_locations:
        pytest.skip("ExecuTorch is not installed")
    root = Path(package.submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location(
        "qc_schema", root / "backends/qualcomm/serialization/qc_schema.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["qc_schema"] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


@every_snapdragon
def test_snapdragons_have_eight_cores_fastest_first(target: Target) -> None:
    """All of these chips have eight cores, listed from the fastest cluster down."""
    clocks = [c.max_mhz for c in target.clusters if c.max_mhz is not None]
    assert sum(c.count for c in target.clusters) == 8
    assert clocks == sorted(clocks, reverse=True)


@every_snapdragon
def test_npu_generation_is_what_executorch_knows(target: Target) -> None:
    """The Hexagon generation agrees with ExecuTorch's own table; the 865 is not in it."""
    schema = _qualcomm_schema()
    known = {chip.name: soc.htp_info.htp_arch for chip, soc in schema._soc_info_table.items()}
    if target.soc == "SM8250":
        assert target.soc not in known
        assert "v66" in target.npu
    else:
        assert f"v{known[target.soc].value}" in target.npu


def test_the_865_emits_core_ml_but_never_selects_it() -> None:
    """Teams ship both phones, so the 865 build makes Core ML files too."""
    target = targets.get_target("snapdragon865")
    assert {"coreml-fp16", "coreml-w8", "coreml-w4"} <= set(target.variants) - set(target.runnable)


@pytest.mark.parametrize("stack", ["executorch-qnn", "onnxruntime-qnn", "litert-qnn"])
def test_the_865_says_why_its_npu_is_idle(stack: str) -> None:
    """No current stack supports the 865's Hexagon, and the record says which generation is missing."""
    assert "v66" in targets.get_target("snapdragon865").why_not[stack]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("snapdragon865", "snapdragon865"),
        ("Snapdragon-865", "snapdragon865"),
        ("SNAPDRAGON 865", "snapdragon865"),
        ("sd865", "snapdragon865"),
        ("sm8250", "snapdragon865"),
        ("SM8250", "snapdragon865"),
        ("865", "snapdragon865"),
        ("8_gen_2", "snapdragon8gen2"),
        ("snapdragon 8 Elite", "snapdragon8elite"),
        ("A15+", "iphone"),
        ("iOS", "iphone"),
        ("generic-arm64", "generic-arm64"),
        ("arm64-v8a", "generic-arm64"),
    ],
)
def test_get_knows_spellings(written: str, expected: str) -> None:
    """Case, dashes, SoC numbers and short names all find the target."""
    assert targets.get_target(written).name == expected


def test_spellings_are_unambiguous() -> None:
    """No spelling leads to two targets."""
    spellings = [s for target in TARGETS for s in set(targets._target_spellings(target))]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize(
    ("written", "nearest"),
    [("snapdragon856", "snapdragon865"), ("snapdragon8gen4", "snapdragon8gen"), ("iphnoe", "iphone")],
)
def test_a_mistyped_target_suggests_the_nearest(written: str, nearest: str) -> None:
    """The error names the nearest target and lists all of them."""
    with pytest.raises(UsageError) as caught:
        targets.get_target(written)
    assert f"Did you mean {nearest}" in caught.value.hint
    assert all(t.name in caught.value.hint for t in TARGETS)


@pytest.mark.parametrize("written", ["", "---", "x" * 10_000, "\x1b[31m", "€"])
def test_nonsense_is_refused_shortly(written: str) -> None:
    """Whatever was typed, the answer is one readable line."""
    with pytest.raises(UsageError) as caught:
        targets.get_target(written)
    assert len(str(caught.value)) < 400
    assert "\x1b" not in str(caught.value)


def test_records_are_frozen_and_hashable() -> None:
    """A target can be a key and cannot be changed."""
    target = targets.get_target("iphone")
    assert len({target, target}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        target.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "module",
    ["exporter.config.targets", "exporter.data", "exporter.cli.doctor.examine", "exporter.data.demo"],
)
def test_no_framework_at_import(module: str) -> None:
    """What the CLI imports at start-up imports no framework."""
    heavy = {"torch", "torchvision", "onnx", "onnxruntime", "coremltools", "executorch", "skimage", "sklearn"}
    code = f"import {module}, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
