"""`export-mobile verify OUT --for-app`: whether the artifacts load in an app, from files alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import temporary_files
from exporter.android import app_libraries, container, stock
from exporter.android.records import Answer, Check, Container, Needs
from exporter.errors import LoweringError, UsageError, VerificationError
from exporter.files import MANIFEST, digest_file_or_folder, file_inside
from exporter.pipeline import job_rights
from exporter.pipeline.workers.jobs import Job, JobOutcome
from exporter.pipeline.workers.pool import WorkerPool
from exporter.records import FormatName

if TYPE_CHECKING:
    from exporter.report.manifest.schema import Artifact, Manifest

RUNTIMES: Mapping[FormatName, str] = {"executorch": "executorch", "onnx": "onnxruntime"}
"""Format -> the tool whose version the manifest records."""
STATUSES = ("passed", "inconclusive", "not_run")
"""Artifacts that could be shipped; the others are not asked about."""
UNKNOWN_OF_STOCK = (
    "page alignment, ABIs and minimum SDK of the stock packages: give their AARs",
    "Gradle's choice of a version: another dependency may bring a newer or an older one",
)
UNKNOWN_OF_LIBRARIES = (
    "whether a full build of ONNX Runtime was reduced to some operators: the names of all stay in it",
)
UNKNOWN = (
    "the element types that a kernel takes",
    "whether the phone's GPU driver has what Vulkan needs",
)

READ_SECONDS = 120.0
"""Bound on the wall time of reading one library, AAR or APK."""


def check_for_app(
    out: Path, paths: Sequence[Path], names: Sequence[str] = (), min_sdk: int | None = None, workers: int = 1
) -> Check:
    """Answer for the stock Android packages, or for the given libraries. Nothing is run or loaded.

    Args:
        out: A folder that `export` made.
        paths: Libraries (.so), AARs and APKs; empty asks about the stock packages.
        names: The artifacts to ask about; empty asks about all that could be shipped.
        min_sdk: The app's minimum SDK; None leaves it to an AAR's own manifest.
        workers: Files read at the same time, each in a confined process.

    Raises:
        UsageError: There is no such artifact, or no such file.
        VerificationError: OUT has no manifest, or a file is not the one that was exported.
    """
    from exporter.report import manifest

    listed = manifest.load_manifest(out / MANIFEST)
    artifacts = _chosen_for_app(listed, names)
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path} is no file.", "Give a library (.so), an AAR or an APK.")
    with (
        temporary_files.temporary_scratch("for-app") as folder,
        WorkerPool(workers, folder / "log", job_rights.job_rights_to_read((out, *paths))) as pool,
    ):
        needs = _needs_for_app(out, artifacts, pool)
        wanted = app_libraries.names_wanted_in_app_libraries(
            [item for item in needs.values() if isinstance(item, Needs)]
        )
        containers = _containers_for_app(paths, wanted, pool)
    answers = [_answer_for_app(listed, artifact, needs[artifact.name], containers) for artifact in artifacts]
    return Check(
        tuple(answer for answer in answers if answer),
        containers,
        (
            *app_libraries.problems_of_app_libraries(containers, min_sdk),
            *_warn_unanswered_for_app(listed, artifacts, answers, names),
        ),
        (*UNKNOWN, *(UNKNOWN_OF_LIBRARIES if paths else UNKNOWN_OF_STOCK)),
    )


def _chosen_for_app(listed: Manifest, names: Sequence[str]) -> list[Artifact]:
    """Return the artifacts to ask about.

    Raises:
        UsageError: There is none of that name, or its format has no answer.
    """
    known = {a.name: a for a in listed.artifacts if a.file and a.format in RUNTIMES}
    if wrong := [name for name in names if name not in known]:
        raise UsageError(f"{wrong[0]!r} is no Android artifact of OUT.", f"It has {', '.join(known)}.")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    chosen = [a for a in known.values() if a.status in STATUSES]
    if not chosen:
        raise UsageError("OUT has no artifact for ExecuTorch or ONNX Runtime that could be shipped.")
    return chosen


def read_needs_for_app(path: Path, format_name: FormatName) -> Needs:
    """Read what an artifact needs, in this process."""
    from exporter.formats.executorch import executorch_needs as executorch
    from exporter.formats.onnx import onnx_needs as onnx

    return executorch.executorch_needs(path) if format_name == "executorch" else onnx.onnx_needs(path)


def _needs_for_app(out: Path, artifacts: Sequence[Artifact], pool: WorkerPool) -> Mapping[str, Needs | str]:
    """Return each artifact's needs, or why they cannot be read.

    Raises:
        VerificationError: A file is missing, or is not the one that was exported.
    """
    for artifact in artifacts:
        path = file_inside(out, str(artifact.file))
        if not path.exists() or digest_file_or_folder(path) != artifact.sha256:
            raise VerificationError(
                f"{artifact.file} is not the file that was exported.", "Export it again.", code="EM-CHANGED"
            )
    jobs = [
        Job(
            artifact.name,
            read_needs_for_app,
            (file_inside(out, str(artifact.file)).resolve(), artifact.format),
            read_only=True,
            scratch=True,
        )
        for artifact in artifacts
    ]
    return {outcome.job.label: _plain_value_for_app(outcome) for outcome in pool.run(jobs)}


def _plain_value_for_app(outcome: JobOutcome) -> Needs | str:
    if isinstance(outcome.error, LoweringError):
        return f"it cannot be read: {outcome.error.cause}"
    needs: Needs = outcome.result()
    return needs


def _containers_for_app(
    paths: Sequence[Path], wanted: Collection[str], pool: WorkerPool
) -> tuple[Container, ...]:
    """Read the given files; one that kills its process, or takes too much, is a problem of that file."""
    jobs = [
        Job(
            path.name,
            container.read_container_of_libraries,
            (path.resolve(), wanted),
            read_only=True,
            seconds=READ_SECONDS,
        )
        for path in paths
    ]
    return tuple(
        Container(path.name, (), problem=f"it cannot be read: {outcome.error}")
        if outcome.error
        else outcome.value
        for path, outcome in zip(paths, pool.run(jobs), strict=True)
    )


def _answer_for_app(
    listed: Manifest, artifact: Artifact, needs: Needs | str, containers: Sequence[Container]
) -> Answer | None:
    """Return the answer for one artifact; None when the given libraries do not have its runtime."""
    if isinstance(needs, str):
        return Answer(artifact.name, "", "no", (needs,))
    if containers:
        return app_libraries.answer_for_app_libraries(artifact.name, needs, containers)
    return stock.answer_for_stock(artifact.name, needs, listed.tool.get(RUNTIMES[artifact.format], ""))


def _warn_unanswered_for_app(
    listed: Manifest,
    artifacts: Sequence[Artifact],
    answers: Sequence[Answer | None],
    names: Sequence[str],
) -> tuple[str, ...]:
    """Return a sentence for the chosen artifact, or one asked about by name, whose runtime was not given."""
    expected = names or (listed.selected,)
    return tuple(
        f"{artifact.name} needs {'ExecuTorch' if artifact.format == 'executorch' else 'ONNX Runtime'}, which "
        "none of the given files has for arm64-v8a."
        for artifact, answer in zip(artifacts, answers, strict=True)
        if answer is None and artifact.name in expected
    )
