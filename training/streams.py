"""Training rows: several utterances in one stream, with inputs and targets."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.augment import (
    SAMPLE_RATE,
    augment_utterance,
    background_noise,
)
from training.dataset import Dataset, Utterance, to_pcm16
from training.formants import warp_formants
from training.microphones import record, set_peak
from training.noises import draw_non_speech
from training.rooms import desk, in_room, shoebox
from training.splicing import Splicer
from training.targets import (
    BOS_ID,
    LEFT_PAD_TOKENS,
    LEGAL_DELAYS,
    PAD_ID,
    SAMPLES_PER_TOKEN,
    WORD_ID,
    schedule,
)

IGNORED = -100  # cross_entropy's ignore_index
# 2400 ms stands far from its neighbours and learns nothing from them: drawn more.
_DELAY_ODDS = np.where(np.array(LEGAL_DELAYS) == max(LEGAL_DELAYS), 2.0, 1.0)
_DELAY_ODDS /= _DELAY_ODDS.sum()

__all__ = ["IGNORED", "Batch", "StreamMaker"]


@dataclass(frozen=True, slots=True)
class _Odds:
    """How often an utterance, or a row, is what."""

    spliced: float = 0.42
    non_speech: float = 0.1
    formants: float = 0.5
    room: float = 0.2
    background: float = 0.25
    faint_row: float = 0.22


ODDS = _Odds()


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of N audio tokens."""

    samples: torch.Tensor  # int16 [B, 1280 N]
    token_ids: torch.Tensor  # int64 [B, N], the token before each position
    targets: torch.Tensor  # int64 [B, N], IGNORED where there is no loss
    delay_tokens: torch.Tensor  # int64 [B]


@dataclass(frozen=True, slots=True)
class _Row:
    samples: np.ndarray
    token_ids: list[int]
    targets: list[int]
    delay_tokens: int


class StreamMaker:
    """Draws rows from weighted sources; the same seed gives the same rows."""

    def __init__(
        self,
        sources: Sequence[tuple[float, Dataset]],
        encode_word: Callable[[str], tuple[int, ...]],
        n_tokens: int,
        seed: int,
        mid_stream_odds: float = 0.35,
    ) -> None:
        self._sources = [dataset for _, dataset in sources]
        weights = np.array([weight for weight, _ in sources], dtype=np.float64)
        self._weights = weights / weights.sum()
        self._encode_word = encode_word
        self._n_tokens = n_tokens
        self._mid_stream_odds = mid_stream_odds
        self._rng = np.random.default_rng(seed)
        self._text_ids: list[int] = []
        self._unheard: list[list[int]] = [[] for _ in sources]
        self._splicers = [Splicer(dataset) for dataset in self._sources]

    def batch(self, n_rows: int) -> Batch:
        rows = [self._row() for _ in range(n_rows)]
        samples = np.stack([r.samples for r in rows])
        return Batch(
            torch.from_numpy(to_pcm16(samples)),
            torch.tensor([r.token_ids for r in rows]),
            torch.tensor([r.targets for r in rows]),
            torch.tensor([r.delay_tokens for r in rows]),
        )

    def _row(self) -> _Row:
        # A row that begins mid-stream has neither prompt nor silent prefix in sight,
        # as every position of a long session.
        is_mid_stream = self._rng.random() < self._mid_stream_odds
        left = 0 if is_mid_stream else LEFT_PAD_TOKENS
        delay = int(self._rng.choice(LEGAL_DELAYS, p=_DELAY_ODDS))
        lead = delay + 8 if is_mid_stream else 0  # tokens made, then cut off
        n_tokens = self._n_tokens + lead
        samples, words = self._sound(left, n_tokens)
        targets = schedule(words, delay, n_tokens)
        token_ids = [BOS_ID, *targets[:-1]]
        self._corrupt(token_ids, left + delay)
        samples = samples[lead * SAMPLES_PER_TOKEN :]
        token_ids, targets = token_ids[lead:], targets[lead:]
        n_ignored = 24 if is_mid_stream else left
        targets[:n_ignored] = [IGNORED] * n_ignored
        return _Row(samples, token_ids, targets, delay)

    def _sound(
        self, left: int, n_tokens: int
    ) -> tuple[np.ndarray, list[tuple[int, tuple[int, ...]]]]:
        """Utterances and pauses over `n_tokens`, and (end sample, ids) of the words."""
        rng = self._rng
        n_samples = n_tokens * SAMPLES_PER_TOKEN
        samples = np.zeros(n_samples, np.float32)
        words: list[tuple[int, tuple[int, ...]]] = []
        position = left * SAMPLES_PER_TOKEN + int(rng.uniform(0, 1) * SAMPLE_RATE)
        while position < n_samples - SAMPLE_RATE // 4:
            if rng.random() < ODDS.non_speech:
                position += self._add_non_speech(samples, position)
                continue
            item = self.utterance()
            sound, ends = self._disguised(item)
            n_fitting = min(len(sound), n_samples - position)
            samples[position : position + n_fitting] += sound[:n_fitting]
            words += [
                (position + end, self._encode_word(word))
                for word, end in zip(item.words, ends, strict=True)
                if position + end < n_samples
            ]
            is_close = rng.random() < 0.35
            pause = rng.uniform(0.02, 0.5) if is_close else rng.uniform(0.5, 2.2)
            position += len(sound) + int(pause * SAMPLE_RATE)
        words.sort(key=lambda word: word[0])
        if rng.random() < 0.6:
            noise = background_noise(n_samples, rng)
            noise[: left * SAMPLES_PER_TOKEN] = 0
            samples += noise
        if rng.random() < ODDS.background:
            start = left * SAMPLES_PER_TOKEN
            behind = draw_non_speech(n_samples - start, rng)
            samples[start:] += set_peak(behind, rng.uniform(-60, -24))
        if rng.random() < ODDS.faint_row:
            samples *= np.float32(10 ** (rng.uniform(-45, -12) / 20))
        return samples, words

    def _add_non_speech(self, samples: np.ndarray, position: int) -> int:
        """Add music, clicks or noise from `position`; return how many samples."""
        rng = self._rng
        seconds = math.exp(rng.uniform(math.log(0.3), math.log(16)))
        n = min(int(seconds * SAMPLE_RATE), len(samples) - position)
        sound = set_peak(draw_non_speech(n, rng), rng.uniform(-45, 0))
        samples[position : position + n] += sound
        return n + int(rng.uniform(0, 0.6) * SAMPLE_RATE)

    def _disguised(self, item: Utterance) -> tuple[np.ndarray, list[int]]:
        """Return an utterance as of another speaker, room and microphone."""
        rng = self._rng
        samples = item.samples.copy()
        if rng.random() < ODDS.formants:
            samples = warp_formants(samples, math.exp(rng.uniform(-0.2, 0.2)))
        samples, ends = augment_utterance(samples, item.word_ends, rng)
        if rng.random() < ODDS.room:
            response = desk(rng) if rng.random() < 0.4 else shoebox(rng)
            peak = float(np.abs(samples).max(initial=0))
            samples = in_room(samples, response)
            samples = set_peak(samples, 20 * math.log10(max(peak, 1e-4)))
        return record(samples, rng), ends

    def utterance(self) -> Utterance:
        """Draw an utterance as a synthesiser spoke it, or words of one voice spliced."""
        source = self._rng.choice(len(self._sources), p=self._weights)
        dataset = self._sources[source]
        splicer = self._splicers[source]
        if splicer and self._rng.random() < ODDS.spliced:
            return splicer.splice(self._rng)
        unheard = self._unheard[source]
        if not unheard:  # every utterance once before any comes again
            unheard += self._rng.permutation(len(dataset)).tolist()
        return dataset[unheard.pop()]

    def _corrupt(self, token_ids: list[int], start: int) -> None:
        """Replace 5 % of the text inputs, so that a slip does not breed others."""
        text = [i for i in token_ids if i not in (BOS_ID, PAD_ID, WORD_ID)]
        self._text_ids = (self._text_ids + text)[-4000:]
        for i in range(start, len(token_ids)):
            is_text = token_ids[i] not in (BOS_ID, PAD_ID, WORD_ID)
            if is_text and self._rng.random() < 0.05:
                token_ids[i] = int(self._rng.choice(self._text_ids))
