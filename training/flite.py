"""flite through its C libraries, with word ends from the utterance's segments."""

import ctypes
from collections.abc import Sequence

import numpy as np

from training.synthesis import Speech, refine_ends, resample

_WORD_END = b"R:SylStructure.daughtern.daughtern.R:Segment.end"  # seconds

__all__ = ["Flite"]


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("n_samples", ctypes.c_int),
        ("n_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


class Flite:
    """CMU voices; `slt` is held out of training."""

    name = "flite"
    voices = ("awb", "rms", "kal16")
    held_out_voices = ("slt",)

    def __init__(self) -> None:
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        library = self._library = ctypes.CDLL("libflite.so.1", ctypes.RTLD_GLOBAL)
        library.flite_init()
        for name in ("usenglish", "cmulex"):
            ctypes.CDLL(f"libflite_{name}.so.1", ctypes.RTLD_GLOBAL)
        self._voices = {}
        for voice in self.voices + self.held_out_voices:
            voice_library = ctypes.CDLL(f"libflite_cmu_us_{voice}.so.1")
            register = getattr(voice_library, f"register_cmu_us_{voice}")
            register.restype = ctypes.POINTER(_Voice)
            register.argtypes = [pointer]
            self._voices[voice] = register(None)
        for function, result, arguments in (
            ("flite_synth_text", pointer, [text, pointer]),
            ("utt_wave", ctypes.POINTER(_Wave), [pointer]),
            ("delete_utterance", None, [pointer]),
            ("utt_relation", pointer, [pointer, text]),
            ("relation_head", pointer, [pointer]),
            ("item_next", pointer, [pointer]),
            ("item_feat_string", text, [pointer, text]),
            ("flite_ffeature_float", ctypes.c_float, [pointer, text]),
            ("feat_set_float", None, [pointer, text, ctypes.c_float]),
        ):
            getattr(library, function).restype = result
            getattr(library, function).argtypes = arguments

    def speak(
        self, words: Sequence[str], voice: str, rng: np.random.Generator
    ) -> Speech | None:
        library, registered = self._library, self._voices[voice]
        features = registered.contents.features
        library.feat_set_float(features, b"duration_stretch", rng.uniform(0.75, 1.3))
        if voice == "kal16":  # diphones: the only voice here that follows this pitch
            library.feat_set_float(
                features, b"int_f0_target_mean", rng.uniform(80, 140)
            )
        utterance = library.flite_synth_text(" ".join(words).encode(), registered)
        wave = library.utt_wave(utterance).contents
        pcm = np.ctypeslib.as_array(wave.samples, (wave.n_samples,))
        samples = resample(pcm / 32768, wave.sample_rate)
        spoken, ends = [], []
        item = library.relation_head(library.utt_relation(utterance, b"Word"))
        while item:
            spoken.append(library.item_feat_string(item, b"name").decode())
            ends.append(library.flite_ffeature_float(item, _WORD_END) * 16_000)
            item = library.item_next(item)
        library.delete_utterance(utterance)
        if spoken != list(words):
            return None
        spans = list(zip([0.0, *ends[:-1]], ends, strict=True))
        return Speech(samples, refine_ends(samples, spans))
