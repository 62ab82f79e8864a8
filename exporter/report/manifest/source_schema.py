"""The models of `manifest.json` for what an export was made of: checkpoint, target, calibration, evidence."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import FailFast, Field

from exporter.records import (
    Count,
    DataKind,
)
from exporter.records import CurvePoint as CurvePointRecord
from exporter.report.manifest.checked_values import FileName, Fraction, Part, Sha256

MAX_FILES = 20_000


class Source(Part):
    file: str
    sha256: Sha256
    kind: str
    architecture: str
    parameters: Count
    flops: Count | None = None


class Target(Part):
    name: str
    soc: str


class Calibration(Part):
    kind: DataKind
    count: Count


class CurvePoint(Part):
    """The quality of int8 calibrated on the first `count` samples."""

    count: Annotated[int, Field(gt=0)]
    sqnr_db: float | None
    """The SQNR; null when the outputs are not finite."""
    top1_agreement: Fraction | None

    def record(self) -> CurvePointRecord:
        return CurvePointRecord(
            self.count, -math.inf if self.sqnr_db is None else self.sqnr_db, self.top1_agreement
        )


class EvidenceFile(Part):
    """A file next to the artifacts: verification inputs, expected outputs or quantised programs' outputs."""

    file: FileName
    sha256: Sha256


class Evidence(Part):
    """The samples that the artifacts were compared on."""

    kind: DataKind
    count: Count
    floor: float | None = None
    """Eager float32's own max_error; the fp32 limit is never below a multiple of it."""
    matrix_weights: Count = 0
    """The number of weight elements that every artifact must hold."""
    files: Annotated[tuple[EvidenceFile, ...], Field(max_length=MAX_FILES), FailFast()] = ()
