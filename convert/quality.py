"""What a conversion costs: its logits and text against the source's."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx import Checkpoint
from voxmlx.audio.files import open_audio
from voxmlx.config import (
    BOS_ID,
    LEFT_PAD_TOKENS,
    RIGHT_PAD_TOKENS,
    SAMPLES_PER_AUDIO_TOKEN,
    STREAMING_PAD_ID,
    delay_tokens,
)
from voxmlx.errors import OutputError

__all__ = [
    "DELAY_MS",
    "Reading",
    "Sound",
    "certificate",
    "forced_logits",
    "read",
    "read_sounds",
]

DELAY_MS = 480
NORMALISER = "whisper-normalizer BasicTextNormalizer"

# Positions of the decoder per pass; bounds the memory logits take.
_POSITIONS = 64


@dataclass(frozen=True, slots=True)
class Sound:
    """One sound to measure with, and what was said if somebody wrote it down."""

    name: str
    samples: NDArray[np.float32]
    transcript: str | None

    @property
    def padded(self) -> NDArray[np.float32]:
        """With silence around it, as a session pads it, before the lookahead."""
        to_whole = -len(self.samples) % SAMPLES_PER_AUDIO_TOKEN
        n_right = delay_tokens(DELAY_MS) + RIGHT_PAD_TOKENS
        right = to_whole + n_right * SAMPLES_PER_AUDIO_TOKEN
        left = LEFT_PAD_TOKENS * SAMPLES_PER_AUDIO_TOKEN
        return np.pad(self.samples, (left, right))


@dataclass(slots=True)
class Reading:
    """What a model makes of a sound: ids of its own choice, and logits on file."""

    ids: NDArray[np.int32]  # [n]
    logits: NDArray[np.float32]  # [n, vocab], given the reference's ids as history
    text: str


def read_sounds(paths: Sequence[Path]) -> list[Sound]:
    """Sounds with their `.txt` neighbours. Raises AudioError."""
    sounds: list[Sound] = []
    for path in paths:
        with open_audio(path) as file:
            samples = np.concatenate(list(file.pieces()))
        words = path.with_suffix(".txt")
        text = words.read_text(encoding="utf-8") if words.is_file() else None
        sounds.append(Sound(path.name, samples, text))
    return sounds


def read(
    checkpoint: Checkpoint,
    sound: Sound,
    directory: Path,
    history: NDArray[np.int32] | None = None,
) -> Reading:
    """Transcribe freely, then once more with `history` (None: the same ids)."""
    model = checkpoint.model
    state = model.make_state(DELAY_MS)
    samples = np.pad(sound.padded, (0, model.mel.lookahead))
    ids = model.step(mx.array(samples)[None], state)[0]
    ids = ids[ids >= 0]
    forced = ids if history is None else history
    vocab = checkpoint.config.decoder.vocab_size
    with tempfile.NamedTemporaryFile(dir=directory, suffix=".logits") as file:
        logits = np.memmap(file.name, np.float32, "w+", shape=(len(forced), vocab))
    start = 0
    for block in forced_logits(checkpoint, samples, forced):
        logits[start : start + len(block)] = block
        start += len(block)
    assert start == len(forced)
    return Reading(ids, logits, checkpoint.tokenizer.decode(ids.tolist()))


def forced_logits(
    checkpoint: Checkpoint, samples: NDArray[np.float32], ids: NDArray[np.int32]
) -> Iterator[NDArray[np.float32]]:
    """Logits [n, vocab] that a model gives where `ids` were chosen, in blocks.

    `samples` are padded; the history is the prompt and then `ids`, whatever this
    model would have chosen itself.
    """
    model = checkpoint.model
    state = model.make_state(DELAY_MS)
    n_prompt = 1 + LEFT_PAD_TOKENS + delay_tokens(DELAY_MS)
    tokens = np.concatenate([[BOS_ID], [STREAMING_PAD_ID] * (n_prompt - 1), ids[:-1]])
    piece = _POSITIONS * SAMPLES_PER_AUDIO_TOKEN
    done = 0
    for start in range(0, len(samples), piece):
        audio = model.encode(mx.array(samples[start : start + piece])[None], state)
        n = min(audio.shape[1], len(tokens) - done)
        if n == 0:
            continue
        known = mx.array(tokens[None, done : done + n].astype(np.int32))
        embeddings = audio[:, :n] + model.decoder.embed(known)
        # The last prompt position is the first whose logits choose an id.
        n_logits = min(n, max(0, done + n - (n_prompt - 1)))
        logits = model.decoder.step(embeddings, state.decoder, n_logits=n_logits)
        if n_logits:
            yield np.array(logits[0].astype(mx.float32))
        else:
            mx.eval(state.decoder.cache.keys, state.decoder.cache.values)
        done += n


def certificate(
    sounds: Sequence[Sound],
    references: Sequence[Reading],
    results: Sequence[Reading],
    reference_dtype: str,
    dtype: str,
) -> dict[str, Any]:
    """The content of quality.json."""
    rows = [
        _compare(sound, a, b)
        for sound, a, b in zip(sounds, references, results, strict=True)
    ]
    said = [
        (sound.transcript, a.text, b.text)
        for sound, a, b in zip(sounds, references, results, strict=True)
        if sound.transcript is not None
    ]
    errors = np.concatenate([row.pop("errors") for row in rows])
    divergences = np.concatenate([row.pop("divergences") for row in rows])
    n = sum(row["n_tokens"] for row in rows)

    def mean(key: str) -> float:
        return sum(row[key] * row["n_tokens"] for row in rows) / n

    return {
        "reference_dtype": reference_dtype,
        "dtype": dtype,
        "delay_ms": DELAY_MS,
        "normaliser": NORMALISER if said else None,
        "total": {
            "n_tokens": n,
            "token_agreement": mean("token_agreement"),
            "free_token_agreement": mean("free_token_agreement"),
            "mean_logit_error": float(errors.mean()),
            "max_logit_error": max(row["max_logit_error"] for row in rows),
            "mean_kl": float(divergences.mean()),
            "max_kl": float(divergences.max()),
            "reference_pad_margin": _mean_margin(references, references),
            "pad_margin": _mean_margin(references, results),
            "reference_wer": _wer([(t, a) for t, a, _ in said]),
            "wer": _wer([(t, b) for t, _, b in said]),
        },
        "sounds": rows,
    }


def _compare(sound: Sound, a: Reading, b: Reading) -> dict[str, Any]:
    n = len(a.ids)
    difference = [np.abs(x - y) for x, y in zip(a.logits, b.logits, strict=True)]
    errors = np.array([d.mean() for d in difference])
    own = min(n, len(b.ids))
    return {
        "name": sound.name,
        "n_tokens": n,
        "token_agreement": float((_chosen(a) == _chosen(b)).mean()),
        "free_token_agreement": float((a.ids[:own] == b.ids[:own]).sum() / n),
        "mean_logit_error": float(errors.mean()),
        "max_logit_error": float(max(d.max() for d in difference)),
        "mean_kl": float(_divergences(a, b).mean()),
        "reference_text": a.text,
        "text": b.text,
        "errors": errors,
        "divergences": _divergences(a, b),
    }


def _chosen(reading: Reading) -> NDArray[np.int64]:
    return np.array([row.argmax() for row in reading.logits])


def _log_softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    x = row.astype(np.float64) - row.max()
    return x - np.log(np.exp(x).sum())


def _divergences(a: Reading, b: Reading) -> NDArray[np.float64]:
    """KL(a || b) in nats at each token."""
    values: list[float] = []
    for x, y in zip(a.logits, b.logits, strict=True):
        p, q = _log_softmax(x), _log_softmax(y)
        values.append(float((np.exp(p) * (p - q)).sum()))
    return np.array(values)


def _mean_margin(
    references: Sequence[Reading], readings: Sequence[Reading]
) -> float | None:
    """PAD's lead over the best other id, where the reference says PAD."""
    margins: list[float] = []
    for reference, reading in zip(references, readings, strict=True):
        for choice, row in zip(_chosen(reference), reading.logits, strict=True):
            if choice == STREAMING_PAD_ID:
                others = np.delete(row, STREAMING_PAD_ID)
                margins.append(float(row[STREAMING_PAD_ID] - others.max()))
    return float(np.mean(margins)) if margins else None


def _wer(pairs: Sequence[tuple[str, str]]) -> float | None:
    if not pairs:
        return None
    # Local imports: heavy, and wanted only when there are transcripts.
    try:
        import jiwer
        from whisper_normalizer.basic import BasicTextNormalizer
    except ImportError as error:
        raise OutputError(
            f"{error.name} is not installed, and transcripts are there to compare with; "
            "pip install 'voxmlx-realtime[convert]'"
        ) from None

    normalise = BasicTextNormalizer()
    said = [normalise(text) for text, _ in pairs]
    heard = [normalise(text) for _, text in pairs]
    return float(jiwer.wer(said, heard))
