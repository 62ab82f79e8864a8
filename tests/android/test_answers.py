"""Tests of the answers: every fault that keeps an artifact from loading is found, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from exporter.android import elf, stock, stock_packages
from exporter.android.app_libraries import (
    answer_for_app_libraries,
    names_wanted_in_app_libraries,
    problems_of_app_libraries,
)
from exporter.android.records import Check, Container, Needs, Operator
from tests.android import libraries

PTE = Needs(
    "ExecuTorch",
    (Operator("aten::add.out"), Operator("aten::mul.out")),
    backends=("XnnpackBackend",),
    delegate_operators=("XNNAdd", "XNNConv2d"),
    identifier="ET12",
)
ONNX = Needs(
    "ONNX Runtime",
    (Operator("Conv", "", 11), Operator("QGemm", "com.microsoft", 1)),
    ir_version=8,
    opsets=(("", 18), ("com.microsoft", 1)),
)
ORT = replace(ONNX, ir_version=0, opsets=(), ort_format=6)


def given(needs: Needs, *files: bytes) -> Container:
    """Return a container of libraries, read for an artifact."""
    wanted = names_wanted_in_app_libraries([needs])
    return Container(
        "app.aar", tuple(elf.read_elf(f"lib{i}.so", data, wanted) for i, data in enumerate(files))
    )


def executorch(
    operators: Sequence[str] = ("aten::add.out", "aten::mul.out"),
    backends: Sequence[str] = ("XnnpackBackend",),
    nodes: Sequence[str] = ("XNNAdd", "XNNConv2d"),
    identifier: str = "ET12",
) -> bytes:
    return libraries.executorch(operators, backends, nodes, identifier)


class TestStockPackages:
    """The shipped table."""

    @pytest.mark.parametrize("needs", [PTE, ONNX, ORT])
    def test_a_usual_artifact_loads(self, needs: Needs) -> None:
        """The answer names the package and the oldest version that loads the artifact."""
        item = stock.answer_for_stock("a", needs, "1.32.0" if needs.runtime == "ONNX Runtime" else "1.4.1")
        assert (item.loads, item.problems) == ("yes", ())
        assert item.place in {"executorch-android 1.4.1", "onnxruntime-android 1.32.0"}
        assert item.since in {"1.0.1", "1.19.2"}

    def test_vulkan_needs_the_package_with_vulkan(self) -> None:
        """The smallest package that has everything is named."""
        item = stock.answer_for_stock(
            "a", replace(PTE, backends=("VulkanBackend",), delegate_operators=()), "1.4.1"
        )
        assert (item.loads, item.place) == ("yes", "executorch-android-vulkan 1.4.1")

    @pytest.mark.parametrize(
        ("needs", "problem"),
        [
            (replace(PTE, operators=(Operator("my::op.out"),)), "no operator my::op.out"),
            (replace(PTE, backends=("QnnBackend",)), "no backend QnnBackend"),
            (replace(PTE, delegate_operators=("XNNNew",)), "no XNNPACK operator XNNNew"),
            (replace(PTE, identifier="ET13"), "this one is ET13"),
            (replace(ONNX, operators=(Operator("Nope"),)), "no operator Nope"),
            (replace(ONNX, operators=(Operator("Conv", "mine", 1),)), "no operator mine.Conv (version 1)"),
            (replace(ONNX, operators=(Operator("Conv", "", 99),)), "no operator Conv (version 99)"),
            (replace(ONNX, ir_version=99), "the file has 99"),
            (replace(ONNX, opsets=(("", 99),)), "the file imports 99"),
            (replace(ORT, ort_format=99), "the file has 99"),
        ],
    )
    def test_what_is_missing_is_named(self, needs: Needs, problem: str) -> None:
        """An operator, a backend or a version that no package has is named."""
        item = stock.answer_for_stock("a", needs, "")
        assert item.loads == "no"
        assert item.since == ""
        assert problem in "; ".join(item.problems)

    def test_a_function_is_replaced_by_its_body(self) -> None:
        """ONNX defines some operators by others: a runtime without a kernel calls these."""
        known, unknown = Operator("Relu", "", 14), Operator("Nope")
        assert (
            stock.answer_for_stock("a", replace(ONNX, operators=(Operator("F", "", 1, (known,)),)), "").loads
            == "yes"
        )
        mixed = Operator("F", "", 1, (known, unknown))
        assert stock.answer_for_stock("a", replace(ONNX, operators=(mixed,)), "").loads == "no"

    def test_the_version_of_the_export_is_asked(self) -> None:
        """A version that the table lacks is answered by the newest before it."""
        known = stock_packages.onnxruntime_stock_packages()
        assert stock.package_of_stock_version(known, "1.23.5").version == "1.23.2"
        assert stock.package_of_stock_version(known, "99.0").version == known[-1].version
        assert stock.package_of_stock_version(known, "0.1").version == known[0].version

    def test_an_older_package_may_lack_what_a_newer_one_has(self) -> None:
        """`since` is the oldest package that loads the file: the newer opset needs the newer runtime."""
        oldest, newest = (
            stock_packages.onnxruntime_stock_packages()[0],
            stock_packages.onnxruntime_stock_packages()[-1],
        )
        newer = replace(ONNX, operators=(Operator("Relu", "", 14),), opsets=(("", newest.opset),))
        item = stock.answer_for_stock("a", newer, newest.version)
        assert item.loads == "yes"
        assert stock_packages.stock_package_version_numbers(
            item.since
        ) > stock_packages.stock_package_version_numbers(oldest.version)


class TestLibraries:
    """The user's own libraries."""

    def test_kernels_and_backends_may_be_in_several_libraries(self) -> None:
        """Libraries of one app register with one runtime."""
        parts = executorch(backends=(), nodes=()), executorch(operators=())
        item = answer_for_app_libraries("a", PTE, [given(PTE, *parts)])
        assert item is not None
        assert (item.loads, item.problems, item.unknown) == ("yes", (), ())

    @pytest.mark.parametrize(
        ("library", "problem"),
        [
            (executorch(operators=["aten::add.out"]), "no operator aten::mul.out"),
            (executorch(backends=["VulkanBackend"]), "no backend XnnpackBackend"),
            (executorch(nodes=["XNNAdd"]), "no XNNPACK operator XNNConv2d"),
            (executorch(identifier="ET11"), "it reads programs ET11, this one is ET12"),
        ],
        ids=["operator", "backend", "node", "version"],
    )
    def test_what_executorch_lacks_is_named(self, library: bytes, problem: str) -> None:
        """A missing kernel, backend or node, and an older runtime, each keep the file from loading."""
        item = answer_for_app_libraries("a", PTE, [given(PTE, library)])
        assert item is not None
        assert (item.loads, item.problems) == ("no", (problem,))

    @pytest.mark.parametrize("needs", [ONNX, ORT])
    def test_onnx_runtime_loads_the_usual_files(self, needs: Needs) -> None:
        """The library's version and the names in it are enough."""
        item = answer_for_app_libraries("a", needs, [given(needs, libraries.onnxruntime(["Conv", "QGemm"]))])
        assert item is not None
        assert (item.loads, item.place) == ("yes", "lib0.so (1.32.0)")

    @pytest.mark.parametrize(
        ("needs", "library", "problem"),
        [
            (ONNX, libraries.onnxruntime(["Conv"]), "no operator com.microsoft.QGemm (version 1)"),
            (ONNX, libraries.onnxruntime(["Conv", "QGemm"], reads_onnx=False), "minimal build"),
            (
                replace(ONNX, opsets=(("", 25),)),
                libraries.onnxruntime(["Conv", "QGemm"], "1.19.2"),
                "it reads opsets up to 21, the file imports 25",
            ),
            (
                replace(ONNX, opsets=(("", 25),)),
                libraries.onnxruntime(["Conv", "QGemm"], "1.15.0"),
                "it reads opsets up to 21, the file imports 25",
            ),
            (
                replace(ONNX, ir_version=13),
                libraries.onnxruntime(["Conv", "QGemm"], "1.22.0"),
                "it reads IR versions up to 10, the file has 13",
            ),
        ],
        ids=["operator", "minimal", "opset", "older than described", "IR"],
    )
    def test_what_onnx_runtime_lacks_is_named(self, needs: Needs, library: bytes, problem: str) -> None:
        """A missing operator, a minimal build and a version that is too old are each found."""
        item = answer_for_app_libraries("a", needs, [given(needs, library)])
        assert item is not None
        assert item.loads == "no"
        assert any(problem in reason for reason in item.problems)

    @pytest.mark.parametrize("version", ["", "1.15.0"])
    def test_a_version_that_is_not_described_is_no_yes(self, version: str) -> None:
        """What it reads is not known, so the answer is not certain."""
        item = answer_for_app_libraries(
            "a", ONNX, [given(ONNX, libraries.onnxruntime(["Conv", "QGemm"], version))]
        )
        assert item is not None
        assert item.loads == "unknown"

    def test_the_end_of_a_longer_name_is_no_yes_in_a_minimal_build(self) -> None:
        """A minimal build may have the longer operator only."""
        needs = replace(ORT, operators=(Operator("Conv", "", 11),))
        library = libraries.onnxruntime(["FusedConv"], reads_onnx=False)
        item = answer_for_app_libraries("a", needs, [given(needs, library)])
        assert item is not None
        assert item.loads == "unknown"

    def test_a_library_of_another_runtime_gives_no_answer(self) -> None:
        """ONNX Runtime cannot load a program of ExecuTorch."""
        assert answer_for_app_libraries("a", PTE, [given(PTE, libraries.onnxruntime(["Conv"]))]) is None

    def test_a_library_with_a_problem_gives_no_answer(self) -> None:
        """A phone does not load it."""
        broken = executorch()[:-1]
        assert answer_for_app_libraries("a", PTE, [given(PTE, broken)]) is None


class TestProblems:
    """Faults of the libraries themselves."""

    @pytest.mark.parametrize(
        ("library", "problem"),
        [
            (libraries.library([], align=4096), "its segments are aligned to 4096 bytes"),
            (libraries.library([], machine=libraries.X86_64), "it is built for x86_64"),
            (libraries.library([])[:-1], "it is cut short"),
            (libraries.library([], api=30), "it is built for API level 30, but the minimum SDK is 24"),
        ],
        ids=["pages", "ABI", "cut", "API level"],
    )
    def test_a_fault_is_named(self, library: bytes, problem: str) -> None:
        """4 KB pages, another ABI, a file that is cut short and a newer Android are each found."""
        (sentence,) = problems_of_app_libraries([given(PTE, library)], min_sdk=24)
        assert problem in sentence

    def test_a_good_library_has_none(self) -> None:
        """A library without the NDK's note is no fault: its API level is only unknown."""
        assert (
            problems_of_app_libraries(
                [given(PTE, libraries.library([]), libraries.library([], api=None))], 24
            )
            == ()
        )

    def test_the_archive_s_own_minimum_sdk_counts(self) -> None:
        """An AAR that promises an older Android than its library was built for breaks there."""
        container = replace(given(PTE, libraries.library([], api=26)), min_sdk=21)
        assert "but the minimum SDK is 21" in problems_of_app_libraries([container], None)[0]
        assert problems_of_app_libraries([container], 26) == ()


def test_only_a_yes_for_all_holds() -> None:
    """What is not certain, and no answer at all, do not hold."""
    item = stock.answer_for_stock("a", ONNX, "1.32.0")
    assert Check((item,)).holds
    assert not Check(()).holds
    assert not Check((item, replace(item, loads="unknown"))).holds
    assert not Check((item,), problems=("x",)).holds
