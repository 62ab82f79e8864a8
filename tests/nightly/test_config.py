"""`nightly.toml` and the night's journal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.nightly import config, journal

CARD = '[checkpoint]\npath = "x.pth"\nsha256 = "00000000"\n'
NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)


def write(folder: Path, text: str) -> Path:
    (folder / "net.toml").write_text(CARD)
    path = folder / "nightly.toml"
    path.write_text(text)
    return path


def test_the_shipped_example_is_right() -> None:
    """The shipped example loads, and its card exists."""
    task = config.load_night_config(Path(__file__).parents[2] / "scripts" / "nightly.toml")
    assert [card.name for card in task.cards] == ["mobilenet_v2"]
    assert task.broken == ()
    assert task.settings["launches"] == 5


def test_what_is_left_out_is_what_bench_does(tmp_path: Path) -> None:
    """The defaults are all phones, the protocol's own counts, and files next to the task."""
    from android_harness.records import BenchConfig

    task = config.load_night_config(write(tmp_path, 'cards = ["net.toml"]\ntargets = ["sd865", "SM8250"]\n'))
    assert (task.devices, task.targets, task.history) == (("all",), ("snapdragon865",), None)
    assert task.out == tmp_path / "nightly"
    assert BenchConfig(**task.settings) == BenchConfig()


def test_patterns_are_relative_to_the_file(tmp_path: Path) -> None:
    """Patterns are relative to the file, and give each card once, in order."""
    for name in ("b", "a"):
        (tmp_path / f"{name}.toml").write_text(CARD)
    listed = write(tmp_path, 'cards = ["b.toml", "[ab].toml"]\ntargets = ["sd865"]\n')
    assert [card.name for card in config.load_night_config(listed).cards] == ["b", "a"]


def test_two_cards_of_one_name_are_refused(tmp_path: Path) -> None:
    """Two cards of one name would share a trend; the message names both files."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "net.toml").write_text(CARD)
    listed = write(tmp_path, 'cards = ["net.toml", "a/*.toml"]\ntargets = ["sd865"]\n')
    with pytest.raises(UsageError, match=r"a/net\.toml and .*/net\.toml are both net"):
        config.load_night_config(listed)


@pytest.mark.parametrize("card", ["~/cards/net.toml", "~/cards/*.toml"])
def test_every_path_may_begin_in_the_users_own_folder(
    card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No path takes `~` as the name of a folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "cards").mkdir(parents=True)
    text = f'cards = ["{card}"]\ntargets = ["sd865"]\nout = "~/out"\nhistory = "~/h.sqlite"\n'
    listed = write(tmp_path, text)
    (tmp_path / "net.toml").rename(tmp_path / "home" / "cards" / "net.toml")
    task = config.load_night_config(listed)
    assert [loaded.path for loaded in task.cards] == [tmp_path / "home" / "cards" / "net.toml"]
    assert (task.out, task.history) == (tmp_path / "home" / "out", str(tmp_path / "home" / "h.sqlite"))


@pytest.mark.parametrize(
    ("setting", "expected"), [("h.sqlite", "{folder}/h.sqlite"), ("postgresql://u@h/n", "postgresql://u@h/n")]
)
def test_the_history_is_a_file_beside_it_or_a_url(setting: str, expected: str, tmp_path: Path) -> None:
    """The history's place does not depend on where the night is started."""
    text = f'cards = ["net.toml"]\ntargets = ["sd865"]\nhistory = "{setting}"\n'
    assert config.load_night_config(write(tmp_path, text)).history == expected.format(folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('cards = []\ntargets = ["sd865"]\n', "cards is []"),
        ('cards = ["none-*.toml"]\ntargets = ["sd865"]\n', "no file in "),
        ('cards = ["net.toml"]\ntargets = ["sd9000"]\n', "Unknown target 'sd9000'"),
        ('cards = ["net.toml"]\ntargets = ["sd865"]\ntarget = 1\n', "Did you mean targets?"),
        ('cards = ["net.toml"]\ntargets = ["sd865"]\n[protocol]\nlaunches = 2\n', "protocol.launches is 2"),
        (
            'cards = ["net.toml"]\ntargets = ["sd865"]\n[protocol]\naffinity = "x"\n',
            "protocol.affinity is 'x'",
        ),
        ('cards = ["net.toml"]\ntargets = ["sd865"]\n[retention]\nnight = 3\n', "Did you mean nights?"),
    ],
)
def test_mistakes_are_told(text: str, message: str, tmp_path: Path) -> None:
    """The message for a mistake names the file and the key."""
    with pytest.raises(UsageError, match=r"nightly\.toml") as caught:
        config.load_night_config(write(tmp_path, text))
    assert message in str(caught.value)


def test_a_broken_card_is_no_mistake_of_the_night(tmp_path: Path) -> None:
    """A broken card does not affect the others."""
    (tmp_path / "bad.toml").write_text("licens = 1\n")
    task = config.load_night_config(write(tmp_path, 'cards = ["*t.toml", "bad.toml"]\ntargets = ["sd865"]\n'))
    assert [card.name for card in task.cards] == ["net"]
    assert [name for name, _ in task.broken] == ["bad"]


class TestJournal:
    """The journal decides which night it is."""

    def test_a_night_that_was_cut_off_goes_on(self, tmp_path: Path) -> None:
        """An interrupted night is resumed under its own name."""
        first = journal.begin_journal(tmp_path, 20, fresh=False, now=NOW)
        second = journal.begin_journal(tmp_path, 20, fresh=False, now=NOW + timedelta(hours=19))
        assert (first.resumed, second.resumed, second.id) == (False, True, first.id)

    @pytest.mark.parametrize(("hours", "fresh"), [(21, False), (1, True)])
    def test_one_that_is_too_old_or_not_wanted_does_not(
        self, hours: int, fresh: bool, tmp_path: Path
    ) -> None:
        """An old or unwanted night is reported as abandoned."""
        first = journal.begin_journal(tmp_path, 20, fresh=False, now=NOW)
        second = journal.begin_journal(tmp_path, 20, fresh=fresh, now=NOW + timedelta(hours=hours))
        assert (second.resumed, second.abandoned) == (False, (first.id,))

    def test_one_that_ended_is_over(self, tmp_path: Path) -> None:
        """A finished night is not resumed, even in the same second."""
        first = journal.begin_journal(tmp_path, 20, fresh=False, now=NOW)
        journal.end_journal(first, {})
        second = journal.begin_journal(tmp_path, 20, fresh=False, now=NOW)
        assert second.id > first.id
        assert [folder.name for folder in journal.ended_nights_in_journal(tmp_path)] == [first.id]

    def test_only_nights_are_forgotten(self, tmp_path: Path) -> None:
        """Other files next to the nights stay."""
        for day in range(4):
            journal.end_journal(
                journal.begin_journal(tmp_path, 20, fresh=False, now=NOW + timedelta(days=day)), {}
            )
        (tmp_path / "nights" / "mine").mkdir()
        assert len(journal.forget_journaled_nights(tmp_path, 3)) == 1
        assert len(list((tmp_path / "nights").iterdir())) == 4
