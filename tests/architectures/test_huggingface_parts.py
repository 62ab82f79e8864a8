"""Networks of several parts: an app's chain of the parts computes what the whole network computes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter.architectures import part_chains
from exporter.architectures.part_chains import CHAINS, Call, Samples
from exporter.config.request import ModelRequest
from exporter.errors import SeveralPartsError, UsageError
from exporter.pipeline import inspect
from exporter.records import Array, Codes, Model
from tests.architectures.test_huggingface import CLIP, GPT2, T5, TEXT, calls, read, saved

LLAMA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA |= {"intermediate_size": 64, "vocab_size": 200, "max_position_embeddings": 48}
WINDOWS = LLAMA | {"head_dim": 8, "sliding_window": 5}
ONE_HEAD = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "multi_query": True}
ONE_HEAD |= {"new_decoder_architecture": False, "vocab_size": 200, "max_position_embeddings": 48}
NETWORKS: Mapping[str, tuple[Mapping[str, Any], tuple[str, str]]] = {
    "CLIPModel": (CLIP, ("text", "vision")),
    "T5ForConditionalGeneration": (T5, ("encoder", "decoder")),
    "GPT2LMHeadModel": (GPT2, ("prefill", "decode")),
    "LlamaForCausalLM": (LLAMA, ("prefill", "decode")),
    "MistralForCausalLM": (WINDOWS, ("prefill", "decode")),  # each layer sees a window
    "Gemma3ForCausalLM": (
        WINDOWS | {"layer_types": ["sliding_attention", "full_attention"]},
        ("prefill", "decode"),
    ),
    "FalconForCausalLM": (
        ONE_HEAD,
        ("prefill", "decode"),
    ),  # its config does not number the cache's heads
}


@pytest.fixture(autouse=True)
def short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let language models write a few tokens only."""
    monkeypatch.setattr(part_chains, "STEPS", 12)


def call_of(model: Model) -> Call:
    """Return a part as a chain calls it, run by eager PyTorch."""

    def call(given: Mapping[str, Array]) -> Mapping[str, Array]:
        with torch.no_grad():
            outputs = model.module(*(torch.from_numpy(given[spec.name]) for spec in model.inputs))
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return call


def samples_of(model: Model) -> Samples:
    """Return synthetic inputs of a part by name."""
    names = [spec.name for spec in model.inputs]
    return [dict(zip(names, (t.numpy() for t in call), strict=True)) for call in calls(model)]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_parts_make_the_whole(tmp_path: Path, name: str) -> None:
    """The chain of the parts returns what transformers' whole network returns."""
    settings, names = NETWORKS[name]
    path, own = saved(tmp_path, name, settings)
    parts = {part: read(path, part=part) for part in names}
    samples = {part: samples_of(model) for part, model in parts.items()}
    chain = CHAINS[frozenset(names)]
    expected = chain.expected(own, samples)
    actual = chain.actual({part: call_of(model) for part, model in parts.items()}, samples)
    assert len(expected) == len(actual) >= 2
    for one, other in zip(expected, actual, strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_a_state_of_another_kind_is_no_cache(tmp_path: Path) -> None:
    """A network with layers that keep no keys and values has no parts with a cache, which is said."""
    kinds = ["conv", "full_attention"]
    path, _ = saved(tmp_path, "Lfm2ForCausalLM", LLAMA | {"layer_types": kinds})
    with pytest.raises(UsageError, match="without parts"):
        read(path, part="prefill")


def test_a_cache_of_the_wrong_call_writes_other_tokens(tmp_path: Path) -> None:
    """Where the second part forgets the cache, the tokens differ: the comparison sees it."""
    settings, names = NETWORKS["LlamaForCausalLM"]
    path, own = saved(tmp_path, "LlamaForCausalLM", settings)
    parts = {part: read(path, part=part) for part in names}
    samples = {part: samples_of(model) for part, model in parts.items()}
    decode = call_of(parts["decode"])

    def forgetful(given: Mapping[str, Array]) -> Mapping[str, Array]:
        return decode({**given, "keys": 0 * given["keys"], "values": 0 * given["values"]})

    chain = CHAINS[frozenset(names)]
    actual = chain.actual({"prefill": call_of(parts["prefill"]), "decode": forgetful}, samples)
    expected = chain.expected(own, samples)
    assert any(list(one) != list(other) for one, other in zip(expected, actual, strict=True))


def test_the_cache_fits_the_network(tmp_path: Path) -> None:
    """Slots, heads and legal positions follow from the settings; a prompt takes half of the slots."""
    path, _ = saved(tmp_path, "LlamaForCausalLM", LLAMA)
    prefill = read(path, part="prefill")
    assert {spec.name: spec.shape for spec in prefill.inputs} == {
        "input_ids": (1, 24),
        "position": (1,),
        "keys": (2, 2, 48, 8),
        "values": (2, 2, 48, 8),
    }
    assert prefill.codes["position"] == Codes("tokens", 25)
    assert [spec.name for spec in read(path).inputs] == ["input_ids", "attention_mask"]


BERT: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
BERT |= {"intermediate_size": 64, "max_position_embeddings": 48, "attention_probs_dropout_prob": 0.0}
LOCAL: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "window_size": 8,
}
LOCAL |= {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 48}
LFM2: dict[str, Any] = {"vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
LFM2 |= {"num_attention_heads": 4, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}


@pytest.mark.parametrize("part", ["prefill", "decode"])
@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("BertLMHeadModel", BERT, "is not causal"),
        ("RobertaForCausalLM", BERT, "is not causal"),
        ("GPTNeoForCausalLM", LOCAL, "mask or number tokens by themselves"),
        ("Lfm2ForCausalLM", LFM2, "layers of the kind conv keep a state"),
    ],
)
def test_a_cache_that_would_be_wrong_is_refused_with_its_reason(
    tmp_path: Path, name: str, settings: dict[str, Any], words: str, part: str
) -> None:
    """Networks that see later tokens, mask by themselves, or keep another state are refused before work."""
    path, _ = saved(tmp_path, name, settings)
    with pytest.raises(UsageError, match=words):
        read(path, part=part)


def test_a_decoder_of_the_same_class_has_a_cache(tmp_path: Path) -> None:
    """A BERT with is_decoder, and a GPT-Neo whose window is longer than the cache, are exported in parts."""
    path, _ = saved(tmp_path / "bert", "BertLMHeadModel", {**BERT, "is_decoder": True})
    assert [spec.name for spec in read(path, part="decode").inputs][1] == "position"
    path, _ = saved(tmp_path / "neo", "GPTNeoForCausalLM", {**LOCAL, "window_size": 256})
    assert [spec.name for spec in read(path, part="prefill").inputs][1] == "position"


def test_a_codec_whose_settings_count_no_channels_has_one(tmp_path: Path) -> None:
    """DAC takes [1, 1, samples], as the words of its forward say; its settings count no channels."""
    settings: dict[str, Any] = {"encoder_hidden_size": 4, "downsampling_ratios": [2, 4], "codebook_size": 16}
    settings |= {"decoder_hidden_size": 16, "upsampling_ratios": [4, 2], "n_codebooks": 2, "codebook_dim": 4}
    path, _ = saved(tmp_path, "DacModel", settings)
    assert [spec.shape for spec in read(path).inputs] == [(1, 1, 16000)]


def test_several_named_parts_are_checked_together(tmp_path: Path) -> None:
    """Parts that are named together come back in the user's order; one that is not there refuses all."""
    path, _ = saved(tmp_path, "T5ForConditionalGeneration", T5)
    with pytest.raises(SeveralPartsError) as caught:
        read(path, part="decoder,encoder")
    assert caught.value.parts == ("decoder", "encoder")
    with pytest.raises(SeveralPartsError, match="it has no encoder,text") as caught:
        read(path, part="encoder,text")
    assert caught.value.parts == ()


def test_several_parts_are_named_to_the_caller(tmp_path: Path) -> None:
    """The refusal carries the parts, also out of a worker; that of a wrong name carries none."""
    path, _ = saved(tmp_path, "T5ForConditionalGeneration", T5)
    with pytest.raises(SeveralPartsError) as caught:
        read(path)
    assert pickle.loads(pickle.dumps(caught.value)).parts == ("encoder", "decoder")
    with pytest.raises(SeveralPartsError, match="it has no text") as caught:
        read(path, part="text")
    assert caught.value.parts == ()


def test_inspect_describes_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder alone is described as it is exported, part by part; one part is described alone."""
    monkeypatch.setattr(inspect, "inspect_checkpoint", inspect.inspect_checkpoint_here)
    path, _ = saved(tmp_path, "T5ForConditionalGeneration", T5)
    both = inspect.inspect_network_or_parts(ModelRequest(path))
    assert [(name, inspection.architecture) for name, inspection in both.items()] == [
        (part, f"transformers/T5ForConditionalGeneration:{part}") for part in ("encoder", "decoder")
    ]
    assert [bool(inspection.contents) for inspection in both.values()] == [True, False]
    named = inspect.inspect_network_or_parts(ModelRequest(path, part="decoder,encoder"))
    assert list(named) == ["decoder", "encoder"]
    assert named["encoder"] == replace(both["encoder"], contents=())
    alone = inspect.inspect_network_or_parts(ModelRequest(path, part="decoder"))
    assert alone == {"": named["decoder"]}
    with pytest.raises(SeveralPartsError, match="it has no vision"):
        inspect.inspect_network_or_parts(ModelRequest(path, part="vision,decoder"))


@pytest.mark.parametrize("part", ["encoder,encoder", "encoder,", ","])
def test_each_part_is_named_once(part: str, tmp_path: Path) -> None:
    """A part that is named twice, or not at all, is an error of the command line."""
    with pytest.raises(UsageError, match="names a part twice, or none"):
        inspect.inspect_network_or_parts(ModelRequest(tmp_path, part=part))


def test_a_detector_with_an_encoder_is_one_network(tmp_path: Path) -> None:
    """DETR has an encoder and a decoder inside, and is exported whole."""
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4}
    backbone |= {"layer_type": "basic", "out_features": ["stage4"]}
    settings: dict[str, Any] = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5}
    settings |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "use_timm_backbone": False}
    settings |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    from tests.architectures.test_huggingface import transformers

    settings["backbone_config"] = transformers().ResNetConfig.from_dict(backbone)
    path, _ = saved(tmp_path, "DetrForObjectDetection", settings)
    with pytest.raises(UsageError, match="without parts"):
        read(path, part="encoder")


PATCHED = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
PATCHED |= {"patch_size": 4, "num_patches": 16}
PATCHED_TOWERS = {"text_config": {**TEXT, "eos_token_id": 199, "bos_token_id": 198}, "vision_config": PATCHED}


@pytest.mark.parametrize(
    ("name", "settings", "part", "other"),
    [
        ("Siglip2Model", PATCHED_TOWERS, "", True),
        ("Siglip2Model", PATCHED_TOWERS, "vision", True),
        ("Siglip2Model", PATCHED_TOWERS, "text,vision", True),
        ("Siglip2VisionModel", PATCHED, "", False),
    ],
)
def test_photos_cut_into_patches_are_refused_at_once(
    tmp_path: Path, name: str, settings: Mapping[str, Any], part: str, other: bool
) -> None:
    """The refusal comes before a part is exported, asks for no photo's size, and names what can be done."""
    path, _ = saved(tmp_path, name, settings)
    with pytest.raises(UsageError, match="cut into patches") as caught:
        read(path, part=part)
    assert not isinstance(caught.value, SeveralPartsError)
    assert "1x3x" not in str(caught.value)
    assert ("--part text" in str(caught.value)) == other
    if other:
        assert read(path, part="text").inputs[0].name == "input_ids"
