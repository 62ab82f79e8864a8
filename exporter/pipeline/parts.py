"""Exports the parts of one network, each into a folder of its own, and verifies them together.

OUT/PART is an ordinary export. OUT/parts.json lists the parts, what they compute together in each variant,
and the variant that is chosen for all of them; its files are OUT/PART.pte, OUT/PART.onnx, …
The buckets of one network (`exporter.pipeline.buckets`) are recorded in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter import pipeline, temporary_files
from exporter.checkpoints import checkpoint_folder
from exporter.config import targets
from exporter.config.request import Request
from exporter.errors import OutputError, UsageError
from exporter.files import EVIDENCE, copy_file_or_folder
from exporter.pipeline import job_rights
from exporter.pipeline.context import TORCH, Observer
from exporter.pipeline.parts_record import PartsExport, remove_earlier_parts, write_parts_record
from exporter.pipeline.workers.jobs import Job
from exporter.pipeline.workers.pool import WorkerPool
from exporter.records import QUANTIZED, Artifact, Report, Variant
from exporter.staging import check_empty_before_staging
from exporter.verify.parts_together import (
    TogetherVerdict,
    judge_outputs_of_parts_together,
    judge_tokens_of_parts_together,
)

if TYPE_CHECKING:
    from exporter.architectures.part_chains import Call, Samples

SAMPLES = 8
"""Samples that all parts run on together."""


@dataclass(frozen=True)
class PartFiles:
    """Where a part's artifacts and inputs are."""

    name: str
    folder: Path
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def export_parts(request: Request, names: Sequence[str], observer: Observer | None = None) -> PartsExport:
    """Export several parts of a network, and verify them together.

    Args:
        request: The request for the whole. Where the calibration folder has an item named like a part
            (DIR/text.txt, DIR/vision/), that calibrates the part.
        names: The parts.
        observer: Called at every step.

    Raises:
        UsageError: An option works on one network only.
        ExportError: As an export of one part.
    """
    from exporter.architectures.part_chains import CHAINS

    chain = CHAINS.get(frozenset(names))
    options = {
        "--eval": request.evaluation,
        "--input-shape": () if chain and chain.of_photos else request.input_shapes,
        "--dynamic": request.dynamic,
        "--embed-preprocessing": request.embed_preprocessing,
    }
    if option := next((name for name, value in options.items() if value), ""):
        raise UsageError(f"{option} is for one part.", f"Give --part {names[0]}, and export each.")
    request = replace(request, checkpoint=checkpoint_folder.find_checkpoint_folder(request.checkpoint))
    out = request.destination
    check_empty_before_staging(out, request.force)
    remove_earlier_parts(out)
    reports = {
        name: pipeline.run_pipeline(
            replace(
                request,
                part=name,
                out=out / name,
                calibration=calibration_of_part(request.calibration, name),
            ),
            observer,
        )
        for name in names
    }
    together = _parts_in_one_export(request, reports) if request.verify else ()
    passed = [verdict for verdict in together if verdict.status == "passed"]
    ranked = sorted(passed, key=lambda verdict: verdict.latency_ms or float("inf"))
    selected = next((verdict.name for verdict in ranked if may_select_parts(request, reports, verdict)), None)
    files = copy_parts(out, reports, selected) if selected else {}
    result = PartsExport(reports, together, selected, files)
    write_parts_record(out, result)
    return result


def calibration_of_part(calibration: Path | None, part: str) -> Path | None:
    """Return the item of the calibration folder that is named like the part; the whole without one."""
    if calibration is None or not calibration.is_dir():
        return calibration
    own = sorted(path for path in calibration.iterdir() if path.stem == part)
    return own[0] if own else calibration


def _parts_in_one_export(request: Request, reports: Mapping[str, Report]) -> tuple[TogetherVerdict, ...]:
    """Run the variants that passed in every part one after the other, in a confined process."""
    variants = variants_of_all_parts(reports)
    if not variants:
        return ()
    places = tuple(
        PartFiles(
            name,
            request.destination / name,
            tuple(spec.name for spec in report.inputs),
            tuple(spec.name for spec in report.outputs),
        )
        for name, report in reports.items()
    )
    job = Job("the parts together", judge_parts, (request, places, variants), preload=TORCH)
    with (
        temporary_files.temporary_scratch("parts") as scratch,
        temporary_files.temporary_scratch("parts-job") as job_scratch,
        WorkerPool(
            1,
            scratch / "log",
            job_rights.job_rights_to_run_parts(request, request.destination, job_scratch),
        ) as pool,
    ):
        (outcome,) = pool.run([job])
    verdicts: tuple[TogetherVerdict, ...] = outcome.result()
    return tuple(replace(v, latency_ms=sum_of_part_medians(reports, v.name)) for v in verdicts)


def variants_of_all_parts(reports: Mapping[str, Report]) -> tuple[Variant, ...]:
    """List the variants that passed in every part."""
    passed = [
        {a.variant.name: a.variant for a in report.artifacts if a.status == "passed"}
        for report in reports.values()
    ]
    return tuple(passed[0][name] for name in passed[0] if all(name in names for names in passed))


def judge_parts(
    request: Request, places: Sequence[PartFiles], variants: Sequence[Variant]
) -> tuple[TogetherVerdict, ...]:
    """Run the whole network, and each variant's parts, on the inputs that the parts were verified on."""
    from exporter.architectures.part_chains import CHAINS
    from exporter.verify.reference_io import load_reference_io

    chain = CHAINS[frozenset(place.name for place in places)]
    samples: dict[str, Samples] = {
        place.name: [
            dict(zip(place.input_names, sample, strict=True))
            for sample in load_reference_io(place.folder / EVIDENCE).samples()[:SAMPLES]
        ]
        for place in places
    }
    expected = chain.expected(_whole_network_of_parts(request, tuple(samples), chain.of_photos), samples)
    verdicts = []
    for variant in variants:
        actual = chain.actual({place.name: _call_of_part(place, variant) for place in places}, samples)
        verdicts.append(
            judge_tokens_of_parts_together(
                variant.name, [list(t) for t in expected], [list(t) for t in actual]
            )
            if chain.tokens
            else _judge_stacked_parts(request, variant, chain.title, expected, actual)
        )
    return tuple(verdicts)


def _whole_network_of_parts(request: Request, names: Sequence[str], of_photos: bool) -> Any:
    """Return the network that the parts are of, as PyTorch has it; a detector as its parts' modules."""
    from exporter.architectures.huggingface import whole_network_of_huggingface
    from exporter.pipeline.read_stage import find_network_in_read_stage, read_checkpoint_in_stage

    checkpoint = read_checkpoint_in_stage(request)
    if of_photos:
        return [find_network_in_read_stage(replace(request, part=name), checkpoint).module for name in names]
    return whole_network_of_huggingface(checkpoint, request.arch or "", request.ignore_keys, request.trust)


def _judge_stacked_parts(
    request: Request, variant: Variant, title: str, expected: Sequence[Any], actual: Sequence[Any]
) -> TogetherVerdict:
    import numpy as np

    whole, parts = (np.stack([np.asarray(item, np.float64) for item in x]) for x in (expected, actual))
    return judge_outputs_of_parts_together(
        variant.name, variant.precision, title, whole, parts, request.limits
    )


def _call_of_part(place: PartFiles, variant: Variant) -> Call:
    from exporter.formats import FORMATS

    path = place.folder / f"{variant.name}{variant.suffix}"
    run, _ = FORMATS[variant.format].load(path, variant, 1)

    def call(given: Mapping[str, Any]) -> Mapping[str, Any]:
        outputs = run(tuple(given[name] for name in place.input_names))
        return dict(zip(place.output_names, outputs, strict=True))

    return call


def sum_of_part_medians(reports: Mapping[str, Report], variant: str) -> float | None:
    rows = [row_of_part(report, variant) for report in reports.values()]
    if any(row.latency is None for row in rows):
        return None
    return round(sum(row.latency.p50_ms for row in rows if row.latency), 4)


def row_of_part(report: Report, variant: str) -> Artifact:
    return next(row for row in report.artifacts if row.variant.name == variant)


def may_select_parts(request: Request, reports: Mapping[str, Report], verdict: TogetherVerdict) -> bool:
    """Tell whether the target runs the variant, and it was not calibrated on synthetic inputs unasked."""
    if verdict.name not in targets.get_target(request.target).runnable:
        return False
    rows = [(report, row_of_part(report, verdict.name)) for report in reports.values()]
    return request.allow_synthetic or not any(
        row.variant.precision in QUANTIZED and report.calibration_kind == "synthetic" for report, row in rows
    )


def copy_parts(out: Path, reports: Mapping[str, Report], selected: str) -> dict[str, str]:
    """Copy the chosen file of each part to OUT, under the part's name."""
    files = {}
    for name, report in reports.items():
        row = row_of_part(report, selected)
        assert row.file is not None, "a passed artifact has a file"
        source, target = out / name / row.file, out / f"{name}{row.variant.suffix}"
        try:
            copy_file_or_folder(source, target)
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error.strerror}.", "Free some space.") from error
        files[name] = target.name
    return files
