from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from exporter.errors import OutputError
from exporter.files import MANIFEST, publish, staging


def export_to(out: Path, force: bool = False, files: tuple[str, ...] = ("a.pte",)) -> None:
    with staging(out, force) as stage:
        for name in files:
            (stage.out / name).write_text("new")
        manifest = {"artifacts": [{"file": name} for name in files], "evidence": {"files": []}}
        (stage.out / "report.html").write_text("new")
        (stage.out / MANIFEST).write_text(json.dumps(manifest))
        publish(stage, out)


def left_beside(out: Path) -> list[str]:
    return sorted(p.name for p in out.parent.iterdir() if p != out)


def test_out_appears_whole_and_nothing_else(tmp_path: Path) -> None:
    """The work folder is gone, OUT holds every file."""
    export_to(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.pte",
        "export.log",
        "manifest.json",
        "report.html",
    ]
    assert left_beside(tmp_path / "out") == []


@pytest.mark.parametrize(("error", "left"), [(ValueError, ["out.export.log"]), (KeyboardInterrupt, [])])
def test_a_failure_leaves_no_out(tmp_path: Path, error: type[BaseException], left: list[str]) -> None:
    """What was not finished does not look whole; the frameworks' log stays, but not after Ctrl-C."""

    def fail() -> None:
        with staging(tmp_path / "out", False) as stage:
            (stage.out / "a.pte").write_text("half")
            stage.log.write_text("the framework's last words")
            raise error

    with pytest.raises(error):
        fail()
    assert left_beside(tmp_path / "out") == left


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    """Nothing of the user's is touched."""
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(OutputError, match=r"not empty.*thesis\.doc"):
        export_to(tmp_path)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    """`mkdir out` first is what people do."""
    (tmp_path / "out").mkdir()
    export_to(tmp_path / "out")
    assert (tmp_path / "out" / "a.pte").exists()


def test_force_replaces_an_earlier_export_and_keeps_the_rest(tmp_path: Path) -> None:
    """Artifacts of the earlier export go, the user's own file stays."""
    out = tmp_path / "out"
    export_to(out, files=("old.pte", "a.pte"))
    (out / "notes.txt").write_text("mine")
    export_to(out, force=True)
    assert not (out / "old.pte").exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_force_does_not_overwrite_what_no_export_wrote(tmp_path: Path) -> None:
    """A file in the way that no manifest lists is the user's."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.pte").write_text("mine")
    with pytest.raises(OutputError, match=r"a\.pte is in the way"):
        export_to(out, force=True)
    assert (out / "a.pte").read_text() == "mine"


@pytest.mark.parametrize("name", ["../victim", "/etc/victim", "sub/../../victim", ".", ".."])
def test_a_hostile_manifest_removes_nothing_outside(tmp_path: Path, name: str) -> None:
    """--force reads an old manifest: its names are not trusted."""
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "victim").write_text("alive")
    manifest = {"artifacts": [{"file": name}], "evidence": {"files": []}}
    (out / MANIFEST).write_text(json.dumps(manifest))
    export_to(out, force=True)
    assert (tmp_path / "victim").read_text() == "alive"


def test_a_file_where_out_should_be_is_refused(tmp_path: Path) -> None:
    """Expected a folder, saw a file."""
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        export_to(tmp_path / "out", force=True)


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    """ENOSPC anywhere in the run says what to do, and OUT does not appear."""

    def fill() -> None:
        with staging(tmp_path / "out", False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match="No space left") as caught:
        fill()
    assert "Free some space" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    """The work folder carries its process's number; when that is gone, so is the folder at the next start."""
    (tmp_path / ".out.partial-999999999" / "work").mkdir(parents=True)
    mine = tmp_path / f".out.partial-{os.getppid()}"
    mine.mkdir()
    export_to(tmp_path / "out")
    assert left_beside(tmp_path / "out") == [mine.name]


def test_a_parent_that_does_not_exist_is_made(tmp_path: Path) -> None:
    """`-o builds/today` works at once."""
    export_to(tmp_path / "builds" / "today")
    assert (tmp_path / "builds" / "today" / MANIFEST).exists()
