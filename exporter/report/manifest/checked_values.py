"""Parts of the models of `manifest.json`: values that are checked before they become a path or a size."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from exporter.records import DTYPE_PATTERN, TensorSpec

MAX_ELEMENTS = 2**31
"""The most elements of one tensor: more would be an attempt to make the reader allocate them."""
MAX_RANK = 16
MAX_NAME = 255
RESERVED = frozenset({"manifest.json", "report.html", "export.log"})


def checked_value_of_file_name(name: str) -> str:
    """Return the name of a file in OUT, or raise ValueError when it could lead anywhere else."""
    path = PurePosixPath(name)
    parts = name.split("/")
    if path.is_absolute() or any(part in {"", ".", ".."} for part in parts):
        raise ValueError("must be a plain relative path inside the export's folder")
    if any(c in name for c in "\\:") or not name.isprintable():
        raise ValueError("must not hold backslashes, colons or control characters")
    if not 1 <= len(name) <= MAX_NAME:
        raise ValueError(f"must have 1 to {MAX_NAME} characters")
    if name.casefold() in RESERVED:
        raise ValueError("is one of the export's own files, not an artifact")
    return name


def _checked_value_of_tensor(spec: TensorSpec) -> TensorSpec:
    if len(spec.shape) > MAX_RANK:
        raise ValueError(f"shape has {len(spec.shape)} dimensions; at most {MAX_RANK} are accepted")
    elements = math.prod(spec.shape)
    if elements > MAX_ELEMENTS:
        raise ValueError(f"shape has {elements} elements; at most {MAX_ELEMENTS} are accepted")
    if not re.fullmatch(DTYPE_PATTERN, spec.dtype):
        raise ValueError(f"dtype is {spec.dtype[:40]!a}, which is no dtype")
    return spec


FileName = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(checked_value_of_file_name)
]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Tensor = Annotated[TensorSpec, AfterValidator(_checked_value_of_tensor)]


class Part(BaseModel):
    """Unknown fields are ignored, so that an older reader understands a newer writer of the same schema."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
