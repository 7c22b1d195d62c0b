"""The loop of ids: each pass takes streams further by positions and chooses ids.

A stream's request brings audio embeddings. The input of a position is its embedding and
the id before it, so ids come one after another. One pass (`decode_together`):

    inputs    each request gives the positions whose ids before are certain or guessed
    network   one call for all of them gives logits of the positions that choose an id
    choice    greedy ids for all at once; or a request chooses by itself
    receive   each request takes the ids that stand, and trims what followed a wrong guess

Example: A has one position, B is inside its prompt with 20 to go and 25 positions of
sound, C guesses three ids. One pass takes 1 + 21 + 4 positions; logits of 1 + 1 + 4 are
computed. A is done, B has an id, and C has between one and four.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.config import SAMPLES_PER_AUDIO_TOKEN
from voxmlx.decoding.choosing import greedy, logits_of
from voxmlx.decoding.network_requests import (
    DecodeRequest,
    DecodeTogether,
    EncodeRequest,
    Request,
)
from voxmlx.kernels.evaluation import evaluate, evaluate_async
from voxmlx.model.state import VoxtralState
from voxmlx.model.voxtral import Samples, VoxtralRealtime

__all__ = [
    "MAX_AUDIO_TOKENS_PER_STEP",
    "compute",
    "decode_all",
    "decode_together",
    "greedy_ids",
]

# Sound is worked off in blocks of this many audio tokens (2.56 s): weights are
# read once for all of them, and memory stays bounded for any amount of sound.
MAX_AUDIO_TOKENS_PER_STEP = 32


def decode_together(model: VoxtralRealtime, requests: Sequence[DecodeRequest]) -> None:
    """Take each of the requests one pass further, the same for all of them.

    Positions whose input tokens are all known go through together, so a stream
    inside its prompt takes many at once, and one after it takes one; or as many
    as it speculates on, and keeps those that were right.
    """
    queued = [request.state.token for request in requests]
    parts = [request.next_inputs() for request in requests]
    states = [request.state for request in requests]
    n_chosen = [
        request.takes(tokens.shape[1])
        for request, (_, tokens) in zip(requests, parts, strict=True)
    ]
    logits = model.logits_together(
        [audio for audio, _ in parts], [tokens for _, tokens in parts], states, n_chosen
    )
    if logits is None:
        for state in states:
            evaluate(state.decoder.cache.rings, state.token)
        return
    is_greedy = any(request.needs_greedy for request in requests)
    best = greedy(logits) if is_greedy else None
    leading = None if best is None else logits_of(best, logits)
    first, waited_for = 0, list[mx.array]()
    for request, n in zip(requests, n_chosen, strict=True):
        if n:
            parts_of_one = (_rows(x, first, n) for x in (logits, best, leading))
            waited_for.append(request.receive_logits(*parts_of_one))
        first += n
    # The next pass is built while this one runs, but handed over only now that it
    # has ended: a ring that a queued pass still reads would be copied, not written.
    evaluate(queued)
    evaluate_async([state.token for state in states], waited_for)


def _rows(x: mx.array | None, first: int, n: int) -> Any:
    """Rows of x, if there is one; x itself where they are all of it."""
    return x if x is None or n == len(x) else x[first : first + n]


def decode_all(model: VoxtralRealtime, request: DecodeRequest) -> NDArray[np.int32]:
    """Take one request to the end of its audio: ids [k]."""
    while not request.is_done:
        decode_together(model, [request])
    return request.ids()


def compute(model: VoxtralRealtime, request: Request) -> mx.array | list[int] | None:
    """Return what one stream wants: embeddings [1, k, dim], ids [k], or nothing."""
    match request:
        case EncodeRequest(samples, state):
            return model.encode(samples, state)
        case DecodeRequest():
            return decode_all(model, request).tolist()
        case DecodeTogether(requests):
            while not any(one.is_done for one in requests):
                decode_together(model, requests)
            return None


def greedy_ids(
    model: VoxtralRealtime, samples: Samples, state: VoxtralState
) -> NDArray[np.int32]:
    """Return the greedy ids [k] of samples [1, n] float32, one per audio token.

    An id is NO_TOKEN while the prompt is not over. The end-of-sequence id is
    never chosen: a stream has no end but its owner's, and a decoder fed its own
    EOS goes on where no training sequence ever went.
    """
    block = MAX_AUDIO_TOKENS_PER_STEP * SAMPLES_PER_AUDIO_TOKEN
    ids = [np.zeros(0, np.int32)]
    for start in range(0, samples.shape[1], block):
        audio = model.encode(samples[:, start : start + block], state)
        ids.append(decode_all(model, DecodeRequest(audio, state)))
    return np.concatenate(ids)
