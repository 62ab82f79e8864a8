"""Parse the texts of command-line options. Every failure is a UsageError that names the option."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from exporter.errors import UsageError
from exporter.records import INPUT_DTYPES, DynamicShape, Limits, SizeList, SizeRange, TensorSpec

Choice = TypeVar("Choice", bound=str)

SHAPE = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*(?:\.\w+)*)=)?(?P<shape>\d+(?:[x,]\d+)*)(?::(?P<dtype>[a-z]+\d*))?"
)


MAX_PHOTO_SIDE = 4096
"""An artifact that resizes a photo of this side needs a quarter of a gigabyte for it."""
DYNAMIC_SIZE = r"\{[^{}]*\}|\d+"
DYNAMIC = re.compile(
    rf"(?:(?P<name>[A-Za-z_]\w*(?:\.\w+)*)=)?(?P<shape>(?:{DYNAMIC_SIZE})(?:[x,](?:{DYNAMIC_SIZE}))*)"
    r"(?::(?P<dtype>[a-z]+\d*))?"
)
RANGE = re.compile(
    r"\{(?:(?P<name>[A-Za-z_]\w*)=)?(?P<low>\d{1,9})\.\.(?P<high>\d{1,9})(?::(?P<step>\d{1,9}))?\}"
)
LIST = re.compile(r"\{(?:(?P<name>[A-Za-z_]\w*)=)?(?P<sizes>\d{1,9}(?:,\d{1,9})+)\}")


def parse_names_option(text: str) -> tuple[str, ...]:
    """Split at commas: `a, b` gives a tuple of two."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_choice_option(option: str, text: str, choices: Sequence[Choice]) -> Choice:
    for choice in choices:
        if text == choice:
            return choice
    raise UsageError(f"{option} is {text!r}, expected {', '.join(choices)}.")


def parse_pairs_option(option: str, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Split each `k=v`."""
    for text in texts:
        if "=" not in text or not text.split("=")[0].strip():
            raise UsageError(f"{option} is {text!r}, expected name=value.")
    split = [text.split("=", 1) for text in texts]
    return tuple((key.strip(), value.strip()) for key, value in split)


def parse_numbers_option(option: str, text: str | None) -> tuple[float, ...] | None:
    """Parse `0.5,0.5`. None stays None."""
    if text is None:
        return None
    return tuple(_finite_option(option, part) for part in parse_names_option(text))


def _finite_option(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{option} is {text!r}, expected a number.")
    return value


def parse_mask_option(option: str, text: str) -> str:
    """Parse a mask of cores: hexadecimal digits without 0x. Empty stays empty."""
    plain = text.lower().removeprefix("0x")
    if not re.fullmatch("[0-9a-f]{0,16}", plain) or (plain and int(plain, 16) == 0):
        raise UsageError(f"{option} is {text!r}, expected a hexadecimal mask of cores, as f0.")
    return plain


AGE = re.compile(r"(\d{1,6})([dh])")
"""An age: 7d is seven days ago, 36h is 36 hours ago."""


def parse_time_option(option: str, text: str) -> datetime:
    """Parse a time in UTC: an age such as `7d` or `36h`, `2026-01-31`, or `2026-01-31T03:00`."""
    if age := AGE.fullmatch(text.strip()):
        hours = int(age[1]) * (24 if age[2] == "d" else 1)
        return datetime.now(UTC) - timedelta(hours=hours)
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{option} is {text!r}, expected 7d, 36h or 2026-01-31.") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def parse_shapes_option(texts: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Parse `x=1x3x224x224` or `1x16:int64` into TensorSpecs; one without a name is matched by position."""
    return tuple(_parse_shape_option(text) for text in texts)


def _parse_shape_option(text: str) -> TensorSpec:
    match = SHAPE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--input-shape is {text!r}, expected 1x3x224x224 or name=1x16:int64.")
    shape = tuple(int(size) for size in re.split("[x,]", match["shape"]))
    if 0 in shape:
        raise UsageError(f"--input-shape is {text!r}: a size of 0 leaves nothing to compute.")
    dtype = match["dtype"] or "float32"
    return TensorSpec(
        match["name"] or "", shape, parse_choice_option("--input-shape's dtype", dtype, INPUT_DTYPES)
    )


def parse_dynamic_options(texts: Sequence[str]) -> tuple[DynamicShape, ...]:
    """Parse `x=1x3x{224..640:32}x{224..640:32}`: sizes, and ranges of them with a step.

    `{batch=1..8}` names a range. `{batch}` in the same or a later option means the same size. `{224,320}` and
    `{side=224,320}` list sizes.
    """
    named: dict[str, SizeRange | SizeList] = {}
    return tuple(_parse_dynamic_option(text, named) for text in texts)


def _parse_dynamic_option(text: str, named: dict[str, SizeRange | SizeList]) -> DynamicShape:
    match = DYNAMIC.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"--dynamic is {text!r}, expected x=1x3x{{224..640:32}}x{{224..640:32}} or "
            "ids=1x{length=8..128}:int64."
        )
    sizes = tuple(
        _parse_dynamic_size_option(part, text, named) for part in re.findall(DYNAMIC_SIZE, match["shape"])
    )
    dtype = parse_choice_option("--dynamic's dtype", match["dtype"] or "float32", INPUT_DTYPES)
    if all(isinstance(size, int) for size in sizes) and not named:
        raise UsageError(f"--dynamic is {text!r}, which has no range.", "Give fixed shapes by --input-shape.")
    return DynamicShape(match["name"] or "", sizes, dtype)


def _parse_dynamic_size_option(
    part: str, text: str, named: dict[str, SizeRange | SizeList]
) -> int | SizeRange | SizeList:
    match, name = RANGE.fullmatch(part), part.strip("{}")
    if name.isdecimal():
        return int(name)
    if match is None and name.isidentifier():
        if name not in named:
            raise UsageError(f"--dynamic is {text!r}: {part} names no range given before.")
        return named[name]
    size = _parse_listed_sizes_option(part, text) or _parse_size_range_option(part, text)
    if size.name and named.setdefault(size.name, size) != size:
        raise UsageError(f"--dynamic is {text!r}: {size.name} has two ranges.")
    return size


def _parse_listed_sizes_option(part: str, text: str) -> SizeList | None:
    match = LIST.fullmatch(part)
    if match is None:
        return None
    sizes = [int(size) for size in match["sizes"].split(",")]
    if len({*sizes}) < len(sizes) or 0 in sizes:
        raise UsageError(f"--dynamic is {text!r}: {part} lists a size twice, or 0.")
    return SizeList(match["name"] or "", tuple(sorted(sizes)))


def _parse_size_range_option(part: str, text: str) -> SizeRange:
    match = RANGE.fullmatch(part)
    low, high, step = (int(match["low"]), int(match["high"]), int(match["step"] or 1)) if match else (0, 0, 0)
    if match is None or not 1 <= low < high or step < 1 or (high - low) % step:
        raise UsageError(
            f"--dynamic is {text!r}: {part} is no range.",
            "The lower end is at least 1, the upper end larger by a multiple of the step.",
        )
    return SizeRange(match["name"] or "", low, high, step)


def parse_photo_sizes_option(text: str) -> tuple[int, int] | None:
    """Parse `64..1280`, the least and the greatest side of a photo. Empty is None."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,5})\.\.(\d{1,5})", text.strip())
    low, high = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= low < high <= MAX_PHOTO_SIDE:
        raise UsageError(
            f"--photo-sizes is {text!r}, expected the least and the greatest side of a photo, as 64..1280.",
            f"The least is at least 1, the greatest larger and at most {MAX_PHOTO_SIDE}.",
        )
    return low, high


def parse_limits_option(text: str) -> Limits:
    """Return the default limits with some replaced: `int8_min_sqnr_db=15`."""
    fields_of_limits = {field.name for field in fields(Limits)}
    changes: dict[str, float] = {}
    for key, value in parse_pairs_option("--limits", parse_names_option(text)):
        if key not in fields_of_limits:
            raise UsageError(
                f"--limits does not know {key!r}.", f"Known: {', '.join(sorted(fields_of_limits))}."
            )
        changes[key] = _finite_option(f"--limits {key}", value)
    return replace(Limits(), **changes)
