"""The cost of quantisation in `manifest.json`: operator by operator, and the candidates of a search."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import FailFast, Field

from exporter.records import Count, Milliseconds
from exporter.records import MixedPoint as MixedPointRecord
from exporter.records import OperatorCost as OperatorCostRecord
from exporter.report.manifest.checked_values import Fraction, Name, Part

MOST = 100_000
"""The most entries of either list: a network of a thousand layers has some thousand operators."""
Words = Annotated[str, Field(max_length=1000)]
Points = Annotated[float, Field(ge=-100, le=100)]
NotFinite = dict[Literal["sqnr_db"], Literal["inf", "-inf", "nan"]]


class Decibels(Part):
    """A figure in decibels. If it is not finite, it is null and `not_finite` says what it was."""

    sqnr_db: Annotated[float, Field(ge=-3000, le=3000)] | None
    """The SQNR. No power of ten between these bounds overflows."""
    not_finite: NotFinite = Field(default_factory=dict)

    def decibels(self) -> float:
        return float(self.not_finite.get("sqnr_db", "nan")) if self.sqnr_db is None else self.sqnr_db


class OperatorCost(Decibels):
    """A `records.OperatorCost` with its noise in decibels."""

    name: Words
    layer: Words
    kind: Words

    def record(self) -> OperatorCostRecord:
        return OperatorCostRecord.of_decibels(self.name, self.layer, self.kind, self.decibels())


class MixedPoint(Decibels):
    """The fields of `records.MixedPoint`; `float_ops` is called `kept`, as in the first manifests."""

    variant: Name
    kept: Annotated[tuple[Words, ...], Field(max_length=MOST)]
    agreement: Fraction | None
    p50_ms: Milliseconds
    size_bytes: Count
    passed: bool
    chosen: bool = False
    drop: Points | None = None

    def record(self) -> MixedPointRecord:
        return MixedPointRecord(
            variant=self.variant,
            float_ops=self.kept,
            sqnr_db=self.decibels(),
            agreement=self.agreement,
            p50_ms=self.p50_ms,
            size_bytes=self.size_bytes,
            passed=self.passed,
            chosen=self.chosen,
            drop=self.drop,
        )


OperatorCosts = Annotated[tuple[OperatorCost, ...], Field(max_length=MOST), FailFast()]
MixedPoints = Annotated[tuple[MixedPoint, ...], Field(max_length=MOST), FailFast()]
