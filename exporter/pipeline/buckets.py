"""Exports a network once for each size that `--dynamic` lists, or of ranges that no one file can have.

OUT/224x224 is an ordinary export, whose artifacts are also run one size beside theirs; they must refuse that.
OUT/parts.json lists the buckets and the variant that is chosen for all. In OUT lies either a file of it for
each bucket, or OUT/sizes.pte with a method for each: ExecuTorch keeps equal weights once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter import pipeline, temporary_files
from exporter.checkpoints import checkpoint_folder
from exporter.config import targets
from exporter.config.buckets import (
    MOST_BUCKETS,
    Bucket,
    buckets_of_dynamic_shapes,
    listed_example_of_buckets,
    lists_sizes,
)
from exporter.config.request import Request
from exporter.errors import ExportError, FixedSizesError, LoweringError, OutputError, UsageError
from exporter.files import (
    EVIDENCE,
    copy_file_or_folder,
    digest_file,
    file_size_bytes,
    write_text_file,
)
from exporter.pipeline import job_rights
from exporter.pipeline.context import Observer
from exporter.pipeline.format_refusals import may_format_have_ranges
from exporter.pipeline.parts import (
    SAMPLES,
    copy_parts,
    may_select_parts,
    row_of_part,
    sum_of_part_medians,
    variants_of_all_parts,
)
from exporter.pipeline.parts_record import (
    MERGED,
    MergedFile,
    PartsExport,
    remove_earlier_parts,
    write_parts_record,
)
from exporter.pipeline.variants import plan_variants
from exporter.pipeline.workers.jobs import Job
from exporter.pipeline.workers.pool import WorkerPool
from exporter.records import Report, Variant
from exporter.report.bucket_snippets import bucket_snippets
from exporter.staging import check_empty_before_staging
from exporter.verify.parts_together import TogetherVerdict

RUNTIME = ("executorch.runtime",)


@dataclass(frozen=True)
class BucketFile:
    """A bucket's file of the chosen variant, and what it was verified on."""

    name: str
    path: Path

    @property
    def method(self) -> str:
        return f"forward_{self.name}"

    @property
    def evidence(self) -> Path:
        return self.path.with_name(EVIDENCE)


def buckets_of_request(request: Request) -> tuple[Bucket, ...]:
    """Return the buckets where sizes are listed, or no format asked for has ranges; else none.

    Raises:
        UsageError: There are too many, or an option does not go with them.
    """
    if not request.dynamic:
        return ()
    variants = plan_variants(
        targets.get_target(request.target), request.formats, request.precisions, request.search
    )
    ranges = any(may_format_have_ranges(variant, request.image_input) for variant in variants)
    if ranges and not lists_sizes(request.dynamic):
        return ()
    if request.input_shapes:
        raise UsageError(
            "--input-shape chooses a shape within ranges; here each size is an export of its own.",
            "Leave out --input-shape.",
        )
    return buckets_of_dynamic_shapes(request.dynamic)


def buckets_in_place_of_ranges(request: Request, error: FixedSizesError) -> tuple[Bucket, ...]:
    """Return the buckets of a network whose graph cannot have the ranges of `request`.

    Raises:
        FixedSizesError: There are too many.
    """
    try:
        return buckets_of_dynamic_shapes(request.dynamic)
    except UsageError:
        example = listed_example_of_buckets(request.dynamic)
        hint = (
            f"List at most {MOST_BUCKETS} sizes, which makes a file for each: --dynamic '{example}'. "
            "Or mend the line that fixes the size."
        )
        raise FixedSizesError(error.message, hint) from error


def export_buckets(
    request: Request, buckets: Sequence[Bucket], observer: Observer | None = None
) -> PartsExport:
    """Export a network once for each bucket.

    Args:
        request: The request for all; its `input_shapes` is not used.
        buckets: The sizes.
        observer: Called at every step.

    Raises:
        ExportError: As an export of one size.
    """
    request = replace(request, checkpoint=checkpoint_folder.find_checkpoint_folder(request.checkpoint))
    out = request.destination
    check_empty_before_staging(out, request.force)
    remove_earlier_parts(out)
    reports = {bucket.name: _export_bucket(request, bucket, observer) for bucket in buckets}
    together = _verdicts_on_buckets(reports) if request.verify else ()
    selected = _select_variant_of_buckets(request, reports, together)
    merged, notes = _merge_buckets(out, reports, selected) if selected else (None, ())
    files = copy_parts(out, reports, selected) if selected and merged is None else {}
    snippets = bucket_snippets([b.sizes for b in buckets], merged is not None, files) if selected else {}
    for name, code in snippets.items():
        write_text_file(out / name, code)
    result = PartsExport(reports, together, selected, files, merged, tuple(snippets), notes)
    write_parts_record(out, result)
    return result


def _export_bucket(request: Request, bucket: Bucket, observer: Observer | None) -> Report:
    own = replace(request, dynamic=bucket.shapes, input_shapes=(), out=request.destination / bucket.name)
    try:
        return pipeline.run_pipeline(own, observer)
    except ExportError as error:
        error.message = f"At {bucket.name}: {error.message}"
        raise


def _verdicts_on_buckets(reports: Mapping[str, Report]) -> tuple[TogetherVerdict, ...]:
    """Judge each variant: it passes where it passed in every bucket, where it must refuse other sizes."""
    first = next(iter(reports.values()))
    names = [row.variant.name for row in first.artifacts]
    return tuple(
        _verdict_on_buckets(name, reports)
        for name in names
        if all(any(row.variant.name == name for row in report.artifacts) for report in reports.values())
    )


def _verdict_on_buckets(name: str, reports: Mapping[str, Report]) -> TogetherVerdict:
    rows = {bucket: row_of_part(report, name) for bucket, report in reports.items()}
    measure = f"{len(rows)} sizes, each verified alone"
    for bucket, row in rows.items():
        if row.status != "passed":
            return TogetherVerdict(name, row.status, measure, f"At {bucket}: {row.reason or row.status}")
    refused = f"{measure}; the sizes beside each are refused"
    return TogetherVerdict(name, "passed", refused, latency_ms=sum_of_part_medians(reports, name))


def _select_variant_of_buckets(
    request: Request, reports: Mapping[str, Report], together: Sequence[TogetherVerdict]
) -> str | None:
    """Choose, of the variants that passed in all buckets, the one that most chose; the fastest of equals."""
    chosen = [report.selected for report in reports.values()]
    allowed = [v for v in together if v.status == "passed" and may_select_parts(request, reports, v)]
    ranked = sorted(allowed, key=lambda v: (-chosen.count(v.name), v.latency_ms or float("inf")))
    return ranked[0].name if ranked else None


def _merge_buckets(
    out: Path, reports: Mapping[str, Report], selected: str
) -> tuple[MergedFile | None, tuple[str, ...]]:
    """Merge the chosen `.pte` files into OUT/sizes.pte; None, and why, where that is not possible."""
    variant = next(v for v in variants_of_all_parts(reports) if v.name == selected)
    if variant.format != "executorch" or variant.backend != "xnnpack":
        return None, ()
    files = tuple(
        BucketFile(name, out / name / str(row_of_part(report, selected).file))
        for name, report in reports.items()
    )
    with temporary_files.temporary_scratch("buckets") as scratch:
        allowed = job_rights.job_rights_to_merge_files(out, scratch, [file.path for file in files])
        with WorkerPool(1, scratch / "log", allowed) as pool:
            job = Job("one file of all sizes", merge_bucket_files, (files, variant, scratch), preload=RUNTIME)
            (outcome,) = pool.run([job])
        try:
            outcome.result()
            copy_file_or_folder(scratch / MERGED, out / MERGED)
        except LoweringError as error:
            return None, (f"The sizes are a file each: {error.cause}",)
        except OSError as error:
            raise OutputError(
                f"{out / MERGED} cannot be written: {error.strerror}.", "Free space."
            ) from error
    merged = MergedFile(
        MERGED,
        digest_file(out / MERGED),
        file_size_bytes(out / MERGED),
        sum(file_size_bytes(file.path) for file in files),
        {file.name: file.method for file in files},
    )
    return merged, ()


def merge_bucket_files(files: Sequence[BucketFile], variant: Variant, scratch: Path) -> None:
    """Write scratch/sizes.pte; each of its methods must give the very outputs of the bucket's own file.

    Raises:
        LoweringError: The files cannot be merged, or a method differs.
    """
    from exporter.formats.executorch.merged_methods import merge_pte_methods

    path = scratch / MERGED
    path.write_bytes(merge_pte_methods({file.name: file.path.read_bytes() for file in files}))
    for file in files:
        _compare_merged_method(path, file, variant)


def _compare_merged_method(path: Path, file: BucketFile, variant: Variant) -> None:
    import numpy as np

    from exporter.formats.executorch.executorch_runtime import load_in_executorch_runtime
    from exporter.verify.reference_io import load_reference_io

    alone, _ = load_in_executorch_runtime(file.path, variant, 1)
    merged, _ = load_in_executorch_runtime(path, variant, 1, file.method)
    for sample in load_reference_io(file.evidence).samples()[:SAMPLES]:
        pairs = zip(alone(sample), merged(sample), strict=True)
        if not all(np.array_equal(one, other, equal_nan=True) for one, other in pairs):
            raise LoweringError(f"the method {file.method} of the merged file gives other outputs")
