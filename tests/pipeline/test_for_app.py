"""Tests of `verify --for-app`: real artifacts, the stock packages, and libraries with faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from exporter import files
from exporter.android.records import Answer, Needs
from exporter.cli.app import app
from exporter.formats.executorch import executorch_needs as executorch_needs
from exporter.formats.onnx import onnx_needs as onnx_needs
from exporter.pipeline import for_app
from tests.android import libraries
from tests.exports import exported
from tests.release import outs

slow = [pytest.mark.slow, pytest.mark.xdist_group("faults")]


def relu(opset: int = 18, ir_version: int = 10, operator: str = "Relu") -> bytes:
    """Return an ONNX model of one operator."""
    from onnx import TensorProto, helper

    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", shape[:1], shape[1:])
    imports = [helper.make_opsetid("", opset)]
    model: bytes = helper.make_model(graph, ir_version=ir_version, opset_imports=imports).SerializeToString()
    return model


def make_out(folder: Path, model: bytes) -> Path:
    """Write an OUT whose only artifact is an ONNX file."""
    report = outs.report()
    rows = tuple(a for a in report.artifacts if a.variant.name == "onnx-fp32")
    out = outs.write(folder / "out", replace(report, artifacts=rows))
    (out / "onnx-fp32.onnx").write_bytes(model)

    def update(row: dict[str, Any]) -> None:
        row["sha256"] = files.digest_file(out / row["file"])
        row["size_bytes"] = len(model)

    edit(out, update)
    return out


def edit(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    for row in manifest["artifacts"]:
        change(row)
    (out / "manifest.json").write_text(json.dumps(manifest))


def run(*arguments: object) -> tuple[int, dict[str, Any]]:
    """Return the exit code of `verify --for-app`, and what it prints as JSON."""
    result = CliRunner().invoke(app, ["verify", "--for-app", "--json", "-j", "1", *map(str, arguments)])
    code = getattr(result.exception, "exit_code", result.exit_code)
    return code, json.loads(result.stdout) if result.stdout.startswith("{") else {}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return make_out(tmp_path, relu())


class TestCommand:
    """The command's exit codes and messages."""

    def test_the_stock_packages_are_asked_without_files(self, out: Path) -> None:
        """A usual file loads, and the exit code is 0."""
        code, answer = run(out)
        assert code == 0
        assert answer["holds"]
        (row,) = answer["answers"]
        assert (row["artifact"], row["loads"], row["since"]) == ("onnx-fp32", "yes", "1.19.2")
        assert row["place"].startswith("onnxruntime-android ")
        assert answer["unknown"]

    def test_the_apps_own_libraries_are_asked(self, out: Path, tmp_path: Path) -> None:
        """A library, an AAR and an APK with all that the file needs each load it."""
        data = libraries.onnxruntime(["Relu"])
        library = tmp_path / "libonnxruntime.so"
        library.write_bytes(data)
        given = [
            library,
            libraries.archive(tmp_path / "a.aar", {"jni/arm64-v8a/libonnxruntime.so": data}),
            libraries.archive(tmp_path / "a.apk", {"lib/arm64-v8a/libonnxruntime.so": data}),
        ]
        for path in given:
            code, answer = run(out, path)
            assert code == 0, answer
            assert answer["containers"][0]["libraries"][0]["version"] == "1.32.0"

    @pytest.mark.parametrize(
        ("model", "library", "words"),
        [
            (relu(), libraries.onnxruntime(["Conv"]), "no operator Relu"),
            (relu(23, 10), libraries.onnxruntime(["Relu"], "1.19.2"), "opsets up to 21"),
            (relu(18, 11), libraries.onnxruntime(["Relu"], "1.19.2"), "IR versions up to 10"),
            (relu(), libraries.onnxruntime(["Relu"], reads_onnx=False), "minimal build"),
            (relu(), libraries.onnxruntime(["Relu"], align=4096), "aligned to 4096 bytes"),
            (relu(), libraries.onnxruntime(["Relu"], machine=libraries.X86_64), "built for x86_64"),
            (relu(), libraries.onnxruntime(["Relu"])[:-1], "cut short"),
            (relu(), libraries.executorch(["aten::relu.out"]), "none of the given files has"),
        ],
        ids=["operator", "opset", "IR", "minimal", "pages", "ABI", "cut", "another runtime"],
    )
    def test_a_fault_ends_with_9_and_is_named(
        self, tmp_path: Path, model: bytes, library: bytes, words: str
    ) -> None:
        """A missing operator, an older runtime, 4 KB pages, another ABI and a cut file each fail."""
        path = tmp_path / "libonnxruntime.so"
        path.write_bytes(library)
        code, answer = run(make_out(tmp_path, model), path)
        assert code == 9
        assert words in json.dumps(answer)
        assert not answer["holds"]

    def test_a_bomb_ends_with_9(self, out: Path, tmp_path: Path) -> None:
        """A zip bomb is a problem of that file."""
        bomb = {"jni/arm64-v8a/liba.so": libraries.onnxruntime(["Relu"]) + bytes(64 << 20)}
        code, answer = run(out, libraries.archive(tmp_path / "a.aar", bomb))
        assert code == 9
        assert "claims to unpack to" in json.dumps(answer["problems"])

    def test_the_apps_minimum_sdk_is_compared(self, out: Path, tmp_path: Path) -> None:
        """A library that was built for a newer Android than the app's oldest fails."""
        path = tmp_path / "liba.so"
        path.write_bytes(libraries.onnxruntime(["Relu"], api=26))
        assert run(out, path, "--min-sdk", 26)[0] == 0
        assert run(out, path, "--min-sdk", 21)[0] == 9

    def test_a_changed_artifact_is_refused(self, out: Path) -> None:
        """The answer is about the bytes that were exported."""
        (out / "onnx-fp32.onnx").write_bytes(relu(13))
        assert run(out)[0] == 9

    @pytest.mark.parametrize("arguments", [["--artifact", "nope"], ["missing.so"]], ids=["artifact", "file"])
    def test_what_does_not_exist_is_a_usage_error(self, out: Path, arguments: list[str]) -> None:
        """A name or a file that is not there is refused."""
        assert run(out, *arguments)[0] == 2

    def test_its_options_need_for_app(self, out: Path) -> None:
        """A library without --for-app would be ignored."""
        result = CliRunner().invoke(app, ["verify", str(out), "liba.so"])
        assert getattr(result.exception, "exit_code", 0) == 2

    def test_the_table_says_what_is_missing(self, out: Path, tmp_path: Path) -> None:
        """A person reads the same as a machine."""
        path = tmp_path / "libonnxruntime.so"
        path.write_bytes(libraries.onnxruntime(["Conv"], align=4096))
        result = CliRunner().invoke(app, ["verify", str(out), "--for-app", str(path)])
        words = " ".join(result.stdout.split())
        for expected in (
            "no operator Relu",
            "arm64-v8a",
            "4 KB",
            "ONNX Runtime 1.32.0",
            "Not everything loads",
        ):
            assert expected in words


class TestRealArtifacts:
    """What the formats' own files need."""

    pytestmark = slow

    def test_all_android_artifacts_load_in_the_stock_packages(self) -> None:
        """Each is answered, and Vulkan's takes the package with Vulkan."""
        out, report = exported("cnn")
        check = for_app.check_for_app(out, [])
        assert check.holds, check
        places = {answer.artifact: answer.place for answer in check.answers}
        assert places["executorch-vulkan-fp16"].startswith("executorch-android-vulkan ")
        assert places["executorch-xnnpack-int8"].startswith("executorch-android ")
        expected = {a.variant.name for a in report.artifacts if a.variant.format in {"executorch", "onnx"}}
        assert set(places) == {a for a in expected if (out / _file(out, a)).exists()}

    @pytest.mark.parametrize("missing", ["operator", "backend", "node"])
    def test_a_library_without_one_thing_that_a_program_needs_does_not_load_it(
        self, tmp_path: Path, missing: str
    ) -> None:
        """The program loads with everything; without one operator, backend or XNNPACK node it does not."""
        out, _ = exported("cnn")
        name = "executorch-xnnpack-int8"
        needs = executorch_needs.executorch_needs(out / f"{name}.pte")
        whole = _registering(needs)
        for label, data in (("whole", whole), ("lacking", _registering(needs, without=missing))):
            (tmp_path / f"lib{label}.so").write_bytes(data)
        (good,) = for_app.check_for_app(out, [tmp_path / "libwhole.so"], [name]).answers
        (bad,) = for_app.check_for_app(out, [tmp_path / "liblacking.so"], [name]).answers
        assert (good.loads, bad.loads) == ("yes", "no")

    @pytest.mark.parametrize("name", ["onnx-int8.onnx", "ort-int8.ort"])
    def test_operators_carry_their_versions(self, name: str) -> None:
        """The stock package has the kernels at exactly these versions: the file runs in it here."""
        needs = onnx_needs.onnx_needs(exported("cnn")[0] / name)
        assert needs.operators
        assert all(operator.version > 0 for operator in needs.operators)
        assert bool(needs.ort_format) == name.endswith(".ort")

    def test_a_damaged_program_is_an_answer(self, tmp_path: Path) -> None:
        """A file that cannot be read does not load."""
        out = tmp_path / "out"
        shutil.copytree(exported("cnn")[0], out)
        path = out / "executorch-xnnpack-fp32.pte"
        path.write_bytes(path.read_bytes()[:5000])

        def update(row: dict[str, Any]) -> None:
            if row["file"] == path.name:
                row |= {"sha256": files.digest_file(path), "size_bytes": 5000}

        edit(out, update)
        (answer,) = for_app.check_for_app(out, [], ["executorch-xnnpack-fp32"]).answers
        assert isinstance(answer, Answer)
        assert answer.loads == "no"
        assert "damaged" in answer.problems[0]


def _file(out: Path, name: str) -> str:
    manifest = json.loads((out / "manifest.json").read_text())
    return next((a["file"] or "none" for a in manifest["artifacts"] if a["name"] == name), "none")


def _registering(needs: Needs, without: str = "") -> bytes:
    """Return a library with everything that a program needs, except the first of one kind."""
    operators = [operator.name for operator in needs.operators][1 if without == "operator" else 0 :]
    backends = needs.backends[1 if without == "backend" else 0 :]
    nodes = needs.delegate_operators[1 if without == "node" else 0 :]
    return libraries.executorch(operators, backends, nodes, needs.identifier)
