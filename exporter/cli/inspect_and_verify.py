"""Commands that change nothing: inspect, verify, targets, doctor."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from exporter.cli.app import Debug, Json, app, app_console, watch_app_command
from exporter.cli.model_options import model_command
from exporter.cli.prepare import prepare_all_programs, prepare_arm_programs, prepare_software_vulkan
from exporter.config.request import ModelRequest
from exporter.errors import ArchitectureError, UsageError, VerificationError

if TYPE_CHECKING:
    from exporter.emulated.arm_tools import ArmTools


@app.command()
@model_command
def inspect(model: ModelRequest, as_json: Json = False, debug: Debug = False) -> None:
    """Describe CKPT: its contents, its network and how it was identified, parameters, FLOPs, inputs.

    A network of several parts is described part by part, as an export makes a file of each.
    """
    from exporter.cli.console import listings
    from exporter.pipeline.inspect import inspect_network_or_parts

    inspections = inspect_network_or_parts(model)
    if as_json:
        records = {name: asdict(inspection) for name, inspection in inspections.items()}
        typer.echo(json.dumps(records.get("", {"parts": records}), indent=2))
    else:
        for name, inspection in inspections.items():
            if name:
                app_console().print(f"[bold]{name}[/bold]")
            listings.list_inspection(inspection, app_console())
    if all(inspection.architecture is not None for inspection in inspections.values()):
        return
    if model.arch is None:
        raise ArchitectureError(
            "No known network fits the weights.", "The row `network` shows why, and what to try."
        )
    raise ArchitectureError(f"The weights do not fit {model.arch}.", "The row `network` shows why.")


@app.command()
def verify(
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="The folder of an export or a release, or a release's zip."),
    ],
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="PUB", help="The signer's public key; the release must have its valid signature."
        ),
    ] = None,
    expect_name: Annotated[
        str, typer.Option(metavar="NAME", help="Refuse a release of any other model.")
    ] = "",
    expect_version: Annotated[
        str,
        typer.Option(
            metavar="VERSION",
            help="Refuse any other version: the signature of an older release is valid, too.",
        ),
    ] = "",
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, help="Worker processes; 0 uses one per core, at most 4.")
    ] = 0,
    on: Annotated[
        Literal["arm64", "vulkan"] | None,
        typer.Option(
            "--on",
            metavar="arm64|vulkan",
            help="Also run every artifact in its Arm library, on the target's core emulated by QEMU; or "
            "run Vulkan artifacts on Mesa's software driver. The first time, this downloads and compiles "
            "the programs.",
        ),
    ] = None,
    for_app: Annotated[
        bool,
        typer.Option(
            "--for-app",
            help="Ask instead whether the artifacts load in the stock Android packages, or in LIBRARY.",
        ),
    ] = False,
    libraries: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[LIBRARY]...", help="With --for-app: the app's own .so, AAR or APK files."),
    ] = None,
    artifact: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --for-app: ask only about this artifact; repeatable."),
    ] = None,
    min_sdk: Annotated[
        int | None,
        typer.Option(min=1, help="With --for-app: the app's minSdk, which the libraries must not exceed."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Re-verify an export or release from its files. Exits 9 on any mismatch.

    Checks the signature and the hashes, then runs every artifact in its runtime. With --for-app,
    runs nothing: reads what the artifacts need, and whether the app's libraries have it.
    """
    from exporter.cli.console import listings
    from exporter.pipeline.parts_record import load_parts
    from exporter.pipeline.workers.pool import default_pool_size
    from exporter.release import check

    if for_app:
        _verify_for_app(out, libraries or [], artifact or [], min_sdk, jobs, as_json)
        return
    if libraries or artifact or min_sdk is not None:
        raise UsageError("LIBRARY, --artifact and --min-sdk go with --for-app.", "Add --for-app.")
    arm64 = prepare_arm_programs() if on == "arm64" else None
    if on == "vulkan":
        prepare_software_vulkan()
    wanted = check.CheckedIdentity(expect_name, expect_version)
    if listed := load_parts(out):
        _verify_parts(out, listed, jobs or default_pool_size(), arm64, as_json)
        return
    with watch_app_command(as_json) as observer:
        audit = check.check_release(out, key, jobs or default_pool_size(), observer, wanted, arm64)
    if as_json:
        typer.echo(json.dumps({"holds": audit.holds} | asdict(audit), indent=2))
    else:
        listings.list_audit(audit, app_console())
    if not audit.holds:
        raise VerificationError(
            f"{out} does not match its manifest.",
            "Export it again, or get the release again.",
            code="EM-CHANGED",
        )


def _verify_parts(
    out: Path, listed: dict[str, tuple[Path, str]], jobs: int, arm64: ArmTools | None, as_json: bool
) -> None:
    """Verify the export of every part, and the chosen files beside them."""
    from exporter.cli.console import listings
    from exporter.release import check

    audits = {}
    with watch_app_command(as_json) as observer:
        for name, (folder, problem) in listed.items():
            audit = check.check_release(folder, None, jobs, observer, arm64=arm64)
            more = (problem,) if problem else ()
            audits[name] = replace(audit, problems=(*audit.problems, *more))
    holds = all(audit.holds for audit in audits.values())
    if as_json:
        records = {name: {"holds": audit.holds} | asdict(audit) for name, audit in audits.items()}
        typer.echo(json.dumps({"holds": holds, "parts": records}, indent=2))
    else:
        for name, audit in audits.items():
            app_console().print(f"[bold]{name}[/bold]")
            listings.list_audit(audit, app_console())
        app_console().print(
            "What the parts compute together needs the checkpoint: export again.", style="dim"
        )
    if not holds:
        raise VerificationError(f"{out} does not match its manifests.", "Export it again.", code="EM-CHANGED")


def _verify_for_app(
    out: Path, libraries: list[Path], artifacts: list[str], min_sdk: int | None, jobs: int, as_json: bool
) -> None:
    """Print whether the artifacts load in an app, and end with 9 when one does not, or may not."""
    from exporter.cli.console.for_app import print_for_app
    from exporter.pipeline import for_app
    from exporter.pipeline.workers.pool import default_pool_size
    from exporter.release import check

    with check.open_release_to_check(out) as folder:
        answer = for_app.check_for_app(folder, libraries, artifacts, min_sdk, jobs or default_pool_size())
    if as_json:
        typer.echo(json.dumps({"holds": answer.holds} | asdict(answer), indent=2, default=sorted))
    else:
        print_for_app(answer, app_console())
    if not answer.holds:
        raise VerificationError(
            "An artifact does not load, or it is not certain that it does.",
            "The table says what is missing; --artifact NAME asks only about the one that you ship.",
            code="EM-FOR-APP",
        )


@app.command()
def targets(as_json: Json = False, debug: Debug = False) -> None:
    """List the target phones: cores, instruction sets, GPU, NPU, what each runs, and why not the rest."""
    from exporter.cli.console import listings
    from exporter.config.targets import TARGETS

    if as_json:
        typer.echo(json.dumps({target.name: asdict(target) for target in TARGETS}, indent=2))
    else:
        listings.list_targets(TARGETS, app_console())


@app.command()
def doctor(
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare",
            help="First prepare what executes Arm and Vulkan artifacts here, where the programs for it are "
            "installed. It downloads two wheels and an npm package, once.",
        ),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Report what is installed, which runtimes execute here, what is missing, and how to fix it."""
    from exporter.cli.console import listings
    from exporter.cli.doctor import examine as examination

    if prepare:
        prepare_all_programs()
    findings = examination.examine_machine()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        listings.list_findings_of_doctor(findings, app_console())
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)
