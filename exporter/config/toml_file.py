"""Read and check the user's TOML files. A refusal names the file, the key, its value and what is allowed."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from exporter.errors import UsageError

MAX_BYTES = 1 << 20
"""No file written by hand is longer."""
NEAR = 0.6
"""How similar a key must be to be suggested; difflib's default."""


class Table(BaseModel):
    """A table of such a file. Unknown keys are refused, and so are numbers in quotes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Listed = TypeVar("Listed", bound=Table)


def read_toml(path: Path, title: str, kind: type[Listed]) -> Listed:
    """Read and check a file.

    Args:
        path: The file.
        title: The name of the file in messages: "Card mobilenet_v2".
        kind: The pydantic model of the file.

    Raises:
        UsageError: It cannot be read, is not TOML, or does not fit `kind`.
    """
    values = _parse_toml(path, title)
    try:
        # As JSON: only there may a strict model take a list for a tuple.
        return kind.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise _explain_refused_toml(error, path, title, kind) from None


def expand_toml_path(path: str) -> str:
    """Return a path with `~` replaced by the user's home folder."""
    return os.path.expanduser(path)  # noqa: PTH111 - Path's own refuses an unknown user


def _parse_toml(path: Path, title: str) -> dict[str, Any]:
    if path.exists() and not path.is_file():  # a named pipe would block for ever
        raise UsageError(
            f"{title}: {path} cannot be read: it is not a regular file.", "Check the path.", code="EM-CONFIG"
        )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{title}: {path} cannot be read: {error.strerror}.", "Check the path.", code="EM-CONFIG"
        ) from None
    if len(content) > MAX_BYTES:
        raise UsageError(
            f"{title}: {path} has {path.stat().st_size} bytes; at most {MAX_BYTES} are read.",
            code="EM-CONFIG",
        )
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{title}: {path} is not TOML: {error}.", "See https://toml.io.", code="EM-CONFIG"
        ) from None


def _explain_refused_toml(error: ValidationError, path: Path, title: str, kind: type[Table]) -> UsageError:
    """Describe the first mistake in full. Unknown keys come first, as they often cause the others."""
    mistakes = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    first = mistakes[0]
    where = _toml_place(first["loc"])
    more = f" ({len(mistakes) - 1} more after it.)" if len(mistakes) > 1 else ""
    hint = ""
    if first["type"] == "extra_forbidden":
        known = _known_toml_keys(kind, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=NEAR)
        problem = f"unknown key {where}"
        hint = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}."
    elif first["type"] == "missing":
        problem = f"{where} is missing"
    else:
        reason = first["msg"].removeprefix("Value error, ")
        problem = (
            f"{where} is {_shown_toml_value(first['input'])}: {reason[:1].lower()}{reason[1:]}"
            if where
            else reason
        )
    return UsageError(f"{title} ({path}): {problem}.{more}", hint, code="EM-CONFIG")


def _toml_place(loc: Sequence[str | int]) -> str:
    """Write a place in the file: inputs[0].shape."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _shown_toml_value(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _known_toml_keys(kind: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Return the keys of the table at `loc`."""
    for part in loc:
        if isinstance(part, str) and part in kind.model_fields:
            kind = _toml_table_of(kind.model_fields[part].annotation) or kind
    return list(kind.model_fields)


def _toml_table_of(annotation: Any) -> type[BaseModel] | None:
    """Return the table of an annotation: itself, or the one inside `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((table for inner in get_args(annotation) if (table := _toml_table_of(inner))), None)
