"""Real inputs for the table's commands, made from free data in packages.

Photos are the demo's, or those of `--photos`. Speech is spoken by espeak-ng (`apt-get install espeak-ng`).
"""

from __future__ import annotations

import subprocess
import tempfile
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import unseen_samples
from exporter.data import photos as photo_files
from exporter.records import Array

COUNT = 120
"""The most inputs of one kind; the demo has so many photos."""
SENTENCE = 90
"""Characters of a spoken text."""
RATE = 16_000
PHOTO_FOLDER = "photos"
LANGUAGE_MODEL = "LlamaForCausalLM"


def calibration_inputs(name: str, folder: Path, photos: Path) -> Path | None:
    """Write the inputs of this name below the folder, unless they are there, and return their path.

    Args:
        name: A key of `WRITERS`, "photos", or empty for no inputs of ours.
        folder: Where inputs are kept.
        photos: The folder of photos.
    """
    if not name:
        return None
    if name == PHOTO_FOLDER:
        return photos
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        WRITERS[name](path, photos)
    return path


def _write_signs(path: Path, photos: Path) -> None:
    path.mkdir()
    for number, sign in enumerate(unseen_samples.sign_pictures(photos)):
        sign.save(path / f"{number:03}.png")


def _write_faces(path: Path, _: Path) -> None:
    path.mkdir()
    for number, face in zip(range(COUNT), unseen_samples.face_pictures(), strict=False):
        face.convert("RGB").save(path / f"{number:03}.png")


def _write_words(path: Path, photos: Path) -> None:
    np.savez(path, _word_rows(photos))


def _write_lines(path: Path, photos: Path) -> None:
    """Write the words at half their size."""
    rows = _word_rows(photos)
    halves = rows.reshape(len(rows), 1, 32, 2, 128, 2).mean((3, 5))
    np.savez(path, halves.astype(np.float32))


def _word_rows(photos: Path) -> Array:
    return np.concatenate([arrays[0] for arrays in unseen_samples.word_samples(photos)])


def _write_texts(path: Path, _: Path) -> None:
    path.write_text("\n".join(page[:400] for page in unseen_samples.text_pages()[:COUNT]))


def _write_pairs(path: Path, photos: Path) -> None:
    """Write photos and their titles, for the towers of a network of both."""
    (path / "vision").mkdir(parents=True)
    files = photo_files.find_photos(photos)
    for file in files:
        (path / "vision" / file.name).write_bytes(file.read_bytes())
    (path / "text.txt").write_text("\n".join(photo_title(file) for file in files))


def photo_title(file: Path) -> str:
    """Return what a photo shows, from its name: `003-tape-measure.jpg`."""
    return "a photo of " + file.stem.partition("-")[2].replace("-", " ")


def _write_mels(path: Path, _: Path) -> None:
    """Write the mel spectrograms of spoken texts, as Resemblyzer makes them."""
    from transformers import audio_utils

    filters = audio_utils.mel_filter_bank(201, 40, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    window = audio_utils.window_function(400, "hann")
    rows = [
        audio_utils.spectrogram(sound, window, 400, 160, fft_length=400, power=2.0, mel_filters=filters).T
        for sound in spoken_texts()
    ]
    np.savez(path, np.stack([row[20:180] for row in rows]).astype(np.float32))


def spoken_texts() -> list[Array]:
    """Return texts that espeak-ng speaks with many voices, at 16 kHz, each at least two seconds long."""
    pages = unseen_samples.text_pages()[: COUNT // 2]
    with tempfile.TemporaryDirectory() as folder:
        return [_spoken(page[:SENTENCE], number, Path(folder) / "a.wav") for number, page in enumerate(pages)]


def _spoken(text: str, number: int, path: Path) -> Array:
    voice = f"en+{'fm'[number % 2]}{number % 4 + 1}"
    pace = ("-p", str(20 + 7 * number % 60), "-s", str(130 + 11 * number % 70))
    subprocess.run(["espeak-ng", "-v", voice, *pace, "-w", str(path), text], check=True)
    with wave.open(str(path)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        seconds = file.getnframes() / file.getframerate()
    ticks = np.arange(0, seconds, 1 / RATE)
    return np.interp(ticks, np.linspace(0, seconds, len(sound)), sound).astype(np.float32)


def _write_passages(path: Path, _: Path) -> None:
    """Write calls of a language model's two parts: texts that it knows, and one of their later tokens each.

    The network, which is beside the inputs, computes the cache that its second part takes.
    """
    from benchmarks.families import training
    from exporter.architectures import families

    transformers = families.import_family_package("transformers", LANGUAGE_MODEL)
    folder = path.parents[1] / "files" / LANGUAGE_MODEL
    network = (
        getattr(transformers, LANGUAGE_MODEL).from_pretrained(folder, attn_implementation="eager").eval()
    )
    rows = training.passages(transformers.AutoTokenizer.from_pretrained(folder)).numpy()
    path.mkdir()
    for part, calls in zip(("prefill", "decode"), _calls_of_passages(network, rows), strict=True):
        arrays: dict[str, Any] = {name: np.stack([call[name] for call in calls]) for name in calls[0]}
        np.savez(path / part, **arrays)


def _calls_of_passages(network: Any, rows: Array) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    import torch

    from exporter.architectures.huggingface import config_inputs, text_generation
    from exporter.architectures.huggingface.key_value_cache import CachedModule

    settings = config_inputs.InputSettings(network.config, {}, {})
    specs = text_generation.text_generation_inputs(network, settings, text_generation.PREFILL)
    empty = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in specs}
    chance, cached = np.random.default_rng(0), CachedModule(network)
    first, later = [], []
    for row in rows:
        first.append(empty | {"input_ids": row[None, : specs[0].shape[1]]})
        place = int(chance.integers(specs[0].shape[1] // 2, len(row)))
        read = empty | {"input_ids": row[None, :place]}
        with torch.no_grad():
            outputs = cached(**{name: torch.from_numpy(array) for name, array in read.items()})
        cache = {name: outputs[f"{name}_out"].numpy() for name in ("keys", "values")}
        later.append({"input_ids": row[None, place : place + 1], "position": np.array([place]), **cache})
    return first, later


WRITERS: Mapping[str, Callable[[Path, Path], None]] = {
    "signs": _write_signs,
    "faces": _write_faces,
    "words.npz": _write_words,
    "lines.npz": _write_lines,
    "texts.txt": _write_texts,
    "pairs": _write_pairs,
    "mels.npz": _write_mels,
    "passages": _write_passages,
}
