"""Tests of what other phones than an 865 print, on texts in the form that they have."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from android_harness import (
    all_devices,
    faults,
    identity,
    idle_temperature,
    latency_stats,
    logcat,
    parse,
    provenance,
    push,
    readiness,
    socs,
)
from android_harness.errors import DeviceError
from android_harness.host import HostDevice
from android_harness.launch import run_launch
from android_harness.launch_files import PreparedDevice
from android_harness.push import Program
from android_harness.records import BenchConfig, Completed
from tests.harness import sessions
from tests.harness.test_identity import IDENTITY, STATE, who

A55, A76, A78, X1, X2 = (("0x41", part) for part in ("0xd05", "0xd0b", "0xd41", "0xd44", "0xd48"))
MONGOOSE = ("0x53", "0x004")


@pytest.mark.parametrize(
    ("model", "platform", "hardware", "soc", "chip"),
    [
        ("GS101", "gs101", "", "GS101", "Google Tensor"),
        ("Tensor G3", "zuma", "", "ZUMA", "Google Tensor G3"),
        ("", "zumapro", "", "ZUMAPRO", "Google Tensor G4"),
        ("s5e9925", "erd9925", "", "S5E9925", "Exynos 2200"),
        ("", "exynos2100", "", "S5E9840", "Exynos 2100"),
        ("MT6983Z/CZA", "mt6983", "", "MT6983", "Dimensity 9000"),
        ("", "mt6893", "MT6893Z_D/CZA", "MT6893", "Dimensity 1200"),
        ("SM7325", "lahaina", "", "SM7325", "Snapdragon 778G"),
        ("SM8475", "taro", "", "SM8475", "Snapdragon 8+ Gen 1"),
        ("SM7675", "pineapple", "", "SM7675", "Snapdragon 7+ Gen 3"),
        ("SM8635-AB", "pineapple", "", "SM8635", "Snapdragon 8s Gen 3"),
        ("", "holi", "Qualcomm Technologies, Inc SM4350", "SM4350", ""),
        ("SM7325", "taro", "", "", ""),
        ("MT6983", "mt6893", "", "", ""),
        ("", "t618", "", "", ""),
        ("", "parrot", "", "", ""),
        ("SM7435", "parrot", "", "SM7435", "Snapdragon 7s Gen 2"),
        ("", "crow", "", "SM7550", "Snapdragon 7 Gen 3"),
        ("SM7225", "lito", "", "SM7225", "Snapdragon 750G"),
    ],
)
def test_phones_of_other_makers_are_identified(
    model: str, platform: str, hardware: str, soc: str, chip: str
) -> None:
    """A SoC has one name, whoever names it; sources that contradict each other leave it unknown."""
    props = {"ro.soc.model": model, "ro.board.platform": platform}
    assert identity.soc_identity(props, hardware, (A55, A78), ())[:2] == (soc, chip)


def test_every_soc_and_platform_has_a_source() -> None:
    """Each row names where it was read; siblings are parts that the table, or a target, knows."""
    keys = {chip.source for chip in socs.CHIPS.values()}
    keys |= {key for platform in socs.SIBLINGS.values() for key in platform.sources}
    assert keys == set(socs.SOURCES)
    assert set(socs.ALIASES.values()) <= set(socs.CHIPS)
    for part in (*socs.CHIPS, *(soc for platform in socs.SIBLINGS.values() for soc in platform.socs)):
        assert socs.soc_named(part) == part


@pytest.mark.parametrize("parts", [(A55, A76, X1), (A55, MONGOOSE), (("0x48", "0xd40"),)])
def test_an_unknown_soc_is_a_phone_all_the_same(parts: tuple[tuple[str, str], ...]) -> None:
    """The phone's latency is measured, and says "unknown SoC"."""
    session = sessions.session(
        identity=sessions.identity(soc="", chip="", parts=parts),
        launches=tuple(sessions.launch(index, parts=parts) for index in range(5)),
    )
    latency = provenance.latency_with_provenance(
        session, latency_stats.latency_stats(session), provenance.ProvenanceCheck(1e-6, ""), 15.0
    )
    assert (latency.evidence, latency.device["soc"]) == ("measured", "unknown SoC")
    assert provenance.verdict_by_provenance(latency) == "pass"


def test_parked_cores_are_no_contradiction() -> None:
    """A phone that has switched its prime core off is an 865 whose chip is open, and says why."""
    text = IDENTITY.replace("/cpufreq/policy7/", "/gone/").replace("0xd0d", "0xd0d", 1)
    text += "@@more\n"
    files = "/sys/devices/system/cpu/present:0-7\n/sys/devices/system/cpu/online:0-6\n"
    phone = who(text.replace("@@getprop", f"{files}@@getprop"))
    assert (phone.soc, phone.chip) == ("SM8250", "")
    assert any("cores 7 are parked" in reason for reason in phone.soc_reasons)


def test_cores_that_wake_in_between_are_the_same_phone() -> None:
    """The runner lists all cores, the identity only those that were on."""
    awake = sessions.PARTS
    session = sessions.session(identity=sessions.identity(parts=awake[:4], parked=(4, 5, 6, 7)))
    latency = provenance.latency_with_provenance(
        session, latency_stats.latency_stats(session), provenance.ProvenanceCheck(1e-6, ""), 15.0
    )
    assert latency.evidence == "measured"


def test_a_sensor_without_a_value_hides_no_other() -> None:
    """Some phones print NaN for a sensor: the rows after it count."""
    dump = (
        "Current temperatures from HAL:\n"
        "\tTemperature{mValue=NaN, mType=2, mName=battery, mStatus=0}\n"
        "\tTemperature{mValue=41.5, mType=0, mName=CPU0, mStatus=0}\n"
        "Current cooling devices from HAL:\n"
        "\tTemperature{mValue=99.0, mType=0, mName=CPU1, mStatus=0}\n"
    )
    assert parse.parse_hal_celsius(dump) == {"CPU0": 41.5}


@pytest.mark.parametrize(
    ("section", "gate", "seen"),
    [
        ("@@boot\n0\n", "boot", "not completed"),
        ("@@screen\n  mWakefulness=Asleep\n", "screen", "dark"),
        ("@@screen\n  mWakefulness=Dozing\n", "screen", "dark"),
    ],
)
def test_a_phone_that_starts_or_sleeps_is_not_ready(section: str, gate: str, seen: str) -> None:
    """The gate says what to do, and may pass by waiting."""
    state = identity.identity_state_from_text(parse.parse_sections(STATE + section), who())
    checked = readiness.readiness_gates(who(), state, soc="SM8250", need_bytes=0)
    (unmet,) = readiness.unmet_readiness(checked)
    assert (unmet.name, unmet.seen, unmet.passing) == (gate, seen, True)


@pytest.mark.parametrize(
    "section", ["", "@@boot\n1\n@@screen\n  mWakefulness=Awake\n", "@@boot\n\n@@screen\n"]
)
def test_a_phone_that_says_nothing_is_not_held_up(section: str) -> None:
    """What cannot be read blocks nothing."""
    state = identity.identity_state_from_text(parse.parse_sections(STATE + section), who())
    assert (
        readiness.unmet_readiness(readiness.readiness_gates(who(), state, soc="SM8250", need_bytes=0)) == ()
    )


def test_a_phones_own_idle_temperature_is_its_baseline() -> None:
    """After three idle readings the limit is 5 °C above their median, and follows the season."""
    state = replace(sessions.state(), celsius={"cpu-1-0-usr": 38.0})
    for celsius in (28.0, 28.4):
        idle_temperature.note_idle_temperature("R58N", celsius)
    assert idle_temperature.baseline_of_idle_temperature("R58N") is None
    idle_temperature.note_idle_temperature("R58N", 60.0)
    assert idle_temperature.baseline_of_idle_temperature("R58N") == 28.4
    assert idle_temperature.baseline_of_idle_temperature("OTHER") is None
    gates = readiness.readiness_gates(
        who(),
        state,
        soc=None,
        need_bytes=0,
        baseline_celsius=idle_temperature.baseline_of_idle_temperature("R58N"),
    )
    assert [gate.name for gate in readiness.unmet_readiness(gates)] == ["cpu temperature"]
    for celsius in (36.0, 36.0, 36.0):
        idle_temperature.note_idle_temperature("R58N", celsius)
    assert idle_temperature.baseline_of_idle_temperature("R58N") == 36.0


class Xiaomi(HostDevice):
    """A phone that refuses settings, as MIUI does without "USB debugging (Security settings)"."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.serial, self.root = "xiaomi", str(folder)
        self.asked: list[tuple[str, ...]] = []

    def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
        self.asked.append(argv)
        if argv[:2] == ("settings", "get"):
            return Completed(0, "0\n", "")
        if argv[:2] == ("settings", "put"):
            return Completed(255, "", "java.lang.SecurityException: Permission denial: writing to settings")
        if argv[-1:] == (identity.SCREEN,):
            return Completed(0, "  mWakefulness=Asleep\n", "")
        if argv[0] == "input":
            return Completed(0, "", "")
        return super().run(*argv, timeout_s=timeout_s)


def test_refused_settings_are_told_and_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The phone is woken and measured, and each refused setting is named."""
    monkeypatch.setattr(parse, "parse_load1", lambda text: 0.5)
    phone, steps = Xiaomi(tmp_path / "phone"), list[str]()
    program = Program(sessions.stand_in(tmp_path))
    outcome = all_devices.bench_all_devices(
        [phone],
        [sessions.task(tmp_path, "fine")],
        BenchConfig(launches=2, min_seconds=0.0, wait_s=0.0),
        soc=None,
        observer=lambda serial, step: steps.append(step),
        programs=lambda device, who: lambda backend: program,
    )["xiaomi"]
    assert outcome.error is None
    assert ("input", "keyevent", "KEYCODE_WAKEUP") in phone.asked
    assert "the screen is dark: waking the phone" in steps
    refused = [step for step in steps if "SecurityException" in step]
    assert any("stay_on_while_plugged_in cannot be changed" in step for step in refused)


@pytest.mark.parametrize(
    ("code", "stderr", "words", "advice"),
    [
        (137, "", "killed, probably for lack of memory", "Close apps"),
        (139, "Segmentation fault", "crashed", "artifact"),
        (132, "Illegal instruction", "instruction that this processor lacks", "cores"),
        (126, "sh: runner: Permission denied", "may not be executed", "noexec"),
        (126, "", "may not be executed", "noexec"),
        (1, "io: /data/x.part: No space left on device", "disk is full", "Free some space"),
        (
            127,
            'CANNOT LINK EXECUTABLE "runner": library "libonnxruntime.so" not found',
            "shared library",
            "Build",
        ),
        (3, "it broke", "ended with exit code 3", ""),
    ],
)
def test_a_fault_names_its_cause_and_its_launch(
    code: int, stderr: str, words: str, advice: str, tmp_path: Path
) -> None:
    """The message says which artifact, which launch, what happened and what to do."""

    class Faulty(HostDevice):
        def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
            return Completed(code, "", stderr) if "run" in argv else super().run(*argv, timeout_s=timeout_s)

    device = Faulty()
    task = sessions.task(tmp_path, "fine")
    files = push.push_files(device, [task], {"onnxruntime": Program(sessions.stand_in(tmp_path))}, tmp_path)
    prepared = PreparedDevice(device, files, BenchConfig(), (), tmp_path)
    with pytest.raises(DeviceError, match=words) as caught:
        run_launch(prepared, task, 3)
    assert "fine" in caught.value.message
    assert "launch 4" in caught.value.message
    assert advice in caught.value.hint


def test_the_devices_log_is_kept_with_a_failure(tmp_path: Path) -> None:
    """The end of logcat is saved on this machine, and at most 50 of them."""

    class Logging(Xiaomi):
        def run(self, *argv: str, timeout_s: float = 5.0) -> Completed:
            assert argv[0] == "logcat"
            return Completed(0, "E lowmemorykiller: Kill 'runner'\n", "")

    sentence = logcat.keep_logcat(Logging(tmp_path), "onnx-fp32")
    path = Path(sentence.removeprefix("The device's log is in ").removesuffix("."))
    assert "lowmemorykiller" in path.read_text()
    assert logcat.keep_logcat(HostDevice(), "onnx-fp32") == ""


def test_old_files_on_the_phone_are_deleted(tmp_path: Path) -> None:
    """Two weeks without use, jobs of yesterday: what a run has used since stays."""
    device = HostDevice()
    device.root = str(tmp_path)
    for name, days in (
        ("store/new", 1),
        ("store/old", 20),
        ("programs/a/runner", 20),
        ("programs/b/runner", 2),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    for name, days in (("jobs/killed", 2), ("jobs/running", 0)):
        (tmp_path / name).mkdir(parents=True)
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    push.prune_pushed(device)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [
        "jobs",
        "jobs/running",
        "programs",
        "programs/b",
        "programs/b/runner",
        "store",
        "store/new",
    ]


def test_the_oldest_files_are_deleted_beyond_the_stores_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is too large loses what was used longest ago, and no more than it must."""
    monkeypatch.setattr(push, "STORE_KB", 200)
    device = HostDevice()
    device.root = str(tmp_path)
    (tmp_path / "store").mkdir()
    for name, days in (("oldest", 9), ("older", 5), ("young", 1)):
        (tmp_path / "store" / name).write_bytes(os.urandom(80_000))
        os.utime(tmp_path / "store" / name, (time.time() - days * 86400,) * 2)
    push.prune_pushed(device)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["older", "young"]


def test_a_crash_is_explained_by_its_exit_code() -> None:
    """What no table explains stays with its own words."""
    assert faults.explain_fault(3, "anything") == ("", "")
    assert "SIGABRT" in faults.explain_fault(134, "")[0]
