"""How the time and the memory of an export grow with the weights, against the plain sequential script.

    python -m benchmarks.growth [--networks resnet50,vit_b_16] [--jobs N] [--memory GB] [--work FOLDER]

Each network of torchvision, with random weights (only time and memory are read here), goes to ONNX and
ExecuTorch in fp32, verified, without a cache; and once through the plain library calls, unverified. Prints
seconds of processors, which other programs change less than wall seconds, and the peak memory of each process
tree: proportional set size, sampled five times a second. The columns "time" and "memory" are ours over the
plain script's. Below the table are the seconds for each 100 MB that networks of one kind take more.

Each run is one file in `--work`, ours with the commit that it ran at. A program that was stopped goes on
where it was. Ours of another commit is measured again; the plain script, which runs none of our code, is not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.process_memory import ProcessTreeRun, run_and_watch_memory

KINDS = {
    "MobileNet": ("mobilenet_v2",),
    "ResNet": ("resnet50",),
    "ViT, patches of 16": ("vit_b_16", "vit_l_16"),
}
"""Networks whose operations grow as their weights do are of one kind."""
NETWORKS = tuple(network for kind in KINDS.values() for network in kind)
MIB = 1 << 20
HEADINGS = (
    "network",
    "weights, MB",
    "ours, CPU s",
    "ours, peak MB",
    "1 GB + 4 x weights, MB",
    "plain, CPU s",
    "plain, peak MB",
    "time",
    "memory",
)


@dataclass(frozen=True)
class GrowthRow:
    """What one network took, by our export and by the plain script."""

    network: str
    weights_bytes: int
    ours: ProcessTreeRun
    plain: ProcessTreeRun

    @property
    def cells(self) -> tuple[str, ...]:
        """The row's cells under `HEADINGS`."""
        ours, plain = self.ours, self.plain
        numbers = (
            self.weights_bytes / MIB,
            ours.cpu_seconds,
            ours.peak_bytes / MIB,
            ((1 << 30) + 4 * self.weights_bytes) / MIB,
            plain.cpu_seconds,
            plain.peak_bytes / MIB,
        )
        ratios = (ours.cpu_seconds / plain.cpu_seconds, ours.peak_bytes / plain.peak_bytes)
        return (self.network, *(f"{n:.0f}" for n in numbers), *(f"{ratio:.2f}" for ratio in ratios))


def save_random_weights(network: str, path: Path) -> None:
    """Write a state_dict of random weights.

    Layers that torchvision starts with zeros get noise, and batch norms the statistics of noise: an output
    that does not depend on the input proves nothing.
    """
    program = (
        "import sys, torch; from exporter.capture import torchvision_ops;"
        "torchvision_ops.prepare_torchvision_ops(); import torchvision.models;"
        "network = torchvision.models.get_model(sys.argv[1]);"
        "zeros = [w for w in network.parameters() if not w.any()];"
        "[torch.nn.init.normal_(w, std=0.02) for w in zeros];"
        "[setattr(m, 'momentum', None) for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)];"
        "torch.no_grad().__enter__(); network.train()(torch.randn(8, 3, 224, 224));"
        "torch.save(network.state_dict(), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", program, network, str(path)], check=True)


def plain_export(network: str, checkpoint: Path, out: Path) -> None:
    """Write what our export writes by plain library calls, without verification."""
    import torch

    from exporter.capture import torchvision_ops

    torchvision_ops.prepare_torchvision_ops()
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from torchvision.models import get_model

    model = get_model(network)
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    example = (torch.randn(1, 3, 224, 224),)
    torch.onnx.export(model.eval(), example, out / "fp32.onnx", dynamo=True, external_data=False)
    lowered = to_edge_transform_and_lower(
        torch.export.export(model, example), partitioner=[XnnpackPartitioner()]
    ).to_executorch()
    (out / "fp32.pte").write_bytes(lowered.buffer)


def our_command(checkpoint: Path, network: str, out: Path, more: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "exporter", str(checkpoint), "--target", "snapdragon865", "-o", str(out)]
    chosen = ["--arch", f"torchvision/{network}", "--formats", "onnx,executorch", "--precisions", "fp32"]
    return [*command, *chosen, "--samples", "4", "--no-cache", "--no-estimate", *more]


def plain_command(checkpoint: Path, network: str, out: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.growth", "--plain", network, str(checkpoint), str(out)]


def logged_run(command: Sequence[str], log: Path) -> ProcessTreeRun:
    """Run a command; where it fails, end with the end of its log."""
    with log.open("wb") as stream:
        run = run_and_watch_memory(command, stream)
    if run.code:
        sys.exit(f"{command} ended with {run.code}:\n{log.read_text(errors='replace')[-3000:]}")
    return run


def measured_run(name: str, command: Sequence[str], out: Path, commit: str) -> ProcessTreeRun:
    """Return the run that an earlier call stored for this command and commit, else run it and store it.

    Args:
        name: The name of the run's files.
        command: What runs.
        out: The folder that it writes to.
        commit: The commit of the code that runs; empty where that is none of ours.
    """
    stored, key = out.parent / f"{name}.json", {"command": list(command), "commit": commit}
    if stored.is_file():
        record = json.loads(stored.read_text())
        if record["key"] == key:
            return ProcessTreeRun(**record["run"])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    print(f"{time.strftime('%H:%M:%S')} {out.parent.name}: {name} ...", file=sys.stderr, flush=True)
    run = logged_run(command, out.parent / f"{name}.log")
    shutil.rmtree(out)
    stored.write_text(json.dumps({"key": key, "run": asdict(run)}))
    seconds = f"{run.cpu_seconds:.0f} s of processors in {run.seconds:.0f} s"
    print(f"  {seconds}, peak {run.peak_bytes / MIB:.0f} MB", file=sys.stderr, flush=True)
    return run


def measure_growth(network: str, work: Path, more: Sequence[str], commit: str) -> GrowthRow:
    """Return one row of the table, from stored runs where there are any."""
    folder = work / network
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "weights.pth"
    if not checkpoint.is_file():
        partial = folder / "weights.partial"
        save_random_weights(network, partial)
        partial.rename(checkpoint)
    plain, ours = folder / "plain", folder / "ours"
    plain_run = measured_run("plain", plain_command(checkpoint, network, plain), plain, "")
    our_run = measured_run("ours", our_command(checkpoint, network, ours, more), ours, commit)
    return GrowthRow(network, checkpoint.stat().st_size, our_run, plain_run)


def growth_lines(rows: Mapping[str, GrowthRow]) -> list[str]:
    """Return the seconds for each 100 MB from the smallest to the largest measured network of each kind."""
    lines = []
    for kind, networks in KINDS.items():
        measured = sorted((rows[n] for n in networks if n in rows), key=lambda row: row.weights_bytes)
        if len(measured) < 2:
            continue
        small, large = measured[0], measured[-1]
        hundreds = (large.weights_bytes - small.weights_bytes) / (100 * MIB)
        ours = (large.ours.cpu_seconds - small.ours.cpu_seconds) / hundreds
        plain = (large.plain.cpu_seconds - small.plain.cpu_seconds) / hundreds
        constant = small.ours.cpu_seconds - ours * small.weights_bytes / (100 * MIB)
        lines.append(
            f"{kind}, {small.network} to {large.network}: "
            f"ours {ours:.1f} s for each 100 MB and {constant:.0f} s, "
            f"plain {plain:.1f} s; {large.weights_bytes / small.weights_bytes:.2f} times the weights "
            f"took {large.ours.cpu_seconds / small.ours.cpu_seconds:.2f} times as long"
        )
    return lines


def current_commit() -> str:
    """Return the commit of the working tree, with a mark where files that an export runs are changed."""
    words = ("git", "describe", "--always", "--dirty", "--exclude", "*", "--abbrev=12")
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--jobs", help="worker processes of ours")
    parser.add_argument("--memory", help="GB that ours may use")
    parser.add_argument("--work", type=Path, default=Path("build/growth"), help="folder, %(default)s")
    parser.add_argument("--plain", nargs=3, metavar=("NETWORK", "CHECKPOINT", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        network, checkpoint, out = arguments.plain
        return plain_export(network, Path(checkpoint), Path(out))
    options = {"--jobs": arguments.jobs, "--memory": arguments.memory}
    more = [word for name, value in options.items() if value for word in (name, value)]
    commit = current_commit()
    print(f"| {' | '.join(HEADINGS)} |\n|---|{'--:|' * (len(HEADINGS) - 1)}")
    rows = {}
    for network in arguments.networks.split(","):
        rows[network] = measure_growth(network, arguments.work, more, commit)
        print(f"| {' | '.join(rows[network].cells)} |", flush=True)
    print("", *growth_lines(rows), f"At commit {commit}.", sep="\n")
    return None


if __name__ == "__main__":
    main()
