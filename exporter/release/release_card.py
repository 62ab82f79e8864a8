"""Write MODEL_CARD.md and README.md of a bundle from its manifest and the model's own card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from exporter.release import maven, swift
from exporter.release.plan import Plan
from exporter.report import text
from exporter.report.manifest.schema import Artifact, Manifest

CAVEATS = {
    "NOT_MEASURED.txt": "not_measured",
    "NOT_VERIFIED.txt": "not_verified",
    "OVERRIDDEN.txt": "overridden",
}
"""File -> field of the plan: files that say in their names what the bundle lacks."""


def release_card_caveats(plan: Plan) -> dict[str, bytes]:
    """Return name -> text of the files that apply."""
    sentences = {name: getattr(plan, field) for name, field in CAVEATS.items()}
    return {name: ("\n".join(words) + "\n").encode() for name, words in sentences.items() if words}


def write_release_card(plan: Plan) -> bytes:
    """Write the model card: the model, its source, each artifact's quality and speed, and what is unknown."""
    listed = plan.manifest
    lines = [f"# {plan.name} {plan.request.version}", "", *_release_card_warnings(plan)]
    lines += _release_card_table(
        ("", ""),
        [
            ("network", listed.source.architecture),
            ("parameters", f"{listed.source.parameters:,}"),
            (
                "FLOPs of a call",
                "not counted" if listed.source.flops is None else text.scaled_text(listed.source.flops, ""),
            ),
            ("checkpoint", f"{listed.source.file}, {listed.source.kind}, sha256 {listed.source.sha256}"),
            ("target", f"{listed.target.name} ({listed.target.soc}), {_release_card_budget(listed)}"),
            *(("input", text.tensor_text(spec)) for spec in listed.inputs),
            *(("output", text.tensor_text(spec)) for spec in listed.outputs),
            ("preprocessing", text.preprocessing_text(listed.preprocessing)),
            ("classes", f"{len(listed.labels)} named" if listed.labels else "not named"),
            ("calibrated on", text.data_text(listed.calibration.kind, listed.calibration.count)),
            ("verified on", text.data_text(listed.evidence.kind, listed.evidence.count)),
        ],
    )
    lines += [
        "",
        "## Artifacts",
        "",
        *_release_card_table(HEADINGS, map(_release_card_row, listed.artifacts)),
    ]
    lines += ["", "Errors are against the original model in float64. " + TIMES, ""]
    lines += _release_card_section(
        "Known limits", (*listed.warnings, *_release_card_reasons(listed.artifacts))
    )
    lines += _release_card_section("How it was read", listed.notes)
    lines += _release_card_section(
        "Made with", (f"{name} {version}" for name, version in listed.tool.items())
    )
    lines += _user_release_card_section(plan)
    return ("\n".join(lines).rstrip() + "\n").encode()


def _release_card_budget(listed: Manifest) -> str:
    own_ms = listed.export_budget_ms
    beside = f" (the export's own is {own_ms:g} ms)" if own_ms is not None else ""
    return f"budget {listed.budget_ms:g} ms{beside}"


HEADINGS = (
    "artifact",
    "as",
    "status",
    "max error",
    "SQNR",
    "top-1",
    "size",
    "host p50",
    "device p90",
    "sha256",
)
TIMES = "Host times say nothing about a phone; a dash is a figure that was not measured."


def _release_card_row(artifact: Artifact) -> tuple[str, ...]:
    verification, host, device = artifact.verification, artifact.host_latency, artifact.device_latency
    return (
        artifact.name,
        artifact.precision,
        text.status_text(artifact.status, artifact.executor),
        text.sig3_text(verification.max_error if verification else None),
        text.decibels_text(verification.sqnr_db if verification else None),
        text.percent_text(verification.top1_agreement if verification else None),
        text.scaled_text(artifact.size_bytes, "B"),
        text.milliseconds_text(host.p50_ms if host else None),
        f"{text.milliseconds_text(device.p90_ms)} ({text.EVIDENCE_WORDS[device.evidence]})"
        if device
        else text.NONE,
        artifact.sha256 or text.NONE,
    )


def _release_card_warnings(plan: Plan) -> list[str]:
    words = (*plan.overridden, *plan.not_measured, *plan.not_verified)
    return [line for sentence in words for line in (f"> **{_plain_release_card_text(sentence)}**", "")]


def _release_card_reasons(artifacts: Sequence[Artifact]) -> list[str]:
    return [f"{a.name}: {a.reason}" for a in artifacts if a.reason]


def _release_card_section(title: str, lines: Iterable[str]) -> list[str]:
    items = [f"- {_plain_release_card_text(line)}" for line in lines]
    return [f"## {title}", "", *items, ""] if items else []


def _release_card_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    return lines + [f"| {' | '.join(_plain_release_card_text(cell) for cell in row)} |" for row in rows]


def _plain_release_card_text(words: str) -> str:
    """Escape a line so that it is neither Markdown nor HTML, because names come from a file."""
    line = " ".join(words.split())
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in line)


def _user_release_card_section(plan: Plan) -> list[str]:
    """List what the card sets, key by key; keys left out are not listed."""
    if plan.card is None:
        return []
    written = plan.card.listed.model_dump(mode="json", exclude_unset=True)
    return ["## The model's own card", "", *_user_release_card_items(written, 0)]


def _user_release_card_items(table: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in table.items():
        head = f"{'  ' * depth}- {_plain_release_card_text(key)}"
        if isinstance(value, dict):
            lines += [f"{head}:", *_user_release_card_items(value, depth + 1)]
        else:
            lines.append(f"{head}: {_plain_release_card_text(str(value))}")
    return lines


ZIP = """\
| `manifest.json` | what each artifact is, how it was verified and timed; the same for machines |
| `MODEL_CARD.md` | the same for people |
| `report.html` | the page of the export that these artifacts come from, with those that were not chosen |
| `verification.npz` | every input and expected output the artifacts were compared with |
| `examples/` | the first of them as raw values with an index, for the app's own tests |
| `snippets/` | code that loads the model and runs it with its own preprocessing |
| `sbom.cdx.json` | CycloneDX ML-BOM |
| `SHA256SUMS` | of every file: `sha256sum -c SHA256SUMS` |
"""


def release_card_readme_of_zip(plan: Plan) -> bytes:
    """Write the README of the zip: its files."""
    rows = [
        f"| `{a.file}` | {a.format}, {a.precision}, {text.status_text(a.status, a.executor)} |"
        for a in plan.manifest.artifacts
    ]
    lines = [f"# {plan.title}", "", *_release_card_warnings(plan), "| | |", "|---|---|", *rows, ZIP]
    lines.append(f"`export-mobile verify {plan.title}.zip` checks all of it again, offline.")
    return ("\n".join(lines) + "\n").encode()


def release_card_readme_of_folder(plan: Plan, signed: bool) -> bytes:
    """Write the README of the folder: its files, how an app uses it, and how to check it."""
    lines = [
        f"# {plan.title}",
        "",
        *_release_card_warnings(plan),
        "| | |",
        "|---|---|",
        *_release_card_contents(plan, signed),
    ]
    lines += ["", "`snippets/` has the code that loads the model and runs it with its own preprocessing.", ""]
    if not plan.android:
        lines += ["There is no Android library: none of the chosen artifacts runs on Android.", ""]
    if not plan.apple:
        lines += ["There is no Swift package: none of the chosen artifacts is for Core ML or ExecuTorch.", ""]
    lines += ["Check it, offline:", "", *_release_card_commands(plan, signed), ""]
    lines.append(
        "Its bytes do not depend on when or where it was built; every date in it is "
        f"{plan.date:%Y-%m-%d %H:%M:%S} UTC."
    )
    if signed:
        lines.append("Only the signatures differ between builds: ECDSA draws a random number.")
    return ("\n".join(lines) + "\n").encode()


def _release_card_contents(plan: Plan, signed: bool) -> list[str]:
    lines = [
        f"| `{plan.title}.zip` | artifacts, manifest, model card, report, examples for the app's own tests |",
        f"| `{plan.title}.cdx.json` | CycloneDX ML-BOM: the model, its data, its toolchain |",
        "| `SHA256SUMS` | of every file: `sha256sum -c SHA256SUMS` |",
    ]
    if plan.android:
        lines.append(
            f"| `{maven.FOLDER}/` | a Maven repository with `{maven.maven_coordinates(plan)}` (AAR) |"
        )
    if plan.apple:
        lines.append(
            f"| `{swift.FOLDER}/{swift.swift_module(plan.name)}/` "
            f"| a Swift package with `{plan.apple.file}` |"
        )
    if signed:
        lines.append("| `signatures/` | OpenSSF model-signing signatures of this folder and of the zip |")
    return lines


def _release_card_commands(plan: Plan, signed: bool) -> list[str]:
    wanted = f"--expect-name {plan.name} --expect-version {plan.request.version}"
    if not signed:
        return [
            f"    export-mobile verify . {wanted}",
            "",
            "It is not signed: the hashes reveal accidents, not attacks.",
        ]
    return [
        f"    export-mobile verify . --key PUBLIC_KEY.pem {wanted}",
        "    model_signing verify key . --signature signatures/bundle.sig --public_key PUBLIC_KEY.pem",
    ]
