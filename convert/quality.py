"""The cost of a conversion: its logits and text against the source's."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxmlx.audio.files import open_audio
from voxmlx.config import (
    DEFAULT_DELAY_MS,
    EOS_ID,
    LEFT_PAD_TOKENS,
    RIGHT_PAD_TOKENS,
    SAMPLES_PER_AUDIO_TOKEN,
    STREAMING_PAD_ID,
    delay_tokens,
)
from voxmlx.errors import AudioError

from .word_errors import NORMALIZER, check_installed, word_errors

__all__ = [
    "DELAY_MS",
    "ROW_TITLES",
    "ModelReading",
    "Sound",
    "certificate",
    "is_certified",
    "read_sounds",
    "summary_line",
    "table_row",
]

DELAY_MS = DEFAULT_DELAY_MS


@dataclass(frozen=True, slots=True)
class Sound:
    """One sound to measure with, and what was said if somebody wrote it down."""

    name: str
    samples: NDArray[np.float32]
    transcript: str | None
    has_words: bool = True  # False where nothing can be understood in it

    @property
    def digest(self) -> str:
        """SHA-256 of the samples, in hex."""
        return hashlib.sha256(self.samples.tobytes()).hexdigest()

    @property
    def padded(self) -> NDArray[np.float32]:
        """With silence around it, as a session pads it, before the lookahead."""
        return self.padded_by(LEFT_PAD_TOKENS)

    def padded_by(self, left_pad_tokens: int) -> NDArray[np.float32]:
        """Return `padded` for a model with its own padding before a stream."""
        to_whole = -len(self.samples) % SAMPLES_PER_AUDIO_TOKEN
        n_right = delay_tokens(DELAY_MS) + RIGHT_PAD_TOKENS
        right = to_whole + n_right * SAMPLES_PER_AUDIO_TOKEN
        left = left_pad_tokens * SAMPLES_PER_AUDIO_TOKEN
        return np.pad(self.samples, (left, right))

    @property
    def n_tokens(self) -> int:
        """Tokens a model makes of it: one per 80 ms, and some for the delay."""
        n = -(-len(self.samples) // SAMPLES_PER_AUDIO_TOKEN)
        return n + RIGHT_PAD_TOKENS


@dataclass(slots=True)
class ModelReading:
    """A model's reading of a sound: its own ids, and its logits in a file."""

    ids: NDArray[np.int32]  # [n]
    logits: NDArray[np.float32]  # [n, vocab], given the reference's ids as history
    text: str


def read_sounds(paths: Sequence[Path], *, with_transcripts: bool = True) -> list[Sound]:
    """Return sounds, with their `.txt` neighbors where asked. Raises AudioError.

    OutputError when what compares with a transcript is not installed.
    """
    sounds: list[Sound] = []
    for path in paths:
        with open_audio(path) as file:
            pieces = list(file.pieces())
        samples = np.concatenate([np.zeros(0, np.float32), *pieces])
        if not samples.any():
            raise AudioError(f"{path} is silent; give sound with speech in it")
        beside = path.with_suffix(".txt")
        transcript = _transcript(beside) if with_transcripts else None
        sounds.append(Sound(path.name, samples, transcript))
    if any(sound.transcript is not None for sound in sounds):
        check_installed()  # now rather than after an hour
    return sounds


def _transcript(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(f"the transcript {path} is not readable: {error}") from None


def is_certified(directory: Path, sounds: Sequence[Sound]) -> bool:
    """Return whether a model's quality.json is of these sounds, if any are given.

    One that cannot be read is of none.
    """
    path = directory / "quality.json"
    if not sounds:
        return True
    if not path.is_file():
        return False
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["sounds"]
        found = [(row["sha256"], row["transcript"]) for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return found == [(sound.digest, sound.transcript) for sound in sounds]


def certificate(
    sounds: Sequence[Sound],
    references: Sequence[ModelReading],
    results: Iterable[ModelReading],
    reference_dtype: str,
    dtype: str,
    on_sound: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    """Return the content of quality.json; `on_sound` gets each sound's row at once."""
    total = _Tokens()
    said: list[tuple[str, str, str]] = []
    rows: list[dict[str, Any]] = []
    for sound, a, b in zip(sounds, references, results, strict=True):
        tokens = _compare(a, b)
        total += tokens
        if sound.transcript is not None:
            said.append((sound.transcript, a.text, b.text))
        rows.append(
            {
                "name": sound.name,
                "sha256": sound.digest,
                "transcript": sound.transcript,
                **tokens.summary(),
                "reference_text": a.text,
                "text": b.text,
            }
        )
        on_sound(rows[-1])
    before = after = None
    if said:
        before = word_errors([(t, a) for t, a, _ in said])
        after = word_errors([(t, b) for t, _, b in said])
    return {
        "reference_dtype": reference_dtype,
        "dtype": dtype,
        "delay_ms": DELAY_MS,
        "normaliser": NORMALIZER if said else None,
        "total": {
            **total.summary(),
            "reference_wer": None if before is None else before.rate,
            "wer": None if after is None else after.rate,
            "wer_interval": None if after is None else after.interval(),
        },
        "sounds": rows,
    }


ROW_TITLES = (
    f"{'sound':24} {'tokens':>6} {'same':>8} {'own':>8} {'KL':>9} {'p99':>9} {'WER':>7}"
)


def table_row(name: str, row: Mapping[str, Any]) -> str:
    """Return one line of the table that --verify prints; columns as in ROW_TITLES."""
    wer = row.get("wer")
    return (
        f"{name[:24]:24} {row['n_tokens']:6} {row['token_agreement']:8.2%} "
        f"{row['free_token_agreement']:8.2%} {row['mean_kl']:9.2e} {row['p99_kl']:9.2e} "
        + (f"{'':7}" if wer is None else f"{wer:7.2%}")
    ).rstrip()


def summary_line(content: Mapping[str, Any]) -> str:
    """Return a certificate as one line of JSON, without its sounds."""
    return json.dumps({k: v for k, v in content.items() if k != "sounds"})


@dataclass(slots=True)
class _Tokens:
    """What was compared at each token of a sound; sounds add up."""

    is_same: list[bool] = field(default_factory=list[bool])
    is_same_freely: list[bool] = field(default_factory=list[bool])
    mean_errors: list[float] = field(default_factory=list[float])
    max_errors: list[float] = field(default_factory=list[float])
    divergences: list[float] = field(default_factory=list[float])
    # PAD's lead over the best other id, where the reference chooses PAD.
    reference_margins: list[float] = field(default_factory=list[float])
    margins: list[float] = field(default_factory=list[float])

    def __add__(self, other: "_Tokens") -> "_Tokens":
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return _Tokens(*(a + b for a, b in pairs))

    def summary(self) -> dict[str, Any]:
        has_margin = bool(self.margins)
        return {
            "n_tokens": len(self.is_same),
            "token_agreement": float(np.mean(self.is_same)),
            "free_token_agreement": float(np.mean(self.is_same_freely)),
            "mean_logit_error": float(np.mean(self.mean_errors)),
            "max_logit_error": max(self.max_errors),
            "mean_kl": float(np.mean(self.divergences)),
            "p99_kl": float(np.quantile(self.divergences, 0.99)),
            "max_kl": max(self.divergences),
            "reference_pad_margin": (
                float(np.mean(self.reference_margins)) if has_margin else None
            ),
            "pad_margin": float(np.mean(self.margins)) if has_margin else None,
        }


def _compare(a: ModelReading, b: ModelReading) -> _Tokens:
    """Token by token: a long sound's logits are more than memory may hold."""
    tokens = _Tokens()
    assert len(a.ids) == len(b.ids) == len(a.logits) == len(b.logits)
    tokens.is_same_freely = (a.ids == b.ids).tolist()
    for x, y in zip(a.logits, b.logits, strict=True):
        error = np.abs(x - y)
        tokens.mean_errors.append(float(error.mean(dtype=np.float64)))
        tokens.max_errors.append(float(error.max()))
        tokens.divergences.append(_divergence(x, y))
        choice = _chosen(x)
        tokens.is_same.append(choice == _chosen(y))
        if choice == STREAMING_PAD_ID:
            tokens.reference_margins.append(_pad_margin(x))
            tokens.margins.append(_pad_margin(y))
    return tokens


def _chosen(row: NDArray[np.float32]) -> int:
    """The best id but EOS, as decoding chooses."""
    choosable = np.array(row)
    choosable[EOS_ID] = -np.inf
    return int(choosable.argmax())


def _pad_margin(row: NDArray[np.float32]) -> float:
    others = np.delete(row, [STREAMING_PAD_ID, EOS_ID])
    return float(row[STREAMING_PAD_ID] - others.max())


def _divergence(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """KL(x || y) in nats."""
    p, q = _log_softmax(x), _log_softmax(y)
    return float((np.exp(p) * (p - q)).sum())


def _log_softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    x = row.astype(np.float64) - row.max()
    return x - np.log(np.exp(x).sum())
