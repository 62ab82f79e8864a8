"""The simulated device with the real adb client: how it works, fails and ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from android_harness.errors import DeviceError, SetupError
from android_harness.simulator import device as simulator
from android_harness.simulator import server
from tests.harness import simulated
from tests.harness.simulated import TestDevice
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("simulator")]
MIB = 1 << 20


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[TestDevice, ...]]:
    with simulated.devices(count=2) as both:
        yield both


@pytest.fixture
def device(pair: tuple[TestDevice, ...]) -> Iterator[TestDevice]:
    """A device without faults before and after the test."""
    yield pair[0]
    pair[0].misbehave("none")
    pair[0].reconnect()
    wait_until(lambda: state(pair[0]) == "device")


def shell(device: TestDevice, command: str) -> str:
    done = device.adb("shell", command)
    assert done.returncode == 0, done
    return done.stdout


def state(device: TestDevice) -> str:
    listing = simulated.adb(device.server_port, "devices").stdout
    return next((line.split("\t")[1] for line in listing.splitlines() if line.startswith(device.serial)), "")


def is_back(device: TestDevice) -> bool:
    with suppress(SetupError):  # adb cannot reach it yet
        device.reconnect()
    return state(device) == "device"


def file_of(folder: Path, size: int) -> Path:
    path = folder / "file"
    path.write_bytes(os.urandom(size))
    return path


def start_runner(device: TestDevice, seconds: float) -> subprocess.Popen[bytes]:
    """Start a process whose file is named like a runner's; return the shell that waits for it."""
    shell(device, "[ -e /data/local/tmp/runner-x ] || cp /bin/sleep /data/local/tmp/runner-x")
    client = shutil.which("adb")
    assert client is not None
    return subprocess.Popen(
        [
            client,
            "-P",
            str(device.server_port),
            "-s",
            device.serial,
            "shell",
            f"/data/local/tmp/runner-x {seconds}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_exit_codes_arrive(device: TestDevice, command: str, code: int) -> None:
    """The client's exit code is the command's."""
    assert device.adb("shell", command).returncode == code


def test_files_travel(device: TestDevice, tmp_path: Path) -> None:
    """8 MB are the same after a push and a pull."""
    source = file_of(tmp_path, 8 * MIB)
    assert device.adb("push", str(source), "/data/local/tmp/eight").returncode == 0
    assert device.adb("pull", "/data/local/tmp/eight", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("getprop ro.board.platform", "kona\n"),
        ("getprop ro.export_mobile.simulated", "1\n"),
        ("getprop", "[ro.soc.model]: [SM8250]\n"),
        ("getprop no.such.property", "\n"),
        ("id -u", "2000\n"),
        ("grep -c 0x805 /proc/cpuinfo", "4\n"),
        ("cat /sys/devices/system/cpu/cpufreq/policy7/cpuinfo_max_freq", "2841600\n"),
        ("dumpsys battery", "  temperature: 271\n"),
        ("dumpsys thermalservice", "Thermal Status: 0\n"),
        (
            "cmd thermalservice override-status 3; dumpsys thermalservice; cmd thermalservice reset",
            "Status: 3\n",
        ),
        (
            "settings put global x 'a b'; settings get global x; settings delete global x",
            "a b\nDeleted 1 rows\n",
        ),
        ("settings get global never_set", "null\n"),
        ("svc power stayon usb; settings get global stay_on_while_plugged_in", "2\n"),
        ("cat /sim/SIMULATED", "This is not a phone."),
    ],
)
def test_it_looks_like_a_phone(device: TestDevice, command: str, text: str) -> None:
    """A shell on the device gets a phone's values."""
    assert text in shell(device, command)


def test_devices_are_isolated(pair: tuple[TestDevice, ...]) -> None:
    """A file on one device is not on the other."""
    shell(pair[0], "echo one >/data/local/tmp/mine")
    assert pair[1].adb("shell", "cat /data/local/tmp/mine").returncode == 1
    assert (pair[0].root_path / "data/local/tmp/mine").read_text() == "one\n"


def test_unauthorized(device: TestDevice) -> None:
    """The device is `unauthorized` until the user answers the dialog, then usable without reconnecting."""
    device.misbehave("unauthorized")
    device.reconnect()
    wait_until(lambda: state(device) == "unauthorized")
    assert "unauthorized" in device.adb("shell", "true").stderr
    device.misbehave("none")
    wait_until(lambda: state(device) == "device")


def test_offline_in_the_middle_of_a_push(device: TestDevice, tmp_path: Path) -> None:
    """The push fails, the file is incomplete, and the device can come back."""
    device.misbehave("offline", after_bytes=2 * MIB, seconds=2.0)
    assert device.adb("push", str(file_of(tmp_path, 8 * MIB)), "/data/local/tmp/cut").returncode != 0
    assert state(device) != "device"
    wait_until(lambda: is_back(device))
    assert (
        device.adb("shell", "test -e /data/local/tmp/cut && stat -c %s /data/local/tmp/cut").stdout
        != f"{8 * MIB}\n"
    )


def test_slow_link(device: TestDevice, tmp_path: Path) -> None:
    """One megabyte at one megabyte per second takes at least a second."""
    device.misbehave("slow_link", bytes_per_second=MIB)
    start = time.monotonic()
    assert device.adb("push", str(file_of(tmp_path, MIB)), "/data/local/tmp/slow").returncode == 0
    assert time.monotonic() - start > 0.9


def test_full_disk(device: TestDevice, tmp_path: Path) -> None:
    """A push fails with the kernel's message, and existing files stay."""
    shell(device, "echo old >/data/local/tmp/old")
    device.misbehave("disk_full", free_bytes=MIB)
    done = device.adb("push", str(file_of(tmp_path, 4 * MIB)), "/data/local/tmp/large")
    assert done.returncode != 0
    assert "No space left on device" in done.stdout + done.stderr
    assert shell(device, "rm -f /data/local/tmp/large; cat /data/local/tmp/old") == "old\n"


def test_killed_runner(device: TestDevice) -> None:
    """A process named runner-* ends with 137, and other processes are left alone."""
    device.misbehave("killed_runner", after_s=0.2)
    runner = start_runner(device, 600)
    assert shell(device, "sleep 0.4; echo alive") == "alive\n"
    assert runner.communicate(timeout=30)[0] is not None
    assert runner.returncode == 137


def test_hanging_runner(device: TestDevice) -> None:
    """A process named runner-* stops, and continues when the fault ends."""
    device.misbehave("hang")
    runner = start_runner(device, 2)
    with pytest.raises(subprocess.TimeoutExpired):
        runner.wait(timeout=3)
    device.misbehave("none")
    assert runner.communicate(timeout=30)[0] is not None
    assert runner.returncode == 0


def test_reboot(device: TestDevice) -> None:
    """The daemon ends and comes back, and /data is unchanged."""
    shell(device, "echo old >/data/local/tmp/old")
    runner = start_runner(device, 600)
    device.misbehave("reboot", seconds=2.0)
    runner.communicate(timeout=30)
    assert state(device) != "device"
    wait_until(lambda: is_back(device))
    assert shell(device, "cat /data/local/tmp/old; pidof runner-x || echo none") == "old\nnone\n"


def test_throttling(device: TestDevice) -> None:
    """A runner heats the device, lowers the prime core's limit and raises the status; then it cools."""
    device.misbehave("throttling")
    runner = start_runner(device, 600)
    cap = "cat /sys/devices/system/cpu/cpufreq/policy7/scaling_max_freq"
    wait_until(lambda: int(shell(device, cap)) < 2841600)
    wait_until(lambda: "Thermal Status: 3" in shell(device, "dumpsys thermalservice"))
    shell(device, "kill $(pidof runner-x)")
    runner.communicate(timeout=30)
    device.misbehave("none")
    wait_until(lambda: int(shell(device, cap)) == 2841600)


@pytest.mark.parametrize(
    ("kind", "command", "text"),
    [
        ("low_battery", "dumpsys battery", "level: 9\n"),
        ("thermal_overridden", "dumpsys thermalservice", "IsStatusOverride: true\n"),
    ],
)
def test_bad_readings(device: TestDevice, kind: str, command: str, text: str) -> None:
    """The readings show where the harness reads them, and disappear again."""
    device.misbehave(kind)
    assert text in shell(device, command)
    device.misbehave("none")
    assert text not in shell(device, command)


def test_unknown_misbehaviour_is_refused(device: TestDevice) -> None:
    """A misspelt kind is an error."""
    with pytest.raises(DeviceError, match="explode"):
        device.misbehave("explode")


def test_serials_with_spaces(tmp_path: Path) -> None:
    """The adb client can use a serial with spaces, and never sees the real one."""
    with simulated.devices(count=1, serials=("lab phone 1",)) as (device,):
        listing = simulated.adb(device.server_port, "devices", "-l").stdout
        assert "lab phone 1" in listing
        assert "127.0.0.1" not in listing
        assert device.adb("shell", "exit 3").returncode == 3
        assert device.adb("push", str(file_of(tmp_path, MIB)), "/data/local/tmp/x").returncode == 0


def test_arm64_programs_run() -> None:
    """The arm64 device reports its architecture and runs the base's arm64 programs."""
    with simulated.devices(arch="aarch64") as (device,):
        assert shell(device, "uname -m; getprop ro.product.cpu.abi") == "aarch64\narm64-v8a\n"
        loader = "/usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"
        library = "/usr/lib/aarch64-linux-gnu/libonnxruntime.so"
        assert "libstdc++.so.6" in shell(device, f"{loader} --list {library}")


def traces(name: str, init: int) -> list[str]:
    """Return what is left of a device: its folder, its mounts and its processes."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    commands = [
        str(path)
        for path in Path("/proc").glob("[0-9]*")
        if name in simulated.cmdline(int(path.name)).decode(errors="replace")
    ]
    alive = [str(init)] if Path(f"/proc/{init}/ns/net").exists() else []
    return mounts + commands + alive + [str(path) for path in simulator.RUN.glob(name)]


def test_down_leaves_nothing() -> None:
    """No folder, mount, process or namespace outlives a device, and a second `down` does no harm."""
    simulated.skip_where_impossible()
    device = simulator.start_simulated_device()
    assert traces(device.name, device.init)
    device.down()
    device.down()
    assert traces(device.name, device.init) == []


def test_a_crash_leaves_nothing() -> None:
    """A device ends with the process that started it; its folder is removed by the next call of `running`."""
    simulated.skip_where_impossible()
    code = (
        "import os; from android_harness.simulator.device import start_simulated_device\n"
        "device = start_simulated_device(); print(device.name, device.init, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    name, init = done.stdout.split()
    wait_until(lambda: not Path(f"/proc/{init}/ns/net").exists())
    simulator.running_simulated_devices()
    assert traces(name, int(init)) == []


def test_command_line() -> None:
    """`up` twice gives the same devices, `status` lists them, and `down` twice removes them."""
    simulated.skip_where_impossible()
    if any(not device.attached for device in simulator.running_simulated_devices()):
        pytest.skip("devices of yours are up, and `down` would end them")
    with server.private_adb_server() as port:

        def run(*argv: str) -> list[str]:
            environment = os.environ | {"ANDROID_ADB_SERVER_PORT": str(port)}
            command = [sys.executable, "-m", "android_harness.simulator", *argv]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True, timeout=60
            )
            return done.stdout.splitlines()

        try:
            serials = run("up", "--count", "2")
            assert len(set(serials)) == 2
            assert run("up", "--count", "2", "--misbehave", "low_battery") == serials
            assert all(any(line.startswith(serial) for line in run("status")) for serial in serials)
            shown = simulated.adb(port, "-s", serials[0], "shell", "dumpsys battery").stdout
            assert "level: 9" in shown
        finally:
            run("down")
        assert run("down") == []
        assert not any(serial in simulated.adb(port, "devices").stdout for serial in serials)
