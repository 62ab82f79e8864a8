"""Options that several commands share: a function builds one value from them, which the command receives."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

Command = Callable[..., None]


def compose_command(parameter: str, build: Callable[..., Any]) -> Callable[[Command], Command]:
    """Give a command the parameters of `build` in the place of one of its own, which gets what it returns.

    Typer reads a function's signature, so the signature is changed.
    """
    theirs = inspect.signature(build, eval_str=True).parameters

    def compose(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters
        both = [
            p for name, value in own.items() for p in (theirs.values() if name == parameter else (value,))
        ]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            value = build(**{name: given.pop(name) for name in theirs})
            command(**{parameter: value}, **given)

        named = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in both]
        run.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
        return run

    return compose
