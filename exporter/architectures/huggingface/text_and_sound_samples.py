"""Read texts through a folder's own tokenizer, and recordings through its feature extractor."""

from __future__ import annotations

import json
import wave
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporter.architectures.huggingface import huggingface_network
from exporter.errors import CalibrationError
from exporter.records import Array, Codes, Sample, TensorSpec

TEXTS = (".txt", ".jsonl")
VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
    "spm.model", "tekken.json",
)  # fmt: skip
"""Files of which a tokenizer needs one: transformers makes an empty tokenizer of nothing."""
EXTRACTORS = ("preprocessor_config.json", "processor_config.json")
FIRST = ("text", "sentence", "sentence1", "premise", "question", "query", "content", "prompt")
SECOND = ("text_pair", "sentence2", "hypothesis", "context", "passage", "answer")
"""Keys of a line of JSON under which data sets keep a text, and the text that goes with it."""
MAX_TEXT_BYTES = 1 << 30
MAX_CHARACTERS = 100_000
MAX_LINES = 1_000_000
MAX_SOUND_BYTES = 1 << 30
TEXT_HELP = 'Give a .txt with a text per line, or a .jsonl with an object per line: {"text": …}.'


class SampleReader:
    """Reads texts or recordings as calibration data. It is made where the network is built, and used once."""

    def __init__(self, folder: Path, codes: Mapping[str, Codes], trust: bool) -> None:
        """Keep what is needed to load the tokenizer or the feature extractor.

        Args:
            folder: The folder of the network.
            codes: The legal values of the inputs of whole numbers.
            trust: Whether the folder's own code may run.
        """
        self.folder = folder
        self.codes = codes
        self.trust = trust

    def __call__(
        self, source: Path, inputs: tuple[TensorSpec, ...], count: int
    ) -> tuple[list[Sample], tuple[str, ...]] | None:
        """Read up to `count` samples; None where the source holds neither texts nor recordings.

        Raises:
            CalibrationError: The data cannot be used, or not by these inputs.
        """
        sounds = sorted(p for p in source.glob("*.wav") if p.is_file()) if source.is_dir() else []
        try:
            if source.suffix.lower() in TEXTS and source.is_file():
                return self._texts(source, inputs, count)
            if sounds or (source.suffix.lower() == ".wav" and source.is_file()):
                return self._sounds(sounds or [source], inputs, count)
        except CalibrationError:
            raise
        except Exception as error:  # the folder's tokenizer or extractor raises whatever it likes
            first = str(error).strip().splitlines()[:1]
            raise CalibrationError(
                f"{source} cannot be read as the network's inputs: {type(error).__name__}: "
                f"{''.join(first)[:200]}",
                "Give an .npz file with an array per input.",
            ) from error
        return None

    def _texts(
        self, source: Path, inputs: tuple[TensorSpec, ...], count: int
    ) -> tuple[list[Sample], tuple[str, ...]]:
        if not any(spec.name == "input_ids" for spec in inputs):
            names = ", ".join(spec.name for spec in inputs)
            raise CalibrationError(f"{source} holds texts, but the network's inputs are {names}.")
        tokenizer = self._loaded("AutoTokenizer", "tokenizer", VOCABULARIES, use_fast=True)
        notes = []
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
            notes.append(f"the tokenizer has no padding: {tokenizer.eos_token!r} is used")
        pairs = _spread_text_samples(list(_text_sample_lines(source)), count)
        samples = [self._tokens(tokenizer, pair, inputs, source) for pair in pairs]
        notes.append(f"{len(samples)} texts of {source.name} are calibration and verification data")
        return samples, tuple(notes)

    def _tokens(
        self, tokenizer: Any, pair: tuple[str, str | None], inputs: Sequence[TensorSpec], source: Path
    ) -> Sample:
        length = next(spec.shape[-1] for spec in inputs if spec.name == "input_ids")
        made = tokenizer(
            *(text for text in pair if text is not None),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="np",
        )
        return tuple(self._row(made, spec, source) for spec in inputs)

    def _row(self, made: Mapping[str, Array], spec: TensorSpec, source: Path) -> Array:
        codes = self.codes.get(spec.name)
        if spec.name in made:
            row = np.asarray(made[spec.name])
        elif codes is not None and codes.kind == "segments":
            row = np.zeros_like(made["input_ids"])
        elif codes is not None and codes.kind == "mask":
            row = (np.asarray(made["input_ids"]) != codes.padding).astype(np.int64)
        else:
            raise CalibrationError(
                f"{source.name}: the tokenizer makes {', '.join(made)}; the network also takes {spec.name}.",
                "Give an .npz file with an array per input.",
            )
        if row.shape != spec.shape:
            raise CalibrationError(
                f"{source.name}: the tokenizer makes {spec.name} of shape {list(row.shape)}, expected "
                f"{list(spec.shape)}."
            )
        if codes is not None and not (int(row.min()) >= 0 and int(row.max()) < codes.count):
            raise CalibrationError(
                f"{source.name}: the tokenizer gives the code {int(row.max())} for {spec.name}; the network "
                f"knows {codes.count}.",
                "The tokenizer in the folder is another network's.",
            )
        return np.ascontiguousarray(row.astype(spec.dtype))

    def _sounds(
        self, paths: list[Path], inputs: tuple[TensorSpec, ...], count: int
    ) -> tuple[list[Sample], tuple[str, ...]]:
        spec = next((s for s in inputs if s.name in ("input_values", "input_features")), None)
        if spec is None:
            names = ", ".join(spec.name for spec in inputs)
            raise CalibrationError(f"{paths[0]} is a recording, but the network's inputs are {names}.")
        extractor = self._loaded("AutoFeatureExtractor", "feature extractor", EXTRACTORS)
        rate = int(getattr(extractor, "sampling_rate", 16000))
        samples = [
            self._sound(extractor, piece, rate, inputs, path)
            for path, piece in _text_sample_pieces(paths, rate, spec, count)
        ]
        return samples, (
            f"{len(samples)} pieces of {len(paths)} recordings are calibration and verification data",
        )

    def _sound(
        self, extractor: Any, piece: Array, rate: int, inputs: tuple[TensorSpec, ...], path: Path
    ) -> Sample:
        raw = len(inputs[0].shape) == 2
        length = (
            {"padding": "max_length", "truncation": True, "max_length": inputs[0].shape[1]} if raw else {}
        )
        mask = any(spec.name == "attention_mask" for spec in inputs)
        made = extractor(
            piece,
            sampling_rate=rate,
            return_tensors="np",
            **length,
            **({"return_attention_mask": True} if mask else {}),
        )
        return tuple(self._row(made, spec, path) for spec in inputs)

    def _loaded(self, kind: str, noun: str, files: Sequence[str], **options: Any) -> Any:
        if not any((self.folder / name).is_file() for name in files):
            raise CalibrationError(
                f"{self.folder} has no {noun}: none of {', '.join(files)}.",
                f"Save it beside the network ({noun.replace(' ', '_')}.save_pretrained(FOLDER)), or give an "
                ".npz file with an array per input.",
            )
        transformers = huggingface_network.huggingface_network_library(f"The {noun} of {self.folder.name}")
        try:
            return getattr(transformers, kind).from_pretrained(
                str(self.folder.resolve()), local_files_only=True, trust_remote_code=self.trust, **options
            )
        except Exception as error:
            first = str(error).strip().splitlines()[:1]
            raise CalibrationError(
                f"{self.folder} has no {noun} that transformers can load: {''.join(first)[:200]}",
                "Give an .npz file with an array per input.",
            ) from error


def _spread_text_samples(pairs: list[tuple[str, str | None]], count: int) -> list[tuple[str, str | None]]:
    """Return `count` of the texts at equal distances, so that a few stand for all."""
    distinct = list(dict.fromkeys(pairs))
    return (
        [distinct[index * len(distinct) // count] for index in range(count)]
        if len(distinct) > count
        else distinct
    )


def _text_sample_lines(source: Path) -> Iterator[tuple[str, str | None]]:
    """Yield each text with its second text, or with None."""
    if source.stat().st_size > MAX_TEXT_BYTES:
        raise CalibrationError(f"{source} is larger than {MAX_TEXT_BYTES} bytes.", "Give a part of it.")
    try:
        with source.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if number > MAX_LINES:
                    return
                if text := line.strip()[:MAX_CHARACTERS]:
                    yield (
                        _parse_text_sample(text, number, source)
                        if source.suffix.lower() == ".jsonl"
                        else (text, None)
                    )
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{source} is not text in UTF-8.", TEXT_HELP) from error


def _parse_text_sample(line: str, number: int, source: Path) -> tuple[str, str | None]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{source.name}, line {number}: not JSON.", TEXT_HELP) from error
    if isinstance(value, str):
        return value, None
    texts = (
        {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}
    )
    first = next((key for key in FIRST if key in texts), None)
    if first is None:
        raise CalibrationError(
            f"{source.name}, line {number}: no text under any of {', '.join(FIRST)}.", TEXT_HELP
        )
    second = next((key for key in SECOND if key in texts), None)
    return texts[first], texts[second] if second else None


def _text_sample_pieces(
    paths: list[Path], rate: int, spec: TensorSpec, count: int
) -> Iterator[tuple[Path, Array]]:
    """Yield pieces of the recordings that are as long as the input, the first of every recording first."""
    length = spec.shape[1] if len(spec.shape) == 2 else 30 * rate
    recordings = [(path, _sound_samples(path, rate)) for path in paths[:count]]
    most = max(-(-len(samples) // length) for _, samples in recordings)
    made = 0
    for index in range(most):
        for path, samples in recordings:
            piece = samples[index * length : (index + 1) * length]
            if made < count and (index == 0 or len(piece) > length // 2) and len(piece):
                made += 1
                yield path, piece


def _sound_samples(path: Path, rate: int) -> Array:
    """Return a recording as float32 from -1 to 1, its channels averaged."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, own = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(min(file.getnframes(), MAX_SOUND_BYTES // max(1, width * channels)))
    except (wave.Error, EOFError, OSError, RuntimeError) as error:
        raise CalibrationError(f"{path} is no WAV file with plain samples: {error}.") from error
    if own != rate:
        raise CalibrationError(
            f"{path} has {own} samples a second, and the network takes {rate}.",
            f"Resample it: `ffmpeg -i {path.name} -ar {rate} new.wav`.",
        )
    if width not in (2, 4):
        raise CalibrationError(f"{path} has {8 * width} bits a sample, expected 16 or 32.")
    data = data[: len(data) - len(data) % (width * channels)]  # the last sample of a file that was cut
    flat = np.frombuffer(data, "<i2" if width == 2 else "<i4").astype(np.float32) / float(
        1 << (8 * width - 1)
    )
    mixed: Array = flat.reshape(-1, channels).mean(axis=1)
    return mixed
