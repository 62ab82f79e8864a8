"""Commands that talk to devices: devices, bench, runner build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from android_harness import errors
from android_harness.records import BenchConfig, Build
from exporter.cli.app import Debug, Json, app, console, watch
from exporter.config import options

if TYPE_CHECKING:
    from android_harness.records import DeviceReport
    from exporter.bench import Benched

EXIT_CODES = {
    "pass": 0,
    "fail": errors.OVER_BUDGET_EXIT_CODE,
    "inconclusive": errors.INCONCLUSIVE_EXIT_CODE,
    "not_measured": errors.NOT_MEASURED_EXIT_CODE,
}
Device = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SERIAL",
        help="adb's name of the phone (again for more), all, or host for this machine. "
        "The only one connected when left out.",
    ),
]
runner = typer.Typer(no_args_is_help=True, help="The program that runs the artifacts on a device.")


@app.command()
def devices(as_json: Json = False, debug: Debug = False) -> None:
    """List what adb sees: each device, its SoC, and whether it may be measured now; if not, what to do."""
    from android_harness import listing
    from exporter.cli.console import bench as tables

    reports = listing.reports()
    if as_json:
        typer.echo(json.dumps({"devices": [_row(device) for device in reports]}, indent=2))
    elif reports:
        tables.print_devices(reports, console())
    else:
        typer.echo(
            "adb sees no device. Enable USB debugging on the phone, plug it in, and accept its question."
        )


def _row(device: DeviceReport) -> dict[str, object]:
    from dataclasses import asdict

    who = device.identity
    return {
        "serial": device.entry.serial,
        "state": device.entry.state,
        "soc": (who.soc or None) if who else None,
        "ready": device.ready,
        "gates": [asdict(gate) for gate in device.gates],
        "chip": (who.chip or None) if who else None,
        "doubts": list(who.doubts) if who else [],
    }


@app.command()
def bench(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that an export made.")],
    device: Device = None,
    artifact: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this one. The chosen one when left out.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every passed artifact that the runner executes; chooses again.")
    ] = False,
    budget: Annotated[
        float | None, typer.Option(min=0.001, help="Milliseconds for p90. The export's when left out.")
    ] = None,
    launches: Annotated[
        int,
        typer.Option(
            min=3,
            help="Processes per artifact. Calls of one process resemble each other, so p90's interval is "
            "over launches: more of them narrow it.",
        ),
    ] = BenchConfig.launches,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Timed seconds per launch, at least.")
    ] = BenchConfig.min_seconds,
    threads: Annotated[
        int, typer.Option(min=1, max=64, help="Threads of the runtime.")
    ] = BenchConfig.threads,
    affinity: Annotated[
        str, typer.Option(metavar="MASK", help="Cores in hexadecimal; f0 is the big ones of an 865.")
    ] = BenchConfig.affinity,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a hot or busy device to settle.")
    ] = BenchConfig.wait_s,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure OUT's artifact on a phone: p50, p90, p99, the verdict against the budget; kept in OUT.

    One process on the device proves both speed and correctness: its outputs are held to the same limits as
    here. Only a real phone can meet the budget; a simulated device and this machine (--device host) are
    labelled so, everywhere.

    Exit codes: 0 within budget on a real phone, 13 the harness is not set up, 14 no such device, 15 it is
    not ready, 16 it failed, 17 over budget, 18 inconclusive, 19 not measured (simulated or host).
    """
    if artifact and every:
        from exporter.errors import UsageError

        raise UsageError("--artifact and --all exclude each other.", "Give one of them.")
    settings = {
        "launches": launches,
        "min_seconds": seconds,
        "max_seconds": max(BenchConfig.max_seconds, seconds),
        "threads": threads,
        "affinity": options.mask("--affinity", affinity),
        "wait_s": wait,
    }
    run_bench(out, tuple(device or ()), artifact, every, budget, settings, as_json)


def run_bench(
    out: Path,
    device: tuple[str, ...],
    artifact: str | None,
    every: bool,
    budget: float | None,
    settings: dict[str, object],
    as_json: bool,
) -> None:
    """Measure, print, and end with the exit code of the verdict."""
    from exporter import bench as harness

    with watch(as_json) as observer:
        benched = harness.bench(
            out,
            device,
            artifact=artifact,
            every=every,
            budget_ms=budget,
            settings=settings,
            observer=observer,
        )
    if as_json:
        from exporter.report import manifest

        typer.echo(manifest.dump(benched.report))
    else:
        from exporter.cli.console import bench as tables

        tables.print_bench(benched.report, benched.latencies, benched.skipped, benched.problems, console())
    _end(benched, out)


def _end(benched: Benched, out: Path) -> None:
    if benched.failures:
        raise benched.failures[0]
    verdict = benched.verdict
    if verdict == "not_measured":
        typer.echo(f"No real phone ran it; the figures in {out} are labelled so.", err=True)
    if code := EXIT_CODES[verdict]:
        raise typer.Exit(code)


@runner.command("build")
def build_runner(
    target: Annotated[
        str, typer.Option("--for", metavar="PLATFORM", help="android-arm64, linux-arm64 or host.")
    ],
    onnxruntime: Annotated[
        Path | None, typer.Option(metavar="DIR", help="ONNX Runtime: its unzipped Android AAR, or a prefix.")
    ] = None,
    executorch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The prefix that ExecuTorch was installed to.")
    ] = None,
    torch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="LibTorch for the platform, for torchscript-lite.")
    ] = None,
    ndk: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Android NDK r26 or newer; ANDROID_NDK_HOME otherwise.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Build the on-device program with CMake, a program for each runtime that is given.

    On the host also for those that are installed. The last build for a platform is the one bench uses, so
    give all the runtimes at once.
    """
    from android_harness import build

    platform = options.one_of("--for", target, get_args(Build))
    built = build.build(
        platform,
        onnxruntime=onnxruntime,
        executorch=executorch,
        torch=torch,
        ndk=ndk,
        observer=lambda line: typer.echo(line, err=True),
    )
    for path in built:
        typer.echo(path)


app.add_typer(runner, name="runner")
