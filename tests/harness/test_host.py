from __future__ import annotations

import gc
import time
from pathlib import Path

import psutil
import pytest

from android_harness.errors import DeviceError
from android_harness.host import HostDevice
from tests.waiting import wait_until


def test_arguments_arrive_as_given() -> None:
    """Arguments are not read by a shell."""
    words = ("a b;$(reboot)'\"\n*.pte", "", "~", "A=b")
    assert HostDevice().run("printf", "%s|", *words).stdout == "".join(f"{word}|" for word in words)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)], ids=["exit", "killed", "fine"]
)
def test_exit_codes_are_a_shells(script: str, code: int) -> None:
    """A signal gives 128 plus its number, as on a phone."""
    assert HostDevice().run("sh", "-c", script).exit_code == code


def test_programs_that_are_not_there(tmp_path: Path) -> None:
    """A missing program gives 127, and one that cannot be run gives 126."""
    assert HostDevice().run("no-such-program").exit_code == 127
    (tmp_path / "text").write_text("x")
    assert HostDevice().run(str(tmp_path / "text")).exit_code == 126


def test_streams_are_apart_and_lines_end_alike() -> None:
    """CRLF becomes LF, and bytes that are not text are replaced."""
    ended = HostDevice().run("sh", "-c", r"printf 'a\r\n\377'; printf b >&2")
    assert (ended.stdout, ended.stderr) == ("a\n\N{REPLACEMENT CHARACTER}", "b")


def test_a_deadline_ends_the_program_and_its_children() -> None:
    """Nothing keeps running after the deadline."""
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"'sh' did not end within 0.3 s"):
        HostDevice().run("sh", "-c", "sleep 4321 & sleep 4321", timeout_s=0.3)
    assert time.monotonic() - start < 60
    wait_until(lambda: ["sleep", "4321"] not in [p.info["cmdline"] for p in psutil.process_iter(["cmdline"])])


@pytest.mark.parametrize("argv", [(), ("a\0b",)])
def test_invalid_commands_are_refused(argv: tuple[str, ...]) -> None:
    """NUL would end a string in C."""
    with pytest.raises(DeviceError, match="NUL"):
        HostDevice().run(*argv)


def test_endless_output_is_refused() -> None:
    """No command needs more than 8 MB."""
    with pytest.raises(DeviceError, match="more than 8 MB"):
        HostDevice().run("head", "-c", "9000000", "/dev/zero")


def test_files_go_there_and_back(tmp_path: Path) -> None:
    """Folders are created as adb creates them, and copied files are executable."""
    device = HostDevice()
    (tmp_path / "a").write_text("#!/bin/sh\necho hi\n")
    device.push(tmp_path / "a", f"{device.root}/x/b c")
    assert device.run(f"{device.root}/x/b c").stdout == "hi\n"
    device.pull(f"{device.root}/x/b c", tmp_path / "back")
    assert (tmp_path / "back").read_text() == (tmp_path / "a").read_text()
    with pytest.raises(DeviceError, match="cannot be copied"):
        device.pull(f"{device.root}/none", tmp_path / "none")


def test_its_folder_goes_with_it() -> None:
    """Nothing remains in the temporary folder."""
    device = HostDevice()
    root = Path(device.root)
    assert root.is_dir()
    del device
    gc.collect()
    assert not root.exists()
