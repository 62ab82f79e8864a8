"""What a checkpoint itself says its network is: `arch`, `args.arch`, Lightning's hyper-parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator

from exporter.checkpoints.checkpoint_contents import describe_checkpoint_content
from exporter.checkpoints.inert_values import Inert, is_plain_inert_value

PLACES = (
    "args",
    "hyper_parameters",
    "hparams",
    "config",
    "cfg",
    "opt",
    "params",
    "model_args",
    "model_config",
)
"""Keys at the top under which trainers keep their settings."""

NAMES = (
    "arch", "architecture", "architectures", "model_arch", "model_name", "model_type", "backbone",
    "backbone_name", "encoder_name", "net_name", "network_name", "model", "net", "network",
)  # fmt: skip
"""Settings that name the network."""

NAME = re.compile(r"[A-Za-z][\w.:/-]{1,79}")
MAX_NAMES = 6


def stated_networks(root: object) -> tuple[tuple[str, str], ...]:
    """List (key, text) of each setting that names a network, as `args.arch`: `resnet50`."""
    return tuple(_find_stated_networks(root))[:MAX_NAMES]


def stated_network_arguments(root: object) -> dict[str, object]:
    """Return the settings under `args`: what the training program was called with.

    What is neither numbers nor text is described in words.
    """
    settings = _settings_of_stated_network(_settings_of_stated_network(root).get("args"))
    return {
        key: value if is_plain_inert_value(value) else describe_checkpoint_content(value)
        for key, value in settings.items()
    }


def _find_stated_networks(root: object) -> Iterator[tuple[str, str]]:
    top = _settings_of_stated_network(root)
    yield from _stated_network_names_in_settings(top, "")
    for place in PLACES:
        yield from _stated_network_names_in_settings(_settings_of_stated_network(top.get(place)), f"{place}.")


def _stated_network_names_in_settings(settings: dict[str, object], before: str) -> Iterator[tuple[str, str]]:
    for key in NAMES:
        value = settings.get(key)
        if isinstance(value, str) and NAME.fullmatch(value):
            yield f"{before}{key}", value


def _settings_of_stated_network(value: object) -> dict[str, object]:
    """The entries of a dictionary, or the attributes of an inert object such as `argparse.Namespace`."""
    value = value.state if isinstance(value, Inert) else value
    return (
        {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, dict) else {}
    )
