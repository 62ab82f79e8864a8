"""A LoRA adapter is merged into its base network as peft does, and refused where it is more than that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from exporter.checkpoints import is_folder, read_checkpoint
from exporter.checkpoints.lora import find_lora_weights, merge_lora
from exporter.config.request import ModelRequest
from exporter.errors import CheckpointError
from exporter.pipeline import read_stage
from exporter.records import Checkpoint

RANK, ALPHA = 2, 6.0
PREFIX = "base_model.model."


def base_tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "encoder.query.weight": torch.randn(6, 4),
        "encoder.conv.weight": torch.randn(5, 3, 3, 3),
        "encoder.words.weight": torch.randn(11, 4),
        "encoder.gpt.weight": torch.randn(4, 6),
        "head.weight": torch.randn(2, 6),
        "head.bias": torch.randn(2),
    }


def pair(rows: tuple[int, ...], columns: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return torch.randn(RANK, *columns), torch.randn(rows[0], RANK, *rows[1:])


def written(folder: Path, tensors: dict[str, Tensor], **settings: Any) -> Path:
    """Write an adapter's folder as peft does."""
    folder.mkdir()
    save_file(
        {f"{PREFIX}{name}": t.contiguous() for name, t in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    listed = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(listed))
    return folder


def merged(folder: Path, base: dict[str, Tensor]) -> Checkpoint:
    path = folder.parent / "base.pt"
    torch.save(base, path)
    return merge_lora(read_checkpoint(find_lora_weights(folder)), read_checkpoint(path))


def changed(checkpoint: Checkpoint, base: dict[str, Tensor]) -> dict[str, Tensor]:
    assert checkpoint.tensors is not None
    return {
        n: checkpoint.tensors[n] - t for n, t in base.items() if not torch.equal(checkpoint.tensors[n], t)
    }


def test_products_are_added_to_linear_layers_and_embeddings(tmp_path: Path) -> None:
    """W becomes W + alpha / rank B A; an embedding's product is turned."""
    base = base_tensors()
    (a, b), (words_a, words_b) = pair((6,), (4,)), pair((4,), (11,))
    folder = written(
        tmp_path / "adapter",
        {
            "encoder.query.lora_A.weight": a,
            "encoder.query.lora_B.weight": b,
            "encoder.words.lora_embedding_A": words_a,
            "encoder.words.lora_embedding_B": words_b,
        },
    )
    checkpoint = merged(folder, base)
    changes = changed(checkpoint, base)
    torch.testing.assert_close(
        changes,
        {"encoder.query.weight": 3 * b @ a, "encoder.words.weight": 3 * (words_b @ words_a).T},
        rtol=1e-4,
        atol=1e-4,
    )
    assert any("merged a LoRA adapter into base.pt: 2 layers" in note for note in checkpoint.notes)


def test_a_convolutions_product_is_a_convolution(tmp_path: Path) -> None:
    """A convolution of 3x3 to `rank` channels and one of 1x1 after it are one of 3x3."""
    base = base_tensors()
    a, b = pair((5, 1, 1), (3, 3, 3))
    names = {"encoder.conv.lora_A.weight": a, "encoder.conv.lora_B.weight": b}
    change = changed(merged(written(tmp_path / "adapter", names), base), base)["encoder.conv.weight"]
    x = torch.randn(1, 3, 7, 7)
    expected = 3 * torch.nn.functional.conv2d(torch.nn.functional.conv2d(x, a), b)
    torch.testing.assert_close(torch.nn.functional.conv2d(x, change), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"use_rslora": True}, ALPHA / RANK**0.5),
        ({"alpha_pattern": {"query": 10}}, 5.0),
        ({"alpha_pattern": {"other": 10}}, 3.0),
    ],
)
def test_the_scale_is_the_settings(tmp_path: Path, settings: dict[str, Any], factor: float) -> None:
    """Rank-stabilised adapters divide by the root, and a layer may have an alpha of its own."""
    base = base_tensors()
    a, b = pair((6,), (4,))
    names = {"encoder.query.lora_A.weight": a, "encoder.query.lora_B.weight": b}
    change = changed(merged(written(tmp_path / "adapter", names, **settings), base), base)
    torch.testing.assert_close(change["encoder.query.weight"], factor * b @ a, rtol=1e-4, atol=1e-4)


def test_weights_stored_by_inputs_get_the_turned_product(tmp_path: Path) -> None:
    """GPT-2's layers hold [inputs, outputs], which the settings say."""
    base = base_tensors()
    a, b = pair((6,), (4,))
    names = {"encoder.gpt.lora_A.weight": a, "encoder.gpt.lora_B.weight": b}
    change = changed(merged(written(tmp_path / "adapter", names, fan_in_fan_out=True), base), base)
    torch.testing.assert_close(change["encoder.gpt.weight"], (3 * b @ a).T, rtol=1e-4, atol=1e-4)


def test_whole_tensors_replace_the_bases(tmp_path: Path) -> None:
    """A head that was trained whole (`modules_to_save`) comes with the adapter; a base may lack it."""
    base = base_tensors()
    a, b = pair((6,), (4,))
    head = torch.randn(3, 6)
    names = {
        "encoder.query.lora_A.weight": a,
        "encoder.query.lora_B.weight": b,
        "head.modules_to_save.weight": head,
        "extra.bias": torch.ones(2),
    }
    tensors = merged(written(tmp_path / "adapter", names), base).tensors
    assert tensors is not None
    assert torch.equal(tensors["head.weight"], head)
    assert torch.equal(tensors["extra.bias"], torch.ones(2))


def test_names_are_matched_by_their_only_ending(tmp_path: Path) -> None:
    """A base that was saved from within a wrapper has shorter or longer names."""
    base = {f"bert.{name}": tensor for name, tensor in base_tensors().items()}
    a, b = pair((6,), (4,))
    names = {"encoder.query.lora_A.weight": a, "encoder.query.lora_B.weight": b}
    assert list(changed(merged(written(tmp_path / "adapter", names), base), base)) == [
        "bert.encoder.query.weight"
    ]


A, B = torch.ones(RANK, 4), torch.ones(6, RANK)
QUERY = {"encoder.query.lora_A.weight": A, "encoder.query.lora_B.weight": B}


@pytest.mark.parametrize(
    ("tensors", "settings", "words"),
    [
        ({"other.lora_A.weight": A, "other.lora_B.weight": B}, {}, "changes other.weight, and no tensor"),
        (
            {"head.lora_A.weight": A, "head.lora_B.weight": B},
            {},
            r"the change of head is \[6, 2\] by \[2, 4\]",
        ),
        (
            {"encoder.gpt.lora_A.weight": A, "encoder.gpt.lora_B.weight": B},
            {},
            "the change of encoder.gpt is",
        ),
        ({"encoder.query.lora_A.weight": A}, {}, "one half of the change"),
        ({"head.weight": torch.ones(2, 6)}, {}, "holds no LoRA adapter"),
        (QUERY, {"use_dora": True}, "kind LORA with use_dora"),
        (QUERY, {"peft_type": "LOHA"}, "kind LOHA"),
        (QUERY, {"r": "two"}, "no adapter's settings"),
        (QUERY, {"lora_alpha": None}, "no adapter's settings"),
        (QUERY, {"alpha_pattern": {"(": 1}}, "no adapter's settings"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor], settings: dict[str, Any], words: str
) -> None:
    """Nothing is merged by guesswork: a square transposed product, half a pair, or another method."""
    with pytest.raises(CheckpointError, match=words):
        merged(written(tmp_path / "adapter", tensors, **settings), base_tensors())


def test_a_folder_alone_asks_for_its_base(tmp_path: Path) -> None:
    """An adapter is no network: the message has the option."""
    folder = written(tmp_path / "adapter", QUERY)
    assert is_folder(folder)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    assert "--base" in caught.value.hint


def test_a_request_with_a_base_reads_both(tmp_path: Path) -> None:
    """The folder or its file is the checkpoint, and its hash the source's."""
    folder = written(tmp_path / "adapter", QUERY)
    base = base_tensors()
    torch.save(base, tmp_path / "base.pt")
    for path in (folder, folder / "adapter_model.safetensors"):
        checkpoint = read_stage.read_checkpoint_in_stage(ModelRequest(path, base=tmp_path / "base.pt"))
        assert list(changed(checkpoint, base)) == ["encoder.query.weight"]


def asked_with_base(checkpoint: Path, base: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_stage.read_checkpoint_in_stage(ModelRequest(checkpoint, base=base))
    return caught.value


def test_no_message_advises_the_base_that_was_given(tmp_path: Path) -> None:
    """A base that is an adapter, an adapter without weights, and a plain file have messages of their own."""
    adapter, other = (written(tmp_path / name, QUERY) for name in ("adapter", "other"))
    torch.save(base_tensors(), tmp_path / "base.pt")
    empty = written(tmp_path / "empty", QUERY)
    (empty / "adapter_model.safetensors").unlink()
    refusals = {
        asked_with_base(adapter, other): "is itself a LoRA adapter",
        asked_with_base(adapter, other / "adapter_model.safetensors"): "is itself a LoRA adapter",
        asked_with_base(adapter, empty): "but neither adapter_model.safetensors nor",
        asked_with_base(empty, tmp_path / "base.pt"): "but neither adapter_model.safetensors nor",
        asked_with_base(tmp_path / "base.pt", tmp_path / "base.pt"): "holds no LoRA adapter",
    }
    for refusal, words in refusals.items():
        assert words in refusal.message
        assert "--base" not in refusal.hint
