from __future__ import annotations

import gzip
import json
from importlib import resources

import pytest

from exporter.architectures import network_index
from exporter.architectures.network_index import IndexEntry, Shape

SIZES = {"classes": 7, "channels": 5, "positions": 26}
ENTRIES = network_index.network_index_entries()


def filled(entry: IndexEntry, **sizes: int) -> dict[str, Shape]:
    """Return the network's shapes for these numbers of classes, channels and positions."""
    bound = {**SIZES, **sizes}
    return {
        key: tuple(bound[size] if isinstance(size, str) else size for size in shape)
        for key, shape in entry.tensors.items()
    }


def by_name(name: str) -> IndexEntry:
    return network_index.network_index_entries_by_name(name)[0]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.title)
def test_every_network_is_told_apart(entry: IndexEntry) -> None:
    """Whatever its classes, channels and image size, a network fits its own entry only."""
    shapes = filled(entry)
    assert [e.title for e in ENTRIES if e.compare(shapes).exact] == [entry.title]
    match = network_index.identify_in_network_index(shapes)
    assert match is not None
    assert match[0] is entry
    assert {symbol: size for symbol, size in SIZES.items() if entry.first(symbol)} == match[1].bindings  # type: ignore[arg-type]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.title)
def test_every_entry_is_complete(entry: IndexEntry) -> None:
    """Classes and channels are known for every network, and every set of published weights has its hash."""
    assert entry.first("classes")
    assert entry.first("channels")
    assert entry.recipes
    assert all(len(recipe.sha256_prefix) >= 8 for recipe in entry.recipes)
    assert all(int(recipe.sha256_prefix, 16) for recipe in entry.recipes)


def test_only_vision_transformers_have_positions() -> None:
    """The image size follows from the weights exactly for the networks with a position embedding."""
    assert {e.name for e in ENTRIES if e.first("positions")} == {
        "vit_b_16",
        "vit_b_32",
        "vit_l_16",
        "vit_l_32",
        "vit_h_14",
    }


def test_published_hashes_are_unique() -> None:
    """No two published files would be taken for one another."""
    prefixes = {recipe.sha256_prefix: recipe.weights for entry in ENTRIES for recipe in entry.recipes}
    assert len(set(prefixes.values())) == len(prefixes)


def test_counters_may_be_missing() -> None:
    """Files from before PyTorch 1.0, which lack num_batches_tracked, match."""
    shapes = {k: s for k, s in filled(by_name("resnet18")).items() if not k.endswith("num_batches_tracked")}
    match = network_index.identify_in_network_index(shapes)
    assert match is not None
    assert match[0].name == "resnet18"


def changed(**changes: Shape | None) -> dict[str, Shape]:
    """Return resnet18's shapes with tensors added, replaced or (None) removed; "__" stands for a dot."""
    shapes = filled(by_name("resnet18"), classes=1000, channels=3)
    for name, shape in changes.items():
        key = name.replace("__", ".")
        if shape is None:
            del shapes[key]
        else:
            shapes[key] = shape
    return shapes


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        (changed(layer1__0__conv1__weight=None), "layer1.0.conv1.weight [64, 64, 3, 3] is missing"),
        (changed(more__weight=(3, 4)), "more.weight [3, 4] is one too many"),
        (changed(fc__weight=(512, 1000)), "fc.weight is [512, 1000] where [1000, 512] is expected"),
        (changed(fc__bias=(12,)), "fc.bias is [12] where [1000] is expected"),
        (changed(conv1__weight=(64, 7, 7, 3)), "conv1.weight is [64, 7, 7, 3] where [64, channels, 7, 7]"),
        (
            changed(fc__weight=(0, 512), fc__bias=(0,)),
            "fc.weight is [0, 512] where [classes, 512] is expected",
        ),
    ],
)
def test_one_wrong_tensor_is_named(shapes: dict[str, Shape], sentence: str) -> None:
    """Any wrong tensor prevents the match, and its key is named."""
    assert network_index.identify_in_network_index(shapes) is None
    nearest = network_index.near_misses_in_network_index(shapes)[0]
    assert nearest.title == "torchvision/resnet18"
    assert nearest.summary().startswith(sentence)


def test_near_misses_are_ranked() -> None:
    """The network that shares the most tensors comes first; unrelated weights are near none."""
    nearest = network_index.near_misses_in_network_index(changed(layer1__0__conv1__weight=None))
    assert [c.title for c in nearest[:2]] == ["torchvision/resnet18", "torchvision/resnet34"]
    assert network_index.near_misses_in_network_index({"weight": (3, 3)}) == ()
    assert network_index.near_misses_in_network_index({}) == ()


def test_long_summaries_are_cut() -> None:
    """Three differences are named, and the others are counted."""
    comparison = by_name("resnet18").compare({})
    assert comparison.summary().count("missing") == 3
    assert comparison.summary().endswith("; and 99 more")


def test_hostile_keys_are_made_printable() -> None:
    """A key with terminal escapes or of huge length cannot disturb the terminal."""
    assert network_index.printable_network_index_key("a\x1b[31m\n") == "a\\x1b[31m\\n"
    assert len(network_index.printable_network_index_key("k" * 10_000)) == 80
    assert network_index.network_index_shape_text((1,) * 99) == "[1, 1, 1, 1, 1, 1, 1, 1, ...]"


def test_index_bytes_carry_no_date() -> None:
    """The packaged file's gzip header holds no time, so that building it again gives the same bytes."""
    packed = resources.files("exporter.architectures").joinpath(network_index.FILE).read_bytes()
    assert packed[4:8] == b"\0\0\0\0"
    assert json.loads(gzip.decompress(packed))["torchvision"]
