"""How the time and the memory of an export grow with the weights, against the plain sequential script.

    python -m benchmarks.growth [--networks resnet50,vit_b_16] [--jobs N] [--memory GB]

Each network of torchvision, with random weights (only time and memory are read here), goes to ONNX and
ExecuTorch in fp32, verified, without a cache; and once through the plain library calls, unverified. Prints
seconds of processors, which other programs change less than wall seconds, and the peak memory of each process
tree: proportional set size, sampled five times a second. The last columns are ours over the plain script's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.process_memory import ProcessTreeRun, run_and_watch_memory

NETWORKS = ("mobilenet_v2", "resnet50", "vit_b_16", "vit_l_32")
"""The last has the weights of vit_l_16, and a quarter of its operations to repeat in float64."""
MIB = 1 << 20


def save_random_weights(network: str, path: Path) -> int:
    """Write a state_dict of random weights, and return its size in bytes.

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
    return path.stat().st_size


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


def logged_run(command: Sequence[str], log: Path) -> ProcessTreeRun:
    """Run a command; where it fails, end with the end of its log."""
    with log.open("wb") as stream:
        run = run_and_watch_memory(command, stream)
    if run.code:
        sys.exit(f"{command} ended with {run.code}:\n{log.read_text(errors='replace')[-3000:]}")
    return run


def measure_growth(network: str, folder: Path, more: Sequence[str]) -> str:
    """Return one row of the table."""
    checkpoint = folder / f"{network}.pth"
    weights = save_random_weights(network, checkpoint)
    ours = logged_run(our_command(checkpoint, network, folder / "ours", more), folder / "ours.log")
    (folder / "plain").mkdir()
    plain_command = [sys.executable, "-m", "benchmarks.growth", "--plain", network, str(checkpoint)]
    plain = logged_run([*plain_command, str(folder / "plain")], folder / "plain.log")
    allowed = (1 << 30) + 4 * weights
    return (
        f"| {network} | {weights / MIB:.0f} | {ours.cpu_seconds:.0f} | {ours.peak_bytes / MIB:.0f} "
        f"| {allowed / MIB:.0f} | {plain.cpu_seconds:.0f} | {plain.peak_bytes / MIB:.0f} "
        f"| {ours.cpu_seconds / plain.cpu_seconds:.2f} | {ours.peak_bytes / plain.peak_bytes:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--jobs", help="worker processes of ours")
    parser.add_argument("--memory", help="GB that ours may use")
    parser.add_argument("--plain", nargs=3, metavar=("NETWORK", "CHECKPOINT", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        network, checkpoint, out = arguments.plain
        return plain_export(network, Path(checkpoint), Path(out))
    options = {"--jobs": arguments.jobs, "--memory": arguments.memory}
    more = [word for name, value in options.items() if value for word in (name, value)]
    print(
        "| network | weights, MB | ours, CPU s | ours, peak MB | 1 GB + 4 x weights, MB "
        "| plain, CPU s | plain, peak MB | time | memory |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for network in arguments.networks.split(","):
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            print(measure_growth(network, Path(folder), more), flush=True)
    return None


if __name__ == "__main__":
    main()
