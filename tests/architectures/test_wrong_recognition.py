"""Files whose tensors fit a known network while the true network computes something else.

Every case is built as somebody's own network, saved, and read without `--arch`. The recognised network gives
other outputs: a doubt names the kind of change, or the file contradicts.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter import checkpoints
from exporter.architectures import build_architecture, families, skeleton
from exporter.architectures.huggingface.settings_doubts import huggingface_settings_doubt
from exporter.errors import ArchitectureError
from exporter.records import Checkpoint, Model
from tests.command import exit_code
from tests.pipeline.test_real_weights import weights_file

PHOTO = (1, 3, 32, 32)
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT |= {"vocab_size": 200, "max_position_embeddings": 64}


@cache
def torchvision(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    builders = skeleton.skeleton_builders()
    network = builders[name](**skeleton.untrained_skeleton_arguments(name, builders[name]), **options)
    with torch.no_grad():
        network.train()(torch.randn(2, *PHOTO[1:]))
    return network.eval()


def packaged(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    network = families.import_family_package("timm", "a test").create_model(name, pretrained=False, **options)
    assert isinstance(network, nn.Module)
    return network.eval()


def changed(network: nn.Module, kind: type[nn.Module], change: Callable[[Any], Any]) -> nn.Module:
    """Return a copy in which `change` was called with every layer of a kind."""
    own = copy.deepcopy(network)
    for layer in own.modules():
        if isinstance(layer, kind):
            change(layer)
    return own


def replaced(network: nn.Module, kind: type[nn.Module], make: Callable[[], nn.Module]) -> nn.Module:
    """Return a copy with other layers in place of those of a kind."""
    own = copy.deepcopy(network)
    for layer in list(own.modules()):
        for name, child in layer.named_children():
            if isinstance(child, kind):
                setattr(layer, name, make())
    return own


class Around(nn.Module):
    """Computes something before or after a network, without tensors of its own."""

    def __init__(self, network: nn.Module, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.module, self.before, self.after = network, before, after

    def forward(self, image: Tensor) -> Tensor:
        image = self.before(image) if self.before else image
        output: Tensor = self.module(image)
        return self.after(output) if self.after else output


def _strides_as_caffe(block: Any) -> None:
    block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def _without_residual(block: Any) -> None:
    def forward(x: Tensor) -> Tensor:
        inner: Tensor = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
        return torch.relu(inner + (block.downsample(x) if block.downsample else 0))

    block.forward = forward


def _strided_blocks() -> nn.Module:
    own = copy.deepcopy(torchvision("resnet50"))
    for layer in own.modules():
        if type(layer).__name__ == "Bottleneck":
            _strides_as_caffe(layer)
    return own


def _dilated() -> nn.Module:
    def dilate(conv: Any) -> None:
        if conv.kernel_size == (3, 3) and conv.in_channels == 512:
            conv.dilation = conv.padding = (2, 2)

    return changed(torchvision("resnet18"), nn.Conv2d, dilate)


def _residual_dropped() -> nn.Module:
    own = copy.deepcopy(torchvision("resnet18"))
    for layer in own.modules():
        if type(layer).__name__ == "BasicBlock":
            _without_residual(layer)
    return own


def _faces(change: Callable[[Any], None]) -> nn.Module:
    from facenet_pytorch.models.mtcnn import RNet

    own: Any = RNet(pretrained=False)
    own.load_state_dict(torch.load(weights_file("facenet_pytorch/data/rnet.pt"), weights_only=True))
    with torch.no_grad():
        own.conv1.bias += 0.1  # not the published file
    change(own)
    network: nn.Module = own.eval()
    return network


def _turn_relus(own: Any) -> None:
    own.prelu2 = copy.deepcopy(own.prelu2)
    own.prelu2.forward = lambda x: torch.nn.functional.prelu(x, -own.prelu2.weight)


@dataclass(frozen=True)
class Impostor:
    """A network that is not the one that its tensors fit."""

    make: Callable[[], nn.Module]
    word: str
    """What the doubt has to name."""
    size: tuple[int, ...] = PHOTO


IMPOSTORS: dict[str, Impostor] = {
    "activation": Impostor(lambda: replaced(torchvision("resnet18"), nn.ReLU, nn.SiLU), "activation"),
    "stride": Impostor(_strided_blocks, "has the stride"),
    "pooling": Impostor(lambda: replaced(torchvision("resnet18"), nn.MaxPool2d, nn.Identity), "pooling"),
    "kind of pooling": Impostor(
        lambda: replaced(torchvision("resnet18"), nn.MaxPool2d, lambda: nn.AvgPool2d(3, 2, 1)), "pooling"
    ),
    "dilation": Impostor(_dilated, "dilation", (1, 3, 64, 64)),
    "padding": Impostor(
        lambda: changed(
            torchvision("squeezenet1_1"),
            nn.Conv2d,
            lambda c: setattr(c, "padding_mode", "replicate"),
        ),
        "padding",
    ),
    "epsilon": Impostor(
        lambda: changed(torchvision("mobilenet_v3_small"), nn.BatchNorm2d, lambda n: setattr(n, "eps", 0.1)),
        "epsilons",
    ),
    "residual": Impostor(_residual_dropped, "skip connections"),
    "normalisation": Impostor(
        lambda: Around(torchvision("squeezenet1_1"), before=lambda x: x * 2 - 1),
        "how the inputs are normalised",
    ),
    "order of outputs": Impostor(
        lambda: Around(torchvision("resnet18"), after=lambda y: y.flip(1)), "the order of the outputs"
    ),
    "anti-aliasing": Impostor(lambda: packaged("resnetblur18"), "timm's resnetblur18"),
    "padding as TensorFlow's": Impostor(
        lambda: packaged("tf_mobilenetv3_small_100"), "timm's tf_mobilenetv3_small_100"
    ),
    "heads": Impostor(
        lambda: packaged("test_vit", num_heads=4), "the number of attention heads", (1, 3, 160, 160)
    ),
    "activation of a transformer": Impostor(
        lambda: packaged("test_vit", act_layer="quick_gelu"), "activation", (1, 3, 160, 160)
    ),
    "epsilon of a transformer": Impostor(
        lambda: changed(packaged("test_vit"), nn.LayerNorm, lambda n: setattr(n, "eps", 0.3)),
        "epsilon",
        (1, 3, 160, 160),
    ),
    "activation of a packaged network": Impostor(lambda: _faces(_turn_relus), "activation", (1, 3, 24, 24)),
    "pooling of a packaged network": Impostor(
        lambda: _faces(lambda own: setattr(own, "pool1", nn.AvgPool2d(3, 2, ceil_mode=True))),
        "pooling",
        (1, 3, 24, 24),
    ),
}


def read(path: Path) -> Model:
    return build_architecture(checkpoints.read_checkpoint(path))


def outputs(network: Any, *inputs: Tensor, **named: Tensor) -> Tensor:
    with torch.no_grad():
        result = network(*inputs, **named)
    first = result[0] if isinstance(result, tuple) else result
    return first if isinstance(first, Tensor) else next(iter(first.values()))


@pytest.mark.parametrize("name", IMPOSTORS)
def test_a_network_that_tensors_cannot_tell_apart_is_doubted(name: str, tmp_path: Path) -> None:
    """The recognised network is wrong, and the warning names the kind of difference."""
    impostor = IMPOSTORS[name]
    own = impostor.make()
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    model = read(tmp_path / "weights.pth")
    x = torch.randn(impostor.size)
    difference = outputs(own, x) - outputs(model.module, x)
    assert difference.abs().max() > 1e-3 * outputs(own, x).abs().max()
    assert impostor.word in " ".join(model.warnings)


WRONG_CONFIGS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "activation": ("BertModel", {"hidden_act": "gelu"}, {"hidden_act": "relu"}, "hidden_act=relu"),
    "heads": (
        "BertModel", {"num_attention_heads": 4}, {"num_attention_heads": 8}, "num_attention_heads=8",
    ),
    "epsilon": ("BertModel", {"layer_norm_eps": 1e-12}, {"layer_norm_eps": 0.1}, "layer_norm_eps=0.1"),
    "causal mask": ("BertModel", {"is_decoder": False}, {"is_decoder": True}, "is_decoder=True"),
    "rotary base": (
        "LlamaModel",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
        "'rope_theta': 50.0",
    ),
    "silent config": ("BertModel", {"hidden_act": "relu"}, {"hidden_act": None}, "default of transformers"),
    "window": ("MistralModel", {"num_key_value_heads": 4}, {"sliding_window": 3}, "sliding_window=3"),
    "terms of attention": (
        "DebertaV2Model",
        {"relative_attention": True, "share_att_key": True, "pos_att_type": ["p2c", "c2p"]},
        {"pos_att_type": ["p2c"]},
        "pos_att_type=['p2c']",
    ),
    "kinds of layers": (
        "ModernBertModel",
        {"layer_types": ["full_attention", "sliding_attention"], "local_attention": 4, "pad_token_id": 0},
        {"layer_types": ["sliding_attention", "full_attention"]},
        "layer_types=['sliding_attention', 'full_attention']",
    ),
    "shared layers": ("AlbertModel", {}, {"num_hidden_layers": 5}, "num_hidden_layers=5"),
    "parallel branches": (
        "GPTNeoXModel", {"use_parallel_residual": True}, {"use_parallel_residual": False},
        "use_parallel_residual=False",
    ),
    "scale of queries": (
        "Gemma2Model", {"head_dim": 8, "query_pre_attn_scalar": 8}, {"query_pre_attn_scalar": 1024},
        "query_pre_attn_scalar=1024",
    ),
    "padding": ("MobileNetV2Model", {"tf_padding": True}, {"tf_padding": False}, "tf_padding=False"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_CONFIGS)
def test_a_wrong_config_is_doubted(name: str, tmp_path: Path) -> None:
    """Weights load under settings that they were not trained with; the settings in use are named."""
    kind, true, wrong, word = WRONG_CONFIGS[name]
    own = pretrained(kind, **true)
    own.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config = {key: value for key, value in {**config, **wrong}.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = read(tmp_path)
    ids = torch.arange(16)[None]
    if model.inputs[0].name == "pixel_values":
        ids = torch.rand(model.inputs[0].shape)
    given = {
        spec.name: ids if spec.name in ("input_ids", "pixel_values") else torch.ones_like(ids)
        for spec in model.inputs
    }
    if "token_type_ids" in given:
        given["token_type_ids"] = torch.zeros_like(ids)
    expected = own(**given).last_hidden_state
    assert (expected - outputs(model.module, *(given[spec.name] for spec in model.inputs))).abs().max() > 1e-3
    assert word in " ".join(model.warnings)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("pooler_hidden_act", True),
        ("encoder_activation_function", True),
        ("feat_extract_activation", True),
        ("activation_dropout", False),
        ("depths", False),
    ],
)
def test_every_activation_is_doubted(setting: str, named: bool) -> None:
    """Each part's activation is named; what training alone uses, or the number of tensors shows, is not."""
    network = SimpleNamespace(config=SimpleNamespace(to_dict=lambda: {"part_config": {setting: "gelu"}}))
    doubt = huggingface_settings_doubt(network, {})
    assert (f"part_config.{setting}=gelu" in doubt) == named


def test_another_family_with_identical_keys_is_doubted(tmp_path: Path) -> None:
    """A Mistral's weights load as a Llama's: the class in use is named as unconfirmed."""
    own = pretrained("MistralModel", sliding_window=3, num_key_value_heads=2)
    own.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"architectures": ["LlamaModel"], "model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "the class LlamaModel" in " ".join(read(tmp_path).warnings)


def pretrained(kind: str, **settings: Any) -> Any:
    transformers = families.import_family_package("transformers", "a test")
    torch.manual_seed(0)
    network = getattr(transformers, kind)
    made = network(network.config_class(**{**TEXT, **settings})).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


@pytest.mark.parametrize("name", ["resnetblur18", "timm/resnetblur18.in1k"])
def test_a_files_own_name_contradicts(name: str, tmp_path: Path) -> None:
    """A file that names another network with these tensors is refused, with the way to take that one."""
    own = packaged("resnetblur18")
    torch.save({"state_dict": own.state_dict(), "arch": name}, tmp_path / "weights.pth")
    with pytest.raises(ArchitectureError, match="computes something else") as caught:
        read(tmp_path / "weights.pth")
    assert "--arch timm/resnetblur18" in caught.value.hint


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ("resnetblur18", "resnet18"),
        ("resnetblur18", "torchvision.models.resnet18"),
        ("tf_mobilenetv3_small_100", "mobilenetv3_small_100"),
    ],
)
def test_a_wrong_name_in_a_file_is_doubted(own: str, named: str, tmp_path: Path) -> None:
    """The file's name is believed, and the network that was trained is among those that the doubt names."""
    torch.save({"state_dict": packaged(own).state_dict(), "arch": named}, tmp_path / "weights.pth")
    model = read(tmp_path / "weights.pth")
    assert model.architecture.endswith(named.rpartition(".")[2])
    (doubt,) = model.warnings
    assert f"timm's {own}" in doubt
    assert "--expect PHOTO=CLASS" in doubt


def test_a_detector_with_other_anchors_is_doubted(tmp_path: Path) -> None:
    """Anchors follow from no tensor."""
    skeleton.skeleton_builders()
    from torchvision.models.detection import ssdlite

    own = ssdlite.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    held = checkpoints.read_checkpoint(tmp_path / "weights.pth")
    assert "order of anchors" in " ".join(build_architecture(held).warnings)
    named = build_architecture(held, arch="torchvision/ssdlite320_mobilenet_v3_large")
    assert named.warnings == ()


@pytest.mark.parametrize("stated", ["", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_detectors_with_the_same_tensors_are_named(stated: str) -> None:
    """The file's name decides between two detectors that differ in settings; the doubt names the other."""
    names = ["fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_fpn"]
    state = skeleton.construct_skeleton(names[0], {"num_classes": 3}).state_dict()
    zeros = {key: torch.zeros(value.shape) for key, value in state.items()}
    held = Checkpoint(Path("detector.pth"), "0" * 64, "state_dict", zeros)
    if stated:
        held = replace(held, stated_networks=(("args.model", stated),))
    model = build_architecture(held)
    own = stated or names[0]
    (other,) = set(names) - {own}
    assert model.architecture == f"torchvision/{own}"
    assert f"These tensors also fit torchvision/{other}." in model.warnings[0]


def test_a_doubt_is_printed_reported_and_recorded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The terminal, the page and the manifest have it."""
    own = IMPOSTORS["pooling of a packaged network"].make()
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    options = ("--formats", "onnx", "--precisions", "fp32", "--samples", "2", "--target", "snapdragon865")
    assert exit_code(tmp_path / "weights.pth", *options, "-o", tmp_path / "out") == 0
    printed = capfd.readouterr()
    (doubt,) = read(tmp_path / "weights.pth").warnings
    assert "taken for facenet_pytorch.models.mtcnn:RNet" in " ".join((printed.out + printed.err).split())
    assert doubt in json.loads((tmp_path / "out" / "manifest.json").read_text())["warnings"]
    assert "taken for facenet_pytorch.models.mtcnn:RNet" in (tmp_path / "out" / "report.html").read_text()
