"""Export every model for every target into the night's folder; finished exports are reused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from exporter import bench, files, pipeline, staging
from exporter.config import cards
from exporter.config.cards import Card
from exporter.errors import ExportError
from exporter.nightly.config import NightConfig
from exporter.nightly.records import Exported, Night
from exporter.pipeline import variants
from exporter.pipeline.context import Event, Observer
from exporter.pipeline.workers import pool
from exporter.records import Report


def export_night(config: NightConfig, night: Night, observer: Observer) -> tuple[Exported, ...]:
    """Export models x targets. A failure is returned as data and does not stop the others."""
    pairs = [(card, target) for card in config.cards for target in config.targets]
    exports = []
    with pool.keep_pool_warm():
        for done, (card, target) in enumerate(pairs):
            observer(Event("night", f"{card.name} for {target}", done, len(pairs)))
            exports.append(
                _export_night_cell(
                    card, target, night, _prefix_night_export_events(observer, f"{card.name} for {target}")
                )
            )
    return tuple(exports)


def _prefix_night_export_events(observer: Observer, name: str) -> Observer:
    """Prefix each event with its model; a model's steps do not move the night's own progress bar."""
    return lambda event: observer(Event(event.stage, f"{name}: {event.detail}".rstrip(": "), 0, 0))


def _export_night_cell(card: Card, target: str, night: Night, observer: Observer) -> Exported:
    folder = night.folder / f"{card.name}-{target}"
    try:
        staging.recover_staging(folder)
        report = _night_export_of_earlier_start(folder) or _make_night_export(card, target, folder, observer)
    except ExportError as error:
        return Exported(card.name, target, None, None, str(error), card.require)
    except Exception as error:  # whatever it is, the other models' work continues
        return Exported(card.name, target, None, None, unexpected_night_export_error(error), card.require)
    return Exported(card.name, target, folder, report, require=card.require)


def unexpected_night_export_error(error: Exception) -> str:
    """Describe an error of an unexpected type."""
    return f"Unexpected {type(error).__name__}: {error}."


def _night_export_of_earlier_start(folder: Path) -> Report | None:
    """Return the report of an earlier start of this night. OUT appears whole or not at all."""
    if not (folder / files.MANIFEST).is_file():
        return None
    return bench.read_for_bench(folder)[0]


def _make_night_export(card: Card, target: str, folder: Path, observer: Callable[[Event], None]) -> Report:
    request = replace(cards.card_request(card, target, folder), force=True)
    variants.check_required_variants(request, card.require)
    return pipeline.run_pipeline(request, observer)
