"""Chunking is not observable where NumPy computes, as a CPU without a GPU does."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.contract import cut, said_together
from tests.decoding.test_guesses import Free
from tests.sounds import speech_like
from voxmlx import Batch, Checkpoint, Event, Session, TokenDecoded
from voxmlx.kernels import kernel_switches
from voxmlx.kernels.switches import NUMPY

if mx.metal.is_available():
    pytest.skip("layers run in NumPy where there is no GPU", allow_module_level=True)

# The tiny rings wrap every 32 ids, the encoder's every 16 frames.
SOUND = speech_like(100_000)
SIZES = [[1280] * 100, [7, 0, 12_801, 3, 30_000], [1, 1279, 5, 50_000]]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"speculate": True},
    {"silence_block": 8},
    {"draft_delay_ms": 80},
    {"guards": ["pad_run"]},
    {"kv_bits": 8},
]


@pytest.fixture(autouse=True)
def _in_numpy() -> Iterator[None]:
    with kernel_switches().trying(NUMPY):
        yield


def ids(events: list[Event]) -> list[int]:
    return [event.token_id for event in events if isinstance(event, TokenDecoded)]


def whole(checkpoint: Checkpoint, **options: Any) -> list[int]:
    session = Session(checkpoint, **options)
    return ids(session.push(SOUND) + session.finish())


@pytest.mark.parametrize("options", OPTIONS, ids=lambda one: " ".join(one) or "plain")
@pytest.mark.parametrize("sizes", SIZES, ids=["tokens", "ragged", "late"])
def test_ids_do_not_depend_on_the_pieces(
    tiny_checkpoint: Checkpoint, sizes: list[int], options: dict[str, Any]
) -> None:
    if options.get("speculate"):
        options = {"speculate": Free()}
    session = Session(tiny_checkpoint, **options)
    heard = [event for piece in cut(SOUND, sizes) for event in session.push(piece)]
    assert ids(heard + session.finish()) == whole(tiny_checkpoint)


def test_sessions_of_a_batch_say_what_each_says_alone(
    tiny_checkpoint: Checkpoint,
) -> None:
    delays = [80, 480, 2400]
    sessions = [Session(tiny_checkpoint, delay_ms=delay_ms) for delay_ms in delays]
    said = said_together(Batch(tiny_checkpoint.model), dict.fromkeys(sessions, SOUND))
    alone = [whole(tiny_checkpoint, delay_ms=delay_ms) for delay_ms in delays]
    assert [ids(events) for events in said.values()] == alone


def test_a_stream_does_not_grow(tiny_checkpoint: Checkpoint) -> None:
    session = Session(tiny_checkpoint)
    sizes: list[int] = []
    for _ in range(8):
        session.push(np.resize(SOUND, 80_000))
        sizes.append(sum(array.nbytes for array in session.arrays()))
    # Windows are full; a few samples more or less wait for their audio token.
    assert max(sizes[4:]) <= max(sizes[2:4])
