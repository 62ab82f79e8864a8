"""Store measurements in OUT: raw samples first, then the page, and the manifest last.

Several benches may measure for one OUT. Each takes a lock to store its results, and adds them to the manifest
as it is then, so that none loses another's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.bench import device_outputs, operator_times
from exporter.config import targets
from exporter.errors import OutputError
from exporter.files import DEVICE, MANIFEST, digest_file, file_inside
from exporter.pipeline.report_stage import write_report_in_stage
from exporter.records import Artifact, DeviceLatency, OperatorTime, Report
from exporter.verify import budget, select_artifact

if TYPE_CHECKING:
    from android_harness.latencies import Latency
    from android_harness.records import Session


def add_latencies_to_stored_bench(
    report: Report,
    latencies: Mapping[str, Sequence[DeviceLatency]],
    files: Mapping[str, str],
    budget_ms: float,
) -> Report:
    """Add latencies to the report; judge all again, and choose again once every candidate was measured.

    Args:
        report: The report so far.
        latencies: Artifact name -> its new latency on each device; replaces that device's earlier one.
        files: File of raw samples -> SHA-256.
        budget_ms: The budget of all verdicts, also of those on earlier measurements; becomes the report's.
    """
    rows = tuple(
        _merge_latencies_for_bench_storing(artifact, latencies.get(artifact.variant.name, ()), budget_ms)
        for artifact in report.artifacts
    )
    before = next((a for a in rows if a.variant.name == report.selected), None)
    choice = select_artifact.select_measured_artifact(
        rows,
        targets.get_target(report.target_name).runnable,
        synthetic=report.calibration_kind == "synthetic",
        allow_synthetic=before is not None and before.variant.precision == "int8",
        allow_inconclusive=before is not None and before.status == "inconclusive",
    ) or select_artifact.Selected(
        report.selected, select_artifact.remark_on_selected_artifact(report.selection_reason, before)
    )
    chosen = next((a for a in rows if a.variant.name == choice.name), None)
    own_budget_ms = report.own_budget_ms
    return replace(
        report,
        artifacts=rows,
        selected=choice.name,
        selection_reason=choice.reason,
        budget_ms=budget_ms,
        export_budget_ms=None if own_budget_ms == budget_ms else own_budget_ms,
        budget=budget.budget_verdict(chosen.device_latencies, budget_ms) if chosen else "not_measured",
        evidence_files=_evidence_files_for_bench_storing(report, rows, files),
    )


def _merge_latencies_for_bench_storing(
    artifact: Artifact, latencies: Sequence[DeviceLatency], budget_ms: float
) -> Artifact:
    again = {(item.serial, item.app_like) for item in latencies}
    others = tuple(item for item in artifact.device_latencies if (item.serial, item.app_like) not in again)
    rows = tuple(budget.rejudge_by_budget(item, budget_ms) for item in (*others, *latencies))
    return replace(artifact, device_latencies=rows)


def _evidence_files_for_bench_storing(
    report: Report, rows: Sequence[Artifact], files: Mapping[str, str]
) -> dict[str, str]:
    """Return the files that the manifest lists: raw samples only of latencies that it still holds."""
    named = {item.samples_file for row in rows for item in row.device_latencies}
    listed = {**report.evidence_files, **files}
    return {
        name: digest for name, digest in listed.items() if name in named or not name.startswith(f"{DEVICE}/")
    }


def store_bench(
    out: Path, report: Report, sessions: Sequence[tuple[Session, Latency]], budget_ms: float
) -> tuple[Report, tuple[tuple[str, DeviceLatency], ...]]:
    """Write sessions into OUT: their raw samples, the page and the manifest.

    Args:
        out: The folder of the export.
        report: The report that the sessions were measured for.
        sessions: Each session with its latency.
        budget_ms: The budget of all verdicts.

    Returns:
        The updated report, and the name of each session's artifact with its latency.

    Raises:
        OutputError: OUT cannot be written, or holds another export by now.
        VerificationError: There is no valid manifest, or the folder of raw samples leads out of OUT.
    """
    with _lock_bench_storing(out):
        current = _read_report_for_bench_storing(out, report)
        _check_stored_bench_folders(out, current)
        latencies = tuple(
            (session.task.name, keep_stored_bench_samples(out, session, latency))
            for session, latency in sessions
        )
        by_artifact: dict[str, list[DeviceLatency]] = {}
        for artifact, latency in latencies:
            by_artifact.setdefault(artifact, []).append(latency)
        names = [str(latency.samples_file) for _, latency in latencies]
        files = {name: digest_file(out / name) for name in names}
        new = add_latencies_to_stored_bench(current, by_artifact, files, budget_ms)
        try:
            written = write_report_in_stage(out, new)
        except OSError as error:
            raise unwritable_bench_store(out, error) from error
        _forget_stored_bench_samples(out, current, written)
    return written, latencies


@contextlib.contextmanager
def _lock_bench_storing(out: Path) -> Iterator[None]:
    """Let one process store at a time; the kernel releases the lock of a killed one."""
    try:
        folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise unwritable_bench_store(out, error) from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _read_report_for_bench_storing(out: Path, report: Report) -> Report:
    """Return the report that OUT holds now, which another bench may have written since.

    Raises:
        OutputError: Its artifacts are not those that were measured.
    """
    from exporter.report import manifest
    from exporter.report.manifest import restore

    current = restore.restore_report(manifest.load_manifest(out / MANIFEST))
    if _stored_bench_bytes(current) != _stored_bench_bytes(report):
        raise OutputError(
            f"{out} was exported again while its artifacts were measured; the measurements are not its own.",
            "Run the bench again.",
        )
    return current


def _check_stored_bench_folders(out: Path, report: Report) -> None:
    """Refuse links in place of folders whose files are written and deleted: OUT may come from elsewhere.

    Raises:
        VerificationError: One leads out of OUT.
    """
    for folder in {DEVICE, *(str(Path(name).parent) for name in report.evidence_files)}:
        file_inside(out, folder)


def _stored_bench_bytes(report: Report) -> dict[str, str | None]:
    return {artifact.variant.name: artifact.sha256 for artifact in report.artifacts}


def _forget_stored_bench_samples(out: Path, before: Report, after: Report) -> None:
    """Delete raw samples that the manifest has replaced by newer ones."""
    for name in before.evidence_files.keys() - after.evidence_files.keys():
        (out / name).unlink(missing_ok=True)


def keep_stored_bench_samples(out: Path, session: Session, latency: Latency) -> DeviceLatency:
    """Write the raw samples into OUT under a name of their content, and return the manifest's latency.

    Raises:
        OutputError: OUT cannot be written.
    """
    from android_harness import provenance, raw_samples

    record = provenance.provenance_to_manifest(latency)
    content = raw_samples.raw_samples_text(session)
    name = device_outputs.samples_file_of_device_outputs(session.task.name, session.identity.serial, content)
    try:
        raw_samples.write_raw_samples(session, out / name)
    except OSError as error:
        raise unwritable_bench_store(out, error) from error
    record["operators"] = operator_times.name_modules_of_operator_times(
        [OperatorTime(**item) for item in record["operators"]], out, session.task.path
    )
    durations = [launch.durations_ns for launch in session.launches]
    return device_outputs.latency_beside_device_outputs(record, durations, session.config.budget_ms, name)


def unwritable_bench_store(out: Path, error: OSError) -> OutputError:
    return OutputError(f"{out} cannot be written: {error.strerror}.", "Check space and permissions.")
