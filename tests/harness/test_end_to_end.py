"""The whole harness on simulated devices, with the real adbd and real runners, and with every fault."""

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

from android_harness import adb, all_devices, device_listing, latency_stats, parse, provenance
from android_harness.errors import HarnessError, SetupError
from android_harness.one_device import Failed, Programs
from android_harness.push import Program
from android_harness.records import Backend, BenchConfig, BenchTask, Device, Identity, Session
from exporter.report import manifest
from exporter.report.manifest import restore
from tests.harness import runners, sessions, simulated
from tests.harness.simulated import TestDevice

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("simulated")]
SICK, WELL = "lab phone 1", "lab phone 2"
PLAN = BenchConfig(launches=2, min_iterations=50, min_seconds=0.1, max_seconds=5.0, wait_s=0.0)
BACKENDS: tuple[Backend, ...] = ("executorch", "onnxruntime", "torchscript")


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the load of this machine, which simulated devices show and other tests cause."""
    monkeypatch.setattr(parse, "parse_load1", lambda text: 0.5)


@pytest.fixture(scope="module")
def three() -> Iterator[tuple[TestDevice, ...]]:
    with simulated.devices(count=3, serials=(SICK, WELL, "lab phone 3")) as started:
        yield started


@pytest.fixture
def phones(
    three: tuple[TestDevice, ...], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TestDevice, ...]]:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(three[0].server_port))
    # A phone on USB comes back by itself, but these are on TCP and their serials hide the address.
    monkeypatch.setattr(adb.AdbDevice, "_nudge", lambda self, timeout_s: plugged_in(three[0]))
    yield three
    three[0].misbehave("none")
    plugged_in(three[0])
    adb.AdbDevice(SICK).reconnect(20)


def plugged_in(phone: TestDevice) -> None:
    with suppress(SetupError):  # adb cannot reach it yet: the caller tries again
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
    observer: Callable[[str, str], None] = lambda serial, step: None,
    soc: str | None = None,
) -> dict[str, all_devices.Outcome]:
    devices = [adb.AdbDevice(serial) for serial in serials]

    def ours(device: Device, identity: Identity) -> Programs:
        assert stand_in is not None
        program = Program(stand_in)
        return lambda backend: program

    chosen = ours if stand_in else None
    return dict(
        all_devices.bench_all_devices(devices, tasks, config, soc=soc, observer=observer, programs=chosen)
    )


def session(outcome: all_devices.Outcome, place: int = 0) -> Session:
    assert outcome.error is None, outcome.error
    result = outcome.results[place]
    assert isinstance(result, Session), result.reason
    return result


def failure(outcome: all_devices.Outcome) -> str:
    if outcome.error is not None:
        assert isinstance(outcome.error, HarnessError), outcome.error
        return str(outcome.error)
    (result,) = outcome.results
    assert isinstance(result, Failed)
    return str(result.reason)


def sleeper(folder: Path, seconds: float) -> tuple[list[BenchTask], Path]:
    return [sessions.task(folder, f"sleep {seconds}")], sessions.device_stand_in(folder)


# --- The three runtimes


def check_measured(measured: Session) -> None:
    """The outputs are those of Python, and the latency does not count as measured."""
    for launch in measured.launches:
        assert len(launch.durations_ns) >= PLAN.min_iterations
        for sample, came in zip(runners.inputs(), launch.outputs, strict=True):
            for expected, array in zip(runners.answers(sample), came, strict=True):
                np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)
    latency = provenance.latency_with_provenance(
        measured, latency_stats.latency_stats(measured), provenance.ProvenanceCheck(0.0, ""), 15.0
    )
    assert (latency.evidence, provenance.verdict_by_provenance(latency)) == ("simulated", "not_measured")


def test_three_runtimes_on_an_x86_device(phones: tuple[TestDevice, ...]) -> None:
    """The harness finds the built runners itself, and limits the threads to the cores."""
    for backend in BACKENDS:
        runners.host_runner(backend)
    outcome = benched([tiny(backend) for backend in BACKENDS], SICK, config=replace(PLAN, threads=512))[SICK]
    for place, backend in enumerate(BACKENDS):
        measured = session(outcome, place)
        assert measured.launches[0].runtime.lower().startswith(backend[:4])
        assert measured.config.threads == len(os.sched_getaffinity(0))
        check_measured(measured)


def test_onnxruntime_on_an_emulated_arm64_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner is cross-built, and reports aarch64."""
    runners.arm64_build()
    with simulated.devices(arch="aarch64") as (device,):
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(device.server_port))
        measured = session(benched([tiny("onnxruntime")], device.serial)[device.serial])
    assert {launch.machine for launch in measured.launches} == {"aarch64"}
    check_measured(measured)


def test_state_begins_anew_in_every_launch(phones: tuple[TestDevice, ...]) -> None:
    """Neither the timed calls nor an earlier launch on the device is in the outputs that are judged."""
    runners.host_runner("executorch")
    path = runners.model("executorch", keeps_state=True)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    task = BenchTask("summing", path, sha256, "executorch", runners.inputs(), keeps_state=True)
    for launch in session(benched([task], SICK)[SICK]).launches:
        total = np.ones((2, 3), np.float32)  # what the file holds
        for (a, b), (came,) in zip(runners.inputs(), launch.outputs, strict=True):
            total = total + a
            np.testing.assert_allclose(came, total + b, rtol=1e-5, atol=1e-5)


PIXELS = tuple(
    (np.random.default_rng(height).integers(0, 256, (1, 3, height, width), np.uint8),)
    for height, width in ((4, 6), (9, 5), (4, 16))
)
"""Photos as apps have them, each of another size."""


@pytest.mark.parametrize("backend", ["executorch", "onnxruntime"])
def test_pixels_of_any_size(phones: tuple[TestDevice, ...], tmp_path: Path, backend: Backend) -> None:
    """Artifacts with preprocessing inside take bytes, and those with dynamic shapes each input's own."""
    runners.host_runner(backend)
    path = runners.pixels_model(tmp_path, backend)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    measured = session(benched([BenchTask("pixels", path, sha256, backend, PIXELS)], SICK)[SICK])
    for launch in measured.launches:
        assert len(launch.durations_ns) >= PLAN.min_iterations
        for (photo,), (came,) in zip(PIXELS, launch.outputs, strict=True):
            np.testing.assert_allclose(came, photo.astype(np.float32) / 255, rtol=1e-5, atol=1e-6)


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
    """The table, the manifest and the exit code say that it is simulated; the export stays valid.

    It is also measured as an app runs and profiled: both figures are named, and operators have times.
    """
    for backend in BACKENDS:
        runners.host_runner(backend)
    short = ("--launches", "3", "--seconds", "0.05", "--wait", "100")
    code, output, err = ran("bench", str(out), "--device", SICK, *short, "--app-like", "--profile", "--learn")
    assert code == 19, err
    assert "SIMULATED" in output
    assert "Learned from 0 of 2 measurements." in err
    assert sum("as an app" in line for line in output.splitlines()) == 1
    report = restore.restore_report(manifest.load_manifest(out / "manifest.json"))
    assert report.budget == "not_measured"
    (pinned, app) = (item for row in report.artifacts for item in row.device_latencies)
    assert {item.evidence for item in (pinned, app)} == {"simulated"}
    assert {item.verdict for item in (pinned, app)} == {"not_measured"}
    assert (pinned.app_like, app.app_like) == (False, True)
    assert (pinned.device["threads"] != 0, app.device["threads"]) == (True, 0)
    assert len(pinned.operators) > 3
    assert sum(item.ms for item in pinned.operators) > 0
    assert app.operators == ()
    assert "as an app runs" in (out / "report.html").read_text()
    assert ran("verify", str(out))[0] == 0


def test_devices_as_json(phones: tuple[TestDevice, ...]) -> None:
    """Each device is a row with the documented keys; unauthorised ones say what to do."""
    phones[0].misbehave("unauthorized")
    phones[0].reconnect()
    code, output, _ = ran("devices", "--json")
    assert code == 0
    rows = {row["serial"]: row for row in json.loads(output)["devices"]}
    assert set(rows) == {SICK, WELL, "lab phone 3"}
    assert all({"serial", "state", "soc", "ready", "gates"} <= set(row) for row in rows.values())
    assert (rows[SICK]["state"], rows[SICK]["soc"], rows[SICK]["ready"]) == ("unauthorized", None, False)
    assert "accept" in rows[SICK]["gates"][0]["fix"]
    assert (rows[WELL]["state"], rows[WELL]["soc"]) == ("device", "SM8250")


def test_two_devices_and_none_named(phones: tuple[TestDevice, ...], out: Path) -> None:
    """The error lists both devices, with spaces in their serials."""
    code, _, err = ran("bench", str(out))
    assert code == 14
    assert "lab phone 1 (device); lab phone 2 (device)" in err
    assert "--device" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_a_signal_kills_the_runner_and_restores_settings(
    phones: tuple[TestDevice, ...], out: Path, number: int, code: int
) -> None:
    """Both happen on the device before the command ends, after Ctrl-C and when CI cancels."""
    for backend in BACKENDS:
        runners.host_runner(backend)
    before = phones[0].adb("shell", "settings list global; settings list system").stdout
    process = command("bench", str(out), "--device", SICK, "--seconds", "20", "--wait", "100")
    deadline = time.monotonic() + 60
    while not running(phones[0]) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    assert running(phones[0]), process.communicate(timeout=60)
    assert phones[0].adb("shell", "settings list global; settings list system").stdout != before
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert not running(phones[0])
    assert phones[0].adb("shell", "settings list global; settings list system").stdout == before


def running(phone: TestDevice) -> list[int]:
    from android_harness.simulator import faults

    return [
        pid for pid in faults.runners_for_fault(phone.simulated.init) if b"\0run\0" in simulated.cmdline(pid)
    ]


# --- Faults of one device, while another continues


def test_unauthorised(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """The error says what to do at the phone."""
    phones[0].misbehave("unauthorized")
    phones[0].reconnect()
    tasks, program = sleeper(tmp_path, 0)
    outcomes = benched(tasks, SICK, WELL, stand_in=program)
    assert 'accept "Allow USB debugging?"' in failure(outcomes[SICK])
    session(outcomes[WELL])


def big(folder: Path, size: int) -> BenchTask:
    """Return a model whose push takes a while, and that the stand-in runner treats as "fine"."""
    path = folder / "big.onnx"
    path.write_bytes(b"fine " + os.urandom(size))
    sample = (np.arange(6, dtype=np.float32).reshape(2, 3),)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return BenchTask("big", path, digest, "onnxruntime", (sample,))


def test_offline_in_a_push_and_back(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """The push is repeated and the task finishes."""
    phones[0].misbehave("offline", after_bytes=1 << 20, seconds=1.0)
    steps: list[str] = []
    tasks = [big(tmp_path, 4_000_000)]
    outcomes = benched(tasks, SICK, WELL, stand_in=sessions.device_stand_in(tmp_path))
    assert len(session(outcomes[SICK]).launches) == PLAN.launches, steps
    session(outcomes[WELL])


@contextmanager
def impatient(seconds: float) -> Iterator[None]:
    patient = adb.AdbDevice.reconnect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adb.AdbDevice, "reconnect", lambda self: patient(self, seconds))
        yield


def test_offline_for_good(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """The harness waits for the device until the deadline that the message names."""
    phones[0].misbehave("offline", after_bytes=1 << 20, seconds=600.0)
    tasks = [big(tmp_path, 4_000_000)]
    with impatient(2.0):
        outcomes = benched(tasks, SICK, WELL, stand_in=sessions.device_stand_in(tmp_path))
    assert "did not come back within 2 s. Plug it in again." in failure(outcomes[SICK])
    session(outcomes[WELL])


def test_a_slow_link_takes_longer(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """A slow connection does not prevent a session."""
    phones[0].misbehave("slow_link", bytes_per_second=1_500_000)
    tasks = [big(tmp_path, 3_000_000)]
    began = time.monotonic()
    outcomes = benched(tasks, SICK, WELL, stand_in=sessions.device_stand_in(tmp_path))
    session(outcomes[SICK])
    session(outcomes[WELL])
    assert time.monotonic() - began > 1.9


def test_a_connection_that_is_too_slow_ends_at_its_deadlines(
    phones: tuple[TestDevice, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push is tried three times, no longer."""
    monkeypatch.setattr(adb, "adb_transfer_s", lambda size: 2.0)
    phones[0].misbehave("slow_link", bytes_per_second=100_000)
    tasks = [big(tmp_path, 3_000_000)]
    began = time.monotonic()
    outcomes = benched(tasks, SICK, WELL, stand_in=sessions.device_stand_in(tmp_path))
    # The second message appears if the rest of an abandoned push delays the next command.
    message = failure(outcomes[SICK])
    assert "copying 'big.onnx' to it took longer than 2 s" in message or "did not end within" in message
    assert time.monotonic() - began < 180
    session(outcomes[WELL])


@pytest.mark.parametrize(
    ("free", "words"),
    [
        (1 << 20, "free space: 1.0 MB, expected at least 3.0 MB. Free some space on the phone."),
        (4 << 20, "is full: '/data/local/tmp/export-mobile/"),
    ],
)
def test_a_full_disk(phones: tuple[TestDevice, ...], tmp_path: Path, free: int, words: str) -> None:
    """Too little space for the model is an unmet gate; too little for the rest is a later error."""
    # Half-pushed files of earlier tests would be removed at the start, which would make room.
    benched([sessions.task(tmp_path, "fine")], SICK, stand_in=sessions.device_stand_in(tmp_path))
    phones[0].misbehave("disk_full", free_bytes=free)
    program = sessions.device_stand_in(tmp_path)
    with program.open("a") as file:
        file.write("__END__\n" + "x" * 3_000_000)
    outcomes = benched([big(tmp_path, 3_000_000)], SICK, WELL, stand_in=program)
    assert words in failure(outcomes[SICK])
    session(outcomes[WELL])


def test_a_killed_runner(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """The error says that the system killed the runner, probably for lack of memory."""
    phones[0].misbehave("killed_runner", after_s=0.2)
    tasks, program = sleeper(tmp_path, 1.0)
    outcomes = benched(tasks, SICK, WELL, stand_in=program)
    assert "the runner was killed, probably for lack of memory (exit code 137)" in failure(outcomes[SICK])
    session(outcomes[WELL])


def test_a_hang(phones: tuple[TestDevice, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hang takes its deadline, and the process is gone afterwards."""
    monkeypatch.setattr("android_harness.launch.LOAD_S", 2.0)
    phones[0].misbehave("hang", after_s=0.3)
    tasks, program = sleeper(tmp_path, 1.0)
    outcomes = benched(tasks, SICK, WELL, stand_in=program, config=replace(PLAN, max_seconds=1.0))
    assert "did not end within 3 s" in failure(outcomes[SICK])
    assert not running(phones[0])
    session(outcomes[WELL])


def on_launch(phone: TestDevice, number: int, kind: str, **options: float) -> Callable[[str, str], None]:
    """Make a device misbehave shortly after its launch with this number was announced."""
    import threading

    def observe(serial: str, step: str) -> None:
        if serial == phone.serial and f"launch {number} " in step:
            threading.Timer(0.8, lambda: phone.misbehave(kind, **options)).start()

    return observe


def test_a_reboot_in_a_launch(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """The launch is repeated once the device is back, and the settings are restored in the end."""
    tasks, program = sleeper(tmp_path, 1.5)
    before = phones[0].adb("shell", "settings list global; settings list system").stdout
    reboot = on_launch(phones[0], 2, "reboot", seconds=1.0)
    outcomes = benched(tasks, SICK, WELL, stand_in=program, observer=reboot)
    assert [launch.index for launch in session(outcomes[SICK]).launches] == [0, 1]
    assert session(outcomes[SICK]).cut_off == ""
    assert phones[0].adb("shell", "settings list global; settings list system").stdout == before
    session(outcomes[WELL])


@pytest.mark.parametrize(("number", "stored"), [(2, False), (3, True)])
def test_gone_in_a_launch(phones: tuple[TestDevice, ...], tmp_path: Path, number: int, stored: bool) -> None:
    """Two finished launches are kept and flagged; one is too few."""
    tasks, program = sleeper(tmp_path, 1.5)
    config = replace(PLAN, launches=3)
    gone = on_launch(phones[0], number, "reboot", seconds=20.0)
    with impatient(2.0):
        outcomes = benched(tasks, SICK, WELL, stand_in=program, config=config, observer=gone)
    if stored:
        left = session(outcomes[SICK])
        assert len(left.launches) == 2
        assert any(
            "incomplete: lab phone 1 did not come back" in flag
            for flag in latency_stats.latency_stats(left).flags
        )
    else:
        assert "1 of 3 launches of sleep 1.5 had finished: too few to keep." in failure(outcomes[SICK])
    assert len(session(outcomes[WELL]).launches) == 3


def test_throttling_is_flagged(phones: tuple[TestDevice, ...]) -> None:
    """Both the readings of the runner and the state afterwards raise flags."""
    runners.host_runner("onnxruntime")
    phones[0].misbehave("throttling")
    config = replace(PLAN, min_seconds=1.5)
    outcomes = benched([tiny("onnxruntime")], SICK, WELL, config=config)
    flags = latency_stats.latency_stats(session(outcomes[SICK])).flags
    assert any(flag.startswith("cap: launch") and "cores 7 were held to" in flag for flag in flags)
    assert "thermal: status 3 after the run" in flags
    well = latency_stats.latency_stats(session(outcomes[WELL])).flags
    assert not [flag for flag in well if flag.startswith(("cap", "thermal"))]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("low_battery", "battery: 9 %, expected at least 25 %. Charge the phone."),
        ("thermal_overridden", "thermal override: overridden, expected not overridden. Run `adb shell cmd"),
    ],
)
def test_not_ready(phones: tuple[TestDevice, ...], tmp_path: Path, kind: str, words: str) -> None:
    """The error names the gate and its fix; nothing was started, and the list of devices agrees."""
    phones[0].misbehave(kind)
    tasks, program = sleeper(tmp_path, 0)
    outcomes = benched(tasks, SICK, WELL, stand_in=program, soc="SM8250")
    assert "The device is not ready." in failure(outcomes[SICK])
    assert words in failure(outcomes[SICK])
    assert {report.entry.serial: report.ready for report in device_listing.list_device_reports()}[
        SICK
    ] is False
    session(outcomes[WELL])


def test_a_failed_canary_is_a_flag(
    phones: tuple[TestDevice, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launches that ended are kept."""
    tasks, program = sleeper(tmp_path, 0)
    program.write_text(program.read_text().replace("eq 'canary') {", "eq 'canary') { exit 9;"))
    measured = session(benched(tasks, SICK, stand_in=program)[SICK])
    assert len(measured.launches) == PLAN.launches
    assert "canary: 0 readings for 2 launches" in latency_stats.latency_stats(measured).flags


# --- Other ways to measure


def traces_on(phone: TestDevice) -> str:
    return phone.adb("shell", "ls /data/misc/perfetto-traces; ps -A -o args | grep '[p]erfetto'").stdout


def test_a_trace_is_kept_with_a_failure(
    phones: tuple[TestDevice, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure names the trace's file here; nothing stays on any phone, and what was traced is flagged."""
    monkeypatch.setenv("EXPORT_MOBILE_STATE", str(tmp_path / "state"))
    phones[0].misbehave("killed_runner", after_s=0.3)
    tasks, program = sleeper(tmp_path, 1.0)
    outcomes = benched(tasks, SICK, WELL, stand_in=program, config=replace(PLAN, trace=True))
    kept = [*(tmp_path / "state").rglob("*.perfetto-trace")]
    assert [path.read_text() for path in kept] == ["simulated trace\n"]
    assert f"The trace is in {kept[0]}" in failure(outcomes[SICK])
    assert any(
        flag.startswith("trace") for flag in latency_stats.latency_stats(session(outcomes[WELL])).flags
    )
    assert [traces_on(phone) for phone in phones[:2]] == ["", ""]


def test_as_an_app_runs_the_screen_keeps_its_brightness(phones: tuple[TestDevice, ...]) -> None:
    """The runtime chooses its threads, and of the settings only the lit screen is changed."""
    runners.host_runner("onnxruntime")
    seen: dict[bool, tuple[str, ...]] = {}
    names = ("system screen_brightness", "global stay_on_while_plugged_in")

    def settings() -> tuple[str, ...]:
        return tuple(phones[0].adb("shell", f"settings get {name}").stdout.strip() for name in names)

    before = settings()
    for app_like in (False, True):
        config = replace(PLAN, app_like=app_like, threads=0 if app_like else 1)

        def observe(serial: str, step: str, app_like: bool = app_like) -> None:
            if "launch 1 " in step:
                seen[app_like] = settings()

        measured = session(benched([tiny("onnxruntime")], SICK, config=config, observer=observe)[SICK])
        assert measured.config.threads == (0 if app_like else 1)
        check_measured(measured)
        assert settings() == before
    assert seen[False][0] != before[0]
    assert seen[True][0] == before[0]
    assert seen[True][1] == seen[False][1] != before[1]


# --- Many devices


def test_devices_work_at_the_same_time(phones: tuple[TestDevice, ...], tmp_path: Path) -> None:
    """The devices work in parallel over the real adbd; `benchmarks/devices_at_once.py` measures the gain."""
    tasks, program = sleeper(tmp_path, 5.0)
    ended = threading.Event()

    def seen_together() -> bool:
        while not (together := all(running(phone) for phone in phones)) and not ended.wait(0.1):
            pass
        return together

    with ThreadPoolExecutor(1) as watcher:
        together = watcher.submit(seen_together)
        try:
            outcomes = benched(tasks, *(phone.serial for phone in phones), stand_in=program)
        finally:
            ended.set()
        assert together.result()
    for outcome in outcomes.values():
        session(outcome)


def test_nothing_is_pushed_twice(
    phones: tuple[TestDevice, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second measurement of the same artifacts sends only jobs and the settings' journal."""
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
