"""The cost of a conversion: its logits and text against the source's."""

# pyright: standard
# mlx.nn has no types.

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten
from numpy.typing import NDArray

from voxmlx import Checkpoint
from voxmlx.audio.files import open_audio
from voxmlx.config import (
    BOS_ID,
    DEFAULT_DELAY_MS,
    EOS_ID,
    LEFT_PAD_TOKENS,
    RIGHT_PAD_TOKENS,
    SAMPLES_PER_AUDIO_TOKEN,
    STREAMING_PAD_ID,
    delay_tokens,
)
from voxmlx.decoding.loop import decode_all
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.errors import AudioError
from voxmlx.model import VoxtralRealtime
from voxmlx.model.linear import transpose_weights_for_cpu

from .disk import disk_errors
from .word_errors import NORMALIZER, check_installed, word_errors

__all__ = [
    "DELAY_MS",
    "ROW_TITLES",
    "ModelReading",
    "Sound",
    "certificate",
    "dequantize",
    "forced_logits",
    "is_certified",
    "read",
    "read_sounds",
    "summary_line",
    "table_row",
]

DELAY_MS = DEFAULT_DELAY_MS
# Positions of the decoder per pass; bounds the memory logits take.
_POSITIONS = 64


@dataclass(frozen=True, slots=True)
class Sound:
    """One sound to measure with, and what was said if somebody wrote it down."""

    name: str
    samples: NDArray[np.float32]
    transcript: str | None

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
    """Return whether a model's quality.json is of these sounds, if any are given."""
    path = directory / "quality.json"
    if not sounds:
        return True
    if not path.is_file():
        return False
    rows = json.loads(path.read_text(encoding="utf-8"))["sounds"]
    return [(row["sha256"], row["transcript"]) for row in rows] == [
        (sound.digest, sound.transcript) for sound in sounds
    ]


def read(
    checkpoint: Checkpoint,
    sound: Sound,
    directory: Path,
    history: NDArray[np.int32] | None = None,
) -> ModelReading:
    """Transcribe freely, then once more with `history` (None: the same ids)."""
    model = checkpoint.model
    state = model.make_state(DELAY_MS)
    padded = sound.padded_by(model.left_pad_tokens)
    samples = np.pad(padded, (0, model.mel.lookahead))
    audio = list(_encoded(checkpoint, samples))
    ids = np.concatenate(
        [decode_all(model, DecodeRequest(part, state)) for part in audio]
    )
    ids = ids[ids >= 0]
    forced = ids if history is None else history
    vocab = checkpoint.config.decoder.vocab_size
    with (
        disk_errors(directory),
        tempfile.NamedTemporaryFile(dir=directory, suffix=".logits") as file,
    ):
        # Written, not mapped for writing: there a full disk is a signal that kills.
        for block in _forced(checkpoint, audio, forced):
            file.write(block.data)
        file.flush()
        logits = np.memmap(file.name, np.float32, "r", shape=(len(forced), vocab))
    return ModelReading(ids, logits, checkpoint.tokenizer.decode(ids.tolist()))


def forced_logits(
    checkpoint: Checkpoint, samples: NDArray[np.float32], ids: NDArray[np.int32]
) -> Iterator[NDArray[np.float32]]:
    """Logits [n, vocab] that a model gives where `ids` were chosen, in blocks.

    `samples` are padded; the history is the prompt and then `ids`, whatever this
    model would have chosen itself.
    """
    yield from _forced(checkpoint, _encoded(checkpoint, samples), ids)


def _encoded(
    checkpoint: Checkpoint, samples: NDArray[np.float32]
) -> Iterator[mx.array]:
    """Audio embeddings [1, n, dim] of padded samples, in blocks."""
    state = checkpoint.model.make_state(DELAY_MS)
    piece = _POSITIONS * SAMPLES_PER_AUDIO_TOKEN
    for start in range(0, len(samples), piece):
        block = mx.array(samples[start : start + piece])[None]
        yield checkpoint.model.encode(block, state)


def _forced(
    checkpoint: Checkpoint, blocks: Iterable[mx.array], ids: NDArray[np.int32]
) -> Iterator[NDArray[np.float32]]:
    model = checkpoint.model
    state = model.make_state(DELAY_MS)
    n_prompt = 1 + model.left_pad_tokens + delay_tokens(DELAY_MS)
    tokens = np.concatenate([[BOS_ID], [STREAMING_PAD_ID] * (n_prompt - 1), ids[:-1]])
    done = 0
    for audio in blocks:
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
            mx.eval(state.decoder.cache.arrays())
        done += n


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


def dequantize(model: VoxtralRealtime) -> None:
    """Put matrices of the same values, in float32, in place of quantized ones."""
    changed: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            continue
        weight = mx.dequantize(
            module.weight,
            module.scales,
            module.get("biases"),
            group_size=module.group_size,
            bits=module.bits,
            mode=module.mode,
        ).astype(mx.float32)
        rows, columns = weight.shape
        if isinstance(module, nn.QuantizedEmbedding):
            dense: nn.Module = nn.Embedding(rows, columns)
        else:
            dense = nn.Linear(columns, rows, bias="bias" in module)
            if "bias" in module:
                dense.bias = module.bias
        dense.weight = weight
        changed.append((path, dense))
    tree: Any = tree_unflatten(changed)
    model.update_modules(tree)
    transpose_weights_for_cpu(model)


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
