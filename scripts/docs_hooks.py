"""MkDocs hooks: they write the parts of the reference that the code already knows.

A page holds the line `<!-- generated: NAME -->` where the text of `GENERATED[NAME]` goes.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SCHEMA = "reference/manifest.schema.json"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the JSON schema of `manifest.json` to the site."""
    files.append(File.generated(config, SCHEMA, content=json.dumps(schema(), indent=2)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated text in the place of its marker."""
    return re.sub(r"^<!-- generated: (\w+) -->$", lambda m: GENERATED[m[1]](), markdown, flags=re.MULTILINE)


def command_line() -> str:
    """Return every command and option as Markdown, from the Typer application itself."""
    import typer
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    import exporter.cli  # noqa: F401 - registers the commands
    from exporter.cli.app import app

    command = get_command(app)
    context = typer.Context(command, info_name="export-mobile")
    text = get_docs_for_click(obj=command, ctx=context, indent=1, name="export-mobile")
    return re.sub(r"\[/?bold\]", "`", text)


def schema() -> dict[str, Any]:
    """Return the JSON schema of `manifest.json`, from the pydantic models that read and write it."""
    from exporter.report.manifest import Manifest

    return Manifest.model_json_schema()


def manifest() -> str:
    """Return a table of fields for the manifest and for each record in it, as Markdown."""
    return _tables("Manifest", schema())


def card() -> str:
    """Return a table of keys for a model card and for each table in it, as Markdown."""
    from exporter.config.card_tables import CardFile

    return _tables("Card", CardFile.model_json_schema(), level=3)


def nightly() -> str:
    """Return a table of keys for `nightly.toml` and for each table in it, as Markdown."""
    from exporter.nightly.config import NightlyFile

    return _tables("Night", NightlyFile.model_json_schema(), level=3)


def gates() -> str:
    """Return a table of the gates of verification: what each fails, and how many planted faults it finds."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from exporter.verify.judge import GATES
    from tests.array_faults import ARRAY_FAULTS
    from tests.gate_faults import GATE_FAULTS

    found = Counter([gate for fault in GATE_FAULTS for gate in fault.gates])
    found.update(fault.gate for fault in ARRAY_FAULTS)
    rows = [
        *((name, str(gate.__doc__).partition("\n")[0]) for name, gate in GATES.items()),
        *BESIDE_GATES.items(),
    ]
    lines = (f"| {name} | {_what_fails(text)} | {found[name]} |" for name, text in rows)
    return "\n".join(["| gate | fails | planted faults |", "|---|---|---|", *lines])


def faults() -> str:
    """Return a table of the planted faults, by precision and format, and one by precision and task."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from exporter.formats import VARIANTS
    from tests.array_faults import ARRAY_FAULTS
    from tests.faults import FAULTS
    from tests.gate_faults import GATE_FAULTS

    names = [f.artifact for f in (*FAULTS, *GATE_FAULTS) if f.artifact]
    variants = [VARIANTS[name] for name in names] + [fault.variant for fault in ARRAY_FAULTS]
    by_format = Counter((variant.format, variant.precision) for variant in variants)
    by_task = Counter((fault.task, fault.variant.precision) for fault in ARRAY_FAULTS if fault.task)
    return f"{_faults_table('format', by_format)}\n\n{_faults_table('task', by_task)}"


def _faults_table(head: str, counts: Mapping[tuple[str, str], int]) -> str:
    from exporter.records import Precision

    columns = list(get_args(Precision))
    rows = sorted({row for row, _ in counts})
    lines = (
        f"| {row} | {' | '.join(str(counts.get((row, column), '')) for column in columns)} |" for row in rows
    )
    return "\n".join([f"| {head} | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|", *lines])


BESIDE_GATES = {
    "contract": "Fail names, order, types or shapes of inputs and outputs that are not the model's.",
    "file": "Fail a file that its runtime or its reader refuses.",
    "repeat": "Fail an artifact that gives other outputs when the same inputs come in another order.",
}
"""What is checked outside of the table of gates, by the names that the tables of planted faults use."""


def _what_fails(docstring: str) -> str:
    return docstring.removeprefix("Fail ").rstrip(".")


def _tables(name: str, whole: dict[str, Any], level: int = 2) -> str:
    records = {name: whole, **whole.get("$defs", {})}
    return "\n".join(line for title, record in records.items() for line in _table(title, record, level))


def _table(name: str, record: dict[str, Any], level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}\n"
    if text := record.get("description", ""):
        yield f"{text}\n"
    yield "| field | type | when left out |\n|---|---|---|"
    required = set(record.get("required", ()))
    for field, value in record.get("properties", {}).items():
        yield f"| `{field}` | {_type(value)} | {_default(value, field in required)} |"
    yield ""


def _default(value: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    default = value.get("default")
    return "its own defaults" if isinstance(default, dict) else f"`{json.dumps(default)}`"


def _type(value: dict[str, Any]) -> str:
    """Describe a JSON schema type in a few words, linked where it is a record of its own."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(_type(choice) for choice in value["anyOf"])
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value.get("type") == "array":
        items = [_type(item) for item in value.get("prefixItems", ())]
        return f"list of {', '.join(items) or _type(value.get('items', {}))}"
    if isinstance(value.get("additionalProperties"), dict):
        return f"names to {_type(value['additionalProperties'])}"
    return str(value.get("type", "any"))


GENERATED = {
    "command_line": command_line,
    "manifest": manifest,
    "card": card,
    "nightly": nightly,
    "gates": gates,
    "faults": faults,
}
"""Marker -> the function that writes the text in its place."""
