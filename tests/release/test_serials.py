"""Tests of `exporter.release.serials`: a release does not reveal phones' serial numbers."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from android_harness import latency_stats, provenance
from exporter import bench
from exporter.bench import device_outputs
from exporter.errors import VerificationError
from exporter.files import digest_file
from exporter.pipeline import audit, report_stage
from exporter.release import bundle, check, serials
from exporter.release.plan import plan_release
from exporter.release.release_request import ReleaseRequest
from exporter.report import manifest
from exporter.report.manifest import restore
from exporter.verify import reference_io
from tests.harness import sessions
from tests.release import outs

PHONE, LONG, EMULATOR = "R5CR30ABCDE", "adb-R5CR30FGHIJ-x1Y2z3._adb-tls-connect._tcp", "emulator-5554"
SERIALS = (PHONE, LONG, EMULATOR)
LOWERING = "int8.lowering.npz"


def measured(out: Path, artifact: str, serial: str, **identity: Any) -> Any:
    """Store a session of this device as `bench` does, raw samples included."""
    work = replace(sessions.session().task, name=artifact)
    session = sessions.session(task=work, identity=sessions.identity(serial=serial, **identity))
    latency = provenance.latency_with_provenance(
        session, latency_stats.latency_stats(session), provenance.ProvenanceCheck(1e-6, ""), 15.0
    )
    return bench.keep_stored_bench_samples(out, session, latency)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two artifacts measured on two phones, one also on an emulator and the host, with a page."""
    out = outs.write(tmp_path_factory.mktemp("measured") / "out", outs.report())
    doubts = (f"adb calls it {EMULATOR}, an emulator.",)
    latencies = {name: [measured(out, name, serial) for serial in (PHONE, LONG)] for name in outs.KEPT[:2]}
    latencies["onnx-fp32"].append(measured(out, "onnx-fp32", EMULATOR, doubts=doubts))
    latencies["onnx-fp32"].append(measured(out, "onnx-fp32", "host"))
    names = [str(item.samples_file) for items in latencies.values() for item in items]
    reference = reference_io.load_reference_io(out / "verification.npz").reference
    reference_io.save_reference_io_lowering(reference_io.Lowering(reference, 40.0), out / LOWERING)
    files = {name: digest_file(out / name) for name in (*names, LOWERING)}
    listed = restore.restore_report(manifest.load_manifest(out / "manifest.json"))
    report_stage.write_report_in_stage(
        out, bench.add_latencies_to_stored_bench(listed, latencies, files, 15.0)
    )
    return out


def everything(path: Path, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Return names and bytes of a folder's files, and of those in its archives."""
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield str(file.relative_to(path)), file.read_bytes()
            if zipfile.is_zipfile(file):
                inside = folder / file.stem
                with zipfile.ZipFile(file) as opened:
                    opened.extractall(inside)
                yield from everything(inside, folder / f"{file.stem}-")


def naming(path: Path, folder: Path) -> list[str]:
    """Return the files that name a device by its serial, its first letters, or a file's name."""
    words = [serial.lower()[:16].encode() for serial in SERIALS] + [b"r5cr30"]
    return [
        name
        for name, content in everything(path, folder)
        if any(word in content.lower() or word in name.lower().encode() for word in words)
    ]


def test_no_serial_goes_out(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, name or archive of a release has a serial; OUT keeps them; the release verifies."""
    before = (out / "manifest.json").read_bytes()
    request = ReleaseRequest(out, "1.4.0", tmp_path / "made", artifacts=outs.KEPT[:2])
    made = bundle.release_bundle(request).directory
    assert naming(made, tmp_path / "unpacked") == []
    assert {"manifest.json", "report.html"} <= set(naming(out, tmp_path / "unpacked-out"))
    assert (out / "manifest.json").read_bytes() == before
    monkeypatch.setattr(
        audit, "_audit_artifacts", lambda *_: {}
    )  # the artifacts are no models: only their files count
    assert check.check_release(made).problems == ()


def test_devices_stay_comparable(out: Path) -> None:
    """Each device has one label for all artifacts; its samples are unchanged."""
    release = plan_release(ReleaseRequest(out, "1.4.0", out / "x", artifacts=outs.KEPT[:2]))
    serials = {a.name: [item.serial for item in a.measured_on()] for a in release.manifest.artifacts}
    assert serials == {
        "onnx-fp32": ["device-1", "device-2", "device-3", "host"],
        "executorch-xnnpack-int8": ["device-1", "device-2"],
    }
    listed = {item.file for item in release.manifest.evidence.files}
    files = {str(item.samples_file) for a in release.manifest.artifacts for item in a.measured_on()}
    assert files == set(release.samples) == listed - {"verification.npz", LOWERING}
    lines = release.samples["device/onnx-fp32-device-3.jsonl"].splitlines()
    header = json.loads(lines[0])
    assert (header["device"]["serial"], header["device"]["soc"]) == ("device-3", "SM8250")
    assert header["device"]["doubts"] == ["adb calls it device-3, an emulator."]
    (path,) = out.glob(
        device_outputs.samples_file_of_device_outputs("onnx-fp32", EMULATOR).replace(".jsonl", "-*.jsonl")
    )
    original = path.read_bytes().splitlines()
    assert lines[1:] == original[1:]


def test_the_page_still_shows_what_was_measured(out: Path) -> None:
    """The page is rendered again with labels, and otherwise unchanged."""
    written = (out / "report.html").read_text()
    known = serials.serial_labels(manifest.load_manifest(out / "manifest.json"))
    drawn = serials.page_without_serials(out, known).decode()
    assert re.sub("<svg.*?</svg>", "", drawn, flags=re.DOTALL) == relabelled(
        re.sub("<svg.*?</svg>", "", written, flags=re.DOTALL), known
    )
    assert drawn.count("<svg") == written.count("<svg")


def relabelled(page: str, known: Mapping[str, str]) -> str:
    for serial, label in {**known, "host": "host"}.items():
        for artifact in outs.KEPT[:2]:
            stem = re.escape(
                device_outputs.samples_file_of_device_outputs(artifact, serial).removesuffix(".jsonl")
            )
            page = re.sub(
                rf"{stem}-[0-9a-f]{{12}}\.jsonl",
                device_outputs.samples_file_of_device_outputs(artifact, label),
                page,
            )
        page = page.replace(serial, label)
    return page


def test_a_page_that_names_no_device_stays(out: Path, tmp_path: Path) -> None:
    """A page without a serial is copied byte for byte."""
    (tmp_path / "report.html").write_bytes(b"<!doctype html>\r\nNo R5CR30, no adb.")
    known = serials.serial_labels(manifest.load_manifest(out / "manifest.json"))
    assert serials.page_without_serials(tmp_path, known) == b"<!doctype html>\r\nNo R5CR30, no adb."


def test_a_serial_is_only_replaced_as_a_word(out: Path) -> None:
    """Serials are replaced as whole words, longest first, and never in numbers."""
    raw = json.loads((out / "manifest.json").read_text())
    before = json.dumps(raw)
    known = {"SM82": "no", "8250": "no", "8": "hidden", "emulator": "device-1", EMULATOR: "device-2"}
    hidden, files = serials.hide_serials(out, raw, known)
    (row,) = (row for row in hidden["artifacts"] if row["name"] == "onnx-fp32")
    latency = row["device_latencies"][2]
    assert (latency["device"]["soc"], latency["device"]["serial"]) == ("SM8250", "device-2")
    assert all(b"hidden" not in content.partition(b"\n")[2] for content in files.values())
    assert json.dumps(raw) == before  # it was copied, not changed


def test_raw_samples_that_are_none_are_refused(out: Path, tmp_path: Path) -> None:
    """Invalid raw samples are refused, because they might name a phone."""
    out = Path(shutil.copytree(out, tmp_path / "out"))
    listed = manifest.load_manifest(out / "manifest.json")
    path = out / next(e.file for e in listed.evidence.files if e.file.startswith("device/onnx-fp32"))
    path.write_text("not JSON\n")
    outs.edit(out, lambda listed: rehash(listed, path))
    with pytest.raises(VerificationError, match="holds no raw samples"):
        plan_release(ReleaseRequest(out, "1.4.0", out / "x", artifacts=outs.KEPT[:1]))


def rehash(listed: Any, path: Path) -> None:
    row = next(row for row in listed["evidence"]["files"] if row["file"].endswith(path.name))
    row["sha256"] = digest_file(path)
