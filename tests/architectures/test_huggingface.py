"""Folders of `save_pretrained`: the network, its inputs and its data come from the folder's own files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import wave
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter import checkpoints, data
from exporter.architectures import build_architecture, families
from exporter.architectures.huggingface import text_and_sound_samples as huggingface_samples
from exporter.capture import captured_program
from exporter.checkpoints import checkpoint_folder
from exporter.data import photo_preprocessing, synthetic
from exporter.errors import (
    ArchitectureError,
    CalibrationError,
    CheckpointError,
    CodeInFileError,
    MissingDependencyError,
    UsageError,
)
from exporter.files import name_of_source_file
from exporter.records import Codes, Model, TensorSpec

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**SMALL, "vocab_size": 200, "max_position_embeddings": 64}
PHOTO = {**SMALL, "image_size": 32, "patch_size": 8}
SOUND = {
    **SMALL,
    "vocab_size": 20,
    "conv_dim": (16, 16),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
GPT2 = {"vocab_size": 200, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
GPT2 |= {"bos_token_id": 198, "eos_token_id": 199}
T5 = {"vocab_size": 200, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
CLIP_TEXT = {**TEXT, "max_position_embeddings": 16, "eos_token_id": 199, "bos_token_id": 198}
CLIP = {
    "text_config": CLIP_TEXT,
    "vision_config": PHOTO,
    "projection_dim": 24,
}
WORD_SPECS = (TensorSpec("input_ids", (1, 64), "int64"), TensorSpec("attention_mask", (1, 64), "int64"))
NETWORKS: Mapping[str, tuple[Mapping[str, Any], tuple[TensorSpec, ...]]] = {
    "BertForSequenceClassification": (
        TEXT,
        tuple(
            TensorSpec(name, (1, 64), "int64") for name in ("input_ids", "attention_mask", "token_type_ids")
        ),
    ),
    "RobertaForTokenClassification": (
        {**TEXT, "max_position_embeddings": 66, "type_vocab_size": 1},
        WORD_SPECS,
    ),
    "GPT2LMHeadModel": (
        GPT2,
        WORD_SPECS,
    ),
    "ViTForImageClassification": (PHOTO, (TensorSpec("pixel_values", (1, 3, 32, 32)),)),
    "Wav2Vec2ForCTC": (SOUND, (TensorSpec("input_values", (1, 16000)),)),
    "LayoutLMForTokenClassification": (
        {**TEXT, "type_vocab_size": 1, "max_2d_position_embeddings": 64},
        (*WORD_SPECS, TensorSpec("bbox", (1, 64, 4), "int64")),
    ),
    "VideoMAEForVideoClassification": (
        {**PHOTO, "num_frames": 4},
        (TensorSpec("pixel_values", (1, 4, 3, 32, 32)),),
    ),
}
JOINED: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "OwlViTForObjectDetection": (
        {**CLIP, "projection_dim": 32},
        ("input_ids", "attention_mask", "pixel_values"),
    ),
    "BlipForConditionalGeneration": (
        {**CLIP, "text_config": {**CLIP_TEXT, "encoder_hidden_size": 32, "sep_token_id": 199}},
        ("pixel_values", "input_ids", "attention_mask"),
    ),
    "ViltForQuestionAnswering": (
        {**TEXT, **PHOTO, "type_vocab_size": 1},
        ("input_ids", "attention_mask", "pixel_values"),
    ),
    "SpeechT5ForTextToSpeech": (
        {"vocab_size": 81, "hidden_size": 32, "encoder_layers": 1, "decoder_layers": 1}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64}
        | {"decoder_ffn_dim": 64, "speech_decoder_postnet_units": 16, "speech_decoder_prenet_units": 16},
        ("input_ids", "attention_mask", "decoder_input_values", "speaker_embeddings"),
    ),
}
"""Networks that take several things together, none of which stands for the others."""


@cache
def transformers() -> Any:
    library = families.import_family_package("transformers", "a test")
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def network(name: str, settings: Mapping[str, Any]) -> Any:
    kind = getattr(transformers(), name)
    torch.manual_seed(0)
    return kind(kind.config_class(**settings)).eval()


def saved(tmp_path: Path, name: str, settings: Mapping[str, Any], **options: Any) -> tuple[Path, Any]:
    """Save a small network as people do; the folder and the network."""
    own = network(name, settings)
    own.save_pretrained(tmp_path / name, **options)
    return tmp_path / name, own


def edited(path: Path, name: str = "config.json", **changes: Any) -> None:
    content = json.loads((path / name).read_text()) if (path / name).exists() else {}
    (path / name).write_text(json.dumps({**content, **changes}))


def read(path: Path, **options: Any) -> Model:
    return build_architecture(checkpoints.read_checkpoint(path), **options)


def calls(model: Model, count: int = 4) -> list[tuple[Any, ...]]:
    """Make synthetic inputs of a model."""
    made = data.load_data(None, model.inputs, model.preprocessing, count, codes=model.codes)
    return [tuple(torch.from_numpy(array) for array in sample) for sample in made.verification]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_is_enough(tmp_path: Path, name: str) -> None:
    """Network, inputs, types and legal values come from the folder; outputs are transformers' own."""
    settings, inputs = NETWORKS[name]
    path, own = saved(tmp_path, name, settings)
    model = read(path)
    assert model.inputs == inputs
    for call in calls(model):
        with torch.no_grad():
            expected = own(**{spec.name: tensor for spec, tensor in zip(inputs, call, strict=True)}).logits
            actual = model.module(*call)
        assert list(actual) == ["logits"]
        torch.testing.assert_close(actual["logits"], expected, atol=1e-5, rtol=1e-4)
    captured = captured_program.capture_program(model, tuple(tensor.numpy() for tensor in calls(model)[0]))
    assert captured.program is not None, captured.program_error
    assert [output.name for output in captured.outputs] == ["logits"]


@pytest.mark.parametrize("name", JOINED)
def test_a_network_gets_all_that_it_takes_together(tmp_path: Path, name: str) -> None:
    """A text's photo, a photo's text and a speaker are inputs, and the codes of the text are the text's."""
    settings, names = JOINED[name]
    path, own = saved(tmp_path, name, settings)
    model = read(path)
    assert tuple(spec.name for spec in model.inputs) == names
    assert model.codes["input_ids"].count == own.config.get_text_config().vocab_size
    for call in calls(model, 2):
        with torch.no_grad():
            assert all(value.isfinite().all() for value in model.module(*call).values())


def test_what_a_network_may_be_given_and_is_not_is_said(tmp_path: Path) -> None:
    """A segmenter gets a point; the boxes and masks that it takes as well are named."""
    vision = {
        **PHOTO,
        "global_attn_indexes": [1],
        "output_channels": 16,
        "num_pos_feats": 8,
        "mlp_dim": 64,
        "window_size": 2,
    }
    prompt = {"hidden_size": 16, "image_size": 32, "patch_size": 8, "mask_input_channels": 8}
    mask = {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    settings = {"vision_config": vision, "prompt_encoder_config": prompt, "mask_decoder_config": mask}
    model = read(saved(tmp_path, "SamModel", settings)[0])
    assert [spec.name for spec in model.inputs] == ["pixel_values", "input_points"]
    (note,) = (note for note in model.notes if note.startswith("left out"))
    assert "input_boxes" in note
    assert "input_points" not in note


BACKBONE = {**SMALL, "patch_size": 14}


@pytest.mark.parametrize(
    ("name", "kind", "stages", "settings", "size"),
    [
        (
            "DepthAnythingForDepthEstimation",
            "Dinov2Config",
            [1, 2],
            {"reassemble_hidden_size": 32, "reassemble_factors": [4, 2], "neck_hidden_sizes": [8, 8]},
            (28, 28),
        ),
        ("VitPoseForPoseEstimation", "VitPoseBackboneConfig", [2], {"num_labels": 3}, (28, 42)),
    ],
)
def test_photos_have_the_size_of_the_backbone_that_takes_them(
    tmp_path: Path,
    name: str,
    kind: str,
    stages: list[int],
    settings: Mapping[str, Any],
    size: tuple[int, int],
) -> None:
    """A network of depth or poses names the size in its backbone's config alone."""
    side = size[0] if len(set(size)) == 1 else list(size)
    backbone = getattr(transformers(), kind)(**BACKBONE, image_size=side, out_indices=stages)
    path, _ = saved(tmp_path, name, {**settings, "backbone_config": backbone})
    assert read(path).inputs == (TensorSpec("pixel_values", (1, 3, *size)),)


@pytest.mark.parametrize(
    ("member", "options"),
    [
        ("", {}),
        ("config.json", {}),
        ("model.safetensors", {}),
        ("model.safetensors.index.json", {"max_shard_size": "40kB"}),
        ("model-00002-of-00003.safetensors", {"max_shard_size": "40kB"}),
    ],
)
def test_any_file_stands_for_its_folder(tmp_path: Path, member: str, options: Mapping[str, Any]) -> None:
    """The folder, its config, its weights, their index and one shard all give the same network."""
    path, own = saved(tmp_path, "BertForSequenceClassification", TEXT, **options)
    assert (path / member).exists()
    assert checkpoint_folder.find_checkpoint_folder(path / member) == path
    model = read(checkpoint_folder.find_checkpoint_folder(path / member))
    assert model.parameters == sum(p.numel() for p in own.parameters())


@pytest.mark.parametrize(
    ("name", "experts"),
    [
        ("MixtralForCausalLM", {"num_key_value_heads": 2, "num_local_experts": 4}),
        (
            "Qwen3MoeForCausalLM",
            {
                "num_key_value_heads": 2,
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 32,
            },
        ),
    ],
)
def test_a_mixture_of_experts_calls_no_operator_of_a_package(
    name: str, experts: Mapping[str, Any], tmp_path: Path
) -> None:
    """The default looks experts up by an operator of transformers; the outputs are those of a plain loop."""
    path, own = saved(tmp_path, name, {**TEXT, **experts})
    own.set_experts_implementation("eager")
    model = read(path)
    for call in calls(model, 2):
        with torch.no_grad():
            expected = own(**dict(zip([spec.name for spec in model.inputs], call, strict=True))).logits
            torch.testing.assert_close(model.module(*call)["logits"], expected, rtol=1e-4, atol=1e-5)
    program = torch.export.export(model.module, calls(model)[0])
    assert not [node.name for node in program.graph.nodes if "transformers" in str(node.target)]


def test_files_beside_no_network_stand_for_themselves(tmp_path: Path) -> None:
    """A config.json of something else does not make a file a folder's."""
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "config.json").write_text('{"lr": 0.1}')
    (tmp_path / "other.pt").write_bytes(b"x")
    for name in ("model.safetensors", "config.json", "other.pt", "absent.bin"):
        assert checkpoint_folder.find_checkpoint_folder(tmp_path / name) == tmp_path / name
    assert checkpoint_folder.find_checkpoint_folder(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("snapshots", "main", "chosen"),
    [
        (["a1"], None, "a1"),
        (["a1", "b2"], "b2", "b2"),
        (["a1"], "gone", "a1"),
        (["a1", "b2"], None, None),
        (["a1", "b2"], "../../elsewhere", None),
    ],
)
def test_a_folder_of_the_hubs_cache_stands_for_its_snapshot(
    snapshots: list[str], main: str | None, chosen: str | None, tmp_path: Path
) -> None:
    """Files of snapshots are links to blobs; of several snapshots, `refs/main` names the one."""
    cached = tmp_path / "models--acme--tiny"
    (cached / "blobs").mkdir(parents=True)
    (cached / "blobs" / "0").write_text('{"model_type": "bert"}')
    for name in snapshots:
        (cached / "snapshots" / name).mkdir(parents=True)
        (cached / "snapshots" / name / "config.json").symlink_to("../../blobs/0")
    if main is not None:
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text(main)
    expected = cached / "snapshots" / chosen if chosen else cached
    assert checkpoint_folder.find_checkpoint_folder(cached) == expected
    assert name_of_source_file(expected) == ("tiny" if chosen else "models--acme--tiny")


def test_a_pickle_of_weights_is_read_without_running_it(tmp_path: Path) -> None:
    """pytorch_model.bin goes through the restricted unpickler."""
    path, own = saved(tmp_path, "BertForSequenceClassification", TEXT)
    (path / "model.safetensors").unlink()
    torch.save(own.state_dict(), path / "pytorch_model.bin")
    assert read(path).parameters == sum(p.numel() for p in own.parameters())


def _without_shard(path: Path) -> None:
    (path / "model-00002-of-00003.safetensors").unlink()


def _leading_out(path: Path) -> None:
    index = json.loads((path / "model.safetensors.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../elsewhere.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def _no_json(path: Path) -> None:
    (path / "model.safetensors.index.json").write_text("{")


def _deep(path: Path) -> None:
    (path / "preprocessor_config.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without_shard, "There is no"),
        (_leading_out, "does not list the files"),
        (_no_json, "is not JSON"),
        (_deep, "is not JSON"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    """A missing shard, an index that leads out of the folder, and broken JSON are named."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", TEXT, max_shard_size="40kB")
    damage(path)
    with pytest.raises(CheckpointError, match=words):
        checkpoints.read_checkpoint(path)


def test_a_folders_own_code_needs_trust(tmp_path: Path) -> None:
    """A network that the folder defines is not built, and the file with its code is not imported."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", TEXT)
    edited(path, architectures=["MyBert"], auto_map={"AutoModel": "code.MyBert"})
    (path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(CodeInFileError, match="--trust"):
        read(path)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_part_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package would ask on the terminal whether to run it, and people say yes."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", TEXT)
    code = {
        "auto_map": {"AutoModel": "code.Mine"},
        "_name_or_path": str(path),
        "model_type": "clip_text_model",
    }
    edited(
        path,
        architectures=["VisionEncoderDecoderModel"],
        model_type="vision-encoder-decoder",
        encoder={**code, "model_type": "siglip_text_model"},
        decoder={**code, "auto_map": {"AutoModelForCausalLM": "code.Mine"}},
    )
    (path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ArchitectureError):
        read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("classes", [[5], {"a": 1}, 7, "BertModel", [["BertModel"]]])
def test_class_names_of_another_type_name_no_class(tmp_path: Path, classes: object) -> None:
    """The model_type decides where architectures is no list of names."""
    path, _ = saved(tmp_path, "BertModel", TEXT)
    edited(path, architectures=classes)
    assert read(path).architecture == "transformers/BertModel"


def test_a_pipe_as_settings_blocks_nothing(tmp_path: Path) -> None:
    """A folder whose config.json is a named pipe is no folder of a network."""
    os.mkfifo(tmp_path / "config.json")
    assert checkpoint_folder.find_checkpoint_folder(tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["pipeline", "AutoModel", "BertConfig", "__doc__", "os.system", "Absent"])
def test_only_networks_of_transformers_are_built(tmp_path: Path, name: str) -> None:
    """A config that names anything else of the library is refused."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", TEXT)
    edited(path, architectures=[name])
    with pytest.raises(ArchitectureError, match="has no network"):
        read(path)


def test_without_transformers_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra's absence ends with exit code 10 and the pip install."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", TEXT)
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "transformers")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    with pytest.raises(
        MissingDependencyError, match=r"pip install 'export-mobile\[transformers\]'"
    ) as caught:
        read(path)
    assert caught.value.exit_code == 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 3}, "tensors are missing"),
        ({"num_hidden_layers": 1}, "are not the network's"),
        ({"intermediate_size": 48}, "cannot be built"),
        ({"model_type": "vit"}, "contradicts itself"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
    ],
)
def test_settings_that_are_another_networks_are_refused(
    tmp_path: Path, changes: Mapping[str, Any], words: str
) -> None:
    """Nothing random remains in the network, and nothing of the file is silently left out."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", TEXT)
    edited(path, **changes)
    with pytest.raises(ArchitectureError, match=words):
        read(path)


def test_text_and_image_towers_are_exported_apart(tmp_path: Path) -> None:
    """Both towers' embeddings are those of the whole network, and none is chosen unasked."""
    path, own = saved(tmp_path, "CLIPModel", CLIP)
    with pytest.raises(UsageError, match="--part text"):
        read(path)
    text, vision = read(path, part="text"), read(path, part="vision")
    assert [spec.name for spec in text.inputs] == ["input_ids", "attention_mask"]
    assert vision.inputs == (TensorSpec("pixel_values", (1, 3, 32, 32)),)
    for words, image in zip(calls(text), calls(vision), strict=True):
        with torch.no_grad():
            whole = own(input_ids=words[0], attention_mask=words[1], pixel_values=image[0])
            ours = (text.module(*words)["text_embeds"], vision.module(*image)["image_embeds"])
        for actual, expected in zip(ours, (whole.text_embeds, whole.image_embeds), strict=True):
            torch.testing.assert_close(torch.nn.functional.normalize(actual), expected, atol=1e-5, rtol=1e-4)


MOONSHINE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "vocab_size": 200,
    **{f"{part}_num_hidden_layers": 1 for part in ("encoder", "decoder")},
    **{f"{part}_num_attention_heads": 4 for part in ("encoder", "decoder")},
}


@pytest.mark.parametrize(
    ("name", "settings"),
    [("T5ForConditionalGeneration", T5), ("MoonshineForConditionalGeneration", MOONSHINE)],
)
def test_encoder_and_decoder_together_are_the_network(
    tmp_path: Path, name: str, settings: Mapping[str, Any]
) -> None:
    """The decoder on the encoder's output gives the whole network's logits."""
    path, own = saved(tmp_path, name, settings)
    encoder, decoder = read(path, part="encoder"), read(path, part="decoder")
    given = [spec.name for spec in encoder.inputs]
    for call, written in zip(calls(encoder), calls(decoder), strict=True):
        with torch.no_grad():
            states = encoder.module(*call)["last_hidden_state"]
            logits = decoder.module(states, *call[1:], written[-1])["logits"]
            named = dict(zip(given, call, strict=True))
            whole = own(**named, decoder_input_ids=written[-1]).logits
        torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-4)


PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "ViTImageProcessor": {"size": {"height": 32, "width": 32}},
    "CLIPImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
    "EfficientNetImageProcessor": {
        "size": {"height": 32, "width": 32},
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
    },
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_the_processor_becomes_our_preprocessing(tmp_path: Path, kind: str) -> None:
    """Photos are prepared as the folder's processor does; the record is compared with it."""
    path, _ = saved(tmp_path, "ViTForImageClassification", PHOTO)
    edited(path, "preprocessor_config.json", image_processor_type=kind, **PROCESSORS[kind])
    model = read(path)
    assert model.inputs[0].shape == (1, 3, 32, 32)
    assert model.preprocessing is not None
    assert model.preprocessing.crop == (32, 32)
    processor = transformers().AutoImageProcessor.from_pretrained(str(path), use_fast=False)
    image = _plain()
    theirs = processor(images=image, return_tensors="np")["pixel_values"][0]
    ours = photo_preprocessing.preprocess_photo(image, model.preprocessing)
    assert np.abs(theirs - ours).max() < 0.1


def _plain() -> Any:
    from PIL import Image

    return Image.linear_gradient("L").resize((57, 91)).convert("RGB")


VIT: Mapping[str, Any] = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}


@pytest.mark.parametrize(
    "processor",
    [
        {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 32},
        {**VIT, "resample": 1},
        {"image_processor_type": "NobodysProcessor"},
        {**VIT, "size": 0},
        {**VIT, "rescale_factor": "x"},
        {**VIT, "rescale_factor": [1]},
        {**VIT, "image_mean": 10**400},
    ],
)
def test_a_processor_with_other_steps_gives_no_preprocessing(
    tmp_path: Path, processor: Mapping[str, Any]
) -> None:
    """Swapped channels, unknown ways to resize and settings of another type are not passed off as ours."""
    path, _ = saved(tmp_path, "ViTForImageClassification", PHOTO)
    edited(path, "preprocessor_config.json", **processor)
    model = read(path)
    assert model.preprocessing is None
    assert any("calibrate with arrays" in note or "give --preprocess" in note for note in model.notes)


WORDS = ("[PAD]", "[UNK]", "the", "cat", "sat", "on", "a", "mat", "and", "slept")


def with_tokenizer(path: Path) -> Path:
    """Save a tokenizer of ten words beside the network."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    )
    fast.save_pretrained(path)
    return path


TEXTS = ["the cat sat", "a mat", "the cat sat on a mat and slept", "and the mat slept"]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_texts_calibrate_through_the_folders_tokenizer(tmp_path: Path, suffix: str) -> None:
    """Every line becomes tokens, a mask of the text's length, and segments."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", TEXT)
    model = read(with_tokenizer(path))
    source = tmp_path / f"texts{suffix}"
    lines = TEXTS if suffix == ".txt" else [json.dumps({"id": 1, "text": text}) for text in TEXTS]
    source.write_text("\n".join(lines))
    samples = data.load_data(source, model.inputs, None, 8, codes=model.codes, reader=model.reader)
    tokens, mask, segments = samples.calibration[0]
    assert tokens[0, :4].tolist() == [2, 3, 4, 0]
    assert mask.sum() == 3
    assert segments.sum() == 0
    assert len(samples.calibration) == len(samples.verification) == 2
    assert all(array.dtype == np.int64 for array in samples.calibration[0])


def test_a_tokenizer_of_another_network_is_refused(tmp_path: Path) -> None:
    """A code beyond the network's vocabulary would read past its table."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", {**TEXT, "vocab_size": 5})
    model = read(with_tokenizer(path))
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    with pytest.raises(CalibrationError, match="knows 5"):
        data.load_data(tmp_path / "texts.txt", model.inputs, None, 8, codes=model.codes, reader=model.reader)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"text": "\\ud800"}'),
        ("a.txt", b"\xff"),
        ("a.jsonl", b"[" * 99_999),
        ("a.wav", b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\x7f"),
    ],
)
def test_hostile_texts_are_refused_in_one_message(tmp_path: Path, name: str, content: bytes) -> None:
    """What the tokenizer, the JSON or the WAV reader raises is an error about the data."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", TEXT)
    model = read(with_tokenizer(path))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CalibrationError):
        data.load_data(tmp_path / name, model.inputs, None, 8, codes=model.codes, reader=model.reader)


@pytest.mark.parametrize("cut", [1, 3])
def test_a_recording_that_was_cut_ends_with_its_last_whole_sample(tmp_path: Path, cut: int) -> None:
    """A recorder that was stopped leaves half a sample at the end."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(4 * 100))
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[:-cut])
    assert huggingface_samples._sound_samples(tmp_path / "a.wav", 8000).shape == (99,)


def test_texts_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    """The message says what the folder lacks."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", TEXT)
    model = read(path)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    with pytest.raises(CalibrationError, match="no tokenizer"):
        data.load_data(tmp_path / "texts.txt", model.inputs, None, 8, codes=model.codes, reader=model.reader)
    with pytest.raises(CalibrationError, match="is text or sound"):
        data.load_data(tmp_path / "texts.txt", model.inputs, None, 8)


def test_recordings_calibrate_through_the_feature_extractor(tmp_path: Path) -> None:
    """Pieces of every recording are made as long as the input; another rate is refused."""
    path, _ = saved(tmp_path, "Wav2Vec2ForCTC", SOUND)
    extractor = transformers().Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True)
    extractor.save_pretrained(path)
    model = read(path)
    assert model.inputs == (TensorSpec("input_values", (1, 8000)),)
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    generator = np.random.default_rng(0)
    for number, rate in enumerate((8000, 8000)):
        with wave.open(str(sounds / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            file.writeframes(generator.integers(-9000, 9000, 12_500).astype("<i2").tobytes())
    samples = data.load_data(sounds, model.inputs, None, 4, codes=model.codes, reader=model.reader)
    values = samples.calibration[0][0]
    assert values.shape == (1, 8000)
    assert abs(float(values.mean())) < 1e-3
    assert len(samples.calibration) + len(samples.verification) == 4
    with wave.open(str(sounds / "0.wav"), "wb") as file:
        file.setparams((1, 2, 44100, 0, "NONE", ""))
        file.writeframes(b"\0\0" * 100)
    with pytest.raises(CalibrationError, match="44100"):
        data.load_data(sounds, model.inputs, None, 4, codes=model.codes, reader=model.reader)


@pytest.mark.parametrize(
    "pooling",
    [{"pooling_mode_mean_tokens": True}, {"pooling_mode_cls_token": True}, {"pooling_mode": "mean"}],
)
def test_a_sentence_network_returns_its_embedding(tmp_path: Path, pooling: Mapping[str, Any]) -> None:
    """The pooling that modules.json lists is a part of the network; padding has no say in it."""
    path, own = saved(tmp_path, "BertModel", TEXT)
    kinds = ("Transformer", "Pooling", "Normalize")
    (path / "modules.json").write_text(
        json.dumps([{"type": f"sentence_transformers.models.{kind}"} for kind in kinds])
    )
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling/config.json").write_text(json.dumps(pooling))
    model = read(path)
    for tokens, mask, segments in calls(model):
        with torch.no_grad():
            states = own(input_ids=tokens, attention_mask=mask, token_type_ids=segments).last_hidden_state[0]
            embedding = model.module(tokens, mask, segments)["sentence_embedding"][0]
        expected = states[0] if "pooling_mode_cls_token" in pooling else states[: int(mask.sum())].mean(0)
        torch.testing.assert_close(embedding, expected / expected.norm(), atol=1e-5, rtol=1e-4)


def test_shapes_that_are_asked_for(tmp_path: Path) -> None:
    """A shape without a name sets the length of all texts; named ones choose the inputs."""
    path, _ = saved(tmp_path, "BertForSequenceClassification", TEXT)
    assert {spec.shape for spec in read(path, input_shapes=(TensorSpec("", (1, 16)),)).inputs} == {(1, 16)}
    chosen = (TensorSpec("attention_mask", (1, 8)), TensorSpec("input_ids", (1, 8)))
    assert read(path, input_shapes=chosen).inputs == (
        TensorSpec("input_ids", (1, 8), "int64"),
        TensorSpec("attention_mask", (1, 8), "int64"),
    )
    with pytest.raises(UsageError, match="pixels"):
        read(path, input_shapes=(TensorSpec("pixels", (1, 8)),))


def test_a_class_may_be_named(tmp_path: Path) -> None:
    """`--arch transformers/CLASS` takes the part of the weights that the class has, and says so."""
    path, own = saved(tmp_path, "BertForMaskedLM", TEXT)
    model = read(path, arch="transformers/BertModel", input_shapes=(TensorSpec("input_ids", (1, 8)),))
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        expected = own.bert(input_ids=tokens).last_hidden_state
        actual = model.module(tokens)["last_hidden_state"]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    assert any("left out" in note for note in model.notes)
    shutil.copy(path / "model.safetensors", tmp_path / "alone.safetensors")
    with pytest.raises(UsageError, match="needs the network's settings"):
        read(tmp_path / "alone.safetensors", arch="transformers/BertModel")


def test_synthetic_texts_are_legal() -> None:
    """Tokens stay in the vocabulary, padding follows the text, and mask and segments agree with it."""
    inputs = tuple(TensorSpec(name, (1, 12), "int64") for name in ("ids", "mask", "segments"))
    codes = {
        "ids": Codes("tokens", 7, padding=3, first=5, last=6),
        "mask": Codes("mask"),
        "segments": Codes("segments"),
    }
    generator = np.random.default_rng(0)
    lengths = set()
    for _ in range(200):
        ids, mask, segments = synthetic.synthetic_sample(inputs, None, codes, generator)
        length = int(mask.sum())
        lengths.add(length)
        assert mask[0].tolist() == [1] * length + [0] * (12 - length)
        assert (ids[0, length:] == 3).all()
        assert (ids[0, :length] != 3).all()
        assert ids.min() >= 0
        assert ids.max() < 7
        assert ids[0, 0] == 5
        assert length == 1 or ids[0, length - 1] == 6
        assert (segments[0, length:] == 0).all()
    assert {3, 12} <= lengths
