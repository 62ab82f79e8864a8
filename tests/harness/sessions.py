"""Sessions like those of a real phone, and a small program that implements the runner's protocol."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from android_harness.records import BenchConfig, BenchTask, Clock, Cluster, Identity, Launch, Session, State

POLICIES = "/sys/devices/system/cpu/cpufreq"
CLUSTERS = (
    Cluster((0, 1, 2, 3), 1804800, f"{POLICIES}/policy0"),
    Cluster((4, 5, 6), 2419200, f"{POLICIES}/policy4"),
    Cluster((7,), 2841600, f"{POLICIES}/policy7"),
)
ZONE = ("cpu-1-7-usr", "/sys/class/thermal/thermal_zone12/temp")
PARTS = (("0x51", "0x805"),) * 4 + (("0x41", "0xd0d"),) * 4
RUNNER = {"version": "1", "os": "android", "arch": "aarch64", "android_api": "28", "compiler": "clang 18"}


def identity(**changes: Any) -> Identity:
    known: dict[str, Any] = {
        "serial": "R5CR30ABCDE",
        "manufacturer": "Xiaomi",
        "model": "Mi 10T Pro",
        "soc": "SM8250",
        "chip": "snapdragon865",
        "soc_reasons": (),
        "android": "12",
        "sdk": 31,
        "fingerprint": "Xiaomi/apollo/apollo:12/SKQ1/V13:user/release-keys",
        "abi": "arm64-v8a",
        "machine": "aarch64",
        "kernel": "4.19.113",
        "parts": PARTS,
        "clusters": CLUSTERS,
        "doubts": (),
        "thermal_zones": (("aoss0-usr", "/sys/class/thermal/thermal_zone0/temp"), ZONE),
    }
    return Identity(**{**known, **changes})


def state(**changes: Any) -> State:
    known: dict[str, Any] = {
        "battery_percent": 80,
        "battery_celsius": 28.0,
        "plugged": "usb",
        "thermal_status": 0,
        "thermal_overridden": False,
        "celsius": {"cpu-1-0-usr": 35.0},
        "power_saver": False,
        "load1": 0.5,
        "free_bytes": 10**10,
        "available_memory_bytes": 4 * 10**9,
        "scaling_max_khz": tuple(c.max_khz for c in CLUSTERS),
    }
    return State(**{**known, **changes})


def clocks(
    share: float = 1.0, cap_khz: int = 2841600, moments: int = 9, millidegrees: int = 52000
) -> tuple[Clock, ...]:
    """Return clocks of a prime core that is at its maximum for `share` of the time, else at 844800 kHz."""
    gold, prime = CLUSTERS[1].policy, CLUSTERS[-1].policy
    return tuple(
        Clock(
            at * 250_000_000,
            {
                f"{gold}/scaling_max_freq": "2419200\n",
                f"{prime}/scaling_max_freq": f"{cap_khz if at else 2841600}\n",
                f"{prime}/stats/time_in_state": (
                    f"844800 {900 + round(25 * at * (1 - share))}\n2841600 {70 + round(25 * at * share)}\n"
                ),
                ZONE[1]: f"{millidegrees if at else 40000}\n",
            },
        )
        for at in range(moments)
    )


def without(moments: tuple[Clock, ...], *names: str) -> tuple[Clock, ...]:
    """Return the moments of a phone on which these files are unreadable."""
    return tuple(
        Clock(m.at_ns, {path: text for path, text in m.texts.items() if not path.endswith(names)})
        for m in moments
    )


def durations(seed: int, count: int = 300, ms: float = 8.0, slope: float = 0.0) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(
        int(ms * 1e6 * (1 + 0.01 * rng.random()) * (1 + slope * place / count)) for place in range(count)
    )


def launch(index: int, durations_ns: Sequence[int] | None = None, **changes: Any) -> Launch:
    values = tuple(durations_ns or durations(index))
    starts = tuple(int(start) for start in np.concatenate([[0], np.cumsum(values)[:-1]]))
    known: dict[str, Any] = {
        "index": index,
        "load_ns": 50_000_000,
        "first_ns": 12_000_000,
        "warmup_calls": 40,
        "warm": True,
        "durations_ns": values,
        "offsets_ns": starts,
        "clocks": clocks(),
        "peak_bytes": 10**8,
        "cores_allowed": "4-7",
        "outputs": (),
        "runtime": "onnxruntime 1.22.0",
        "runner": RUNNER,
        "machine": "aarch64",
        "parts": PARTS,
    }
    return Launch(**{**known, **changes})


def session(**changes: Any) -> Session:
    """Return a session of a stable phone at 8 ms, unless changed."""
    known: dict[str, Any] = {
        "task": BenchTask("model.onnx", Path("model.onnx"), "0" * 64, "onnxruntime", ()),
        "identity": identity(),
        "before": state(),
        "after": state(),
        "launches": tuple(launch(index) for index in range(5)),
        "canary_ns": ((1_000_000,) * 30,) * 6,
        "started_at": "2026-01-01T00:00:00+00:00",
        "config": BenchConfig(affinity="f0"),
    }
    return Session(**{**known, **changes})


STAND_IN = r"""#!/usr/bin/env python3
import json, os, sys, time
ME = {"version": "0", "os": "linux", "arch": "x86_64", "android_api": 0, "compiler": "none",
      "backends": ["onnxruntime"]}
def write(path, value):
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)
def run(job):
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "log"), "a") as log:
        log.write(os.path.basename(job["model"])[:64] + "\n")
    mode = open(job["model"]).read().strip()
    answer = {"protocol": 1, "runner": ME, "machine": "x86_64", "parts": []}
    if mode.startswith("sleep"):
        time.sleep(float(mode.split()[1]))
    if mode == "killed":
        os.kill(os.getpid(), 9)
    if mode == "hang":
        time.sleep(1000)
    if mode == "crash":
        sys.exit("it broke")
    if mode == "bad model":
        write(job["result"], answer | {"failure": {"kind": "model", "reason": "no \x1b[31mgraph"}})
        sys.exit(3)
    outputs = []
    for i, sample in enumerate(job["samples"]):
        name = os.path.join(job["outputs"], "%d-0.bin" % i)
        raw = open(sample[0]["file"], "rb").read()
        raw = bytes([raw[0] ^ 1]) + raw[1:] if mode == "changing" and i == len(job["samples"]) - 1 else raw
        open(name, "wb").write(raw[:-1] if mode == "short" else raw)
        outputs.append([{**sample[0], "file": "/etc/passwd" if mode == "foreign" else name}])
    times = [1000] * 60
    starts = [2000 * k for k in range(60)]
    if mode == "overlap":
        starts[5] = 8500
    if mode == "slow claim":
        starts[-1] = 10**12
    if mode == "fewer":
        starts.pop()
    if mode == "huge":
        outputs[0][0]["shape"] = [2**40]
    answer |= {"runtime": "stand-in 0", "load_ns": 10, "first_ns": 10, "warmup_calls": 30, "warm": True,
               "durations_ns": times, "offsets_ns": starts, "clocks": [], "peak_bytes": 1,
               "cores_allowed": "0-1", "outputs": outputs}
    write(job["result"], answer | ({"extra": 1} if mode == "extra" else {}))
if sys.argv[1] == "canary":
    write(sys.argv[3], {"protocol": 1, "runner": ME, "durations_ns": [1000] * int(sys.argv[2])})
else:
    run(json.load(open(sys.argv[2])))
"""


def stand_in(folder: Path) -> Path:
    """Write a runner that does what its model file says: "fine", "sleep 1", "hang" and so on."""
    path = folder / "runner-onnxruntime"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return path


def task(folder: Path, mode: str) -> BenchTask:
    """Return a task for the stand-in runner."""
    import hashlib

    path = folder / f"{mode.replace(' ', '-')}.onnx"
    path.write_text(mode)
    sample = (np.arange(6, dtype=np.float32).reshape(2, 3) * math.pi,)
    sha256 = hashlib.sha256(mode.encode()).hexdigest()
    return BenchTask(mode, path, sha256, "onnxruntime", (sample, (sample[0] + 1,)))


DEVICE_STAND_IN = r"""#!/usr/bin/perl
# The same as STAND_IN for a simulated device: Debian's smallest root has Perl but no Python.
use strict;
my $me = '"protocol":1,"runner":{"version":"0","os":"linux","arch":"x86_64","android_api":0,'
  . '"compiler":"none","backends":["onnxruntime"]}';
sub slurp { open(my $in, '<', $_[0]) or die "$_[0]: $!"; local $/; my $all = <$in>; return $all; }
sub spill { open(my $to, '>', "$_[0].new") or die "$_[0]: $!"; print $to $_[1]; close $to;
  rename "$_[0].new", $_[0]; }
if ($ARGV[0] eq 'canary') {
  spill($ARGV[2], "{$me,\"durations_ns\":[" . join(',', (1000) x $ARGV[1]) . ']}');
  exit 0;
}
my $job = slurp($ARGV[1]);
my ($model, $folder, $result) = map { $job =~ /"$_":"([^"]*)"/; $1 } qw(model outputs result);
my ($mode, $seconds) = split ' ', slurp($model);
select undef, undef, undef, $seconds if $mode eq 'sleep';
my @outputs;
for my $file ($job =~ /"file":"([^"]*)"/g) {
  my $name = "$folder/" . @outputs . '-0.bin';
  spill($name, slurp($file));
  push @outputs, "[{\"file\":\"$name\",\"dtype\":\"float32\",\"shape\":[2,3]}]";
}
spill($result, "{$me,\"machine\":\"x86_64\",\"parts\":[],\"runtime\":\"stand-in 0\",\"load_ns\":10,"
  . '"first_ns":10,"warmup_calls":30,"warm":true,"durations_ns":[' . join(',', (1000) x 60)
  . '],"offsets_ns":[' . join(',', map { 2000 * $_ } 0 .. 59) . '],"clocks":[],"peak_bytes":1,'
  . '"cores_allowed":"0-1","outputs":[' . join(',', @outputs) . ']}');
"""


def device_stand_in(folder: Path) -> Path:
    """Write the stand-in runner of a simulated device; it knows "fine" and "sleep SECONDS"."""
    path = folder / "runner-onnxruntime"
    path.write_text(DEVICE_STAND_IN)
    return path
