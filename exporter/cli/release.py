"""Commands that ship: release, diff."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from exporter.cli.app import Debug, Json, app, app_console
from exporter.config import options


@app.command()
def release(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of an export.")],
    version: Annotated[str, typer.Option(help="Version of the release, such as 1.4.0.")],
    directory: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="The folder to create; it must not exist.")
    ],
    key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Private key to sign with (P-256, P-384 or P-521).")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; the network's own when left out.")
    ] = None,
    group: Annotated[str, typer.Option(help="Group of the Maven coordinates.")] = "com.example",
    artifacts: Annotated[
        str | None, typer.Option(metavar="A,B", help="Artifacts to release; the chosen one when left out.")
    ] = None,
    licence: Annotated[
        Path | None, typer.Option("--license", metavar="FILE", help="The licence file to include.")
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML",
            help="The model card to include, unchanged: the .toml that export-mobile and nightly take.",
        ),
    ] = None,
    allow_unmeasured: Annotated[
        bool,
        typer.Option(
            "--allow-unmeasured", help="Release artifacts that no phone has measured; the release records it."
        ),
    ] = False,
    allow_inconclusive: Annotated[
        bool,
        typer.Option(
            "--allow-inconclusive",
            help="Release an artifact although too few scenes were seen to prove it; the release records it.",
        ),
    ] = False,
    allow_unverified: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Also release these artifacts, which could not run here (Core ML); the release records it.",
        ),
    ] = None,
    allow_wrong_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE",
            help="Release although outputs on this device (its serial, or host) were wrong; repeatable. "
            "The release records it.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Build the release twice and refuse any difference.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Package OUT as a signed release in DIR: zip, Maven repository, Swift package, BOM and hashes.

    An OUT of several parts or sizes becomes a release for each, in DIR/PART. Without --key, the release
    is not signed, and says so.
    """
    from exporter.cli.console.release import print_release
    from exporter.release import bundle, parts_release
    from exporter.release.release_request import ReleaseRequest

    request = ReleaseRequest(
        out=out,
        version=version,
        destination=directory,
        name=name,
        group=group,
        artifacts=options.parse_names_option(artifacts or ""),
        allow_unmeasured=allow_unmeasured,
        allow_inconclusive=allow_inconclusive,
        allow_unverified=options.parse_names_option(allow_unverified or ""),
        allow_wrong_on=tuple(allow_wrong_on or ()),
        licence=licence,
        card=card,
        key=key,
    )
    if parts := parts_release.release_parts(request, check):
        if as_json:
            typer.echo(json.dumps([asdict(release) for release in parts], indent=2, default=str))
        for release_of_part in () if as_json else parts:
            print_release(release_of_part, app_console())
        return
    published = bundle.release_bundle(request, check)
    if as_json:
        typer.echo(json.dumps(asdict(published), indent=2, default=str))
    else:
        print_release(published, app_console())


@app.command()
def diff(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="The folder of an export, or a release's folder or zip.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The newer one, of either kind.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two exports or releases: quality, size, latency, operators, versions."""
    from exporter.cli.console.release import print_release_diff
    from exporter.release import diff as comparison

    difference: Any = comparison.diff_releases(a, b)
    if as_json:
        typer.echo(json.dumps(asdict(difference), indent=2))
    else:
        print_release_diff(difference, app_console())
