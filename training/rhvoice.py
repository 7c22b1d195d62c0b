"""RHVoice through its C library, with word events."""

import ctypes
from collections.abc import Sequence

import numpy as np

from training.synthesis import Speech, draw_throat, refine_ends, resample

# Events arrive one buffer ahead of the sound they speak of (measured).
_EVENT_LEAD = 1100  # samples at 16 kHz

_int, _uint, _double = ctypes.c_int, ctypes.c_uint, ctypes.c_double
_pointer, _text = ctypes.c_void_p, ctypes.c_char_p
_OnRate = ctypes.CFUNCTYPE(_int, _int, _pointer)
_OnSound = ctypes.CFUNCTYPE(_int, ctypes.POINTER(ctypes.c_short), _uint, _pointer)
_OnWord = ctypes.CFUNCTYPE(_int, _uint, _uint, _pointer)

__all__ = ["RHVoice"]


class _Callbacks(ctypes.Structure):
    _fields_ = (
        ("set_sample_rate", _OnRate),
        ("play_speech", _OnSound),
        ("process_mark", _pointer),
        ("word_starts", _OnWord),
        ("word_ends", _OnWord),
        ("sentence_starts", _pointer),
        ("sentence_ends", _pointer),
        ("play_audio", _pointer),
        ("done", _pointer),
    )


class _EngineParameters(ctypes.Structure):
    _fields_ = (
        ("data_path", _text),
        ("config_path", _text),
        ("resource_paths", _pointer),
        ("callbacks", _Callbacks),
        ("options", _uint),
    )


class _SpeechParameters(ctypes.Structure):
    _fields_ = (
        ("voice_profile", _text),
        ("absolute_rate", _double),
        ("absolute_pitch", _double),
        ("absolute_volume", _double),
        ("relative_rate", _double),
        ("relative_pitch", _double),
        ("relative_volume", _double),
        ("punctuation_mode", _int),
        ("punctuation_list", _text),
        ("capitals_mode", _int),
        ("flags", _int),
    )


class RHVoice:
    """Voices built from CMU ARCTIC and freely licensed; `slt` is held out."""

    name = "rhvoice"
    voices = ("alan", "bdl", "clb")
    held_out_voices = ("slt",)

    def __init__(self, *, moves_formants: bool = False) -> None:
        self._moves_formants = moves_formants
        self._rate = 24_000
        self._pieces: list[np.ndarray] = []
        self._n_samples = 0
        self._ends: list[int] = []
        self._kept_alive = (
            _OnRate(self._set_rate),
            _OnSound(self._receive),
            _OnWord(lambda _position, _length, _user: 1),
            _OnWord(self._end_word),
        )
        rate, sound, start, end = self._kept_alive
        callbacks = _Callbacks(rate, sound, None, start, end, None, None, None, None)
        library = self._library = ctypes.CDLL("libRHVoice.so.5")
        parameters = _EngineParameters(
            b"/usr/share/RHVoice", b"/etc/RHVoice", None, callbacks, 0
        )
        library.RHVoice_new_tts_engine.restype = _pointer
        library.RHVoice_new_tts_engine.argtypes = [_pointer]
        library.RHVoice_new_message.restype = _pointer
        library.RHVoice_new_message.argtypes = [
            _pointer,
            _text,
            _uint,
            _int,
            _pointer,
            _pointer,
        ]
        library.RHVoice_speak.argtypes = [_pointer]
        library.RHVoice_delete_message.argtypes = [_pointer]
        self._engine = library.RHVoice_new_tts_engine(ctypes.byref(parameters))
        if self._engine is None:
            raise RuntimeError("RHVoice did not start; is rhvoice-english installed?")

    def _set_rate(self, rate: int, _user: object) -> int:
        self._rate = rate
        return 1

    def _receive(self, samples: object, n_samples: int, _user: object) -> int:
        self._pieces.append(np.ctypeslib.as_array(samples, (n_samples,)).copy())
        self._n_samples += n_samples
        return 1

    def _end_word(self, _position: int, _length: int, _user: object) -> int:
        self._ends.append(self._n_samples)
        return 1

    def speak(
        self, words: Sequence[str], voice: str, rng: np.random.Generator
    ) -> Speech | None:
        self._pieces, self._ends, self._n_samples = [], [], 0
        text = " ".join(words).encode()
        throat = draw_throat(rng) if self._moves_formants else 1.0
        rate, pitch = rng.uniform(0.7, 1.35) / throat, rng.uniform(0.85, 1.2)
        parameters = _SpeechParameters(
            voice.encode(), 0, 0, 0, rate, pitch, 1, 0, None, 0, 0
        )
        message = self._library.RHVoice_new_message(
            self._engine, text, len(text), 0, ctypes.byref(parameters), None
        )
        is_spoken = self._library.RHVoice_speak(message)
        self._library.RHVoice_delete_message(message)
        if not is_spoken or not self._pieces or len(self._ends) != len(words):
            return None
        played_at = self._rate * throat
        samples = resample(np.concatenate(self._pieces) / 32768, played_at)
        last = refine_ends(samples, [(0, len(samples))])[0]
        lead = int(_EVENT_LEAD / throat)
        ends = [min(int(end * 16_000 / played_at) + lead, last) for end in self._ends]
        ends[-1] = last
        return Speech(samples, ends)
