"""The whole harness on simulated devices: real adbd, real runners, and everything that goes wrong."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from android_harness import adb, all_devices, listing, parse, provenance, stats
from android_harness.bench import Failed, Programs
from android_harness.errors import HarnessError, SetupError
from android_harness.push import Program
from android_harness.records import Backend, BenchConfig, BenchTask, Device, Identity, Session
from tests.harness import runners, sessions, simulated
from tests.harness.simulated import TestDevice

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("simulated")]
SICK, WELL = "lab phone 1", "lab phone 2"
PLAN = BenchConfig(launches=2, min_iterations=50, min_seconds=0.1, max_seconds=5.0, wait_s=0.0)
BACKENDS: tuple[Backend, ...] = ("executorch", "onnxruntime", "torchscript")


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated device shows this machine's load, which other tests make."""
    monkeypatch.setattr(parse, "load1", lambda text: 0.5)


@pytest.fixture(scope="module")
def three() -> Iterator[tuple[TestDevice, ...]]:
    with simulated.devices(count=3, serials=(SICK, WELL, "lab phone 3")) as found:
        yield found


@pytest.fixture
def phones(
    three: tuple[TestDevice, ...], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TestDevice, ...]]:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(three[0].server_port))
    # A phone on USB comes back by itself; these are on TCP, and their serials hide the address.
    monkeypatch.setattr(adb.AdbDevice, "_nudge", lambda self, timeout_s: plugged_in(three[0]))
    yield three
    three[0].misbehave("none")
    plugged_in(three[0])
    adb.AdbDevice(SICK).reconnect(20)


def plugged_in(phone: TestDevice) -> None:
    with suppress(SetupError):  # while it is out or starts, adb cannot reach it: the caller asks again
        phone.reconnect()


@functools.cache
def tiny(backend: Backend) -> BenchTask:
    path = runners.model(backend)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return BenchTask(path.name, path, sha256, backend, runners.inputs())


def benched(
    tasks: list[BenchTask],
    *serials: str,
    config: BenchConfig = PLAN,
    stand_in: Path | None = None,
    observer: Callable[[str, str], None] = lambda serial, what: None,
    soc: str | None = None,
) -> dict[str, all_devices.Outcome]:
    devices = [adb.AdbDevice(serial) for serial in serials]

    def ours(device: Device, identity: Identity) -> Programs:
        assert stand_in is not None
        program = Program(stand_in)
        return lambda backend: program

    chosen = ours if stand_in else None
    return dict(all_devices.bench_all(devices, tasks, config, soc=soc, observer=observer, programs=chosen))


def session(outcome: all_devices.Outcome, place: int = 0) -> Session:
    assert outcome.error is None, outcome.error
    found = outcome.results[place]
    assert isinstance(found, Session), found.reason
    return found


def failure(outcome: all_devices.Outcome) -> str:
    if outcome.error is not None:
        assert isinstance(outcome.error, HarnessError), outcome.error
        return str(outcome.error)
    (found,) = outcome.results
    assert isinstance(found, Failed)
    return str(found.reason)


def sleeper(folder: Path, seconds: float) -> tuple[list[BenchTask], Path]:
    return [sessions.task(folder, f"sleep {seconds}")], sessions.device_stand_in(folder)


# --- The three runtimes


def check_measured(found: Session) -> None:
    """Outputs are Python's, and nothing of it counts as measured."""
    for launch in found.launches:
        assert len(launch.durations_ns) >= PLAN.min_iterations
        for sample, came in zip(runners.inputs(), launch.outputs, strict=True):
            for expected, array in zip(runners.answers(sample), came, strict=True):
                np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)
    latency = provenance.latency(found, stats.figures(found), provenance.Check(0.0, ""), 15.0)
    assert (latency.evidence, provenance.verdict(latency)) == ("simulated", "not_measured")


def test_three_runtimes_on_an_x86_device(phones: tuple[TestDevice, ...]) -> None:
    """The built runners, found by the farm itself; threads are no more than the cores."""
    for backend in BACKENDS:
        runners.host_runner(backend)
    outcome = benched([tiny(backend) for backend in BACKENDS], SICK, config=replace(PLAN, threads=512))[SICK]
    for place, backend in enumerate(BACKENDS):
        found = session(outcome, place)
        assert found.launches[0].runtime.lower().startswith(backend[:4])
        assert found.config.threads == len(os.sched_getaffinity(0))
        check_measured(found)


def test_onnxruntime_on_an_emulated_arm64_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross-built, and the runner says aarch64 itself."""
    runners.arm64_build()
    with simulated.devices(arch="aarch64") as (device,):
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(device.server_port))
        found = session(benched([tiny("onnxruntime")], device.serial)[device.serial])
    assert {one.machine for one in found.launches} == {"aarch64"}
    check_measured(found)


# --- The command line


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*simulated.COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )


def ran(*arguments: str) -> tuple[int, str, str]:
    process = command(*arguments)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from exporter import export
    from tests import exports

    folder = tmp_path_factory.mktemp("exported") / "out"
    options = exports.options("cnn") | {"formats": ("executorch",), "precisions": ("fp32",)}
    export(exports.checkpoint("cnn"), target="snapdragon865", out=folder, **options)
    return folder


@pytest.fixture
def out(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "out"))


def test_the_command_says_simulated_everywhere(phones: tuple[TestDevice, ...], out: Path) -> None:
    """Table, manifest and exit code; the export is still valid afterwards."""
    for backend in BACKENDS:
        runners.host_runner(backend)
    code, said, err = ran(
        "bench", str(out), "--device", SICK, "--launches", "3", "--seconds", "0.05", "--wait", "100"
    )
    assert code == 19, err
    assert "SIMULATED" in said
    listed = json.loads((out / "manifest.json").read_text())
    assert listed["verdict"]["budget"] == "not_measured"
    found = [one["device_latency"] for one in listed["artifacts"] if one["device_latency"]]
    assert [(one["evidence"], one["verdict"]) for one in found] == [("simulated", "not_measured")]
    assert ran("verify", str(out))[0] == 0


def test_devices_as_json(phones: tuple[TestDevice, ...]) -> None:
    """A row each, with the documented keys; unauthorised ones too, with what to do."""
    phones[0].misbehave("unauthorized")
    phones[0].reconnect()
    code, said, _ = ran("devices", "--json")
    assert code == 0
    rows = {row["serial"]: row for row in json.loads(said)["devices"]}
    assert set(rows) == {SICK, WELL, "lab phone 3"}
    assert all({"serial", "state", "soc", "ready", "gates"} <= set(row) for row in rows.values())
    assert (rows[SICK]["state"], rows[SICK]["soc"], rows[SICK]["ready"]) == ("unauthorized", None, False)
    assert "accept" in rows[SICK]["gates"][0]["fix"]
    assert (rows[WELL]["state"], rows[WELL]["soc"]) == ("device", "SM8250")


def test_two_devices_and_none_named(phones: tuple[TestDevice, ...], out: Path) -> None:
    """They are listed, spaces and all."""
    code, _, err = ran("bench", str(out))
    assert code == 14
    assert "lab phone 1 (device); lab phone 2 (device)" in err
    assert "--device" in err


def test_ctrl_c_kills_the_runner_and_puts_settings_back(phones: tuple[TestDevice, ...], out: Path) -> None:
    """Both on the device, before the command ends."""
    for backend in BACKENDS:
        runners.host_runner(backend)
    before = phones[0].adb("shell", "settings list global; settings list system").stdout
    process = command("bench", str(out), "--device", SICK, "--seconds", "20", "--wait", "100")
    deadline = time.monotonic() + 60
    while not running(phones[0]) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    assert running(phones[0]), process.communicate(timeout=60)
    assert phones[0].adb("shell", "settings list global; settings list system").stdout != before
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not running(phones[0])
    assert phones[0].adb("shell", "settings list global; settings list system").stdout == before


def running(phone: TestDevice) -> list[int]:
    from android_harness.simulator import faults

    return [pid for pid in faults.runners(phone.simulated.init) if b"\0run\0" in simulated.cmdline(pid)]


# --- What goes wrong on one device, while another tasks on


def test_unauthorised(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """It says what to do at the phone."""
    phones[0].misbehave("unauthorized")
    phones[0].reconnect()
    tasks, program = sleeper(tmp_path, 0)
    found = benched(tasks, SICK, WELL, stand_in=program)
    assert 'accept "Allow USB debugging?"' in failure(found[SICK])
    session(found[WELL])


def big(folder: Path, size: int) -> BenchTask:
    """A model that its push takes a while, and that the stand-in takes for "fine"."""
    path = folder / "big.onnx"
    path.write_bytes(b"fine " + os.urandom(size))
    sample = (np.arange(6, dtype=np.float32).reshape(2, 3),)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return BenchTask("big", path, digest, "onnxruntime", (sample,))


def test_offline_in_a_push_and_back(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """The push is repeated and the task finished."""
    phones[0].misbehave("offline", after_bytes=1 << 20, seconds=1.0)
    told: list[str] = []
    tasks = [big(tmp_path, 4_000_000)]
    found = benched(tasks, SICK, WELL, stand_in=sessions.device_stand_in(tmp_path))
    assert len(session(found[SICK]).launches) == PLAN.launches, told
    session(found[WELL])


@contextmanager
def impatient(seconds: float) -> Iterator[None]:
    patient = adb.AdbDevice.reconnect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adb.AdbDevice, "reconnect", lambda self: patient(self, seconds))
        yield


def test_offline_for_good(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """It is waited for as long as is said."""
    phones[0].misbehave("offline", after_bytes=1 << 20, seconds=600.0)
    tasks = [big(tmp_path, 4_000_000)]
    with impatient(2.0):
        found = benched(tasks, SICK, WELL, stand_in=sessions.device_stand_in(tmp_path))
    assert "did not come back within 2 s. Plug it in again." in failure(found[SICK])
    session(found[WELL])


def test_a_slow_link_takes_longer(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """And finishes."""
    phones[0].misbehave("slow_link", bytes_per_second=1_500_000)
    tasks = [big(tmp_path, 3_000_000)]
    began = time.monotonic()
    found = benched(tasks, SICK, WELL, stand_in=sessions.device_stand_in(tmp_path))
    session(found[SICK])
    session(found[WELL])
    assert time.monotonic() - began > 1.9


def test_a_link_that_is_too_slow_costs_its_deadlines(
    phones: tuple[TestDevice, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tries of a push, no longer."""
    monkeypatch.setattr(adb, "transfer_s", lambda size: 2.0)
    phones[0].misbehave("slow_link", bytes_per_second=100_000)
    tasks = [big(tmp_path, 3_000_000)]
    began = time.monotonic()
    found = benched(tasks, SICK, WELL, stand_in=sessions.device_stand_in(tmp_path))
    # The second where what adb still holds of a push that was given up delays the command after it.
    told = failure(found[SICK])
    assert "copying 'big.onnx' onto it took longer than 2 s" in told or "did not end within" in told
    assert time.monotonic() - began < 180
    session(found[WELL])


@pytest.mark.parametrize(
    ("free", "words"),
    [
        (1 << 20, "free space: 1.0 MB, expected at least 3.0 MB. Free some space on the phone."),
        (4 << 20, "is full: '/data/local/tmp/export-mobile/"),
    ],
)
def test_a_full_disk(phones: tuple[TestDevice, ...], tmp_path: Path, free: int, words: str) -> None:
    """Too full for the model is a gate; too full for the rest is told when it happens."""
    # What earlier tests left half pushed is removed at a start, which would make room.
    benched([sessions.task(tmp_path, "fine")], SICK, stand_in=sessions.device_stand_in(tmp_path))
    phones[0].misbehave("disk_full", free_bytes=free)
    program = sessions.device_stand_in(tmp_path)
    with program.open("a") as file:
        file.write("__END__\n" + "x" * 3_000_000)
    found = benched([big(tmp_path, 3_000_000)], SICK, WELL, stand_in=program)
    assert words in failure(found[SICK])
    session(found[WELL])


def test_a_killed_runner(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """By the system, most likely for want of memory."""
    phones[0].misbehave("killed_runner", after_s=0.2)
    tasks, program = sleeper(tmp_path, 1.0)
    found = benched(tasks, SICK, WELL, stand_in=program)
    assert "the runner was killed (exit code 137), probably for lack of memory" in failure(found[SICK])
    session(found[WELL])


def test_a_hang(phones: tuple[TestDevice, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs its deadline, and the process is gone afterwards."""
    monkeypatch.setattr("android_harness.launch.LOAD_S", 2.0)
    phones[0].misbehave("hang", after_s=0.3)
    tasks, program = sleeper(tmp_path, 1.0)
    found = benched(tasks, SICK, WELL, stand_in=program, config=replace(PLAN, max_seconds=1.0))
    assert "did not end within 3 s" in failure(found[SICK])
    assert not running(phones[0])
    session(found[WELL])


def on_launch(phone: TestDevice, number: int, kind: str, **options: float) -> Callable[[str, str], None]:
    """Let a device misbehave a little after its launch of that number was announced."""
    import threading

    def told(serial: str, what: str) -> None:
        if serial == phone.serial and f"launch {number} " in what:
            threading.Timer(0.8, lambda: phone.misbehave(kind, **options)).start()

    return told


def test_a_reboot_in_a_launch(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """The launch is repeated once the device is back, and the settings are put back in the end."""
    tasks, program = sleeper(tmp_path, 1.5)
    before = phones[0].adb("shell", "settings list global; settings list system").stdout
    reboot = on_launch(phones[0], 2, "reboot", seconds=1.0)
    found = benched(tasks, SICK, WELL, stand_in=program, observer=reboot)
    assert [one.index for one in session(found[SICK]).launches] == [0, 1]
    assert session(found[SICK]).cut_off == ""
    assert phones[0].adb("shell", "settings list global; settings list system").stdout == before
    session(found[WELL])


@pytest.mark.parametrize(("number", "kept"), [(2, False), (3, True)])
def test_gone_in_a_launch(phones: tuple[TestDevice, ...], tmp_path: Path, number: int, kept: bool) -> None:
    """Two finished launches are kept and flagged; one is too few."""
    tasks, program = sleeper(tmp_path, 1.5)
    config = replace(PLAN, launches=3)
    gone = on_launch(phones[0], number, "reboot", seconds=20.0)
    with impatient(2.0):
        found = benched(tasks, SICK, WELL, stand_in=program, config=config, observer=gone)
    if kept:
        left = session(found[SICK])
        assert len(left.launches) == 2
        assert any("incomplete: lab phone 1 did not come back" in flag for flag in stats.figures(left).flags)
    else:
        assert "1 of 3 launches of sleep 1.5 had finished: too few to keep." in failure(found[SICK])
    assert len(session(found[WELL]).launches) == 3


def test_throttling_is_flagged(phones: tuple[TestDevice, ...]) -> None:
    """By what the runner read between its chunks and by the state afterwards."""
    runners.host_runner("onnxruntime")
    phones[0].misbehave("throttling")
    config = replace(PLAN, min_seconds=1.5)
    found = benched([tiny("onnxruntime")], SICK, WELL, config=config)
    flags = stats.figures(session(found[SICK])).flags
    assert any(flag.startswith("cap: launch") and "cores 7 were held to" in flag for flag in flags)
    assert "thermal: status 3 after the run" in flags
    well = stats.figures(session(found[WELL])).flags
    assert not [flag for flag in well if flag.startswith(("cap", "thermal"))]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("low_battery", "battery: 9 %, expected at least 25 %. Charge the phone."),
        ("thermal_overridden", "thermal override: overridden, expected not overridden. Run `adb shell cmd"),
    ],
)
def test_not_ready(phones: tuple[TestDevice, ...], tmp_path: Path, kind: str, words: str) -> None:
    """The gate and its fix; nothing was started, and the list of devices agrees."""
    phones[0].misbehave(kind)
    tasks, program = sleeper(tmp_path, 0)
    found = benched(tasks, SICK, WELL, stand_in=program, soc="SM8250")
    assert "The device is not ready." in failure(found[SICK])
    assert words in failure(found[SICK])
    assert {one.seen.serial: one.ready for one in listing.reports()}[SICK] is False
    session(found[WELL])


def test_a_failed_canary_is_a_flag(
    phones: tuple[TestDevice, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launches that ended stay."""
    tasks, program = sleeper(tmp_path, 0)
    program.write_text(program.read_text().replace("eq 'canary') {", "eq 'canary') { exit 9;"))
    found = session(benched(tasks, SICK, stand_in=program)[SICK])
    assert len(found.launches) == PLAN.launches
    assert "canary: 0 readings for 2 launches" in stats.figures(found).flags


# --- Many devices


def test_devices_work_at_the_same_time(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """Over the real adbd; how much faster that is, `benchmarks/devices_at_once.py` shows."""
    tasks, program = sleeper(tmp_path, 5.0)
    ended = threading.Event()

    def seen_together() -> bool:
        while not (found := all(running(phone) for phone in phones)) and not ended.wait(0.1):
            pass
        return found

    with ThreadPoolExecutor(1) as watcher:
        seen = watcher.submit(seen_together)
        try:
            found = benched(tasks, *(phone.serial for phone in phones), stand_in=program)
        finally:
            ended.set()
        assert seen.result()
    for outcome in found.values():
        session(outcome)


def test_nothing_is_pushed_twice(
    phones: tuple[TestDevice, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second bench of the same artifacts sends jobs and the settings' journal only."""
    tasks, program = sleeper(tmp_path, 0)
    benched(tasks, SICK, stand_in=program)
    pushed: list[str] = []
    push = adb.AdbDevice.push

    def counted(self: adb.AdbDevice, source: Path, target: str) -> None:
        pushed.append(target.rpartition("/")[2])
        push(self, source, target)

    monkeypatch.setattr(adb.AdbDevice, "push", counted)
    session(benched(tasks, SICK, stand_in=program)[SICK])
    assert sorted(pushed) == ["job.json", "job.json", "settings.json.new"]
