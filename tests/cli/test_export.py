"""Tests of the command line from outside: exit codes, one message, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from android_harness import errors as harness
from exporter import __version__, errors
from exporter.cli import device
from tests import exports, nets
from tests.command import exit_code


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real program, as a user starts it."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "100"}
    command = [sys.executable, "-m", "exporter", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300, check=False
    )


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    return exit_code(*arguments), capsys.readouterr().err


def test_every_error_has_an_exit_code_of_its_own() -> None:
    """Each kind of refusal has its exit code; related ones differ by their code."""
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.ExportError)]
    codes = [c.exit_code for c in classes if c.__base__ in (Exception, errors.ExportError)]
    assert len(set(codes)) == len(codes)
    for c in classes:
        assert f"{c.__name__} " in (errors.__doc__ or "")


def test_the_harness_exit_codes_are_its_own() -> None:
    """A number has one meaning in both packages: 18 is inconclusive, 1 is an unexpected error."""
    ours = {
        c.exit_code
        for c in vars(errors).values()
        if isinstance(c, type) and issubclass(c, errors.ExportError)
    }
    kinds = [c for c in vars(harness).values() if isinstance(c, type) and issubclass(c, harness.HarnessError)]
    theirs = {c.exit_code for c in kinds} - {1} | set(device.EXIT_CODES.values()) - {0}
    assert theirs == {13, 14, 15, 16, 17, 18, 19, 20}
    assert (ours | {errors.INTERRUPTED_EXIT_CODE}) & theirs == {harness.INCONCLUSIVE_EXIT_CODE}
    assert errors.InconclusiveError.exit_code == harness.INCONCLUSIVE_EXIT_CODE


def test_help_answers_quickly_and_imports_no_framework() -> None:
    """The help imports no framework."""
    code = (
        "import sys; from exporter.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'onnx', 'coremltools', 'executorch', 'pydantic', 'matplotlib', 'scipy',"
        " 'adbutils'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_version() -> None:
    """--version prints it and nothing else."""
    assert run("--version").stdout.strip() == __version__


@pytest.mark.parametrize("command", ["export", "bench", "devices", "inspect", "verify", "targets", "doctor"])
def test_every_command_explains_itself(command: str) -> None:
    """Every command has a help page."""
    result = run(command, "--help")
    assert result.returncode == 0
    assert "Usage" in result.stdout


def test_an_unknown_target_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of a digit is answered with the right name."""
    code, message = fails(capsys, exports.checkpoint("cnn"), "--target", "snapdragon856")
    assert code == 2
    assert "snapdragon865" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--formats", "tflite"], "tflite"),
        (["--precisions", "int4"], "int4"),
        (["--require", "qnn"], "qnn"),
        (["--formats", "onnx", "--require", "coreml"], "coreml"),
        (["--formats", "coreml", "--precisions", "int8"], "No artifact"),
        (["--limits", "sqnr=3"], "sqnr"),
        (["--input-shape", "big"], "--input-shape"),
        (["--torchscript", "both"], "--torchscript"),
        (["--arch-arg", "width"], "--arch-arg"),
        (["--mean", "a,b"], "--mean"),
        (["--min-sqnr", "20"], "--min-sqnr is a limit of --search, which is not given"),
        (["--time-limit", "60"], "--time-limit is a limit of --search, which is not given"),
        (["--max-drop", "2"], "--max-drop is a limit of --eval, which is not given"),
        (["--pixels", "rgba"], "--pixels is the input of --embed-preprocessing, which is not given"),
        (["--search", "--min-sqnr", "nan"], "--min-sqnr"),
        (["--search", "--formats", "onnx-int8"], "--search makes mixed artifacts"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong option exits with 2 before any work, and the message names its value."""
    code, message = fails(capsys, exports.checkpoint("cnn"), "--target", "snapdragon865", *options)
    assert code == 2
    assert words in message


def test_a_checkpoint_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A missing checkpoint is reported by its path."""
    code, message = fails(capsys, tmp_path / "gone.ckpt", "--target", "iphone", "-o", tmp_path / "out")
    assert code == 3
    assert "does not exist" in message


@pytest.mark.parametrize(
    "options",
    [
        ["verify"],
        ["bench", "--device", "host"],
        ["diff", "gone"],
        ["release", "--version", "1.0.0", "-o", "x"],
    ],
    ids=lambda options: options[0],
)
def test_an_out_that_is_not_there(
    options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every command that reads OUT exits with 9, and says what it looked for."""
    code, message = fails(capsys, *options, tmp_path / "gone")
    assert code == 9
    assert "manifest.json does not exist" in message


def test_out_that_holds_files_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The command exits with 8, and the files are untouched."""
    (tmp_path / "thesis.doc").write_text("mine")
    code, message = fails(capsys, exports.checkpoint("cnn"), "--target", "iphone", "-o", tmp_path)
    assert code == 8
    assert "--force" in message
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    """Only --debug shows a traceback."""
    plain = run(tmp_path / "gone.ckpt", "--target", "iphone")
    traced = run(tmp_path / "gone.ckpt", "--target", "iphone", "--debug")
    assert "Traceback" not in plain.stderr
    assert "Traceback" in traced.stderr


def damaged_checkpoints(folder: Path) -> dict[str, tuple[Path, int]]:
    """Return file -> its expected exit code."""
    good = torch.load(exports.checkpoint("cnn"), weights_only=True)["state_dict"]
    cases: dict[str, object] = {
        "one missing": {k: v for k, v in good.items() if k != "head.bias"},
        "one extra": good | {"extra.weight": torch.ones(3)},
        "one transposed": good | {"head.weight": good["head.weight"].T.contiguous()},
    }
    damaged: dict[str, tuple[Path, int]] = {}
    for name, content in cases.items():
        path = folder / f"{name}.pth"
        torch.save(content, path)
        damaged[name] = (path, 4)
    whole = exports.checkpoint("cnn").read_bytes()
    for name, data in {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "random": os.urandom(5000),
        "a photo": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "huge header": (2**62).to_bytes(8, "little") + b"{}",
    }.items():
        path = folder / f"{name}.pth"
        path.write_bytes(data)
        damaged[name] = (path, 3)
    return damaged


@pytest.mark.slow
def test_a_damaged_checkpoint_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Any damage gives the right exit code and one message, no traceback and no OUT."""
    for name, (path, expected) in damaged_checkpoints(tmp_path).items():
        code, message = fails(
            capsys, path, "--target", "iphone", "--arch", "tests.nets:TinyCnn", "--input-shape", "1x1x8x8",
            "-o", tmp_path / "out",
        )  # fmt: skip
        assert code == expected, (name, message)
        assert message.count("export-mobile: ") == 1, name
        assert "Traceback" not in message
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_inspect_says_what_is_in_the_file() -> None:
    """Kind, network, parameters and FLOPs are printed as text and as JSON."""
    arguments: list[str | Path] = ["inspect", exports.checkpoint("cnn"), "--arch", "tests.nets:TinyCnn"]
    arguments += ["--input-shape", "1x1x8x8"]
    inspection = json.loads(run(*arguments, "--json").stdout)
    assert inspection["parameters"] == sum(p.numel() for p in nets.trained("cnn").parameters())
    assert inspection["flops"] > 0
    assert inspection["kind"] == "container"
    assert "tests.nets:TinyCnn" in run(*arguments).stdout


def test_targets_as_json_names_all_eight() -> None:
    """The list has every phone that the README names."""
    listed = json.loads(run("targets", "--json").stdout)
    assert set(listed) == {
        "snapdragon865",
        "snapdragon888",
        "snapdragon8gen1",
        "snapdragon8gen2",
        "snapdragon8gen3",
        "snapdragon8elite",
        "iphone",
        "generic-arm64",
    }


EXPORT = (
    "--arch",
    "tests.nets:TinyCnn",
    "--input-shape",
    "1x1x8x8",
    "--target",
    "snapdragon865",
    "--no-cache",
)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("after_s", [0.0, 4.0, 9.0])
def test_an_interrupted_run_leaves_nothing_that_looks_whole(
    how: signal.Signals, after_s: float, tmp_path: Path
) -> None:
    """Ctrl-C exits with 130 and leaves nothing; the run after a kill cleans up."""
    command = [sys.executable, "-m", "exporter", exports.checkpoint("cnn"), *EXPORT, "-o", tmp_path / "out"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [str(c) for c in command], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    process.stderr.readline()  # the first word of progress: before that, it is Python that is interrupted
    time.sleep(after_s)
    if process.poll() is None:
        process.send_signal(how)
    _, message = process.communicate(timeout=60)
    if process.returncode in (0, 6):
        pytest.skip("it had finished")
    assert not (tmp_path / "out").exists()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Interrupted; nothing was left behind." in message
        assert "Traceback" not in message
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "where", "words"),
    [
        (("inspect", "net.ckpt"), "exporter.pipeline.inspect.inspect_checkpoint", "nothing was left behind"),
        (("nightly", "nightly.toml"), "exporter.nightly.config.load_night_config", "the next start resumes"),
    ],
)
def test_ctrl_c_says_what_is_left(
    arguments: tuple[str, ...],
    where: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message says that nothing is left, or that the next start resumes the night."""

    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    code, message = fails(capsys, *arguments)
    assert code == 130
    assert message.startswith(f"Interrupted; {words}")


@pytest.mark.slow
def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    """A file system that fills up while artifacts are written gives one message."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a file system here")
    try:
        result = run(exports.checkpoint("cnn"), *EXPORT, "--formats", "onnx", "-o", small / "out")
        assert result.returncode == 8, result.stderr
        assert "No space left" in result.stderr
        assert "Traceback" not in result.stderr
        assert not (small / "out").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.slow
def test_inspect_of_an_unknown_network_still_says_what_is_in_the_file() -> None:
    """The contents and the nearest networks are printed; the exit code says unknown."""
    result = run("inspect", exports.checkpoint("cnn"))
    assert result.returncode == 4
    assert "state_dict" in result.stdout
    assert "epoch" in result.stdout
    assert "--arch" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_the_old_name_of_the_calibration_sweep_works_with_a_notice() -> None:
    """`--calibration-curve` is hidden for one version: scripts that use it go on, and say how to change."""
    ran = run("missing.pt", "--target", "snapdragon865", "--calibration-curve")
    assert "--calibration-sweep" in ran.stderr
    assert ran.returncode == 3
    assert "--calibration-curve" not in run("export", "--help").stdout
