"""File names say which pictures come from one source."""

from pathlib import PurePath

import pytest

from exporter.data.scene_names import scene_name_sources


def groups(*names: str) -> list[list[str]]:
    """Return the names by source, in order of appearance."""
    members: dict[str, list[str]] = {}
    for source, name in zip(scene_name_sources([PurePath(name) for name in names]), names, strict=True):
        members.setdefault(source, []).append(name)
    return list(members.values())


@pytest.mark.parametrize(
    "names",
    [
        ("frame_0001.png", "frame_0002.png"),
        ("IMG_12.jpg", "IMG_12_crop3.jpg", "IMG_12-crop-4.png"),
        ("IMG_12_1.jpg", "IMG_12_2.jpg"),
        ("img_001_a.jpg", "img_001_b.jpg"),
        ("DSC 7-left.png", "DSC 7-right.png"),
        ("IMG_12.jpg", "IMG_12_B.jpg"),
        ("clip2-0007.jpg", "clip2-0008.jpg"),
        ("my video.mp4_0001.jpg", "my video.mp4_0002.jpg"),
        ("20240105_101112_BURST001.jpg", "20240105_101112_BURST002.jpg"),
        ("cat.jpg", "cat copy.jpg", "cat (1).jpg"),
        ("lake_crop1_flip.png", "lake_aug2.png", "lake.jpg"),
    ],
)
def test_pieces_of_one_source_are_joined(names: tuple[str, ...]) -> None:
    """What marks a piece, a frame or a copy is left out of the source's name."""
    assert groups(*names) == [list(names)]


@pytest.mark.parametrize(
    "names",
    [
        ("IMG_0001.jpg", "IMG_0002.jpg"),
        ("20240105_101112.jpg", "20240105_101113.jpg"),
        ("2024-01-05.jpg", "2024-01-06.jpg"),
        ("n01440764_10.JPEG", "n01440764_101.JPEG"),
        ("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"),
        ("holiday (1).jpg", "holiday (2).jpg"),
        ("01-chelsea.png", "02-astronaut.png"),
        ("clip1_0001.png", "clip2_0001.png"),
        ("vitamin_a.jpg", "vitamin_b.jpg"),
        ("2024_a.jpg", "2024_b.jpg"),
        ("3f2a.png", "3f2b.png"),
        ("interview.jpg", "viewer.jpg"),
        ("a/frame_1.png", "b/frame_1.png"),
        *((f"photo_{i}.png", f"photo_{i + 1}.png") for i in (0, 98)),
    ],
)
def test_counters_dates_and_classes_join_nothing(names: tuple[str, ...]) -> None:
    """A camera's counter, a date and a class's name say nothing about the source."""
    assert groups(*names) == [[name] for name in names]


def test_a_few_numbered_files_of_several_names_are_pieces() -> None:
    """Four numbered files of each of three names are three sources; sixty of each are not."""
    few = [f"{name}_{i}.jpg" for name in ("lake", "tree", "house") for i in range(4)]
    assert groups(*few) == [few[:4], few[4:8], few[8:]]
    many = [f"{name}_{i}.jpg" for name in ("lake", "tree", "house") for i in range(60)]
    assert len(groups(*many)) == 180
