"""Tests of model cards: shipped cards are right, wrong ones are refused, and every key has its effect."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from exporter.architectures import network_index, preprocessing
from exporter.config import cards
from exporter.config.request import Request
from exporter.data.demo import CHECKPOINT_SHA256
from exporter.errors import CalibrationError, CheckpointError, MissingDependencyError, UsageError
from exporter.records import About, DynamicShape, Preprocessing, SizeRange, TensorSpec
from exporter.report import manifest
from tests import exports
from tests.command import exit_code

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = sorted(path.name for path in MODELS.glob("*.toml"))


def write(folder: Path, text: str = "", content: bytes = b"weights", sha256: str | None = None) -> Path:
    """Write a card for a file of that content next to it."""
    (folder / "net.pth").write_bytes(content)
    digest = sha256 or hashlib.sha256(content).hexdigest()
    path = folder / "net.toml"
    path.write_text(f'{text}\n[checkpoint]\npath = "net.pth"\nsha256 = "{digest}"\n')
    return path


class TestShipped:
    """The cards in `models/` are right."""

    def test_there_are_the_sample_and_five_more(self) -> None:
        """There are six cards to copy."""
        assert "mobilenet_v2.toml" in SHIPPED
        assert len(SHIPPED) >= 6

    @pytest.mark.parametrize("name", SHIPPED)
    def test_each_is_right_about_its_network(self, name: str) -> None:
        """Each loads, names an existing architecture, and has its weights' preprocessing."""
        card = cards.load_card(MODELS / name)
        known = str(card.listed.architecture.name).removeprefix("torchvision/")
        recipes = [
            recipe for entry in network_index.network_index_entries_by_name(known) for recipe in entry.recipes
        ]
        (recipe,) = {r for r in recipes if card.listed.checkpoint.sha256.startswith(r.sha256_prefix)}
        assert card.listed.preprocessing is not None
        assert card.listed.preprocessing.record() == recipe.preprocessing
        assert [item.shape for item in card.listed.inputs] == [(1, 3, *recipe.preprocessing.crop)]
        assert card.listed.description
        assert card.listed.licence

    def test_that_of_the_sample_has_its_whole_hash(self) -> None:
        """The other cards have the digits in their published file names."""
        assert cards.load_card(MODELS / "mobilenet_v2.toml").listed.checkpoint.sha256 == CHECKPOINT_SHA256

    @pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"mobilenet_v2.toml"}))
    def test_a_missing_file_is_told_with_where_to_get_it(self, name: str, tmp_path: Path) -> None:
        """The address in the message ends with the checked digits."""
        shutil.copy(MODELS / name, tmp_path)
        card = cards.load_card(tmp_path / name)
        with pytest.raises(CheckpointError, match="there is no file") as caught:
            cards.card_checkpoint(card)
        assert f"{card.listed.checkpoint.sha256}.pth" in caught.value.hint


def test_a_card_needs_nothing_but_a_checkpoint(tmp_path: Path) -> None:
    """Other keys default to what `export-mobile CKPT` does."""
    request = cards.card_request(cards.load_card(write(tmp_path)), "snapdragon865")
    out = Path("net-snapdragon865")
    assert request == Request(checkpoint=tmp_path / "net.pth", target="snapdragon865", out=out)


def test_everything_that_a_card_says_is_asked_for(tmp_path: Path) -> None:
    """Each table becomes fields of the request."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")
    text = """
        budget_ms = 7.5
        labels = "classes.txt"
        architecture = { name = "mypkg.nets:make", arguments = { width = 16, norm = "layer", bias = true } }
        inputs = [{ name = "x", shape = [1, 3, 8, 9] }]
        calibration = { path = "photos", samples = 9 }
        limits = { int8_min_sqnr_db = 15 }
        artifacts = { formats = ["onnx"], precisions = ["fp32"], torchscript = "script" }
        preprocessing = { resize = 10, crop = [8, 9], mean = [0.5], std = [0.25], interpolation = "bicubic" }
    """
    request = cards.card_request(cards.load_card(write(tmp_path, text)), "pixel9")
    assert (request.budget_ms, request.labels, request.samples) == (7.5, ("cat", "dog"), 9)
    assert request.arch == "mypkg.nets:make"
    assert request.arch_args == (("width", "16"), ("norm", "layer"), ("bias", "True"))
    assert request.input_shapes == (TensorSpec("x", (1, 3, 8, 9)),)
    assert request.calibration == tmp_path / "photos"
    assert request.limits.int8_min_sqnr_db == 15
    assert (request.formats, request.precisions) == (("onnx",), ("fp32",))
    assert request.torchscript == "script"
    assert request.preprocessing == Preprocessing(10, (8, 9), (0.5,), (0.25,), "bicubic")


def test_a_card_names_an_adapters_base_and_ranges_of_sizes(tmp_path: Path) -> None:
    """Both mean what the options mean; the base is a path like the card's others."""
    text = (
        """artifacts = { dynamic = ["ids={batch=1..4}x{length=8..64:8}:int64", "{batch}x{length}:int64"] }"""
    )
    card = write(tmp_path, text)
    card.write_text(card.read_text().replace('path = "net.pth"', 'path = "net.pth"\nbase = "whole"'))
    request = cards.card_request(cards.load_card(card), "pixel9")
    assert request.base == tmp_path / "whole"
    batch, length = SizeRange("batch", 1, 4), SizeRange("length", 8, 64, 8)
    assert request.dynamic == (
        DynamicShape("ids", (batch, length), "int64"),
        DynamicShape("", (batch, length), "int64"),
    )


def test_a_bad_range_in_a_card_is_told_with_its_key(tmp_path: Path) -> None:
    """The message has the card, the key and the range."""
    card = cards.load_card(write(tmp_path, """artifacts = { dynamic = ["1x{8..4}"] }"""))
    with pytest.raises(UsageError, match=r"Card net .*: artifacts\.dynamic: .*\{8\.\.4\} is no range"):
        cards.card_request(card, "pixel9")


def test_a_card_says_which_weights_are_used(tmp_path: Path) -> None:
    """A card sets ignored keys, the function's own weights, and photos of known class."""
    text = """
        [architecture]
        name = "mypkg.nets:make"
        weights_from_arch = true
        expect = { "cat.jpg" = 281, "~/dog.jpg" = "beagle" }
    """
    card = write(tmp_path, text)
    card.write_text(card.read_text() + 'ignore_keys = ["head.*", "aux"]\n')
    request = cards.card_request(cards.load_card(card), "pixel9")
    assert request.weights_from_arch
    assert request.ignore_keys == ("head.*", "aux")
    assert request.expect == ((str(tmp_path / "cat.jpg"), "281"), (str(Path.home() / "dog.jpg"), "beagle"))


@pytest.mark.parametrize("digits", [8, 64])
def test_the_right_file_is_taken(digits: int, tmp_path: Path) -> None:
    """A file is recognised by its whole hash or by the first digits."""
    digest = hashlib.sha256(b"weights").hexdigest()[:digits]
    assert cards.card_checkpoint(cards.load_card(write(tmp_path, sha256=digest))) == tmp_path / "net.pth"


def test_the_wrong_file_is_refused(tmp_path: Path) -> None:
    """The message has both hashes, the card's name and the key."""
    card = cards.load_card(write(tmp_path, sha256="0" * 64))
    with pytest.raises(CheckpointError) as caught:
        cards.card_request(card, "snapdragon865")
    assert f"Card net ({tmp_path}/net.toml): checkpoint.sha256: " in caught.value.message
    assert hashlib.sha256(b"weights").hexdigest() in caught.value.message


def test_a_file_inside_a_package_is_found(tmp_path: Path) -> None:
    """The package is not imported; a missing one is reported with its command."""
    text = (
        '[checkpoint]\npackage = "exporter"\npath = "py.typed"\nsha256 = "e3b0c442"\nget = "pip install it"\n'
    )
    (tmp_path / "net.toml").write_text(text)
    assert cards.card_checkpoint(cards.load_card(tmp_path / "net.toml")).name == "py.typed"
    (tmp_path / "net.toml").write_text(text.replace("exporter", "no_such_package"))
    with pytest.raises(MissingDependencyError, match="pip install it"):
        cards.card_checkpoint(cards.load_card(tmp_path / "net.toml"))


@pytest.mark.parametrize("key", ["calibration", "evaluation"])
def test_missing_data_are_told_with_the_key(key: str, tmp_path: Path) -> None:
    """Missing data are reported before anything is built."""
    card = cards.load_card(write(tmp_path, f'{key} = {{ path = "nowhere" }}'))
    with pytest.raises(CalibrationError, match=rf"Card net .*: {key}\.path: there is no .*nowhere"):
        cards.card_request(card, "snapdragon865")


def test_every_path_may_begin_in_the_users_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoint, data and labels never take `~` as the name of a folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    text = 'labels = "~/labels.txt"\ncalibration = { path = "~/a.npz" }\nevaluation = { path = "~/b.npz" }\n'
    card = write(tmp_path, text)
    card.write_text(card.read_text().replace('"net.pth"', '"~/net.pth"'))
    (tmp_path / "net.pth").rename(tmp_path / "home" / "net.pth")
    for name in ("a.npz", "b.npz"):
        (tmp_path / "home" / name).touch()
    (tmp_path / "home" / "labels.txt").write_text("cat\ndog\n")
    request = cards.card_request(cards.load_card(card), "snapdragon865")
    assert request.labels == ("cat", "dog")
    assert [request.checkpoint, request.calibration, request.evaluation] == [
        tmp_path / "home" / name for name in ("net.pth", "a.npz", "b.npz")
    ]


def small(folder: Path, **options: Any) -> Path:
    """Write a card of the tests' tiny network."""
    source = exports.checkpoint("cnn")
    lines = [
        f"budget_ms = {options.get('budget_ms', 5)}",
        f'checkpoint = {{ path = "{source}", sha256 = "{hashlib.sha256(source.read_bytes()).hexdigest()}" }}',
        'architecture = { name = "tests.nets:TinyCnn" }',
        "inputs = [{ shape = [1, 1, 8, 8] }]",
        "preprocessing = { resize = 9, crop = [8, 8], mean = [0.4], std = [0.3] }",
        'artifacts = { formats = ["onnx-fp32"] }',
        options.get("more", ""),
    ]
    path = folder / "tiny.toml"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_a_card_is_exported_as_a_checkpoint_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`export-mobile CARD --target T` follows the card, except where an option is given."""
    monkeypatch.chdir(tmp_path)
    labels = ", ".join(f'"digit {n}"' for n in range(10))
    card = small(tmp_path, more=f"labels = [{labels}]")
    assert exit_code(card, "--target", "generic-arm64", "--budget", "3") == 0
    output = capsys.readouterr().out
    listed = manifest.load_manifest(tmp_path / "tiny-generic-arm64" / "manifest.json")
    assert "tests.nets:TinyCnn" in output
    assert listed.budget_ms == 3
    assert [row.name for row in listed.artifacts] == ["onnx-fp32"]
    assert listed.labels[:2] == ("digit 0", "digit 1")
    assert listed.preprocessing is not None
    assert listed.preprocessing == Preprocessing(9, (8, 8), (0.4,), (0.3,))


def test_what_a_card_requires_is_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A card's requirements are checked like `--require`."""
    card = small(tmp_path)
    card.write_text(card.read_text().replace('["onnx-fp32"] }', '["onnx-fp32"], require = ["int7"] }'))
    assert exit_code(card, "--target", "generic-arm64") == 2
    assert "--require does not know int7" in capsys.readouterr().err


def test_a_crop_that_is_not_the_inputs_size_is_refused(tmp_path: Path) -> None:
    """A crop must have the input's size."""
    wishes = preprocessing.PreprocessingWishes(whole=Preprocessing(9, (7, 8), (0.5,), (0.5,)))
    with pytest.raises(UsageError, match="crops photos to 7x8, but the input is 8x8"):
        preprocessing.resolve_preprocessing(None, (TensorSpec("x", (1, 1, 8, 8)),), wishes)


def test_an_option_that_was_given_beats_the_card_and_a_default_does_not(tmp_path: Path) -> None:
    """The card decides its own fields; what it cannot say (target, force) comes from the options."""
    card = cards.load_card(write(tmp_path, 'budget_ms = 7.5\nartifacts = { formats = ["onnx"] }\n'))
    options = Request(
        checkpoint=card.path, target="snapdragon888", budget_ms=3.0, formats=("coreml",), force=True
    )
    request = cards.merge_card_with_options(card, options, given={"formats", "target", "force", "checkpoint"})
    assert (request.formats, request.budget_ms) == (("coreml",), 7.5)
    assert (request.target, request.force, request.out) == ("snapdragon888", True, Path("net-snapdragon888"))
    assert request.checkpoint == tmp_path / "net.pth"


def test_what_packages_tell_people_comes_from_the_card(tmp_path: Path) -> None:
    """Description, author, licence and version of a card reach the request."""
    weights = tmp_path / "net.pt"
    weights.write_bytes(b"weights")
    path = tmp_path / "net.toml"
    path.write_text(
        'description = "Counts birds"\nauthor = "The lab"\nlicence = "MIT"\nversion = "3"\n'
        f'[checkpoint]\npath = "net.pt"\nsha256 = "{hashlib.sha256(b"weights").hexdigest()}"\n'
    )
    about = cards.card_request(cards.load_card(path), "snapdragon888").about
    assert about == About("Counts birds", "The lab", "MIT", "3")
