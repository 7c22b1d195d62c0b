"""A model's reading of sounds: what it writes down, and its logits, several at a time."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx import Checkpoint
from voxmlx.config import (
    BOS_ID,
    SAMPLES_PER_AUDIO_TOKEN,
    STREAMING_PAD_ID,
    DecoderConfig,
    EncoderConfig,
    delay_tokens,
)
from voxmlx.decoding.decoded import NOT_FINITE
from voxmlx.decoding.loop import decode_together
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.errors import CheckpointError
from voxmlx.kernels.evaluation import as_numpy, evaluate
from voxmlx.model import VoxtralRealtime
from voxmlx.model.cache import RingKVCache

from .disk import disk_errors
from .quality import DELAY_MS, ModelReading, Sound

__all__ = [
    "chosen_ids",
    "forced_logits",
    "forced_together",
    "free_ids",
    "heard",
    "padded",
    "prompt_ids",
    "read",
    "read_together",
    "ring_of_layer",
    "stem_frames",
]

# Larger ones are no logits: their differences would be infinite.
_LARGEST_LOGIT = 1e30

# Positions per pass, of one stream and of all: bounds what scores and logits take.
_POSITIONS = 64
_ALL_POSITIONS = 256
# Sounds that are read side by side, as long as they are short.
_ROWS = 16
_GROUP_TOKENS = 4000


def read(
    checkpoint: Checkpoint,
    sounds: Sequence[Sound],
    directory: Path,
    histories: Sequence[NDArray[np.int32]] | None = None,
) -> Iterator[ModelReading]:
    """Read all sounds in order, as many side by side as pay.

    `histories` are the ids that the logits follow; None: those that the model chooses.
    """
    start = 0
    while start < len(sounds):
        end, n_tokens = start, 0
        while end < len(sounds) and end - start < _ROWS:
            n_tokens += sounds[end].n_tokens
            if end > start and n_tokens > _GROUP_TOKENS:
                break
            end += 1
        known = None if histories is None else histories[start:end]
        yield from read_together(checkpoint, sounds[start:end], directory, known)
        start = end


def read_together(
    checkpoint: Checkpoint,
    sounds: Sequence[Sound],
    directory: Path,
    histories: Sequence[NDArray[np.int32]] | None = None,
) -> list[ModelReading]:
    """Transcribe freely, then once more with `histories` (None: the same ids)."""
    audio = heard(checkpoint, sounds)
    chosen = free_ids(checkpoint, audio)
    forced = chosen if histories is None else histories
    vocab = checkpoint.config.decoder.vocab_size
    readings: list[ModelReading] = []
    with disk_errors(directory), ExitStack() as opened:
        files = [
            opened.enter_context(
                tempfile.NamedTemporaryFile(dir=directory, suffix=".logits")
            )
            for _ in sounds
        ]
        # Written, not mapped for writing: there a full disk is a signal that kills.
        for i, block in forced_together(checkpoint, audio, forced):
            files[i].write(block.data)
        for file, own, history in zip(files, chosen, forced, strict=True):
            file.flush()
            shape = len(history), vocab
            logits = np.memmap(file.name, np.float32, "r", shape=shape)
            text = checkpoint.tokenizer.decode(own.tolist())
            readings.append(ModelReading(own, logits, text))
    return readings


def forced_logits(
    checkpoint: Checkpoint, samples: NDArray[np.float32], ids: NDArray[np.int32]
) -> Iterator[NDArray[np.float32]]:
    """Logits [n, vocab] that a model gives where `ids` were chosen, in blocks.

    `samples` are padded; the history is the prompt and then `ids`, whatever this
    model would have chosen itself.
    """
    audio = _encoded(checkpoint, [samples])
    yield from (block for _, block in forced_together(checkpoint, audio, [ids]))


def heard(checkpoint: Checkpoint, sounds: Sequence[Sound]) -> list[mx.array]:
    """Return the audio embeddings [1, n, dim] of each sound, silence around it."""
    model = checkpoint.model
    return _encoded(checkpoint, [padded(model, sound) for sound in sounds])


def padded(model: VoxtralRealtime, sound: Sound) -> NDArray[np.float32]:
    """Return the samples [n] of a whole stream: the sound, and silence around it."""
    samples = sound.padded_by(model.left_pad_tokens)
    return np.pad(samples, (0, model.mel.lookahead))


def prompt_ids(model: VoxtralRealtime) -> list[int]:
    """Return the ids before the first that the model chooses."""
    return [BOS_ID] + [STREAMING_PAD_ID] * (
        model.left_pad_tokens + delay_tokens(DELAY_MS)
    )


def stem_frames(model: VoxtralRealtime, sound: Sound, dtype: mx.Dtype) -> mx.array:
    """Return the encoder frames [1, 4 n, dim] as the first layer gets them."""
    encoder = model.encoder
    samples = mx.array(padded(model, sound))[None]
    mel_frames = model.mel.step(samples, model.mel.make_state())
    state = encoder.stem.make_state(1)
    (frames,) = encoder.stem.step_together([mel_frames.astype(dtype)], [state])
    n = frames.shape[1] // encoder.group * encoder.group
    evaluate(frames)
    return frames[:, :n]


def ring_of_layer(
    config: EncoderConfig | DecoderConfig, batch: int, step: int, dtype: mx.Dtype
) -> RingKVCache:
    """Return the empty ring of one layer, for `batch` streams side by side."""
    return RingKVCache.make(
        n_layers=1,
        batch=batch,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        window=config.sliding_window,
        step=step,
        dtype=dtype,
    )


def free_ids(
    checkpoint: Checkpoint, audio: Sequence[mx.array]
) -> list[NDArray[np.int32]]:
    """Return the ids that the model chooses by itself after each prompt."""
    model = checkpoint.model
    requests = [DecodeRequest(x, model.make_state(DELAY_MS)) for x in audio]
    while left := [request for request in requests if not request.is_done]:
        decode_together(model, left)
    return [chosen_ids(request) for request in requests]


def chosen_ids(request: DecodeRequest) -> NDArray[np.int32]:
    """Return the ids that were chosen after the prompt. Raises CheckpointError."""
    ids = request.ids()
    if NOT_FINITE in ids:
        raise _not_finite()
    return ids[ids >= 0]


def _not_finite() -> CheckpointError:
    return CheckpointError(
        "the model gives logits that are NaN, infinite or above 1e30; its weights are "
        "damaged, so fetch it again, or too large for the type they are computed in"
    )


def _encoded(
    checkpoint: Checkpoint, samples: Sequence[NDArray[np.float32]]
) -> list[mx.array]:
    """Audio embeddings [1, n, dim] of each of several padded sounds."""
    model = checkpoint.model
    states = [model.make_state(DELAY_MS) for _ in samples]
    parts: list[list[mx.array]] = [[] for _ in samples]
    piece = _positions(len(samples)) * SAMPLES_PER_AUDIO_TOKEN
    for start in range(0, max(map(len, samples)), piece):
        left = [i for i, x in enumerate(samples) if len(x) > start]
        blocks = [mx.array(samples[i][start : start + piece])[None] for i in left]
        found = model.encode_together(blocks, [states[i] for i in left])
        for i, x in zip(left, found, strict=True):
            parts[i].append(x)
    joined = [mx.concatenate(of_one, axis=1) for of_one in parts]
    evaluate(joined)
    return joined


def _positions(n_streams: int) -> int:
    return max(1, min(_POSITIONS, _ALL_POSITIONS // n_streams))


def forced_together(
    checkpoint: Checkpoint,
    audio: Sequence[mx.array],
    histories: Iterable[NDArray[np.int32]],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Logits [n, vocab] of sound i, as (i, logits), each sound's in order."""
    model = checkpoint.model
    states = [model.make_state(DELAY_MS).decoder for _ in audio]
    prompt = prompt_ids(model)
    n_prompt = len(prompt)
    tokens = [
        np.concatenate([prompt, ids[:-1]])[: x.shape[1]]
        for x, ids in zip(audio, histories, strict=True)
    ]
    size = _positions(len(audio))
    for start in range(0, max(map(len, tokens)), size):
        left = [i for i, known in enumerate(tokens) if len(known) > start]
        inputs: list[mx.array] = []
        n_logits: list[int] = []
        for i in left:
            known = mx.array(tokens[i][None, start : start + size].astype(np.int32))
            n = known.shape[1]
            inputs.append(audio[i][:, start : start + n] + model.decoder.embed(known))
            # The last prompt position is the first whose logits choose an id.
            n_logits.append(min(n, max(0, start + n - (n_prompt - 1))))
        of_left = [states[i] for i in left]
        logits = model.decoder.step_together(inputs, of_left, n_logits)
        if logits is None:
            evaluate([state.cache.arrays() for state in of_left])
            continue
        rows = np.asarray(as_numpy(logits.astype(mx.float32)), np.float32)
        if not np.abs(rows).max(initial=0) < _LARGEST_LOGIT:
            raise _not_finite()
        ends = np.cumsum(n_logits)
        for i, n, end in zip(left, n_logits, ends.tolist(), strict=True):
            if n:
                yield i, rows[end - n : end]
