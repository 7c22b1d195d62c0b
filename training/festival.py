"""Festival's diphone voices through its interpreter, with word ends."""

# ruff: noqa: SIM905 -- pairs read better as a line of words

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from training.domain import vocabulary
from training.synthesis import Speech, draw_throat, refine_ends, resample

__all__ = ["Festival"]

_END = "spoken"
# The British voice may be used freely, the dictionary that Debian's package brings for
# it may not: it is given our words as espeak-ng pronounces them, under the name that
# the voice asks for.
_BRITISH = """
(require 'mrpa_phones)
(define (setup_oald_lex) t)
(lex.create "oald")
(lex.set.phoneset "mrpa")
{entries}
"""
_IPA_TO_MRPA = dict(
    pair.split(":")
    for pair in (
        "p:p t:t k:k b:b d:d ɡ:g s:s z:z ʃ:sh ʒ:zh f:f v:v θ:th ð:dh tʃ:ch dʒ:jh h:h "
        "m:m n:n ŋ:ng l:l j:y ɹ:r w:w ʌ:uh ɛ:e æ:a ɒ:o ɪ:i ʊ:u iː:ii uː:uu ɔː:oo ɑː:aa "
        "ɜː:@@ aɪ:ai eɪ:ei ɔɪ:oi aʊ:au əʊ:ou eə:e@ iə:i@ ə:@ ɐ:@"
    ).split()
)
_PREPARE = """
(define (speak_words voice text pitch stretch file)
  (if (not (eq? current-voice voice))
    (eval (list (intern (string-append "voice_" voice)))))
  (Parameter.set 'Duration_Stretch stretch)
  (set! int_lr_params
    (list (list 'target_f0_mean pitch) '(target_f0_std 16)
          '(model_f0_mean 170) '(model_f0_std 34)))
  (let ((utt (utt.synth (eval (list 'Utterance 'Text text)))))
    (utt.save.wave utt file 'riff)
    (mapcar
      (lambda (word)
        (format t "%s %f\\n" (item.name word) (item.feat word 'word_end)))
      (utt.relation.items utt 'Word))
    (format t "SPOKEN\\n")
    (fflush nil)))
""".replace("SPOKEN", _END)


def _british_lexicon() -> str:
    """Entries of all words of the domain, each one stressed syllable per vowel."""
    words = vocabulary()
    spoken = subprocess.run(
        ["espeak-ng", "-v", "en-gb-x-rp", "-q", "--ipa", "--sep=_"],
        input="\n".join(words),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    lines = [line.strip() for line in spoken if line.strip()]
    pairs = zip(words, lines, strict=True)
    return "\n".join(_entry(word, ipa) for word, ipa in pairs)


def _entry(word: str, ipa: str) -> str:
    syllables: list[tuple[list[str], int]] = []
    onset: list[str] = []
    for phone in re.split(r"[_ ]+", ipa.replace("əl", "ə_l")):
        plain = phone.strip("ˈˌ")
        mapped = _IPA_TO_MRPA[plain]
        if mapped[0] in "aeiou@":
            syllables.append(([*onset, mapped], int("ˈ" in phone)))
            onset = []
        else:
            onset.append(mapped)
            if len(onset) > 1 and syllables:  # the first of several closes a syllable
                syllables[-1][0].append(onset.pop(0))
    syllables[-1][0].extend(onset)
    parts = " ".join(f"(({' '.join(phones)}) {stress})" for phones, stress in syllables)
    return f'(lex.add.entry \'("{word}" nil ({parts})))'


class Festival:
    """CSTR's `ked` and `rab`: diphones, so pitch can be moved far without harm."""

    name = "festival"
    voices = ("ked", "rab")

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._wave = Path(self._folder.name, "spoken.wav")
        self._process = subprocess.Popen(
            ["festival", "--pipe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._send(_BRITISH.format(entries=_british_lexicon()))
        self._send(_PREPARE)

    def _send(self, scheme: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(scheme + "\n")
        self._process.stdin.flush()

    def speak(
        self, words: Sequence[str], voice: str, rng: np.random.Generator
    ) -> Speech | None:
        throat = draw_throat(rng)
        pitch = rng.uniform(80, 230) / throat
        stretch = rng.uniform(0.75, 1.3) * throat
        self._send(
            f'(speak_words "{voice}_diphone" "{" ".join(words)}" '
            f'{pitch:.1f} {stretch:.2f} "{self._wave}")'
        )
        spoken: list[str] = []
        ends: list[float] = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == _END:
                break
            word, seconds = line.split()
            spoken.append(word)
            ends.append(float(seconds) / throat * 16_000)
        if spoken != list(words):
            return None
        samples, rate = soundfile.read(self._wave, dtype="float32")
        spans = list(zip([0.0, *ends[:-1]], ends, strict=True))
        samples = resample(samples, rate * throat)
        return Speech(samples, refine_ends(samples, spans))
