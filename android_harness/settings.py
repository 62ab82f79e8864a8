"""Change a phone's settings for a while, and put them back whatever happens.

What was set before is written to a journal on the device first: after a crash of this machine, the next start
finds it there. It is not trusted when it is read back: it can name no setting but those in `ADJUSTABLE`.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from android_harness import parse
from android_harness.errors import DeviceError, HarnessError
from android_harness.records import Completed, Device

SETTING_S = 10.0
SYNC_S = 30.0
MAX_JOURNAL = 1 << 16
WANTED: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("global", "stay_on_while_plugged_in"): "7",  # on any charger: a sleeping phone parks its cores
        ("system", "screen_brightness_mode"): "0",
        ("system", "screen_brightness"): "1",
    }
)
ADJUSTABLE = frozenset(WANTED)
NUMBER = r"^-?[0-9]{1,9}$"
NOT_THERE = 44
READ_SCRIPT = f'[ -e "$0" ] || exit {NOT_THERE}; head -c {MAX_JOURNAL + 1} "$0"'
# The whole disk is synced: toybox' sync takes no file.
REPLACE_SCRIPT = 'sync && mv -f "$0" "$1" && sync'

logger = logging.getLogger(__name__)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: Literal["global", "system", "secure"]
    key: Annotated[str, Field(max_length=100)]
    before: Annotated[str, Field(pattern=NUMBER)] | None
    wanted: Annotated[str, Field(pattern=NUMBER)]


class _Journal(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    entries: Annotated[tuple[_Entry, ...], Field(max_length=len(ADJUSTABLE))]


@contextmanager
def changed(device: Device, wanted: Mapping[tuple[str, str], str] = WANTED) -> Iterator[tuple[str, ...]]:
    """Change settings while the body runs, then put them back.

    A setting that the user changes meanwhile is left alone. What cannot be put back now (disconnected) stays
    in the journal, is logged as a warning and never hides what the body did or raised.

    Args:
        device: Where.
        wanted: (namespace, key) -> value, of those in `ADJUSTABLE`.

    Yields:
        What could not be changed and why, a sentence each: no reason not to measure.

    Raises:
        ValueError: `wanted` names something that is not adjustable.
        DeviceError: The journal cannot be written; nothing was changed.
    """
    if not set(wanted) <= ADJUSTABLE:
        raise ValueError(f"not adjustable: {sorted(set(wanted) - ADJUSTABLE)}")
    recover(device)
    entries, problems = _plan(device, wanted)
    if entries:
        _write(device, _Journal(entries=entries))
    try:
        yield (*problems, *_apply(device, entries))
    finally:
        try:
            recover(device)
        except HarnessError as error:
            logger.warning(
                "Settings of %s are not put back yet, the next start will: %s", device.serial, error
            )


def recover(device: Device) -> tuple[str, ...]:
    """Put back what a journal on the device says, if there is one, and delete it.

    Returns:
        What was done or skipped, a sentence each; empty where there was no journal.

    Raises:
        DeviceError: The device does not answer or refuses; the journal stays.
    """
    ended = device.run("sh", "-c", READ_SCRIPT, _journal(device), timeout_s=SETTING_S)
    if ended.exit_code == NOT_THERE:
        return ()
    if ended.exit_code:
        raise DeviceError(f"{device.serial}: its settings journal cannot be read: {_said(ended)}.")
    try:
        journal = _Journal.model_validate_json(ended.stdout)
    except ValidationError:
        done: tuple[str, ...] = ("The settings journal is damaged: nothing was put back.",)
    else:
        done = tuple(_restore(device, entry) for entry in reversed(journal.entries))
    _checked(device, device.run("rm", "-f", _journal(device)), "its settings journal cannot be deleted")
    return done


def _restore(device: Device, entry: _Entry) -> str:
    name = f"{entry.namespace} {entry.key}"
    if (entry.namespace, entry.key) not in ADJUSTABLE:
        return f"{name} is none of ours: left alone."
    now = _get(device, entry.namespace, entry.key)
    _checked(device, now, f"{name} cannot be read")
    if parse.setting(now.stdout) != entry.wanted:
        return f"{name} was changed meanwhile: left alone."
    if entry.before is None:
        argv: tuple[str, ...] = ("settings", "delete", entry.namespace, entry.key)
    else:
        argv = ("settings", "put", entry.namespace, entry.key, entry.before)
    _checked(device, device.run(*argv, timeout_s=SETTING_S), f"{name} cannot be put back")
    return f"{name} is {entry.before or 'unset'} again."


def _plan(
    device: Device, wanted: Mapping[tuple[str, str], str]
) -> tuple[tuple[_Entry, ...], tuple[str, ...]]:
    """What to change, and why the rest is not."""
    entries: list[_Entry] = []
    problems: list[str] = []
    for (namespace, key), value in wanted.items():
        got = _get(device, namespace, key)
        before = parse.setting(got.stdout)
        if got.exit_code or (before is not None and not re.match(NUMBER, before)):
            problems.append(f"{namespace} {key} cannot be read: {_said(got)}.")
        elif before != value:
            entries.append(_Entry(namespace=namespace, key=key, before=before, wanted=value))  # type: ignore[arg-type]
    return tuple(entries), tuple(problems)


def _apply(device: Device, entries: tuple[_Entry, ...]) -> tuple[str, ...]:
    ends = {
        f"{entry.namespace} {entry.key}": device.run(
            "settings", "put", entry.namespace, entry.key, entry.wanted, timeout_s=SETTING_S
        )
        for entry in entries
    }
    return tuple(f"{name} cannot be changed: {_said(end)}." for name, end in ends.items() if end.exit_code)


def _get(device: Device, namespace: str, key: str) -> Completed:
    return device.run("settings", "get", namespace, key, timeout_s=SETTING_S)


def _write(device: Device, journal: _Journal) -> None:
    aside = f"{_journal(device)}.new"
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(journal.model_dump_json())
        file.flush()
        device.push(Path(file.name), aside)
    ended = device.run("sh", "-c", REPLACE_SCRIPT, aside, _journal(device), timeout_s=SYNC_S)
    _checked(device, ended, "its settings journal cannot be written")


def _journal(device: Device) -> str:
    return f"{device.root}/settings.json"


def _checked(device: Device, ended: Completed, problem: str) -> None:
    if ended.exit_code:
        raise DeviceError(f"{device.serial}: {problem}: {_said(ended)}.")


def _said(ended: Completed) -> str:
    text = (ended.stderr.strip() or ended.stdout.strip()).partition("\n")[0][:200]
    return f"{text or 'no reason given'} (exit code {ended.exit_code})"
