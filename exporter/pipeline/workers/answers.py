"""Reads what a confined child answers: our own records and plain values, whatever else its pickle names."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import io
import pickle
from typing import Any

PLAIN: frozenset[str] = frozenset(
    {
        "builtins.set", "builtins.frozenset", "builtins.complex", "builtins.bytearray", "builtins.slice",
        "builtins.range", "collections.OrderedDict", "collections.Counter", "collections.defaultdict",
        "collections.deque", "datetime.datetime", "datetime.date", "datetime.timedelta", "datetime.timezone",
        "pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath", "fractions.Fraction",
        "numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar", "numpy._core.numeric._frombuffer", "_codecs.encode",
    }
)  # fmt: skip
"""Classes and functions that only hold values."""

OURS = ("exporter.", "android_harness.")


def load_answer(data: bytes) -> Any:
    """Unpickle an answer without calling anything but constructors of records, errors and plain values.

    Raises:
        pickle.UnpicklingError: The answer names something else.
    """
    return _AnswerUnpickler(io.BytesIO(data)).load()


class _AnswerUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in PLAIN:
            return super().find_class(module, name)
        if module == "builtins" or module.startswith(OURS):
            target = getattr(importlib.import_module(module), name, None)
            if _is_answered_record(target) or _is_answered_error(target):
                return target
        raise pickle.UnpicklingError(f"The answer holds a {full[:80]}, which is no record.")


def _is_answered_record(target: object) -> bool:
    return isinstance(target, type) and (dataclasses.is_dataclass(target) or issubclass(target, enum.Enum))


def _is_answered_error(target: object) -> bool:
    return isinstance(target, type) and issubclass(target, BaseException)
