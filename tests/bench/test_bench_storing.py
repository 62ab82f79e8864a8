"""Tests of how measurements get into OUT: none is lost, and OUT is valid at every moment."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from android_harness import latency_stats, provenance
from android_harness.latencies import Latency
from android_harness.records import Session
from exporter import bench, files
from exporter.errors import OutputError, VerificationError
from exporter.pipeline import audit_claims
from exporter.records import DeviceLatency
from exporter.release import intact
from exporter.report import device_text, manifest, text
from exporter.report.manifest import restore
from tests.harness import sessions
from tests.release import outs


def benched(
    serial: str, artifact: str = "onnx-fp32", problem: str = "", ms: float = 8.0
) -> tuple[Session, Latency]:
    """Return what a bench of a phone hands over to be stored."""
    launches = tuple(sessions.launch(i, sessions.durations(i, ms=ms)) for i in range(5))
    session = sessions.session(
        task=replace(sessions.session().task, name=artifact),
        identity=sessions.identity(serial=serial),
        launches=launches,
    )
    check = provenance.ProvenanceCheck(1e-6, problem)
    return session, provenance.latency_with_provenance(
        session, latency_stats.latency_stats(session), check, 15.0
    )


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an export that one phone has measured, with a short page: drawing the real one takes seconds."""
    monkeypatch.setattr(
        "exporter.pipeline.report_stage.render_page_in_report_stage",
        lambda _, report: f"{text.budget_text(report)} {device_text.device_text_rows(report)}",
    )
    folder = outs.write(tmp_path / "out", outs.report())
    bench.store_bench(folder, bench.read_for_bench(folder)[0], [benched("FIRST")], 15.0)
    return folder


def latencies(out: Path) -> dict[str, DeviceLatency]:
    rows = restore.restore_report(manifest.load_manifest(out / "manifest.json")).artifacts
    return {item.serial: item for row in rows for item in row.device_latencies}


def problems(out: Path) -> list[str]:
    """Return what is wrong with OUT's files, as `verify` and `release` see it."""
    listed = manifest.load_manifest(out / "manifest.json")
    intact.check_intact(out, listed.model_copy(update={"artifacts": listed.artifacts[:1]}))
    changed = [e.file for e in listed.evidence.files if files.digest_file(out / e.file) != e.sha256]
    return [
        *changed,
        *(words for words in audit_claims.audit_claims_of_files(out, listed) if "report.html" in words),
    ]


@pytest.mark.parametrize("budget_ms", [15.0, 40.0, 5.0])
def test_every_devices_last_measurement_stays(out: Path, budget_ms: float) -> None:
    """Another budget replaces no measurement: it judges all of them again."""
    report, _ = bench.store_bench(out, bench.read_for_bench(out)[0], [benched("SLOW", ms=20.0)], 15.0)
    bench.store_bench(out, report, [benched("SECOND")], budget_ms)
    stored = latencies(out)
    assert set(stored) == {"FIRST", "SLOW", "SECOND"}
    assert {item.budget_ms for item in stored.values()} == {budget_ms}
    assert stored["SLOW"].verdict == ("pass" if budget_ms == 40.0 else "fail")
    assert stored["FIRST"].verdict == ("fail" if budget_ms == 5.0 else "pass")


def test_both_figures_of_a_phone_stay(out: Path) -> None:
    """What was measured as an app runs is a row of its own, and replaces only its like."""
    stored = bench.read_for_bench(out)[0]
    for ms in (30.0, 20.0):
        session, _ = benched("FIRST", ms=ms)
        session = replace(session, config=replace(session.config, app_like=True, threads=0, affinity=""))
        check = provenance.ProvenanceCheck(1e-6, "")
        latency = provenance.latency_with_provenance(
            session, latency_stats.latency_stats(session), check, 15.0
        )
        stored, _ = bench.store_bench(out, stored, [(session, latency)], 15.0)
    rows = [item for row in stored.artifacts for item in row.device_latencies]
    assert [(item.serial, item.app_like) for item in rows] == [("FIRST", False), ("FIRST", True)]
    assert rows[1].p50_ms == pytest.approx(20, rel=0.05)
    assert stored.budget == "fail", "the slower of both decides"
    assert not problems(out)


def test_the_next_bench_without_a_budget_uses_the_exports_own(out: Path) -> None:
    """A raised budget is shown beside the export's own, and ends with the next bench."""
    report, _ = bench.store_bench(out, bench.read_for_bench(out)[0], [benched("SECOND")], 40.0)
    assert (report.budget_ms, report.own_budget_ms) == (40.0, 15.0)
    assert bench.read_for_bench(out)[0].own_budget_ms == 15.0
    assert "Budget 40.0 ms (the export's own is 15.0 ms)" in (out / "report.html").read_text()
    report, _ = bench.store_bench(out, report, [benched("SECOND")], report.own_budget_ms)
    assert (report.budget_ms, report.export_budget_ms) == (15.0, None)


def test_two_benches_that_began_with_the_same_manifest_lose_nothing(out: Path) -> None:
    """Each adds its results to what the manifest holds by then."""
    report, _ = bench.read_for_bench(out)
    threads = [
        threading.Thread(target=bench.store_bench, args=(out, report, [benched(f"PHONE{index}")], 15.0))
        for index in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(latencies(out)) == {"FIRST", *(f"PHONE{index}" for index in range(4))}
    assert problems(out) == []


def test_results_of_other_files_are_refused(out: Path) -> None:
    """A new export in the meantime gets no figures of the artifacts before it."""
    report, _ = bench.read_for_bench(out)
    first = replace(report.artifacts[0], sha256="0" * 64)
    changed = replace(report, artifacts=(first, *report.artifacts[1:]))
    with pytest.raises(OutputError, match="exported again"):
        bench.store_bench(out, changed, [benched("X")], 15.0)


def killed_after(steps: int, out: Path) -> int:
    """Store results in a child that kills itself at the given change of a file; return its exit status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left = steps

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("replace", "unlink", "write_text", "hardlink_to"):
        setattr(Path, name, counted(getattr(Path, name)))
    bench.store_bench(out, bench.read_for_bench(out)[0], [benched("FIRST", ms=9.0), benched("NEW")], 15.0)
    os._exit(0)


@pytest.mark.parametrize("steps", range(9))
def test_a_kill_at_any_moment_leaves_out_valid(
    out: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After kill -9 at any change of a file, every file is the one that the manifest lists."""
    assert os.WTERMSIG(killed_after(steps, out)) == signal.SIGKILL
    assert problems(out) == []
    bench.store_bench(out, bench.read_for_bench(out)[0], [benched("AFTER")], 15.0)
    assert {"FIRST", "AFTER"} <= set(latencies(out))
    assert problems(out) == []
    assert list(out.glob(".report.html.kept-*")) == []


def test_replaced_samples_are_deleted(out: Path) -> None:
    """The folder of raw samples holds those of the manifest only."""
    bench.store_bench(out, bench.read_for_bench(out)[0], [benched("FIRST", ms=9.0)], 15.0)
    listed = {item.samples_file for item in latencies(out).values()}
    assert {f"device/{path.name}" for path in (out / "device").iterdir()} == listed


def test_a_link_in_place_of_the_folder_of_samples_is_refused(out: Path) -> None:
    """An export from elsewhere may hold a link: nothing is written or deleted where it leads."""
    elsewhere = out.parent / "elsewhere"
    (out / "device").rename(elsewhere)
    (out / "device").symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    with pytest.raises(VerificationError, match="leads out of"):
        bench.store_bench(out, bench.read_for_bench(out)[0], [benched("FIRST", ms=9.0)], 15.0)
    assert sorted(elsewhere.iterdir()) == before != []
