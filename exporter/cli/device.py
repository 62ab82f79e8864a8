"""Commands that talk to devices: devices, bench, runner build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from android_harness import errors
from android_harness.records import BenchConfig, Build
from exporter.cli.app import Application, Debug, Json, app, app_console, watch_app_command
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
        help="A phone's serial in adb (repeatable), all, or host for this machine. "
        "The only connected phone when left out.",
    ),
]
runner = Application(no_args_is_help=True, help="Build the program that runs the artifacts on a device.")
LEARNED_FROM = (
    "Only a real phone's stable run with right outputs, on as many threads as an estimate, is learned from."
)


@app.command()
def devices(as_json: Json = False, debug: Debug = False) -> None:
    """List the devices that adb sees: SoC, whether each can be measured now, and what to do if not."""
    from android_harness import device_listing
    from exporter.cli.console import bench as tables

    reports = device_listing.list_device_reports()
    if as_json:
        typer.echo(json.dumps({"devices": [_device_json(device) for device in reports]}, indent=2))
    elif reports:
        tables.print_devices_to_bench(reports, app_console())
    else:
        typer.echo(
            "adb sees no device. Enable USB debugging on the phone, plug it in, and confirm its prompt."
        )


def _device_json(device: DeviceReport) -> dict[str, object]:
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
        str | None,
        typer.Option(metavar="NAME", help="The artifact to measure. The chosen one when left out."),
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Measure every passed artifact that the runner executes, then choose again."
        ),
    ] = False,
    budget: Annotated[
        float | None, typer.Option(min=0.001, help="Budget for p90 in ms. The export's budget when left out.")
    ] = None,
    launches: Annotated[
        int,
        typer.Option(
            min=3,
            help="Processes per artifact. The confidence interval of p90 is computed over launches, because "
            "calls of one process are alike; more launches narrow it.",
        ),
    ] = BenchConfig.launches,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Least timed seconds per launch.")
    ] = BenchConfig.min_seconds,
    threads: Annotated[
        int, typer.Option(min=1, max=64, help="Threads that the runtime uses.")
    ] = BenchConfig.threads,
    affinity: Annotated[
        str,
        typer.Option(
            metavar="MASK",
            help="Mask of cores in hexadecimal; f0 is the big cores of an 865. Any core when left out.",
        ),
    ] = BenchConfig.affinity,
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait for a hot or busy device to settle; 0 does not wait."),
    ] = BenchConfig.wait_s,
    memory_budget: Annotated[
        float | None, typer.Option(min=0.1, help="Limit of the peak memory in MB; none when left out.")
    ] = None,
    load_budget: Annotated[
        float | None, typer.Option(min=0.001, help="Limit of the load time in ms; none when left out.")
    ] = None,
    first_budget: Annotated[
        float | None, typer.Option(min=0.001, help="Limit of the first call in ms; none when left out.")
    ] = None,
    learn: Annotated[
        bool,
        typer.Option(
            "--learn",
            help="Keep how far the phone is from the estimates, which corrects later ones for its chip.",
        ),
    ] = False,
    app_like: Annotated[
        bool,
        typer.Option("--app-like", help="Measure once more as an app runs: the runtime's threads, any core."),
    ] = False,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="Keep a Perfetto trace with a failure. Traced launches never pass."),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Also time each operator, in a run of its own, and sum by module."),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure OUT's artifact on a phone: p50, p90, p99 and the verdict on the budget, stored in OUT.

    The process that is timed also returns its outputs, which must meet the limits of the export. Only a real
    phone can meet the budget; a simulated device and this machine (--device host) are labelled as such
    everywhere.

    Exit codes: 0 within budget on a real phone, 13 the harness is not set up, 14 no such device, 15 device
    not ready, 16 device failed, 17 over budget, 18 inconclusive, 19 not measured (simulated or host).
    """
    if artifact and every:
        from exporter.errors import UsageError

        raise UsageError("--artifact and --all exclude each other.", "Give one of them.")
    settings = {
        "launches": launches,
        "min_seconds": seconds,
        "max_seconds": max(BenchConfig.max_seconds, seconds),
        "threads": threads,
        "affinity": options.parse_mask_option("--affinity", affinity),
        "wait_s": wait,
        "memory_budget_bytes": None if memory_budget is None else round(memory_budget * 1e6),
        "load_budget_ms": load_budget,
        "first_budget_ms": first_budget,
        "app_like": app_like,
        "profile": profile,
        "trace": trace,
    }
    run_bench(out, tuple(device or ()), artifact, every, budget, settings, as_json, learn)


def run_bench(
    out: Path,
    device: tuple[str, ...],
    artifact: str | None,
    every: bool,
    budget: float | None,
    settings: dict[str, object],
    as_json: bool,
    learn: bool = False,
) -> None:
    """Measure, print the results, and exit with the verdict's code."""
    from exporter import bench as harness

    with watch_app_command(as_json) as observer:
        benched = harness.bench_export(
            out,
            device,
            artifact=artifact,
            every=every,
            budget_ms=budget,
            settings=settings,
            observer=observer,
        )
    if learn:
        from exporter.pipeline import estimate_stage

        count = estimate_stage.learn_anchors_in_estimate_stage(benched.report, benched.latencies)
        typer.echo(f"Learned from {count} of {len(benched.latencies)} measurements.", err=True)
        if count < len(benched.latencies):
            typer.echo(LEARNED_FROM, err=True)
    if as_json:
        from exporter.report import manifest

        typer.echo(manifest.dump_manifest(benched.report))
    else:
        from exporter.cli.console import bench as tables

        tables.print_bench(
            benched.report, benched.latencies, benched.skipped, benched.problems, app_console()
        )
    _exit_after_bench(benched, out)


def _exit_after_bench(benched: Benched, out: Path) -> None:
    if benched.failures:
        raise benched.failures[0]
    verdict = benched.verdict
    if verdict == "not_measured":
        typer.echo(f"No real phone ran it; the figures in {out} are labelled as such.", err=True)
    if code := EXIT_CODES[verdict]:
        raise typer.Exit(code)


@runner.command("build")
def build_runner(
    target: Annotated[
        str, typer.Option("--for", metavar="PLATFORM", help="android-arm64, linux-arm64 or host.")
    ],
    onnxruntime: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="ONNX Runtime: its unzipped Android AAR, or an install prefix."),
    ] = None,
    executorch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Install prefix of ExecuTorch.")
    ] = None,
    torch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="LibTorch for the platform, for torchscript-lite.")
    ] = None,
    ndk: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Android NDK (r28; r26 or newer). ANDROID_NDK_HOME when left out."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Build the on-device program with CMake, one for each runtime that is given.

    For the host, installed runtimes are built too. A build replaces the earlier one for its platform, so give
    all runtimes at once.
    """
    from android_harness import runner_build
    from exporter.emulated.vulkan import vulkan_tools
    from exporter.pipeline.cache import default_cache_root

    platform = options.parse_choice_option("--for", target, get_args(Build))
    built = runner_build.build_runners(
        platform,
        onnxruntime=onnxruntime,
        executorch=executorch,
        torch=torch,
        vulkan=vulkan_tools.ready_vulkan_tools(default_cache_root()),
        ndk=ndk,
        observer=lambda line: typer.echo(line, err=True),
    )
    for path in built:
        typer.echo(path)


app.add_typer(runner, name="runner")
