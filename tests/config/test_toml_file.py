"""Tests of the user's TOML files: a mistake gives one message with the key and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config.card_tables import CardFile
from exporter.config.toml_file import MAX_BYTES, read_toml
from exporter.errors import UsageError

WEIGHTS = '[checkpoint]\npath = "a.pth"\nsha256 = "b0353104"\n'


def refused(folder: Path, text: str) -> str:
    path = folder / "net.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_toml(path, "Card net", CardFile)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'licens = "MIT"\n{WEIGHTS}', "unknown key licens. Did you mean licence?"),
        (WEIGHTS.replace("sha256", "sha"), "unknown key checkpoint.sha."),
        (WEIGHTS + "[[inputs]]\nshap = [1]\n", "unknown key inputs[0].shap."),
        (WEIGHTS + "[limits]\nint8_sqnr = 3.0\n", "Did you mean int8_min_sqnr_db?"),
        (WEIGHTS + "[preprocessing]\nmeen = [0.5]\n", "Did you mean mean?"),
        (f"qqq = 1\n{WEIGHTS}", "Known here: checkpoint, name, description"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path, text: str, message: str) -> None:
    """The key is looked up in its own table; if none is near, all of that table are listed."""
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'budget_ms = "3"\n{WEIGHTS}', 'budget_ms is "3": input should be a valid number'),
        (f"budget_ms = -3\n{WEIGHTS}", "budget_ms is -3: input should be greater than 0"),
        (f"budget_ms = nan\n{WEIGHTS}", "budget_ms is NaN"),
        (WEIGHTS.replace("b0353104", "xyz"), 'checkpoint.sha256 is "xyz"'),
        (WEIGHTS + "[[inputs]]\nshape = [1, 0]\n", "inputs[0].shape[1] is 0"),
        (WEIGHTS + "[preprocessing]\nresize = 256\n", "missing: crop, mean, std"),
        (WEIGHTS + '[preprocessing]\npreset = "unit"\nresize = 8\n', "only mean and std"),
        ('description = "x"\n', "checkpoint is missing"),
        ("checkpoint =\n", "is not TOML"),
        (WEIGHTS + "# " + "x" * MAX_BYTES, "at most 1048576 are read"),
    ],
)
def test_a_bad_value_is_told_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    """The message has the key, the value and what was expected."""
    assert message in refused(tmp_path, text)


def test_more_mistakes_are_counted(tmp_path: Path) -> None:
    """The first mistake is described, the others are counted."""
    assert "unknown key b. (1 more after it.)" in refused(tmp_path, f'b = 1\nname = ""\n{WEIGHTS}')


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The message has the path."""
    with pytest.raises(UsageError, match=r"Card net: .*none\.toml cannot be read: No such file"):
        read_toml(tmp_path / "none.toml", "Card net", CardFile)
