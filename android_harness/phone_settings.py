"""Change a phone's settings temporarily, and restore them whatever happens.

The previous values are written to a journal on the device first, so that the next start can restore them
after a crash of this machine. The journal is untrusted: it can name only the settings in `ADJUSTABLE`. See
docs/explanation/measurement-protocol.md, section 4.11.
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
STAY_ON: Mapping[tuple[str, str], str] = MappingProxyType({("global", "stay_on_while_plugged_in"): "7"})
"""On any charger: a sleeping phone turns cores off."""
WANTED: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        **STAY_ON,
        ("system", "screen_brightness_mode"): "0",
        ("system", "screen_brightness"): "1",
    }
)
ADJUSTABLE = frozenset(WANTED)
NUMBER = r"^-?[0-9]{1,9}$"
NOT_THERE = 44
READ_SCRIPT = f'[ -e "$0" ] || exit {NOT_THERE}; head -c {MAX_JOURNAL + 1} "$0"'
# toybox' sync takes no file, so the whole disk is synced.
REPLACE_SCRIPT = 'sync && mv -f "$0" "$1" && sync'

logger = logging.getLogger(__name__)


class _SettingsEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: Literal["global", "system", "secure"]
    key: Annotated[str, Field(max_length=100)]
    before: Annotated[str, Field(pattern=NUMBER)] | None
    wanted: Annotated[str, Field(pattern=NUMBER)]


class _SettingsJournal(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    entries: Annotated[tuple[_SettingsEntry, ...], Field(max_length=len(ADJUSTABLE))]


@contextmanager
def changed_phone_settings(
    device: Device, wanted: Mapping[tuple[str, str], str] = WANTED
) -> Iterator[tuple[str, ...]]:
    """Change settings while the body runs, then restore them.

    A setting that the user changes in the meantime is left alone. If a setting cannot be restored because the
    device is disconnected, it stays in the journal and a warning is logged; the body's exception is kept.

    Args:
        device: The phone.
        wanted: (namespace, key) -> value, for settings in `ADJUSTABLE`.

    Yields:
        A sentence for each setting that could not be changed; this does not prevent measuring.

    Raises:
        ValueError: `wanted` names a setting that is not adjustable.
        DeviceError: The journal cannot be written; nothing was changed.
    """
    if not set(wanted) <= ADJUSTABLE:
        raise ValueError(f"not adjustable: {sorted(set(wanted) - ADJUSTABLE)}")
    recover_phone_settings(device)
    entries, problems = _plan_phone_settings(device, wanted)
    if entries:
        _write_phone_setting(device, _SettingsJournal(entries=entries))
    try:
        yield (*problems, *_apply_phone_settings(device, entries))
    finally:
        try:
            recover_phone_settings(device)
        except HarnessError as error:
            logger.warning(
                "The settings of %s are not restored yet; the next start will restore them: %s",
                device.serial,
                error,
            )


def recover_phone_settings(device: Device) -> tuple[str, ...]:
    """Restore the settings in the journal on the device, if there is one, and delete the journal.

    Returns:
        A sentence for each setting that was restored or skipped; empty if there was no journal.

    Raises:
        DeviceError: The device does not answer or refuses; the journal stays.
    """
    completed = device.run("sh", "-c", READ_SCRIPT, _phone_settings_journal(device), timeout_s=SETTING_S)
    if completed.exit_code == NOT_THERE:
        return ()
    if completed.exit_code:
        raise DeviceError(
            f"{device.serial}: its settings journal cannot be read: {_phone_settings_reason(completed)}."
        )
    try:
        journal = _SettingsJournal.model_validate_json(completed.stdout)
    except ValidationError:
        done: tuple[str, ...] = ("The settings journal is damaged: no setting was restored.",)
    else:
        done = tuple(_restore_phone_settings(device, entry) for entry in reversed(journal.entries))
    _check_phone_setting(
        device,
        device.run("rm", "-f", _phone_settings_journal(device)),
        "its settings journal cannot be deleted",
    )
    return done


def _restore_phone_settings(device: Device, entry: _SettingsEntry) -> str:
    name = f"{entry.namespace} {entry.key}"
    if (entry.namespace, entry.key) not in ADJUSTABLE:
        return f"{name} is not adjustable: it is left alone."
    current = _get_phone_setting(device, entry.namespace, entry.key)
    _check_phone_setting(device, current, f"{name} cannot be read")
    if parse.parse_setting(current.stdout) != entry.wanted:
        return f"{name} was changed in the meantime: it is left alone."
    if entry.before is None:
        argv: tuple[str, ...] = ("settings", "delete", entry.namespace, entry.key)
    else:
        argv = ("settings", "put", entry.namespace, entry.key, entry.before)
    _check_phone_setting(device, device.run(*argv, timeout_s=SETTING_S), f"{name} cannot be restored")
    return f"{name} is {entry.before or 'unset'} again."


def _plan_phone_settings(
    device: Device, wanted: Mapping[tuple[str, str], str]
) -> tuple[tuple[_SettingsEntry, ...], tuple[str, ...]]:
    """Return the settings to change, and a sentence for each that cannot be read."""
    entries: list[_SettingsEntry] = []
    problems: list[str] = []
    for (namespace, key), value in wanted.items():
        current = _get_phone_setting(device, namespace, key)
        before = parse.parse_setting(current.stdout)
        if current.exit_code or (before is not None and not re.match(NUMBER, before)):
            problems.append(f"{namespace} {key} cannot be read: {_phone_settings_reason(current)}.")
        elif before != value:
            entries.append(_SettingsEntry(namespace=namespace, key=key, before=before, wanted=value))  # type: ignore[arg-type]
    return tuple(entries), tuple(problems)


def _apply_phone_settings(device: Device, entries: tuple[_SettingsEntry, ...]) -> tuple[str, ...]:
    results = {
        f"{entry.namespace} {entry.key}": device.run(
            "settings", "put", entry.namespace, entry.key, entry.wanted, timeout_s=SETTING_S
        )
        for entry in entries
    }
    return tuple(
        f"{name} cannot be changed: {_phone_settings_reason(result)}."
        for name, result in results.items()
        if result.exit_code
    )


def _get_phone_setting(device: Device, namespace: str, key: str) -> Completed:
    return device.run("settings", "get", namespace, key, timeout_s=SETTING_S)


def _write_phone_setting(device: Device, journal: _SettingsJournal) -> None:
    aside = f"{_phone_settings_journal(device)}.new"
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(journal.model_dump_json())
        file.flush()
        device.push(Path(file.name), aside)
    completed = device.run(
        "sh", "-c", REPLACE_SCRIPT, aside, _phone_settings_journal(device), timeout_s=SYNC_S
    )
    _check_phone_setting(device, completed, "its settings journal cannot be written")


def _phone_settings_journal(device: Device) -> str:
    return f"{device.root}/settings.json"


def _check_phone_setting(device: Device, completed: Completed, problem: str) -> None:
    if completed.exit_code:
        raise DeviceError(f"{device.serial}: {problem}: {_phone_settings_reason(completed)}.")


def _phone_settings_reason(completed: Completed) -> str:
    text = (completed.stderr.strip() or completed.stdout.strip()).partition("\n")[0][:200]
    return f"{text or 'no reason given'} (exit code {completed.exit_code})"
