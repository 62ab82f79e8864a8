"""A whole export of a text network: one command from a folder of `save_pretrained` and a file of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from exporter import export
from tests.architectures.test_huggingface import TEXT, WORDS, saved, transformers, with_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pipeline")]


def trained(tmp_path: Path) -> Path:
    """Train a small network for seconds to count cats against mats, and save it as people do."""
    path, network = saved(tmp_path, "BertForSequenceClassification", {**TEXT, "max_position_embeddings": 16})
    tokenizer = transformers().AutoTokenizer.from_pretrained(str(with_tokenizer(path)))
    texts = sentences(np.random.default_rng(0), 256)
    labels = torch.tensor([int(text.count("cat") > text.count("mat")) for text in texts])
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    optimiser = torch.optim.Adam(network.train().parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        torch.nn.functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    network.eval().save_pretrained(path)
    return path


def sentences(generator: np.random.Generator, count: int) -> list[str]:
    return [" ".join(generator.choice(WORDS[2:], int(generator.integers(3, 15)))) for _ in range(count)]


def test_a_text_classifier_goes_from_its_folder_to_verdicts(tmp_path: Path) -> None:
    """fp32 and int8 of two formats pass, calibrated on texts through the folder's own tokenizer."""
    path = trained(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(sentences(np.random.default_rng(1), 64)))
    report = export(
        path / "model.safetensors",
        "snapdragon865",
        out=tmp_path / "out",
        calibration=tmp_path / "texts.txt",
        samples=24,
        formats=("executorch", "onnx"),
        precisions=("fp32", "int8"),
    )
    statuses = {artifact.variant.name: (artifact.status, artifact.reason) for artifact in report.artifacts}
    assert {status for status, _ in statuses.values()} == {"passed"}, statuses
    assert [spec.name for spec in report.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert any("64 texts" in note or "48 texts" in note for note in report.notes)
