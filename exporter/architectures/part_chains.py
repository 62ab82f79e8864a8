"""How an app makes a whole network of its parts, with NumPy, beside what the whole network computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.records import Array

Call = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Runs a part on inputs by name, and returns its outputs by name."""
Samples = Sequence[Mapping[str, Array]]
STEPS = 64
"""Tokens that a language model writes."""
TEXTS = 2
"""Texts that a language model continues."""


@dataclass(frozen=True)
class PartsChain:
    """Runs parts as an app does, and the whole network on the same inputs."""

    title: str
    """What both return."""
    expected: Callable[[Any, Mapping[str, Samples]], list[Array]]
    """Takes the whole network, and part -> inputs of samples."""
    actual: Callable[[Mapping[str, Call], Mapping[str, Samples]], list[Array]]
    """Takes the parts instead of the network."""
    tokens: bool = False
    """Whether it returns tokens, which are equal or not."""
    of_photos: bool = False
    """Whether every part's inputs follow from one photo's shape."""


def run_encoder_decoder_without_part_chain(network: Any, samples: Mapping[str, Samples]) -> list[Array]:
    """Return the logits of the whole network for what its two parts are given."""
    return [
        _call_without_part_chain(
            network, {**encoded, "decoder_input_ids": decoded["decoder_input_ids"]}, use_cache=False
        ).logits.numpy()
        for encoded, decoded in zip(samples["encoder"], samples["decoder"], strict=False)
    ]


def run_encoder_decoder_part_chain(parts: Mapping[str, Call], samples: Mapping[str, Samples]) -> list[Array]:
    """Return the decoder's logits on what the encoder returns."""
    logits = []
    for encoded, decoded in zip(samples["encoder"], samples["decoder"], strict=False):
        states = parts["encoder"](encoded)["last_hidden_state"]
        given = {**decoded, "encoder_hidden_states": states}
        if "attention_mask" in decoded:
            given["attention_mask"] = encoded["attention_mask"]
        logits.append(parts["decoder"](given)["logits"])
    return logits


def run_towers_without_part_chain(network: Any, samples: Mapping[str, Samples]) -> list[Array]:
    """Return the cosines of every photo with every text, a row for each text."""
    outputs = [
        _call_without_part_chain(network, {**text, **photo})
        for text, photo in zip(samples["text"], samples["vision"], strict=False)
    ]
    return _cosines_by_part_chain(
        np.concatenate([output.text_embeds.numpy() for output in outputs]),
        np.concatenate([output.image_embeds.numpy() for output in outputs]),
    )


def run_tower_part_chain(parts: Mapping[str, Call], samples: Mapping[str, Samples]) -> list[Array]:
    """Return the same cosines from the embeddings of the two parts."""
    pairs = list(zip(samples["text"], samples["vision"], strict=False))
    texts = [parts["text"](text)["text_embeds"] for text, _ in pairs]
    photos = [parts["vision"](photo)["image_embeds"] for _, photo in pairs]
    return _cosines_by_part_chain(np.concatenate(texts), np.concatenate(photos))


def _cosines_by_part_chain(texts: Array, photos: Array) -> list[Array]:
    lengths = np.linalg.norm(texts, axis=1)[:, None] * np.linalg.norm(photos, axis=1)
    return list(texts @ photos.T / lengths)


def run_stages_without_part_chain(parts: Any, samples: Mapping[str, Samples]) -> list[Array]:
    """Return the masks or heatmaps of PyTorch's own modules, for photos and other photos' boxes.

    Args:
        parts: A detector and its third stage as modules, in the order of `samples`.
        samples: The inputs of both.
    """
    calls = {name: _call_of_module(module) for name, module in zip(samples, parts, strict=True)}
    return run_stages_part_chain(calls, samples)


def run_stages_part_chain(parts: Mapping[str, Call], samples: Mapping[str, Samples]) -> list[Array]:
    """Return what the third stage gives for the features that the detector hands on."""
    (instances,) = samples.keys() - {"detector"}
    results = []
    for photo, given in zip(samples["detector"], samples[instances], strict=False):
        features = parts["detector"](photo)
        handed_on = {name: features[name] for name in given if name != "boxes"}
        (result,) = parts[instances]({**handed_on, "boxes": given["boxes"]}).values()
        results.append(result)
    return results


def _call_of_module(module: Any) -> Call:
    def call(given: Mapping[str, Array]) -> Mapping[str, Array]:
        import torch

        with torch.no_grad():
            outputs = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in given.values()))
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return call


def write_text_without_part_chain(network: Any, samples: Mapping[str, Samples]) -> list[Array]:
    """Return the tokens that the network writes without a cache, the likeliest one each time."""
    return [
        _written_without_part_chain(network, prompt, steps)
        for prompt, steps in _prompts_for_part_chains(samples)
    ]


def _written_without_part_chain(network: Any, prompt: Array, steps: int) -> Array:
    tokens = prompt
    for _ in range(steps):
        logits = _call_without_part_chain(network, {"input_ids": tokens}, use_cache=False).logits.numpy()
        tokens = np.append(tokens, [[int(logits[0, -1].argmax())]], axis=1)
    return tokens[0, prompt.shape[1] :]


def write_text_by_part_chain(parts: Mapping[str, Call], samples: Mapping[str, Samples]) -> list[Array]:
    """Return the tokens that the two parts write: one reads the prompt, one adds a token at a time."""
    empty = samples["prefill"][0]
    texts = []
    for prompt, steps in _prompts_for_part_chains(samples):
        given = np.zeros_like(empty["input_ids"])
        given[:, : prompt.shape[1]] = prompt
        state = {name: np.zeros_like(empty[name]) for name in ("keys", "values")}
        outputs = parts["prefill"]({"input_ids": given, "position": np.zeros(1, np.int64), **state})
        written = [int(outputs["logits"][0, prompt.shape[1] - 1].argmax())]
        while len(written) < steps:
            token = np.array([[written[-1]]], np.int64)
            position = np.array([prompt.shape[1] + len(written) - 1], np.int64)
            state = {name: outputs[f"{name}_out"] for name in ("keys", "values")}
            outputs = parts["decode"]({"input_ids": token, "position": position, **state})
            written.append(int(outputs["logits"][0, 0].argmax()))
        texts.append(np.array(written))
    return texts


def _prompts_for_part_chains(samples: Mapping[str, Samples]) -> list[tuple[Array, int]]:
    """Return (prompt, tokens to write) of each text: shorter than the part that reads prompts allows."""
    listed = samples["prefill"][:TEXTS]
    slots = listed[0]["keys"].shape[2]
    prompts = [sample["input_ids"][:, : max(1, sample["input_ids"].shape[1] // 2)] for sample in listed]
    return [(prompt, min(STEPS, slots - prompt.shape[1])) for prompt in prompts]


def _call_without_part_chain(network: Any, given: Mapping[str, Array], **settings: Any) -> Any:
    import torch

    with torch.no_grad():
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in given.items()}
        return network(**tensors, **settings)


CHAINS: Mapping[frozenset[str], PartsChain] = {
    frozenset({"encoder", "decoder"}): PartsChain(
        "logits", run_encoder_decoder_without_part_chain, run_encoder_decoder_part_chain
    ),
    frozenset({"text", "vision"}): PartsChain(
        "cosines of texts and photos", run_towers_without_part_chain, run_tower_part_chain
    ),
    frozenset({"prefill", "decode"}): PartsChain(
        "tokens", write_text_without_part_chain, write_text_by_part_chain, tokens=True
    ),
    frozenset({"detector", "masks"}): PartsChain(
        "masks", run_stages_without_part_chain, run_stages_part_chain, of_photos=True
    ),
    frozenset({"detector", "keypoints"}): PartsChain(
        "heatmaps of keypoints", run_stages_without_part_chain, run_stages_part_chain, of_photos=True
    ),
}
"""Names of the parts -> how they make the whole."""
