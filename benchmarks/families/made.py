"""Networks in their authors' own files whose trained weights are in no package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TEXT |= {"vocab_size": 400, "max_position_embeddings": 64}
PHOTO = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
PHOTO |= {"image_size": 64, "patch_size": 16}
CLIP = {"text_config": TEXT | {"eos_token_id": 3, "bos_token_id": 2}, "vision_config": PHOTO}
WHISPER = {"vocab_size": 400, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "num_mel_bins": 80}
WHISPER |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 128}
WHISPER |= {"decoder_ffn_dim": 128, "max_source_positions": 100, "max_target_positions": 64}
WHISPER |= {"pad_token_id": 399, "bos_token_id": 398, "eos_token_id": 399, "decoder_start_token_id": 397}
SPEECH = TEXT | {"vocab_size": 32, "conv_dim": (64, 64, 64), "conv_stride": (5, 4, 4)}
SPEECH |= {"conv_kernel": (10, 8, 4), "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16}
SPEECH |= {"num_conv_pos_embedding_groups": 4}
SEGFORMER = {
    "num_labels": 8,
    "hidden_sizes": [16, 32, 64, 96],
    "decoder_hidden_size": 64,
    "depths": [1, 1, 1, 1],
}
DETR = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 128, "num_queries": 20}
DETR |= {"decoder_ffn_dim": 128, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
LLAMA = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA |= {"intermediate_size": 128, "vocab_size": 400, "max_position_embeddings": 128}
LLAMA |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
GPT2 = {"vocab_size": 400, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
GPT2 |= {"bos_token_id": 398, "eos_token_id": 399}
T5 = {"vocab_size": 400, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
SUPER = {
    "image_size": 32,
    "embed_dim": 32,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "window_size": 8,
    "upscale": 2,
}
SUPER |= {"upsampler": "pixelshuffledirect"}
DEPTH = PHOTO | {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "fusion_hidden_size": 16}
DEPTH |= {"neck_hidden_sizes": [16, 16, 32, 32]}

TRANSFORMERS: Mapping[str, Mapping[str, Any]] = {
    "BertForTokenClassification": TEXT | {"num_labels": 9},
    "CLIPModel": CLIP,
    "WhisperForConditionalGeneration": WHISPER,
    "T5ForConditionalGeneration": T5,
    "Wav2Vec2ForCTC": SPEECH,
    "SegformerForSemanticSegmentation": SEGFORMER,
    "DetrForObjectDetection": DETR,
    "GPT2LMHeadModel": GPT2,
    "LlamaForCausalLM": LLAMA,
    "Swin2SRForImageSuperResolution": SUPER,
    "DPTForDepthEstimation": DEPTH,
}


def pretrained_folder(name: str, folder: Path) -> Path:
    """Save a network of transformers as its users do, trained for seconds where there is a task for it."""
    import torch

    from benchmarks.families import training
    from exporter.architectures import families

    if (folder / "config.json").exists():
        return folder
    transformers = families.import_family_package("transformers", name)
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    config = kind.config_class(**TRANSFORMERS[name])
    if name.startswith("Detr"):
        config.backbone_config = transformers.ResNetConfig(
            embedding_size=16,
            hidden_sizes=[16, 32, 48, 64],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_features=["stage4"],
        )
        config.use_timm_backbone = False
    network = kind(config).eval()
    training.train_for_seconds(name, network, folder)
    network.save_pretrained(folder)
    return folder


def ultralytics_file(name: str, folder: Path) -> Path:
    """Save a network of Ultralytics as its trainer does."""
    import torch
    from ultralytics import YOLO

    path = folder / f"{name}.pt"
    if not path.exists():
        torch.manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)
        yolo = YOLO(f"{name}.yaml")
        settle_batch_norms(yolo.model, 160, 1.0)
        yolo.save(path)
    return path


def torchvision_file(name: str, folder: Path) -> Path:
    """Save the state_dict of a torchvision detector or segmenter."""
    import torch

    from exporter.capture.torchvision_ops import prepare_torchvision_ops

    prepare_torchvision_ops()
    import torchvision

    path = folder / f"{name}.pth"
    if not path.exists():
        torch.manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)
        network = torchvision.models.get_model(name, weights=None, weights_backbone=None)
        settle_batch_norms(_trunk_of_torchvision(network), 160, 2.0)
        torch.save(network.state_dict(), path)
    return path


def _trunk_of_torchvision(network: Any) -> Any:
    """Return the layers that a picture goes through first, as a network of their own."""
    import torch

    if not hasattr(network, "rpn") and not hasattr(network, "head"):
        return network
    trunk = torch.nn.ModuleDict({"backbone": network.backbone})
    trunk.forward = network.backbone.forward
    if hasattr(network, "head"):
        trunk["head"] = network.head
        trunk.forward = lambda x: network.head(list(network.backbone(x).values()))
    return trunk


def facenet_file(folder: Path) -> Path:
    """Save the state_dict of facenet-pytorch's embedding of faces, whose weights its package downloads."""
    import torch

    from exporter.capture.torchvision_ops import prepare_torchvision_ops

    prepare_torchvision_ops()
    from facenet_pytorch.models.inception_resnet_v1 import InceptionResnetV1

    path = folder / "inception_resnet_v1.pt"
    if not path.exists():
        torch.manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)
        network = InceptionResnetV1()
        settle_batch_norms(network, 160, 2.0)
        torch.save(network.state_dict(), path)
    return path


def settle_batch_norms(network: Any, side: int, white: float) -> None:
    """Let batch norms see pictures: with random weights alone, every picture has the same output.

    Args:
        network: It takes a batch of pictures.
        side: Pixels of a picture's side.
        white: The value of white, relative to the middle.
    """
    import torch

    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 0.5
    coarse = torch.rand(8, 3, 12, 12) * white
    pictures = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    with torch.no_grad():
        for _ in range(6):
            network(pictures)
    network.eval()
