"""espeak-ng through its C library, with word events."""

# ruff: noqa: SIM905 -- a list of words reads better as a line of words

import ctypes
from collections.abc import Sequence

import numpy as np

from training.synthesis import Speech, refine_ends, resample

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_RATE, _PITCH, _RANGE = 1, 3, 4
_EVENT_END, _EVENT_WORD = 0, 1
_MS = 16  # samples

_LANGUAGES = ("en-us", "en-gb", "en-gb-x-rp", "en-us-nyc", "en-029")
# The variants that still sound like a person.
VARIANTS = (
    "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 klatt klatt2 adam Alex Alicia Andrea Andy "
    "Annie anika benjamin boris caleb david ed edward Gene john Lee linda Marco max "
    "michael mike norbert paul rob robert sandro shelby steph travis victor zac"
).split()

__all__ = ["VARIANTS", "Espeak"]


class _Identity(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Espeak:
    """English voices of espeak-ng, each a language and a variant."""

    name = "espeak"
    voices = tuple(f"{lang}+{v}" for lang in _LANGUAGES for v in VARIANTS)

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._rate = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, None, 0
        )
        self._pieces: list[np.ndarray] = []
        self._word_starts: list[tuple[int, int]] = []  # (text position, ms)
        self._callback = _Callback(self._receive)  # kept alive for the library
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: object, n_samples: int, events: object) -> int:
        if n_samples > 0:
            piece = np.ctypeslib.as_array(samples, (n_samples,))
            self._pieces.append(piece.copy())
        i = 0
        while events[i].type != _EVENT_END:
            if events[i].type == _EVENT_WORD:
                start = (events[i].text_position - 1, events[i].audio_position)
                self._word_starts.append(start)
            i += 1
        return 0

    def speak(
        self, words: Sequence[str], voice: str, rng: np.random.Generator
    ) -> Speech | None:
        library = self._library
        self._pieces, self._word_starts = [], []
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            return None
        library.espeak_SetParameter(_RATE, int(rng.uniform(115, 230)), 0)
        library.espeak_SetParameter(_PITCH, int(rng.uniform(15, 85)), 0)
        library.espeak_SetParameter(_RANGE, int(rng.uniform(20, 70)), 0)
        text = " ".join(words).encode() + b"\0"
        library.espeak_Synth(text, len(text), 0, 1, 0, 1, None, None)
        library.espeak_Synchronize()
        if not self._pieces:
            return None
        samples = resample(np.concatenate(self._pieces) / 32768, self._rate)
        spans = self._spans(words, len(samples))
        return spans and Speech(samples, refine_ends(samples, spans))

    def _spans(
        self, words: Sequence[str], n_samples: int
    ) -> list[tuple[float, float]] | None:
        """Start and end of each word; one without its own event ends with the next."""
        word_at = {}
        text_position = 0
        for i, word in enumerate(words):
            word_at[text_position] = i
            text_position += len(word) + 1
        starts: dict[int, float] = {}
        for text_position, ms in self._word_starts:
            if text_position in word_at:
                starts.setdefault(word_at[text_position], ms * _MS)
        if 0 not in starts:
            return None
        spans = []
        for i in range(len(words)):
            start = starts[max(k for k in starts if k <= i)]
            end = min((s for k, s in starts.items() if k > i), default=n_samples)
            spans.append((start, end))
        return spans
