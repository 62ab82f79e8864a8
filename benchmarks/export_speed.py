"""How long an export takes, against the plain sequential script that makes the same artifacts.

    python benchmarks/export_speed.py [--runs 3]

Both run as whole processes on the same machine, one after the other and in turn (ours, plain, ours, …), on
the sample MobileNetV2 and photos, without verification and without a cache. Prints wall seconds, the ratio
pair by pair, and the peak memory of each process tree (proportional set size, sampled five times a second).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from exporter.data import demo

NOTHING_CHOSEN = 6
"""The exit code: without verification nothing passes, so nothing is chosen."""


@dataclass(frozen=True)
class Run:
    seconds: float
    peak_mb: float
    files: int

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.peak_mb:.0f} MB, {self.files} files"


def timed(command: list[str], out: Path) -> Run:
    with tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(0.2)
        seconds = time.monotonic() - started
        if process.returncode not in (0, NOTHING_CHOSEN):
            log.seek(0)
            sys.exit(f"{command} ended with {process.returncode}:\n{log.read().decode()[-3000:]}")
    suffixes = {".pte", ".ptl", ".onnx", ".ort", ".mlpackage"}
    return Run(seconds, peak / 2**20, sum(1 for path in out.iterdir() if path.suffix in suffixes))


def tree_memory(root: int) -> float:
    """Return the bytes of proportional set size of a process and all its descendants."""
    total = 0.0
    try:
        process = psutil.Process(root)
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_full_info().pss
    except psutil.Error:  # it ended while we looked
        pass
    return total


def our_command(checkpoint: Path, photos: Path, out: Path) -> list[str]:
    command = [sys.executable, "-m", "exporter", str(checkpoint), "--target", "snapdragon865"]
    return [*command, "--calibration", str(photos), "-o", str(out), "--no-cache", "--no-verify"]


def plain_command(checkpoint: Path, photos: Path, out: Path) -> list[str]:
    script = Path(__file__).with_name("plain_export.py")
    return [sys.executable, str(script), str(checkpoint), str(photos), str(out)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        demo.write_demo(work)
        checkpoint, photos = work / "mobilenet_v2.pth", work / "photos"
        for turn in range(runs):
            out = work / f"ours-{turn}"
            ours.append(timed(our_command(checkpoint, photos, out), out))
            out = work / f"plain-{turn}"
            plain.append(timed(plain_command(checkpoint, photos, out), out))
            ratio = ours[-1].seconds / plain[-1].seconds
            print(
                f"run {turn + 1}: export-mobile {ours[-1]}; plain script {plain[-1]}; ratio {ratio:.2f}",
                flush=True,
            )
    ratios = [o.seconds / p.seconds for o, p in zip(ours, plain, strict=True)]
    memory = [o.peak_mb / p.peak_mb for o, p in zip(ours, plain, strict=True)]
    print(f"median ratio: time {statistics.median(ratios):.2f}, peak memory {statistics.median(memory):.2f}")


if __name__ == "__main__":
    main()
