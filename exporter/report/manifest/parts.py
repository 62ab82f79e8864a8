"""What the models of `manifest.json` are made of: values checked before they become a path or a size."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from exporter.records import DTYPE_PATTERN

MAX_ELEMENTS = 2**31
"""Of one tensor: more would be an attempt to make the reader allocate it."""
MAX_RANK = 16
RESERVED = frozenset({"manifest.json", "report.html", "export.log"})


def _file_name(name: str) -> str:
    path = PurePosixPath(name)
    parts = name.split("/")
    if path.is_absolute() or any(part in {"", ".", ".."} for part in parts):
        raise ValueError("must be a plain relative path inside the export's folder")
    if any(c in name for c in "\\:") or not name.isprintable():
        raise ValueError("must not hold backslashes, colons or control characters")
    if name.casefold() in RESERVED:
        raise ValueError("is one of the export's own files, not an artifact")
    return name


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    elements = 1
    for size in shape:
        elements *= size
    if elements > MAX_ELEMENTS:
        raise ValueError(f"has {elements} elements; at most {MAX_ELEMENTS} are accepted")
    return shape


FileName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_file_name)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0)]
Shape = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=MAX_RANK), AfterValidator(_shape)]
Dtype = Annotated[str, Field(pattern=DTYPE_PATTERN)]


class Part(BaseModel):
    """Unknown fields are ignored, so that an older reader understands a newer writer of the same schema."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
