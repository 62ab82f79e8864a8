"""`exporter.nightly.exporting`: every model for every target, once a night."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from exporter import bench, pipeline
from exporter.config import cards
from exporter.config.request import Request
from exporter.nightly import exporting
from exporter.nightly.config import NightConfig
from exporter.nightly.records import Exported, Night
from exporter.records import Report
from tests.nightly import lab, sample

TARGETS = ("snapdragon865", "generic-arm64")


@pytest.fixture
def config(tmp_path: Path) -> NightConfig:
    """Return a task of two cards whose checkpoints exist, for two targets."""
    (tmp_path / "x.pth").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(f'[checkpoint]\npath = "x.pth"\nsha256 = "{digest}"\n')
    known = tuple(cards.load_card(tmp_path / f"{name}.toml") for name in ("one", "two"))
    return sample.config(tmp_path, cards=known, targets=TARGETS)


@pytest.fixture
def night(tmp_path: Path) -> Night:
    folder = tmp_path / "out" / "nights" / "2026-01-31T02-00-00Z"
    folder.mkdir(parents=True)
    return Night(folder.name, folder, resumed=False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Record the requested exports: whole folders without artifacts that could run."""
    seen: list[Request] = []

    def run(request: Request, _: object) -> Report:
        assert request.out
        seen.append(request)
        lab.export(request.out)
        return bench.read_for_bench(request.out)[0]

    monkeypatch.setattr(pipeline, "run_pipeline", run)
    return seen


def export(config: NightConfig, night: Night) -> tuple[Exported, ...]:
    return exporting.export_night(config, night, lambda _: None)


def test_every_model_for_every_target(config: NightConfig, night: Night, asked: list[Request]) -> None:
    """Each card is exported for each target, into its own folder."""
    exports = export(config, night)
    places = [(name, target) for name in ("one", "two") for target in TARGETS]
    assert [(item.model, item.target) for item in exports] == places
    assert [request.out for request in asked] == [night.folder / f"{n}-{t}" for n, t in places]
    assert all(request.force and request.checkpoint.name == "x.pth" for request in asked)


def test_what_is_there_is_not_made_again(config: NightConfig, night: Night, asked: list[Request]) -> None:
    """An export appears whole or not at all; pieces of one that was killed are swept away."""
    export(config, night)
    shutil.rmtree(night.folder / "two-generic-arm64")
    (night.folder / ".one-generic-arm64.partial-1234").mkdir()
    asked.clear()
    exports = export(config, night)
    assert [request.out for request in asked] == [night.folder / "two-generic-arm64"]
    assert all(item.report for item in exports)
    assert not list(night.folder.glob(".*"))


def test_a_folder_without_a_manifest_is_no_export(night: Night) -> None:
    """A folder without a manifest is exported again."""
    empty = night.folder / "one-snapdragon865"
    empty.mkdir()
    assert exporting._night_export_of_earlier_start(empty) is None


def test_what_a_card_requires_must_be_possible(
    config: NightConfig, night: Night, asked: list[Request]
) -> None:
    """A misspelt requirement fails this card alone, before an hour of exporting."""
    path = config.cards[0].path
    path.write_text(path.read_text() + '[artifacts]\nrequire = ["fp23"]\n')
    again = sample.config(path.parent, cards=(cards.load_card(path), config.cards[1]), targets=TARGETS[:1])
    bad, good = export(again, night)
    assert "does not know fp23" in bad.problem
    assert (good.problem, len(asked)) == ("", 1)
    assert bad.require == ("fp23",)
