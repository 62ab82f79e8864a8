"""Tests of a release's files, which are the same whenever and wherever it is built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from exporter.errors import MissingDependencyError, OutputError, ReleaseError, UsageError
from exporter.release import bundle, release_extra, repeat, sbom, source_date
from exporter.release import zip as archive
from exporter.release.plan import plan_release
from exporter.release.release_request import ReleaseRequest
from exporter.report import manifest
from exporter.verify import reference_io
from tests.release import outs

AAR = "maven/com/example/net/1.4.0/net-1.4.0.aar"
MAVEN = Path("/usr/share/maven/lib")
TRANSPORT = Path("/usr/share/java/maven-resolver-transport-file.jar")


def contents(directory: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in archive.folder_for_zip(directory).items()}


class TestContents:
    """A signed release has an Android library and a Swift package."""

    def test_the_folder(self, signed: Path) -> None:
        """The folder has everything that the README promises, and nothing else."""
        assert {p.name for p in signed.iterdir()} == {
            "LICENSE",
            "MODEL_CARD.md",
            "NOT_VERIFIED.txt",
            "README.md",
            "SHA256SUMS",
            "maven",
            "net-1.4.0.cdx.json",
            "net-1.4.0.zip",
            "signatures",
            "snippets",
            "swift",
        }

    def test_sha256sum_agrees(self, signed: Path) -> None:
        """The real program accepts the hashes of the folder and of its signatures."""
        for folder in (signed, signed / "signatures"):
            command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        listed = {line.split("  ")[1] for line in (signed / "SHA256SUMS").read_text().splitlines()}
        present = {name for name in archive.folder_for_zip(signed) if not name.startswith("signatures/")}
        assert listed == present - {"SHA256SUMS"}

    def test_the_zip_stands_alone(self, signed: Path, tmp_path: Path) -> None:
        """The zip has artifacts, evidence, page, licence, examples, code and its own hashes."""
        with zipfile.ZipFile(signed / "net-1.4.0.zip") as opened:
            names = set(opened.namelist())
            opened.extractall(tmp_path / "zip")
        assert {"onnx-fp32.onnx", "coreml-fp16.mlpackage/Manifest.json", "verification.npz"} <= names
        assert {"manifest.json", "MODEL_CARD.md", "report.html", "LICENSE", "sbom.cdx.json"} <= names
        assert {
            "snippets/LoadAndRun.kt",
            "snippets/LoadAndRun.swift",
            "NOT_VERIFIED.txt",
            "README.md",
        } <= names
        assert not any(name.startswith(("onnx-int8", "executorch")) for name in names)
        command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
        assert subprocess.run(command, cwd=tmp_path / "zip", check=False).returncode == 0

    def test_examples_are_the_models_own(self, signed: Path, tmp_path: Path) -> None:
        """An app's test can read the raw little-endian values by the index."""
        with zipfile.ZipFile(signed / "net-1.4.0.zip") as opened:
            opened.extractall(tmp_path)
        evidence = reference_io.load_reference_io(tmp_path / "verification.npz")
        index = json.loads((tmp_path / "examples" / "index.json").read_text())
        assert (len(index["examples"]), index["inputs"], index["outputs"]) == (8, ["x"], ["logits"])
        for number, example in enumerate(index["examples"]):
            (given,), (expected,) = example["inputs"], example["expected"]
            arrays = [
                np.fromfile(tmp_path / "examples" / row["file"], "<f4").reshape(row["shape"])
                for row in (given, expected)
            ]
            np.testing.assert_array_equal(arrays[0], evidence.inputs[0][number])
            np.testing.assert_array_equal(arrays[1], evidence.reference[0][number].astype(np.float32))
        assert index["limits"]["onnx-fp32"]["max_error"] == 1e-5

    def test_the_caveat_is_on_its_face(self, signed: Path, tmp_path: Path) -> None:
        """The caveat is in its own file, the README, the model card, the manifest and the BOM."""
        words = "coreml-fp16 was never executed"
        for name in ("NOT_VERIFIED.txt", "README.md", "MODEL_CARD.md", "net-1.4.0.cdx.json"):
            assert words in (signed / name).read_text(), name
        with zipfile.ZipFile(signed / "net-1.4.0.zip") as opened:
            for name in ("NOT_VERIFIED.txt", "README.md", "MODEL_CARD.md", "manifest.json"):
                assert words in opened.read(name).decode(), name

    def test_the_library_is_what_gradle_reads(self, signed: Path) -> None:
        """The AAR has every required entry, and the model byte for byte."""
        with zipfile.ZipFile(signed / AAR) as library, zipfile.ZipFile(signed / "net-1.4.0.zip") as opened:
            assert library.testzip() is None
            assert {"AndroidManifest.xml", "R.txt", "classes.jar", "res/"} <= set(library.namelist())
            assert library.read("assets/net/onnx-fp32.onnx") == opened.read("onnx-fp32.onnx")
            properties = library.read("META-INF/com/android/build/gradle/aar-metadata.properties").decode()
            assert dict(line.split("=") for line in properties.splitlines())["aarFormatVersion"] == "1.0"
            android = ElementTree.fromstring(library.read("AndroidManifest.xml"))
            assert android.get("package") == "com.example.net"
            with library.open("classes.jar") as jar:
                assert zipfile.ZipFile(jar).namelist() == ["META-INF/MANIFEST.MF"]

    def test_the_pom_names_the_library_and_its_runtime(self, signed: Path) -> None:
        """The packaging is aar, and the runtime is optional, so that apps choose its build."""
        pom = ElementTree.parse((signed / AAR).with_suffix(".pom")).getroot()
        space = "{http://maven.apache.org/POM/4.0.0}"
        words = [pom.findtext(f"{space}{name}") for name in ("groupId", "artifactId", "version", "packaging")]
        assert words == ["com.example", "net", "1.4.0", "aar"]
        runtime = {child.tag.removeprefix(space): child.text for child in pom.iter() if child.text}
        assert runtime["version"] == "1.32.0"
        assert (runtime["optional"], runtime["type"]) == ("true", "aar")

    @pytest.mark.slow
    @pytest.mark.skipif(
        not (shutil.which("javac") and MAVEN.is_dir() and TRANSPORT.exists()),
        reason="no Maven on this machine",
    )
    def test_maven_resolves_it(self, signed: Path, tmp_path: Path) -> None:
        """Maven's resolver accepts the library offline by its checksums, and refuses a changed one."""
        command = ["java", "-cp", f"{MAVEN}/*:{TRANSPORT}", str(Path(__file__).with_name("Resolve.java"))]
        command += [str(signed / "maven"), "com.example", "net"]
        result = subprocess.run(
            [*command, str(tmp_path / "local")], capture_output=True, text=True, timeout=120, check=True
        )
        version, file = result.stdout.splitlines()[0].split(" ", 1)
        assert version == "1.4.0"
        assert Path(file).read_bytes() == (signed / AAR).read_bytes()
        assert "com.microsoft.onnxruntime:onnxruntime-android:aar:1.32.0 (runtime?)" in result.stdout
        with (signed / AAR).open("ab") as library:
            library.write(b"x")
        again = subprocess.run(
            [*command, str(tmp_path / "other")], capture_output=True, text=True, timeout=120, check=False
        )
        assert "Checksum validation failed" in again.stderr

    def test_the_swift_package_carries_the_model(self, signed: Path) -> None:
        """The model is a copied resource, which the source loads by name."""
        root = signed / "swift" / "NetModel"
        resource = root / "Sources" / "NetModel" / "Resources" / "coreml-fp16.mlpackage"
        assert (resource / "Data" / "weight.bin").is_file()
        assert '.copy("Resources/coreml-fp16.mlpackage")' in (root / "Package.swift").read_text()
        source = (root / "Sources" / "NetModel" / "NetModel.swift").read_text()
        assert 'forResource: "coreml-fp16.mlpackage"' in source
        assert 'version = "1.4.0"' in source

    def test_the_code_finds_the_model_where_the_libraries_keep_it(self, signed: Path) -> None:
        """The code has the asset's path, the coordinates, the loader and the shapes."""
        kotlin = (signed / "snippets" / "LoadAndRun.kt").read_text()
        assert 'context.assets.open("net/onnx-fp32.onnx")' in kotlin
        assert 'implementation("com.example:net:1.4.0")' in kotlin
        assert "longArrayOf(1, 3, 4, 4)" in kotlin
        assert kotlin.index("import ai.onnxruntime") < kotlin.index("context.assets")
        swift = (signed / "snippets" / "LoadAndRun.swift").read_text()
        assert "import NetModel" in swift
        assert "try NetModel.load()" in swift

    def test_the_bom_is_cyclonedx_with_a_model_card(self, signed: Path) -> None:
        """The BOM is valid, and its card has the measurements and their samples."""
        text = (signed / "net-1.4.0.cdx.json").read_text()
        sbom.validate_sbom(text)
        bill = json.loads(text)
        model = bill["metadata"]["component"]
        assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "net", "1.4.0")
        card = model["modelCard"]
        assert card["modelParameters"]["modelArchitecture"] == "torchvision/mobilenet_v2"
        assert [d["name"] for d in card["modelParameters"]["datasets"]] == ["calibration", "verification"]
        metrics = {m["type"]: m["value"] for m in card["quantitativeAnalysis"]["performanceMetrics"]
                   if m["slice"] == "onnx-fp32"}  # fmt: skip
        assert (metrics["max_error"], metrics["device_latency_p90_ms"]) == ("7.8e-07", "3.5")
        parts = {c["name"]: c for c in bill["components"]}
        assert parts["torch"]["purl"] == "pkg:pypi/torch@2.13.0"
        digest = plan_hash(signed, "onnx-fp32.onnx")
        assert parts["onnx-fp32.onnx"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
        edges = {d["ref"]: d.get("dependsOn", []) for d in bill["dependencies"]}
        assert "artifact/onnx-fp32" in edges["model"]
        assert "pypi/torch" in edges["artifact/onnx-fp32"]

    def test_an_invalid_bom_is_found(self, signed: Path) -> None:
        """The validator checks the card."""
        bill = json.loads((signed / "net-1.4.0.cdx.json").read_text())
        bill["metadata"]["component"]["modelCard"]["nonsense"] = 1
        with pytest.raises(Exception, match="not valid CycloneDX"):
            sbom.validate_sbom(json.dumps(bill))


def plan_hash(signed: Path, file: str) -> str:
    with zipfile.ZipFile(signed / "net-1.4.0.zip") as opened:
        rows = json.loads(opened.read("manifest.json"))["artifacts"]
    return str(next(row["sha256"] for row in rows if row["file"] == file))


class TestReproducible:
    def built(self, request: ReleaseRequest, folder: Path) -> dict[str, bytes]:
        folder.mkdir(parents=True)
        bundle.build_bundle(plan_release(request), folder / "built", folder / "scratch")
        return contents(folder / "built")

    def test_twice_is_the_same(
        self, request_: ReleaseRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A copy of OUT with other dates, folder, umask and zone gives the same bytes."""
        request = replace(request_, allow_unverified=("coreml-fp16",))
        first = self.built(request, tmp_path / "one")
        copy = Path(shutil.copytree(request.out, tmp_path / "copy"))
        for path in copy.rglob("*"):
            os.utime(path, (1e9, 1e9))
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        before = os.umask(0o077)
        try:
            second = self.built(replace(request, out=copy), tmp_path / "two" / "deeper")
        finally:
            os.umask(before)
        assert first == second

    @pytest.mark.slow
    def test_check_builds_it_again_elsewhere(self, request_: ReleaseRequest, keys: tuple[Path, Path]) -> None:
        """A process with another clock, hash seed, umask and zone gives the same bytes."""
        made = bundle.release_bundle(replace(request_, key=keys[0]), check=True)
        assert made.checked
        assert made.signed
        assert (request_.destination / "signatures" / "bundle.sig").exists()

    @pytest.mark.slow
    def test_check_finds_a_date(self, request_: ReleaseRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """A date of this machine's clock is refused, and nothing is published."""
        monkeypatch.setattr(source_date, "source_date_clock", lambda: datetime.now(UTC))
        with pytest.raises(ReleaseError, match=r"not reproducible.*\.aar from byte"):
            bundle.release_bundle(request_, check=True)
        assert not request_.destination.exists()

    def test_the_other_process_lives_in_another_year(self) -> None:
        """The second build's clock differs by more than a year."""
        code = (
            "import time; real = time.time()\n"
            "from exporter.release import rebuild; rebuild.shift_clock_for_rebuild(rebuild.LATER_S)\n"
            "import datetime, zipfile\n"
            "now = datetime.datetime.now(datetime.UTC)\n"
            "ahead = [time.time(), now.timestamp(), time.mktime(time.localtime())]\n"
            "assert all(t - real > 399 * 86400 for t in ahead), ahead\n"
            "assert abs(datetime.datetime.fromtimestamp(0, datetime.UTC).timestamp()) < 1\n"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")

    def test_differences_are_named(self, tmp_path: Path) -> None:
        """Differences are named by file and byte; a file in one folder only, too."""
        for name, text in (("one", "abcdef"), ("two", "abcXef")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "same").write_text("same")
            (tmp_path / name / "other").write_text(text)
            (tmp_path / name / f"only {name}").write_text("")
        assert repeat.repeat_differences(tmp_path / "one", tmp_path / "two") == (
            "only one is only in one of them",
            "only two is only in one of them",
            "other from byte 3 on",
        )

    def test_source_date_epoch_is_every_date(
        self, request_: ReleaseRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The date is in the archives, the Maven metadata, the BOM and the README."""
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")  # 2023-11-14 22:13:20
        contents = self.built(request_, tmp_path / "x")
        built = tmp_path / "x" / "built"
        with zipfile.ZipFile(built / "mobilenet_v2-1.4.0.zip") as opened:
            assert {e.date_time for e in opened.infolist()} == {(2023, 11, 14, 22, 13, 20)}
        metadata = contents["maven/com/example/mobilenet_v2/maven-metadata.xml"]
        assert b"<lastUpdated>20231114221320</lastUpdated>" in metadata
        bill = json.loads(contents["mobilenet_v2-1.4.0.cdx.json"])
        assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
        assert b"2023-11-14 22:13:20 UTC" in contents["README.md"]

    @pytest.mark.parametrize("value", ["yesterday", "0", "99999999999", "1e9"])
    def test_a_date_that_cannot_be(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A date before 1980, which zip cannot hold, gives one clear message."""
        monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
        with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
            source_date.source_date_clock()

    def test_another_version_is_another_bom(self, request_: ReleaseRequest) -> None:
        """Serial numbers follow the content."""
        numbers = {
            json.loads(sbom.sbom_document(plan_release(replace(request_, version=version))))["serialNumber"]
            for version in ("1.4.0", "1.4.0", "1.4.1")
        }
        assert len(numbers) == 2


class TestPublishing:
    def test_nothing_is_overwritten(self, request_: ReleaseRequest) -> None:
        """A folder with files is refused and unchanged."""
        request_.destination.mkdir()
        (request_.destination / "mine").write_text("mine")
        with pytest.raises(OutputError, match="not empty") as caught:
            bundle.release_bundle(request_)
        assert "another folder" in caught.value.hint
        assert "--force" not in caught.value.hint  # which release does not have
        assert [p.name for p in request_.destination.iterdir()] == ["mine"]

    @pytest.mark.parametrize(
        "break_it",
        [
            lambda m: m.setattr(sbom, "sbom_document", fail),
            lambda m: m.setattr("exporter.release.swift.write_swift", fail),
            lambda m: m.setattr("exporter.release.sha256sums.write_sha256sums", fail),
        ],
    )
    def test_a_failure_leaves_nothing(
        self,
        break_it: Callable[[pytest.MonkeyPatch], None],
        request_: ReleaseRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A failure leaves neither DIR nor its temporary folder."""
        break_it(monkeypatch)
        before = set(request_.destination.parent.iterdir())
        with pytest.raises(RuntimeError):
            bundle.release_bundle(request_)
        assert set(request_.destination.parent.iterdir()) == before

    def test_without_the_extra(self, request_: ReleaseRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error names the missing extra."""
        monkeypatch.setitem(sys.modules, "cyclonedx.validation.json", None)
        with pytest.raises(MissingDependencyError, match=r"export-mobile\[release\]"):
            bundle.release_bundle(request_)
        with pytest.raises(MissingDependencyError):
            release_extra.need_release_extra("no_such_module", "This")

    def test_no_android_and_no_apple(self, tmp_path: Path) -> None:
        """The README says which library is missing."""
        out = outs.write(tmp_path / "out", outs.report("pass"))
        request = ReleaseRequest(out, "1.0", tmp_path / "onnx")
        bundle.release_bundle(request)
        assert not (tmp_path / "onnx" / "swift").exists()
        assert "There is no Swift package" in (tmp_path / "onnx" / "README.md").read_text()
        apple = replace(request, artifacts=("coreml-fp16",), allow_unverified=("coreml-fp16",))
        bundle.release_bundle(replace(apple, destination=tmp_path / "apple"))
        assert not (tmp_path / "apple" / "maven").exists()
        assert "There is no Android library" in (tmp_path / "apple" / "README.md").read_text()

    def test_a_card_goes_in(self, request_: ReleaseRequest, tmp_path: Path) -> None:
        """The card is included as a file and in the model card; its markup is plain text."""
        card = tmp_path / "net.toml"
        card.write_text(own_card(request_.out))
        bundle.release_bundle(replace(request_, card=card))
        words = (request_.destination / "MODEL_CARD.md").read_text()
        assert "- description: Best \\<b\\>net\\</b\\>" in words
        assert "  - int8_min_sqnr_db: 15.0" in words.replace("\\_", "_")
        assert "budget_ms: " not in words.replace("\\_", "_")  # it is not in the card
        with zipfile.ZipFile(request_.destination / "mobilenet_v2-1.4.0.zip") as opened:
            assert opened.read("model_card.toml") == card.read_bytes()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (("[limits]", "[limit]"), "unknown key limit. Did you mean limits?"),
            (("description", "licens"), "unknown key licens. Did you mean licence?"),
            (("[checkpoint]", "checkpoint"), "is not TOML"),
            (('sha256 = "', 'sha256 = "00'), "describes another model: its checkpoint has sha256 00"),
        ],
    )
    def test_a_bad_card_is_refused(
        self, request_: ReleaseRequest, tmp_path: Path, change: tuple[str, str], words: str
    ) -> None:
        """A bad card, or another checkpoint's, gives one message before anything is built."""
        card = tmp_path / "net.toml"
        card.write_text(own_card(request_.out).replace(*change))
        with pytest.raises(UsageError) as caught:
            bundle.release_bundle(replace(request_, card=card))
        assert words in str(caught.value)
        assert caught.value.exit_code == 2
        assert not request_.destination.exists()

    def test_two_models_never_share_a_name(self, request_: ReleaseRequest) -> None:
        """An artifact named like a file of the release is refused."""
        (request_.out / "onnx-fp32.onnx").rename(request_.out / "README.md")
        outs.edit(request_.out, rename_chosen)
        with pytest.raises(OutputError, match=r"README\.md is the name of an artifact"):
            bundle.release_bundle(request_)


def own_card(out: Path) -> str:
    """Write the smallest card of the checkpoint that OUT was exported from."""
    digest = json.loads((out / "manifest.json").read_text())["source"]["sha256"][:62]
    return (
        f'description = "Best <b>net</b>"\n[checkpoint]\npath = "net.pth"\nsha256 = "{digest}"\n'
        "[limits]\nint8_min_sqnr_db = 15.0\n"
    )


def fail(*_: Any) -> None:
    raise RuntimeError("broken by the test")


def rename_chosen(listed: Any) -> None:
    next(a for a in listed["artifacts"] if a["name"] == "onnx-fp32")["file"] = "README.md"


def test_the_bundles_manifest_is_one(signed: Path, tmp_path: Path) -> None:
    """The bundle's manifest has an export's schema, and the release in it."""
    with zipfile.ZipFile(signed / "net-1.4.0.zip") as opened:
        (tmp_path / "manifest.json").write_bytes(opened.read("manifest.json"))
    release = manifest.load_manifest(tmp_path / "manifest.json").release
    assert release is not None
    assert (release.name, release.version, release.group) == ("net", "1.4.0", "com.example")
