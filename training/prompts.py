"""Recorded telephone prompts, spliced into sentences of the domain."""

# ruff: noqa: SIM905 -- a list of words reads better as a line of words

import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training import domain
from training.dataset import Utterance

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
_HELD_OUT_PERCENT = 40

__all__ = ["Prompts", "is_held_out"]


def _files() -> dict[str, str]:
    """What is said -> file, without its suffix, for prompts within the domain."""
    files = {word: f"digits/{i}" for i, word in enumerate(domain.DIGITS)}
    files |= {word: f"digits/{i + 10}" for i, word in enumerate(domain.TEENS)}
    files |= {word: f"digits/{20 + 10 * i}" for i, word in enumerate(domain.TENS)}
    files |= {word: f"digits/h-{i + 1}" for i, word in enumerate(domain.ORDINALS)}
    files |= {word: f"digits/h-{i + 10}" for i, word in enumerate(domain.TEEN_ORDINALS)}
    files |= {"twentieth": "digits/h-20", "thirtieth": "digits/h-30"}
    days = [domain.DAYS[-1], *domain.DAYS[:-1]]
    files |= {word: f"digits/day-{i}" for i, word in enumerate(days)}
    files |= {word: f"digits/mon-{i}" for i, word in enumerate(domain.MONTHS)}
    files |= {word: f"phonetic/{word[0]}_p" for word in domain.SPELLING}
    for word in (
        "hundred thousand million minus oclock oh dollars today tomorrow yesterday at"
    ).split():
        files[word] = "digits/" + word
    for word in "hello goodbye number extension hours minute minutes is for".split():
        files[word] = word
    return files | {
        "plus": "letters/plus",
        "equals": "letters/equals",
        "a m": "digits/a-m",
        "p m": "digits/p-m",
        "one moment please": "one-moment-please",
        "please try again": "please-try-again",
        "hello world": "hello-world",
    }


def is_held_out(text: str) -> bool:
    """Whether this recording is kept for the test: two in five, for ever the same."""
    return zlib.crc32(text.encode()) % 100 < _HELD_OUT_PERCENT


def _read(paths: Sequence[Path]) -> list[np.ndarray]:
    """G.722 prompts as float32 at 16 kHz, trimmed, their peaks at 0.5."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["ffmpeg", "-v", "error", "-nostdin"]
        for path in paths:
            command += ["-f", "g722", "-i", str(path)]
        outputs = [Path(folder) / f"{i}.pcm" for i in range(len(paths))]
        for i, output in enumerate(outputs):
            command += ["-map", str(i), "-f", "s16le", "-ac", "1", str(output)]
        subprocess.run(command, check=True)
        return [_trim(np.fromfile(output, "<i2")) for output in outputs]


def _trim(pcm: np.ndarray) -> np.ndarray:
    samples = pcm.astype(np.float32) / 32768
    samples *= np.float32(0.5 / max(float(np.abs(samples).max()), 1e-3))
    loud = np.nonzero(np.abs(samples) > 0.01)[0]
    return samples[max(0, int(loud[0]) - 320) : int(loud[-1]) + 640]


class Prompts:
    """Clips of one half of the hold-out, and sentences made of them."""

    name = "prompts"

    def __init__(self, *, held_out: bool) -> None:
        paths = {
            text: path
            for text, name in _files().items()
            if (path := SOUNDS / f"{name}.g722").exists()
            and is_held_out(text) == held_out
        }
        clips = _read(list(paths.values()))
        self._clips = dict(zip(paths, clips, strict=True))

    def sentence(self, rng: np.random.Generator) -> list[str]:
        """Clips in a row: a sentence of the domain if one can be made, else any."""
        for _ in range(40):
            clips = _paired(domain.sentence(rng, salad=0.0))
            if all(clip in self._clips for clip in clips):
                return clips
        return [str(c) for c in rng.choice(list(self._clips), int(rng.integers(1, 7)))]

    def splice(self, clips: Sequence[str], rng: np.random.Generator) -> Utterance:
        """Clips with pauses up to 0.3 s; a clip's words share its time alike."""
        parts: list[np.ndarray] = []
        words: list[str] = []
        ends: list[int] = []
        position = 0
        for clip in clips:
            samples = self._clips[clip]
            spoken = len(samples) - 640
            clip_words = clip.split()
            for i, word in enumerate(clip_words):
                words.append(word)
                ends.append(position + spoken * (i + 1) // len(clip_words))
            gap = np.zeros(int(rng.uniform(0, 0.3) * 16_000), np.float32)
            parts += [samples, gap]
            position += len(samples) + len(gap)
        return Utterance(np.concatenate(parts), tuple(words), tuple(ends), "allison")


def _paired(words: Sequence[str]) -> list[str]:
    """Join `a m` and `p m`, which were recorded as one."""
    joined: list[str] = []
    for word in words:
        if word == "m" and joined and joined[-1] in ("a", "p"):
            joined[-1] += " m"
        else:
            joined.append(word)
    return joined
