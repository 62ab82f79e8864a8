"""Jobs that run a model are confined: they reach no file, network or program, and stray modules never run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporter import export
from exporter.config.request import ModelRequest, Request
from exporter.errors import BoundsError, CheckpointError, OverBoundsError, WorkerError
from exporter.formats import VARIANTS
from exporter.pipeline import job_rights
from exporter.pipeline.inspect import inspect_checkpoint
from exporter.pipeline.stage_results import ExpectedResult
from exporter.pipeline.verify_stage import verify_artifact_in_stage
from exporter.pipeline.workers import answers
from exporter.pipeline.workers.jobs import Job, JobRights
from exporter.pipeline.workers.pool import WorkerPool, keep_pool_warm
from exporter.records import Limits, TensorSpec
from exporter.sandbox import Confinement, sandbox_support, tighten_sandbox
from tests.checkpoints import hostile_scripts as hostile
from tests.checkpoints import makers

ROOT = Path(__file__).parents[2]
confines = pytest.mark.skipif(not sandbox_support().confines, reason="this kernel confines nothing")


@pytest.fixture(scope="module")
def _warm() -> Iterator[None]:
    """All tests share their server processes."""
    with keep_pool_warm():
        yield


pytestmark = pytest.mark.usefixtures("_warm")


def run(folder: Path, job: Job, granted: JobRights) -> Any:
    with WorkerPool(1, folder / "log", granted) as workers:
        (outcome,) = workers.run([job])
    return outcome.result()


def write(path: Path) -> str:
    path.write_text("x")
    return "done"


def read(path: Path) -> str:
    return path.read_text()


def connect() -> str:
    socket.socket(socket.AF_INET).connect(("127.0.0.1", 9))
    return "done"


def start() -> str:
    return str(subprocess.run(["/bin/true"], check=True).returncode)


def then_tighten(path: Path) -> str:
    """Write a temporary file, then try again with a tightened sandbox."""
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    tighten_sandbox()
    return write(path)


def sleep() -> None:
    time.sleep(60)


def swell() -> int:
    return len(bytearray(8 << 30))


def specs() -> tuple[TensorSpec, ...]:
    return (TensorSpec("x", (1, 2)),)


class Forged:
    """Pickles as a call of `os.system`."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def forge(marker: str) -> Forged:
    return Forged(marker)


JOBS: dict[str, Callable[[Path], Job]] = {
    "write": lambda f: Job("a", write, (f / "new",)),
    "write to the granted folder, read-only": lambda f: Job(
        "a", write, (f / "work" / "new",), read_only=True
    ),
    "write beside its scratch folder": lambda f: Job("a", write, (f / "new",), read_only=True, scratch=True),
    "write after tightening": lambda f: Job("a", then_tighten, (f / "n",), read_only=True, scratch=True),
    "read": lambda f: Job("a", read, (f / "secret",)),
    "read the system's users": lambda f: Job("a", read, (Path("/etc/passwd"),)),
    "connect": lambda f: Job("a", connect),
    "start a program, read-only": lambda f: Job("a", start, read_only=True),
}


@confines
@pytest.mark.parametrize("name", JOBS)
def test_a_confined_job_reaches_nothing(tmp_path: Path, name: str) -> None:
    """What the pool's rights do not grant fails in the job, with the system's own error."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "work").mkdir()
    granted = JobRights(Confinement(writes=(tmp_path / "work",), programs=True))
    with pytest.raises(PermissionError):
        run(tmp_path, JOBS[name](tmp_path), granted)
    assert {p.name for p in tmp_path.rglob("*")} == {"secret", "work", "log"}


@confines
def test_a_confined_job_does_what_it_may(tmp_path: Path) -> None:
    """The job changes its folders, starts the libraries' programs and returns records."""
    granted = JobRights(Confinement(writes=(tmp_path / "work",), programs=True))
    (tmp_path / "work").mkdir()
    assert run(tmp_path, Job("a", write, (tmp_path / "work" / "new",)), granted) == "done"
    assert run(tmp_path, Job("a", start), granted) == "0"
    assert run(tmp_path, Job("a", specs), granted) == specs()


@confines
def test_own_code_is_free_but_artifacts_are_not(tmp_path: Path) -> None:
    """Where the user vouches for code, only the jobs that run artifacts are confined."""
    granted = JobRights(Confinement(), own_code=True)
    assert run(tmp_path, Job("a", write, (tmp_path / "new",)), granted) == "done"
    with pytest.raises(PermissionError):
        run(tmp_path, Job("a", write, (tmp_path / "other",), read_only=True), granted)


def test_bounds_are_named(tmp_path: Path) -> None:
    """A job over its time or memory ends in one line that says which, and how much it was."""
    with pytest.raises(OverBoundsError, match="more than 1 s"):
        run(tmp_path, Job("a", sleep, seconds=1), JobRights(Confinement()))
    with pytest.raises(OverBoundsError, match="more than 4 GiB"):
        run(tmp_path, Job("a", swell), JobRights(Confinement()))


def test_a_forged_answer_is_not_believed(tmp_path: Path) -> None:
    """A confined process cannot make its caller run something by what it answers."""
    marker = tmp_path / "ran"
    with pytest.raises(WorkerError, match="which is no record"):
        run(tmp_path, Job("a", forge, (str(marker),)), JobRights(Confinement()))
    assert not marker.exists()


@pytest.mark.parametrize(
    "target",
    [
        b"cos\nsystem\n.",
        b"cbuiltins\neval\n.",
        b"cexporter.files\ndigest_file\n.",
        b"cexporter.records\nos\n.",
    ],
)
def test_answers_name_records_only(target: bytes) -> None:
    """Functions, ours included, and modules cannot be named in an answer."""
    with pytest.raises(Exception, match=r"no record|no attribute"):
        answers.load_answer(target)


STRAY = (
    "dill", "sitecustomize", "usercustomize", "numpy", "torch", "typer", "pydantic", "rich", "onnx", "yaml",
    "safetensors", "sympy", "psutil", "matplotlib", "scipy", "pandas", "sklearn", "IPython", "cloudpickle",
    "torchaudio", "triton", "tabulate", "tqdm", "wave", "cupy", "numba", "mypy", "tomllib",
)  # fmt: skip
"""Modules that frameworks import, or try to: each leaves a mark when it is run."""


@pytest.fixture
def littered(tmp_path: Path) -> Path:
    folder = tmp_path / "cwd"
    folder.mkdir()
    for name in STRAY:
        mark = f"open({str(tmp_path / name)!r} + '.ran', 'w').close()\nraise ImportError\n"
        (folder / f"{name}.py").write_text(mark)
    (folder / "net.ckpt").write_bytes(makers.torch_bytes(makers.weights()))
    return folder


def marks(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.glob("*.ran")]


def import_everything() -> list[str]:
    """Import the frameworks, and try what they would like to have beside them."""
    import importlib

    places = []
    for name in STRAY:
        try:
            places.append(str(importlib.import_module(name).__file__))
        except ImportError:
            continue
    return places


def test_stray_modules_do_not_run_in_workers(littered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the current folder stands in for nothing, not even for a package that is missing."""
    monkeypatch.chdir(littered)
    monkeypatch.setattr("exporter.pipeline.workers.pool._idle", None)  # a server of its own
    places = run(littered.parent, Job("a", import_everything), JobRights(Confinement()))
    assert places
    assert not [place for place in places if place.startswith(str(littered))]
    assert not marks(littered)


@pytest.mark.parametrize(
    "command",
    [[sys.executable, "-m", "exporter"], [sys.executable, "-c", "from exporter.cli import main; main()"]],
    ids=["python -m exporter", "the console script"],
)
def test_stray_modules_do_not_run_in_commands(littered: Path, command: list[str]) -> None:
    """`inspect` run among stray modules reads the checkpoint and imports none of them."""
    command = [command[0], *(["-P"] if "-c" in command else []), *command[1:]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "inspect", "net.ckpt"],
        cwd=littered,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "state_dict" in done.stdout, done.stderr
    assert not marks(littered)


def import_nets() -> str:
    import importlib

    return str(importlib.import_module("nets_of_mine").make())


def test_the_users_own_network_is_found_last(littered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is importable with one's own `--arch`, and its other modules shadow nothing."""
    (littered / "nets_of_mine.py").write_text("import json, numpy, torch\ndef make(): return 'made'\n")
    monkeypatch.chdir(littered)
    granted = JobRights(Confinement(), own_code=True)
    assert run(littered.parent, Job("a", import_nets), granted) == "made"
    assert not marks(littered)
    with pytest.raises(ModuleNotFoundError):
        run(littered.parent, Job("a", import_nets), JobRights(Confinement()))


def test_rights_of_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint and the data can be read, also where a link leads; only the run's folders change."""
    from exporter.staging import staging

    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path / "cache"))  # programs for Arm are not prepared
    (tmp_path / "far").mkdir()
    photo = tmp_path / "far" / "photo.png"
    photo.touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link.png").symlink_to(photo)
    (tmp_path / "net.ckpt").touch()
    request = Request(tmp_path / "net.ckpt", calibration=tmp_path / "photos", out=tmp_path / "out")
    with staging(tmp_path / "out", force=False) as folders:
        confinement = job_rights.job_rights_to_export(request, folders).confinement
    assert confinement is not None
    assert set(confinement.reads) == {tmp_path / "net.ckpt", tmp_path / "photos", photo}
    assert set(confinement.writes) == {folders.out, folders.work}


def test_photos_that_labels_name_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JSON or table of labels brings its folder along, and `images/` beside that; an .npz does not."""
    monkeypatch.setenv("EXPORT_MOBILE_CACHE", str(tmp_path / "cache"))  # programs for Arm are not prepared
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "images").mkdir()
    labels = tmp_path / "coco" / "annotations" / "val.json"
    for path in (labels, labels.with_suffix(".npz"), tmp_path / "net.ckpt"):
        path.write_bytes(b"")
    from exporter.staging import staging

    places = {}
    for evaluation in (labels, labels.with_suffix(".npz")):
        request = Request(tmp_path / "net.ckpt", evaluation=evaluation, out=tmp_path / "out")
        with staging(tmp_path / "out", force=False) as folders:
            confinement = job_rights.job_rights_to_export(request, folders).confinement
        assert confinement is not None
        places[evaluation.suffix] = set(confinement.reads) - {tmp_path / "net.ckpt", evaluation}
    assert places == {".json": {labels.parent, tmp_path / "coco" / "images"}, ".npz": set()}


def make_settings_folder() -> str:
    """Do what packages do when they are imported: make a folder for their settings."""
    import tempfile

    folder = Path(tempfile.mkdtemp())
    return write(folder / "settings.json")


@confines
@pytest.mark.parametrize("command", ["inspect", "parts"])
def test_a_job_that_builds_a_network_has_a_folder_for_settings(tmp_path: Path, command: str) -> None:
    """A package may write its settings to the job's own folder, and the job writes nowhere else."""
    scratch, request = tmp_path / "scratch", ModelRequest(tmp_path / "net.pt")
    scratch.mkdir()
    request.checkpoint.touch()
    grants = {
        "inspect": job_rights.job_rights_to_inspect(request, scratch),
        "parts": job_rights.job_rights_to_run_parts(request, tmp_path, scratch),
    }
    assert run(tmp_path, Job("a", make_settings_folder), grants[command]) == "done"
    with pytest.raises(PermissionError):
        run(tmp_path, Job("a", write, (tmp_path / "beside",)), grants[command])


@confines
@pytest.mark.parametrize(
    "lines",
    [hostile.SAVE, hostile.HANGS["endless loop"], hostile.nested(20_000)],
    ids=["write", "hang", "crash"],
)
def test_inspect_refuses_in_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """`inspect` ends with one error, and the file did nothing."""
    monkeypatch.chdir(tmp_path)
    path = makers.written(tmp_path, hostile.with_statements(lines))
    began = time.monotonic()
    with pytest.raises(CheckpointError):
        inspect_checkpoint(ModelRequest(path))
    assert time.monotonic() - began < 60
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@confines
def test_inspect_reads_an_archive_with_code(tmp_path: Path) -> None:
    """`inspect` may write only to its own folder, and checks a TorchScript archive's operators."""
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), path)
    inspection = inspect_checkpoint(ModelRequest(path, input_shapes=(TensorSpec("", (1, 3)),)))
    assert (inspection.kind, inspection.parameters) == ("torchscript", 8)


def test_inspect_names_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is stopped is told as the checkpoint's refusal, with the file and the bound."""
    monkeypatch.setattr(job_rights, "confinement_seconds", lambda _: 0.01)
    path = makers.written(tmp_path, makers.torch_bytes(makers.weights()))
    with pytest.raises(BoundsError, match=r"checkpoint\.bin is not read.*more than"):
        inspect_checkpoint(ModelRequest(path))


@pytest.mark.parametrize("make", ["fifo", "device"])
@pytest.mark.parametrize("command", ["inspect", "export"])
def test_a_checkpoint_that_is_no_regular_file(tmp_path: Path, make: str, command: str) -> None:
    """A named pipe or a device is refused without being opened."""
    path = Path("/dev/zero")
    if make == "fifo":
        path = tmp_path / "pipe.ckpt"
        os.mkfifo(path)
    reads: dict[str, Callable[[], object]] = {
        "inspect": lambda: inspect_checkpoint(ModelRequest(path)),
        "export": lambda: export(path, target="generic-arm64", out=tmp_path / "out"),
    }
    with pytest.raises(CheckpointError, match="not a regular file"):
        reads[command]()


class Saver(nn.Module):
    """Writes its input to a file whenever it runs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "MARKER")
        return x


def test_a_ptl_that_touches_files_gets_a_failed_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`verify` gives the operator as the reason, and the file does nothing."""
    monkeypatch.chdir(tmp_path)
    variant = VARIANTS["torchscript-lite-fp32"]
    script: Any = torch.jit.script(Saver())
    script._save_for_lite_interpreter("net.ptl")
    expected = ExpectedResult(specs(), specs(), 0, Limits())
    arguments = (tmp_path / "net.ptl", variant, tmp_path / "verification.npz", None, expected)
    job = Job("a", verify_artifact_in_stage, arguments, read_only=True, scratch=True)
    verdict = run(tmp_path, job, job_rights.job_rights_to_verify(tmp_path)).verdict
    assert verdict.status == "failed"
    assert "aten::save" in verdict.reason
    assert not (tmp_path / "MARKER").exists()
