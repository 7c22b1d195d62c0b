"""Our network taken apart: what each stage makes of a whole sound."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from voxmlx import Checkpoint, Session, TokenDecoded

__all__ = ["Stages", "logits", "session_ids", "stages"]


@dataclass(frozen=True, slots=True)
class Stages:
    """Log-mel [F, 128], encoder frames [F / 2, dim], audio embeddings [F / 8, dim]."""

    mel: np.ndarray
    encoder: np.ndarray
    adapter: np.ndarray


def stages(checkpoint: Checkpoint, padded: np.ndarray) -> Stages:
    """Hear already padded samples [n], n whole audio tokens, in one step a stage."""
    model = checkpoint.model
    samples = np.pad(padded, (0, model.mel.lookahead))
    mel = model.mel.step(mx.array(samples)[None], model.mel.make_state())
    encoder = model.encoder.step(mel, model.encoder.make_state())
    adapter = model.adapter(encoder)
    return Stages(*(np.array(output)[0] for output in (mel, encoder, adapter)))


def logits(
    checkpoint: Checkpoint,
    audio_embeddings: np.ndarray,
    delay_ms: int,
    token_ids: Sequence[int],
) -> np.ndarray:
    """Logits [len(token_ids), vocab] when position p is given token_ids[p]."""
    decoder = checkpoint.model.decoder
    audio = mx.array(audio_embeddings[: len(token_ids)])[None]
    embeddings = audio + decoder.embed(mx.array([list(token_ids)]))
    state = decoder.make_state([delay_ms // 80])
    return np.array(decoder.step(embeddings, state))[0]


def session_ids(
    checkpoint: Checkpoint, samples: np.ndarray, delay_ms: int
) -> list[int]:
    """The ids of a session that hears `samples` at once and is finished."""
    session = Session(checkpoint, delay_ms=delay_ms)
    events = session.push(samples) + session.finish()
    return [event.token_id for event in events if isinstance(event, TokenDecoded)]
