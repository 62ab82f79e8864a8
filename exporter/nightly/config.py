"""`nightly.toml`: which models, targets and phones, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from exporter.config import cards, options, targets, toml_file
from exporter.config.card_tables import Text
from exporter.config.cards import Card
from exporter.config.toml_file import Table
from exporter.errors import ExportError, UsageError

WHAT = "Nightly"


class ProtocolTable(Table):
    """How much is measured; the keys mean what the options of `bench` mean."""

    launches: Annotated[int, Field(ge=3, le=1000)] = 5
    seconds: Annotated[float, Field(ge=0.01, le=3600)] = 2.0
    threads: Annotated[int, Field(ge=1, le=64)] = 4
    affinity: str = ""
    wait_s: Annotated[float, Field(ge=0, le=24 * 3600)] = 300.0
    artifacts: Literal["all", "chosen"] = "all"
    """Which artifacts are measured: all that passed and that the runner executes, or only the chosen one."""
    confirm: bool = True
    """Whether a suspected slowdown is measured again before it counts as a regression."""


class ResumeTable(Table):
    hours: Annotated[float, Field(ge=0, le=24 * 14)] = 20.0
    """How long after its start an interrupted night is resumed; later a new one begins."""


class RetentionTable(Table):
    nights: Annotated[int, Field(ge=1)] = 30
    """How many folders of artifacts and pages are kept; older ones are deleted."""
    samples_days: Annotated[int, Field(ge=1)] | None = None
    """Raw samples older than this are deleted, their figures stay. All samples stay when left out."""
    history_days: Annotated[int, Field(ge=1)] | None = None
    """Sessions older than this are deleted, except baselines. All sessions stay when left out."""


class NightlyFile(Table):
    """The keys of `nightly.toml`. Paths and patterns are relative to it; `~` is the user's home folder."""

    cards: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Model cards: files, or patterns such as `models/*.toml`."""
    targets: Annotated[tuple[Text, ...], Field(min_length=1)]
    devices: Annotated[tuple[Text, ...], Field(min_length=1)] = ("all",)
    """Serials; "all" for every phone that adb sees; "host" for this machine."""
    out: Text = "nightly"
    history: Text | None = None
    """A file for SQLite, or postgresql://user@host/name. When left out: `$EXPORT_MOBILE_HISTORY`, else the
    user's data folder."""
    protocol: ProtocolTable = ProtocolTable()
    resume: ResumeTable = ResumeTable()
    retention: RetentionTable = RetentionTable()


@dataclass(frozen=True)
class NightConfig:
    """A checked nightly task: every path in it is absolute."""

    path: Path
    cards: tuple[Card, ...]
    broken: tuple[tuple[str, str], ...]
    """(name of a card, why it cannot be used): these count as failures; the other cards are exported."""
    targets: tuple[str, ...]
    devices: tuple[str, ...]
    out: Path
    history: str | None
    protocol: ProtocolTable
    resume: ResumeTable
    retention: RetentionTable

    @property
    def settings(self) -> dict[str, Any]:
        """Return the fields of `android_harness.records.BenchConfig` that the file sets."""
        protocol = self.protocol
        return {
            "launches": protocol.launches,
            "min_seconds": protocol.seconds,
            "max_seconds": max(24.0, protocol.seconds),
            "threads": protocol.threads,
            "affinity": protocol.affinity,
            "wait_s": protocol.wait_s,
        }


def load_night_config(path: Path) -> NightConfig:
    """Read and check `nightly.toml`. A broken card is reported in `broken`; every other mistake is refused.

    Raises:
        UsageError: The file is invalid; the message names the key.
    """
    listed = toml_file.read_toml(path, WHAT, NightlyFile)
    folder = path.absolute().parent
    good, broken = _night_config_cards(path, folder, listed.cards)
    try:
        named = tuple(dict.fromkeys(targets.get_target(name).name for name in listed.targets))
        affinity = options.parse_mask_option("protocol.affinity", listed.protocol.affinity)
    except UsageError as error:
        raise UsageError(f"{WHAT} ({path}): {error.message}", error.hint, error.code) from None
    return NightConfig(
        path=path,
        cards=good,
        broken=broken,
        targets=named,
        devices=tuple(dict.fromkeys(listed.devices)),
        out=folder / toml_file.expand_toml_path(listed.out),
        history=_night_config_history(folder, listed.history),
        protocol=listed.protocol.model_copy(update={"affinity": affinity}),
        resume=listed.resume,
        retention=listed.retention,
    )


def _night_config_history(folder: Path, setting: str | None) -> str | None:
    if setting is None or "://" in setting:
        return setting
    return str(folder / toml_file.expand_toml_path(setting))


def _night_config_cards(
    path: Path, folder: Path, patterns: tuple[str, ...]
) -> tuple[tuple[Card, ...], tuple[tuple[str, str], ...]]:
    by_name: dict[str, Card] = {}
    broken: list[tuple[str, str]] = []
    for file in _night_config_card_files(path, folder, patterns):
        try:
            card = cards.load_card(file)
        except ExportError as error:
            broken.append((file.stem, str(error)))
            continue
        if card.name in by_name:
            raise UsageError(
                f"{WHAT} ({path}): cards: {file} and {by_name[card.name].path} are both {card.name}.",
                "Give one of them another name.",
            )
        by_name[card.name] = card
    return tuple(by_name.values()), tuple(broken)


def _night_config_card_files(path: Path, folder: Path, patterns: tuple[str, ...]) -> tuple[Path, ...]:
    files: dict[Path, None] = {}
    for index, pattern in enumerate(patterns):
        expanded = toml_file.expand_toml_path(pattern)
        root, relative = (
            (Path("/"), expanded.lstrip("/")) if Path(expanded).is_absolute() else (folder, expanded)
        )
        try:
            matching = sorted(root.glob(relative)) if any(c in pattern for c in "*?[") else [root / relative]
        except (ValueError, NotImplementedError) as error:
            raise UsageError(f"{WHAT} ({path}): cards[{index}] is {pattern!r}: {error}.") from None
        if not matching:
            raise UsageError(
                f"{WHAT} ({path}): cards[{index}] is {pattern!r}: no file in {folder} is like that.",
                "Patterns are relative to the nightly file.",
            )
        files |= dict.fromkeys(matching)
    return tuple(files)
