"""Tests that publishing loses nothing: by a second run, `--force`, or a kill."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import staging, temporary_files
from exporter.errors import OutputError, SeveralPartsError
from exporter.files import MANIFEST, write_text_file


def write_export(folder: Path, files: tuple[str, ...], text: str = "new") -> None:
    for name in files:
        (folder / name).write_text(text)
    manifest = {"made": text, "artifacts": [{"file": name} for name in files], "evidence": {"files": []}}
    (folder / "report.html").write_text(text)
    (folder / "export.log").write_text(text)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def export_to(out: Path, force: bool = False, files: tuple[str, ...] = ("a.pte",), text: str = "new") -> None:
    with staging.staging(out, force) as stage:
        write_export(stage.out, files, text)
        staging.publish_staged(stage, out, force)


def left_beside(out: Path) -> list[str]:
    return sorted(p.name for p in out.parent.iterdir() if p != out)


def generation(folder: Path) -> str:
    """Return the name of the only complete export in a folder; an empty string without one."""
    if not (folder / MANIFEST).exists():
        return ""
    listed = json.loads((folder / MANIFEST).read_text())
    names = [*(a["file"] for a in listed["artifacts"]), "report.html", "export.log"]
    whole = all((folder / n).exists() and (folder / n).read_text() == listed["made"] for n in names)
    return str(listed["made"]) if whole else ""


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
    """Unfinished exports do not look whole; the frameworks' log stays, except after Ctrl-C."""

    def fail() -> None:
        with staging.staging(tmp_path / "out", False) as stage:
            (stage.out / "a.pte").write_text("half")
            stage.log.write_text("the framework's last words")
            raise error

    with pytest.raises(error):
        fail()
    assert left_beside(tmp_path / "out") == left


def file(out: Path) -> None:
    out.write_text("mine")


def link_to_a_folder(out: Path) -> None:
    (out.parent / "elsewhere").mkdir()
    out.symlink_to(out.parent / "elsewhere")


def link_to_an_export(out: Path) -> None:
    export_to(out.parent / "elsewhere")
    out.symlink_to(out.parent / "elsewhere")


def link_to_nothing(out: Path) -> None:
    out.symlink_to(out.parent / "nowhere")


REFUSED: dict[str, tuple[Callable[[Path], None], bool, str]] = {
    "a file": (file, False, "is a file"),
    "a file, forced": (file, True, "is a file"),
    "a link to a folder": (link_to_a_folder, False, "is a link"),
    "a link to a folder, forced": (link_to_a_folder, True, "is a link"),
    "a link to an export": (link_to_an_export, False, "is a link"),
    "a link to an export, forced": (link_to_an_export, True, "is a link"),
    "a link to nothing": (link_to_nothing, False, "is a link"),
    "a link to nothing, forced": (link_to_nothing, True, "is a link"),
    "files": (lambda out: out.joinpath("x").mkdir(parents=True), False, r"not empty.*holds x"),
}
"""What is in OUT's place, whether --force is given, and the words of the refusal."""


@pytest.mark.parametrize("case", REFUSED)
def test_a_place_that_cannot_be_taken_is_refused_before_the_work(tmp_path: Path, case: str) -> None:
    """The user's files are untouched, and no hour is spent first."""
    lay, force, words = REFUSED[case]
    lay(tmp_path / "out")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=words), staging.staging(tmp_path / "out", force):
        pytest.fail("the run has begun")
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("case", REFUSED)
def test_a_place_that_was_taken_during_the_run_is_refused(tmp_path: Path, case: str) -> None:
    """The second of two runs is refused when it publishes."""
    lay, force, words = REFUSED[case]

    def run() -> None:
        with staging.staging(tmp_path / "out", force) as stage:
            write_export(stage.out, ("a.pte",))
            lay(tmp_path / "out")
            staging.publish_staged(stage, tmp_path / "out", force)

    with pytest.raises(OutputError, match=words):
        run()
    assert not list(tmp_path.glob(".*"))


def test_of_two_runs_into_one_folder_the_first_stays(tmp_path: Path) -> None:
    """The first published run stays without --force, whoever began earlier."""
    out = tmp_path / "out"

    def second() -> None:
        with staging.staging(out, False) as stage:
            write_export(stage.out, ("a.pte",), "second")
            export_to(out, text="first")
            staging.publish_staged(stage, out)

    with pytest.raises(OutputError, match="not empty"):
        second()
    assert generation(out) == "first"
    assert left_beside(out) == ["out.export.log"]


def test_of_two_runs_with_force_the_last_stays(tmp_path: Path) -> None:
    """The last run replaces the first completely."""
    out = tmp_path / "out"
    export_to(out, text="old")
    with staging.staging(out, True) as stage:
        write_export(stage.out, ("a.pte",), "second")
        export_to(out, force=True, files=("a.pte", "b.pte"), text="first")
        staging.publish_staged(stage, out, True)
    assert generation(out) == "second"
    assert not (out / "b.pte").exists()
    assert left_beside(out) == []


def test_a_faster_run_between_the_two_renames_is_replaced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OUT is moved aside, another run publishes, and the rename finds the place taken."""
    out = tmp_path / "out"
    export_to(out, text="old")
    (out / "notes.txt").write_text("mine")
    rename, once = Path.rename, [True]

    def rename_late(self: Path, target: Path) -> Path:
        if self.name == staging.NEW and once.pop() if once else False:
            out.mkdir()
            write_export(out, ("b.pte",), "faster")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    export_to(out, force=True)
    assert generation(out) == "new"
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "b.pte").exists()
    assert left_beside(out) == []


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is refused, because OUT is renamed into place."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="current folder"):
        export_to(Path())


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    """An empty folder, as from `mkdir out`, is accepted."""
    (tmp_path / "out").mkdir()
    export_to(tmp_path / "out")
    assert (tmp_path / "out" / "a.pte").exists()


def test_force_replaces_an_earlier_export_and_keeps_the_rest(tmp_path: Path) -> None:
    """Artifacts of the earlier export go, the user's own files, folders and permissions stay."""
    out = tmp_path / "out"
    export_to(out, files=("old.pte", "a.pte"))
    (out / "notes.txt").write_text("mine")
    (out / "device").mkdir()
    (out / "device" / "mine.txt").write_text("mine")
    out.chmod(0o770)
    export_to(out, force=True)
    assert not (out / "old.pte").exists()
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "device" / "mine.txt").read_text() == "mine"
    assert out.stat().st_mode & 0o777 == 0o770
    assert left_beside(out) == []


def test_force_does_not_overwrite_what_no_export_wrote(tmp_path: Path) -> None:
    """A file that no manifest lists belongs to the user."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.pte").write_text("mine")
    with pytest.raises(OutputError, match=r"a\.pte is in the way"):
        export_to(out, force=True)
    assert (out / "a.pte").read_text() == "mine"


@pytest.mark.parametrize("name", ["../victim", "/etc/victim", "sub/../../victim", ".", ".."])
def test_a_hostile_manifest_removes_nothing_outside(tmp_path: Path, name: str) -> None:
    """Names in an old manifest are not trusted by --force."""
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "victim").write_text("alive")
    manifest = {"artifacts": [{"file": name}], "evidence": {"files": []}}
    (out / MANIFEST).write_text(json.dumps(manifest))
    export_to(out, force=True)
    assert (tmp_path / "victim").read_text() == "alive"


def test_a_manifest_of_endless_depth_is_no_export(tmp_path: Path) -> None:
    """Such a file belongs to the user and prevents the export."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(OutputError, match="in the way"):
        export_to(tmp_path / "out", force=True)


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    """ENOSPC anywhere in the run gives advice, and no OUT."""

    def fill() -> None:
        with staging.staging(tmp_path / "out", False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match="No space left") as caught:
        fill()
    assert "Free some space" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    """A running process is recognised by the lock on its folder, not by its number."""
    (tmp_path / f".out.partial-{os.getpid()}" / "work").mkdir(parents=True)
    with temporary_files.temporary_folder(tmp_path, ".out.partial-") as running:
        export_to(tmp_path / "out")
        assert left_beside(tmp_path / "out") == [running.name]


def test_a_parent_that_does_not_exist_is_made(tmp_path: Path) -> None:
    """Parents such as in `-o builds/today` are created."""
    export_to(tmp_path / "builds" / "today")
    assert (tmp_path / "builds" / "today" / MANIFEST).exists()


def test_a_file_half_written_by_a_killed_run_is_removed(tmp_path: Path) -> None:
    """The next write of `bench` removes what a killed one left."""
    (tmp_path / f".{MANIFEST}.partial-{os.getpid()}").write_text("half")
    write_text_file(tmp_path / MANIFEST, "whole")
    assert [p.name for p in tmp_path.iterdir()] == [MANIFEST]


class TestScratch:
    def test_what_a_killed_run_left_in_the_temporary_folder_goes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next run of the same purpose removes it, but never a running one's."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        (tmp_path / "export-mobile-verify-killed" / "zip").mkdir(parents=True)
        with (
            temporary_files.temporary_scratch("verify") as first,
            temporary_files.temporary_scratch("verify") as second,
        ):
            assert {p.name for p in tmp_path.iterdir()} == {first.name, second.name}
        assert list(tmp_path.iterdir()) == []


STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree"}
KILLER = """
import os, shutil, signal, sys
from pathlib import Path
from tests.test_staging import STEPS, staging, write_export

def publish_and_die(out, step):
    seen = 0
    def die(event, arguments):
        nonlocal seen
        if event in STEPS:
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
    with staging.staging(out, True) as stage:
        write_export(stage.out, ("a.pte", "b.pte"))
        sys.addaudithook(die)
        staging.publish_staged(stage, out, True)

base = Path(sys.argv[1])
for step in range(1, 100):
    folder = base / f"{step:02}"
    shutil.copytree(base / "before", folder)
    child = os.fork()
    if child == 0:
        publish_and_die(folder / "out", step)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""
"""Kills a publishing process before each change of the file system in turn, until one completes."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return folders 01, 02, …: each has OUT and the leftovers of a run killed at that step."""
    base = tmp_path_factory.mktemp("killed")
    out = base / "before" / "out"
    out.parent.mkdir()
    export_to(out, files=("a.pte", "old.pte"), text="old")
    (out / "notes.txt").write_text("mine")
    (out / "sub").mkdir()
    (out / "sub" / "more.txt").write_text("mine")
    subprocess.run([sys.executable, "-c", KILLER, str(base)], check=True, timeout=120)
    return base


def states(killed: Path, tmp_path: Path) -> list[Path]:
    copies = [shutil.copytree(p, tmp_path / p.name) / "out" for p in sorted(killed.glob("[0-9]*"))]
    assert len(copies) > 12
    return copies


class TestKilled:
    def test_one_export_is_whole_after_a_kill_at_any_step(self, killed: Path, tmp_path: Path) -> None:
        """A whole export is in OUT or next to it, and the user's files exist once."""
        for out in states(killed, tmp_path):
            places = [out, *out.parent.glob(".out.partial-*/earlier")]
            assert any(generation(place) for place in places), out
            assert len(list(out.parent.rglob("notes.txt"))) == 1, out
            assert len(list(out.parent.rglob("more.txt"))) == 1, out

    def test_the_next_forced_run_goes_on(self, killed: Path, tmp_path: Path) -> None:
        """OUT is the next run's, with the user's files and no leftovers."""
        for out in states(killed, tmp_path):
            export_to(out, force=True, files=("c.pte",), text="next")
            assert generation(out) == "next", out
            names = ["c.pte", "export.log", MANIFEST, "notes.txt", "report.html", "sub"]
            assert sorted(p.name for p in out.iterdir()) == names, out
            assert (out / "sub" / "more.txt").exists(), out
            assert left_beside(out) == [], out

    def test_the_next_run_without_force_finds_an_export(self, killed: Path, tmp_path: Path) -> None:
        """OUT is restored before it is refused."""
        for out in states(killed, tmp_path):
            with pytest.raises(OutputError, match="not empty"):
                export_to(out)
            assert generation(out) in {"old", "new"}, out
            assert (out / "notes.txt").exists(), out
            assert left_beside(out) == [], out

    def test_a_folder_that_was_filled_since_is_not_mixed_with_the_export(
        self, killed: Path, tmp_path: Path
    ) -> None:
        """The export that was moved aside stays there, and the message names the place."""
        (out,) = (out for out in states(killed, tmp_path) if not out.exists())
        out.mkdir()
        (out / "mine.txt").write_text("mine")
        with pytest.raises(OutputError, match="moved out of"):
            export_to(out, force=True)
        assert [p.name for p in out.iterdir()] == ["mine.txt"]
        assert generation(next(out.parent.glob(".out.partial-*/earlier"))) == "old"


def test_a_network_of_several_parts_leaves_no_log(tmp_path: Path) -> None:
    """The run that finds the parts did not fail: nothing of it stays beside OUT."""

    def find_parts() -> None:
        with staging.staging(tmp_path / "out", False) as stage:
            stage.log.write_text("what torch printed")
            raise SeveralPartsError("It has parts.", "", ("encoder", "decoder"))

    with pytest.raises(SeveralPartsError):
        find_parts()
    assert list(tmp_path.iterdir()) == []
