"""Tests of `android_harness.lease`: one run at a time uses a phone, on this computer and from others."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from android_harness import all_devices, launch, lease, parse
from android_harness.errors import DeviceError, NotReadyError
from android_harness.host import HostDevice
from android_harness.lease import Lease
from android_harness.push import Program
from android_harness.records import BenchConfig, Completed
from tests.harness import sessions

PLAN = BenchConfig(launches=2, min_seconds=0.0, max_seconds=30.0, wait_s=0.0)


class Phone(HostDevice):
    """A phone that several connections of a test share; `storage` is its folder."""

    def __init__(self, storage: Path, serial: str = "R58N") -> None:
        super().__init__()
        self.serial, self.root = serial, str(storage)


def held(
    phone: HostDevice, wait_s: float = 0.0, waits: list[str] | None = None
) -> AbstractContextManager[Lease]:
    noted = [] if waits is None else waits
    return lease.held_lease(phone, wait_s, lambda holder, left: noted.append(holder), lambda seconds: None)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lease:
    """Return a lease that a run on another computer holds on the phone."""
    stranger = Lease(Phone(tmp_path), "farm-2")
    with monkeypatch.context() as there:
        there.setattr(lease, "lease_label", lambda: "process 7 of eve on farm-2")
        assert stranger.acquire() == ""
    return stranger


def test_a_second_run_on_this_computer_is_refused(tmp_path: Path) -> None:
    """The message names the run that holds the phone; another phone is free."""
    with held(Phone(tmp_path / "a")):
        with pytest.raises(NotReadyError, match=f"R58N is in use: process {os.getpid()} of"):
            held(Phone(tmp_path / "a")).__enter__()
        with held(Phone(tmp_path / "b", "OTHER")):
            pass
    with held(Phone(tmp_path / "a")):
        pass


@pytest.mark.usefixtures("elsewhere")
def test_a_run_on_another_computer_is_refused(tmp_path: Path) -> None:
    """The lease on the phone keeps strangers out, after the wait that was asked for."""
    waits: list[str] = []
    with pytest.raises(NotReadyError, match=r"in use: process 7 of eve on farm-2, at most \d{3} s more"):
        held(Phone(tmp_path), 12.0, waits).__enter__()
    assert len(waits) == 3


def test_the_wait_ends_when_the_phone_is_free(tmp_path: Path, elsewhere: Lease) -> None:
    """A second run goes on as soon as the first has released the phone."""
    with lease.held_lease(
        Phone(tmp_path), 60.0, lambda holder, left: elsewhere.release(), lambda seconds: None
    ):
        assert elsewhere.acquire().startswith(f"process {os.getpid()}")


@pytest.mark.parametrize(
    "line",
    [
        "token other 1 {boot} long ago",  # past its deadline
        "token other 99999999999 {boot} a clock that was set back",
        "token other {later} another-boot before a restart of the phone",
        "",
        "\x00\xff damaged",
        "token other abc {boot} no number",
    ],
)
def test_a_stale_lease_keeps_nobody_out(line: str, tmp_path: Path) -> None:
    """A deadline that has passed, another boot and a damaged file hold no phone."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (tmp_path / "lease").write_text(line.format(boot=boot, later=int(time.time()) + 500))
    with held(Phone(tmp_path)):
        pass


def test_a_killed_run_on_this_computer_keeps_nobody_out(tmp_path: Path) -> None:
    """The kernel has released its lock, so its lease on the phone counts no more."""
    child = os.fork()
    if not child:
        kept = held(Phone(tmp_path))
        kept.__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / "lease").is_file()
    with held(Phone(tmp_path)):
        pass


def test_a_run_that_lost_its_lease_stops(tmp_path: Path) -> None:
    """A run that stood still past its deadline does not disturb the next."""
    with held(Phone(tmp_path)) as own:
        (tmp_path / "lease").unlink()
        assert Lease(Phone(tmp_path), "farm-2").acquire() == ""
        own.renewed_at -= lease.RENEW_S
        with pytest.raises(DeviceError, match="stood still for too long"):
            own.renew()


def test_many_runs_at_once_get_the_phone_one_by_one(tmp_path: Path) -> None:
    """Exactly one of several computers that ask at the same time gets the phone."""
    (tmp_path / "lease").write_text("token other 1 boot stale")
    results: list[str] = []
    leases = [Lease(Phone(tmp_path), f"farm-{number}") for number in range(6)]
    threads = [threading.Thread(target=lambda own=own: results.append(own.acquire())) for own in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("") == 1


def benched(phone: HostDevice, folder: Path, mode: str) -> all_devices.Outcome:
    program = Program(sessions.stand_in(folder))
    outcomes = all_devices.bench_all_devices(
        [phone],
        [sessions.task(folder, mode)],
        PLAN,
        soc=None,
        observer=lambda serial, step: None,
        programs=lambda device, identity: lambda backend: program,
    )
    return outcomes[phone.serial]


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the load of this machine, which other tests cause."""
    monkeypatch.setattr(parse, "parse_load1", lambda text: 0.5)


@pytest.mark.usefixtures("calm", "elsewhere")
def test_a_bench_touches_nothing_of_another_run(tmp_path: Path) -> None:
    """Neither the other run's runner is killed, nor its settings are restored."""
    phone = Phone(tmp_path)
    runner = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "runner.pid").write_text(str(runner.pid))
        (tmp_path / "settings.json").write_text("a journal of the other run")
        outcome = benched(phone, tmp_path, "fine")
        assert isinstance(outcome.error, NotReadyError)
        assert runner.poll() is None
        assert (tmp_path / "settings.json").is_file()
    finally:
        runner.kill()
        runner.wait()


class Watched(Phone):
    """A phone that records whether a lease was held when a runner was killed."""

    kills: list[bool]

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        if launch.KILL in argv:
            self.kills.append((Path(self.root) / "lease").is_file())
        return super().run(*argv, timeout_s=timeout_s)


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_request_to_end_cleans_up(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C, SIGTERM and SIGHUP the runner is ended, and the lease released."""
    phone = Watched(tmp_path / "phone")
    phone.kills = []
    before = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    inherited = signal.signal(number, before)  # `nohup` has its children ignore SIGHUP
    waited = all_devices._all_devices_done

    def interrupted(futures: object) -> bool:
        if list((tmp_path / "phone").glob("programs/*/log")):
            monkeypatch.setattr(all_devices, "_all_devices_done", waited)
            signal.raise_signal(number)
        return waited(futures)  # type: ignore[arg-type]

    monkeypatch.setattr(all_devices, "_all_devices_done", interrupted)
    with pytest.raises(KeyboardInterrupt):
        benched(phone, tmp_path, "hang")
    assert phone.kills
    assert all(phone.kills)
    assert not (tmp_path / "phone" / "lease").exists()
    assert signal.signal(number, inherited) is before


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_link_in_place_of_a_lock_is_not_written(
    link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All users may write to the folder of locks: another may plant a link to a file of this user's."""
    monkeypatch.setenv("EXPORT_MOBILE_STATE", str(tmp_path / "state"))
    with held(Phone(tmp_path / "phone")):
        (lock,) = (tmp_path / "state" / "leases").iterdir()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    lock.unlink()
    if link == "hard":
        lock.hardlink_to(precious)
    else:
        lock.symlink_to(precious)
    with held(Phone(tmp_path / "phone")):
        pass
    assert precious.read_text() == "mine"


def test_a_link_in_place_of_the_folder_of_locks_changes_no_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes the shared folder first must not open a folder of another user's to everybody."""
    monkeypatch.delenv("EXPORT_MOBILE_STATE", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (tmp_path / "export-mobile-leases").symlink_to(home)
    with held(Phone(tmp_path / "phone")):
        pass
    assert home.stat().st_mode & 0o7777 == 0o700
    assert not list(home.iterdir())


def test_what_another_user_wrote_into_a_lock_is_printable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the run that holds a phone reaches the terminal without control codes."""
    monkeypatch.setenv("EXPORT_MOBILE_STATE", str(tmp_path / "state"))
    with held(Phone(tmp_path / "a")):
        (lock,) = (tmp_path / "state" / "leases").iterdir()
        lock.write_text("\x1b]0;mine\x07 of eve")
        with pytest.raises(NotReadyError) as caught:
            held(Phone(tmp_path / "a")).__enter__()
    assert caught.value.message == "R58N is in use:  ]0;mine  of eve."
