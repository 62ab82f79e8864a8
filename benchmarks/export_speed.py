"""How long an export takes, against the plain sequential script that makes the same artifacts.

    python -m benchmarks.export_speed [--runs 3]

Both run as whole processes on the same machine, one after the other and in turn (ours, plain, ours, …), on
the sample MobileNetV2 and photos, without verification and without a cache. Prints wall seconds, the ratio
pair by pair, and the peak memory of each process tree (proportional set size, sampled five times a second).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process_memory import run_and_watch_memory
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
        run = run_and_watch_memory(command, log)
        if run.code not in (0, NOTHING_CHOSEN):
            log.seek(0)
            sys.exit(f"{command} ended with {run.code}:\n{log.read().decode()[-3000:]}")
    suffixes = {".pte", ".ptl", ".onnx", ".ort", ".mlpackage"}
    files = sum(1 for path in out.iterdir() if path.suffix in suffixes)
    return Run(run.seconds, run.peak_bytes / 2**20, files)


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
