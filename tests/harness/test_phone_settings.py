from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from android_harness import phone_settings
from android_harness.errors import DeviceError, Disconnected
from android_harness.host import HostDevice
from android_harness.records import Completed

# Android's `settings`: a value per file, "null" if there is none.
STAND_IN = """#!/bin/sh
[ -e "$STORE/refuse" ] && [ "$1" != get ] && { echo "SecurityException: no" >&2; exit 255; }
case "$1" in
get) cat "$STORE/$2.$3" 2>/dev/null || echo null ;;
put) echo "$4" > "$STORE/$2.$3" ;;
delete) rm -f "$STORE/$2.$3" ;;
esac
"""
AWAKE, MODE, LIGHT = (
    ("global", "stay_on_while_plugged_in"),
    ("system", "screen_brightness_mode"),
    ("system", "screen_brightness"),
)


class Phone(HostDevice):
    """This machine with a stand-in for `settings`, and a cable that can be unplugged."""

    def __init__(self, store: Path) -> None:
        super().__init__()
        self.store = store
        self.calls_left: int | None = None

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        if self.calls_left is not None:
            if self.calls_left <= 0:
                raise Disconnected("unplugged")
            self.calls_left -= 1
        return super().run(*argv, timeout_s=timeout_s)

    def get(self, name: tuple[str, str]) -> str | None:
        path = self.store / ".".join(name)
        return path.read_text().strip() if path.exists() else None

    def put(self, name: tuple[str, str], value: str) -> None:
        (self.store / ".".join(name)).write_text(value)

    @property
    def journal(self) -> Path:
        return Path(self.root) / "settings.json"


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    for folder in ("bin", "store"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin" / "settings").write_text(STAND_IN)
    (tmp_path / "bin" / "settings").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("STORE", str(tmp_path / "store"))
    device = Phone(tmp_path / "store")
    device.put(MODE, "1")
    device.put(LIGHT, "130")
    return device


def values(phone: Phone) -> tuple[str | None, ...]:
    return tuple(phone.get(name) for name in (AWAKE, MODE, LIGHT))


def test_settings_hold_inside_and_come_back_after(phone: Phone) -> None:
    """A setting that was unset is unset again, and no journal remains."""
    with phone_settings.changed_phone_settings(phone) as problems:
        assert (values(phone), problems) == (("7", "0", "1"), ())
        assert phone.journal.exists()
    assert values(phone) == (None, "1", "130")
    assert not phone.journal.exists()


def test_they_come_back_when_the_body_fails(phone: Phone) -> None:
    """The exception is the one that the body raised."""
    with pytest.raises(KeyboardInterrupt), phone_settings.changed_phone_settings(phone):
        raise KeyboardInterrupt
    assert values(phone) == (None, "1", "130")


def test_changes_by_the_user_are_left_alone(phone: Phone) -> None:
    """The user's own changes are kept."""
    with phone_settings.changed_phone_settings(phone):
        phone.put(LIGHT, "200")
    assert values(phone) == (None, "1", "200")


def test_unchanged_settings_need_no_journal(phone: Phone) -> None:
    """A setting that already has its value needs no journal."""
    for name, value in phone_settings.WANTED.items():
        phone.put(name, value)
    with phone_settings.changed_phone_settings(phone):
        assert not phone.journal.exists()
    assert values(phone) == ("7", "0", "1")


def pull_the_cable_inside(phone: Phone) -> None:
    with phone_settings.changed_phone_settings(phone):
        phone.calls_left = 0
        raise Disconnected("unplugged")


@pytest.mark.parametrize("calls", range(3, 9))
def test_a_cable_unplugged_at_any_moment_is_handled_at_the_next_start(phone: Phone, calls: int) -> None:
    """The journal is on the phone before anything is changed."""
    phone.calls_left = calls
    with pytest.raises(Disconnected, match="unplugged"):
        pull_the_cable_inside(phone)
    phone.calls_left = None
    phone_settings.recover_phone_settings(phone)
    assert values(phone) == (None, "1", "130")
    assert not phone.journal.exists()


def test_an_unplugged_phone_is_logged_and_hides_no_result(
    phone: Phone, caplog: pytest.LogCaptureFixture
) -> None:
    """A finished measurement is not lost because settings could not be restored."""
    with caplog.at_level(logging.WARNING), phone_settings.changed_phone_settings(phone):
        phone.calls_left = 0
    assert "not restored yet" in caplog.text
    phone.calls_left = None
    with phone_settings.changed_phone_settings(phone):
        assert json.loads(phone.journal.read_text())["entries"][0]["before"] is None
    assert values(phone) == (None, "1", "130")


def test_a_crash_of_this_machine_is_handled_at_the_next_start(phone: Phone) -> None:
    """No `finally` runs if the process is killed."""
    code = (
        "import os, sys; from android_harness import host, phone_settings\n"
        "d = host.HostDevice(); d.root = sys.argv[1]\n"
        "with phone_settings.changed_phone_settings(d): os._exit(9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, phone.root], check=False)
    assert (ended.returncode, values(phone)) == (9, ("7", "0", "1"))
    assert len(phone_settings.recover_phone_settings(phone)) == 3
    assert values(phone) == (None, "1", "130")
    assert phone_settings.recover_phone_settings(phone) == ()


def test_a_phone_that_refuses_is_measured_all_the_same(phone: Phone) -> None:
    """Some vendors do not let adb change settings; the reason is reported."""
    (phone.store / "refuse").touch()
    with phone_settings.changed_phone_settings(phone) as problems:
        assert len(problems) == 3
        assert "SecurityException" in problems[0]
    assert values(phone) == (None, "1", "130")


def test_a_device_without_settings_is_left_alone() -> None:
    """This machine has no settings."""
    device = HostDevice()
    with phone_settings.changed_phone_settings(device) as problems:
        assert all("cannot be read" in problem for problem in problems)
        assert len(problems) == 3


def entry(**fields: object) -> dict[str, object]:
    return {"namespace": "system", "key": "screen_brightness", "before": "5", "wanted": "130", **fields}


@pytest.mark.parametrize(
    "journal",
    [
        "",
        "{",
        "[]",
        '{"version": 2, "entries": []}',
        json.dumps({"version": 1, "entries": [entry(before="5; reboot")]}),
        json.dumps({"version": 1, "entries": [entry(before="$(reboot)")]}),
        json.dumps({"version": 1, "entries": [entry(before="5\n")]}),
        json.dumps({"version": 1, "entries": [entry(namespace="../x")]}),
        json.dumps({"version": 1, "entries": [entry(key="adb_enabled", namespace="global")]}),
        json.dumps({"version": 1, "entries": [entry(more=1)]}),
        json.dumps({"version": 1, "entries": [entry()] * 4}),
        pytest.param(
            "[" * 60_000, id="deep"
        ),  # the id becomes part of the environment, whose size is limited
        pytest.param("x" * 200_000, id="long"),
    ],
)
def test_a_hostile_journal_changes_nothing(phone: Phone, journal: str) -> None:
    """The journal is checked like any input, and deleted."""
    phone.put(("global", "adb_enabled"), "130")
    before = {path.name: path.read_text() for path in phone.store.iterdir()}
    phone.journal.write_text(journal)
    phone.put(LIGHT, "130")
    before["system.screen_brightness"] = "130"
    assert phone_settings.recover_phone_settings(phone)
    assert {path.name: path.read_text() for path in phone.store.iterdir()} == before
    assert not phone.journal.exists()


def test_only_known_settings_can_be_changed(phone: Phone) -> None:
    """Only the settings in one list can be changed."""
    with (
        pytest.raises(ValueError, match="adb_enabled"),
        phone_settings.changed_phone_settings(phone, {("global", "adb_enabled"): "0"}),
    ):
        pass


def test_a_refusal_to_restore_keeps_the_journal(phone: Phone) -> None:
    """A later start can try again."""
    with phone_settings.changed_phone_settings(phone):
        (phone.store / "refuse").touch()
    assert phone.journal.exists()
    with pytest.raises(DeviceError, match="cannot be restored"):
        phone_settings.recover_phone_settings(phone)
    (phone.store / "refuse").unlink()
    phone_settings.recover_phone_settings(phone)
    assert values(phone) == (None, "1", "130")
