"""Sound in, ids out: batches, far positions, copies, and no end of sequence."""

import mlx.core as mx
import numpy as np
import pytest

from tests.sounds import speech_like
from voxmlx.checkpoint import Checkpoint
from voxmlx.config import EOS_ID, LEFT_PAD_TOKENS, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.decoding.choosing import greedy
from voxmlx.decoding.decoded import NO_TOKEN
from voxmlx.decoding.loop import decode_all, greedy_ids
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.session import Session

SECONDS = 12


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Left pad and speech, [1, n]."""
    pad = np.zeros(LEFT_PAD_TOKENS * SAMPLES_PER_AUDIO_TOKEN, np.float32)
    return np.concatenate([pad, speech_like(SECONDS * 16_000 + 40, seed=5)])[None]


@pytest.mark.parametrize("delay_ms", [80, 480, 2400])
def test_the_first_id_comes_once_the_prompt_is_heard(
    tiny_checkpoint: Checkpoint, sound: np.ndarray, delay_ms: int
) -> None:
    model = tiny_checkpoint.model
    ids = greedy_ids(model, sound, model.make_state(delay_ms))
    n_prompt = LEFT_PAD_TOKENS + delay_ms // 80 + 1
    assert (ids[: n_prompt - 1] == NO_TOKEN).all()
    assert (ids[n_prompt - 1 :] >= 0).all()
    assert len(ids) == LEFT_PAD_TOKENS + SECONDS * 16_000 // SAMPLES_PER_AUDIO_TOKEN


@pytest.mark.parametrize("position", [10**6, 10**7])
def test_logits_far_into_a_stream_equal_those_at_its_start(
    tiny_checkpoint: Checkpoint, sound: np.ndarray, position: int
) -> None:
    model = tiny_checkpoint.model
    logits = []
    for start in (0, position):
        state = model.make_state(480, position=start)
        audio = model.encode(mx.array(sound), state)
        x = audio + model.decoder.embed(mx.full((1, audio.shape[1]), 32))
        logits.append(np.array(model.decoder.step(x, state.decoder)))
    # Tighter than the 1e-3 one may ask for: only rounding of cos and sin differs.
    np.testing.assert_allclose(logits[1], logits[0], rtol=0, atol=1e-4)


def test_a_copied_state_goes_its_own_way(
    tiny_checkpoint: Checkpoint, sound: np.ndarray
) -> None:
    model = tiny_checkpoint.model
    half = sound.shape[1] // 2
    first, second = mx.array(sound[:, :half]), mx.array(sound[:, half:])
    state = model.make_state(480)
    greedy_ids(model, first, state)
    copy = state.copy()
    expected = greedy_ids(model, second, state)
    greedy_ids(model, speech_like(20_000, seed=8)[None], copy.copy())
    np.testing.assert_array_equal(greedy_ids(model, second, copy), expected)


@pytest.mark.parametrize("delay_ms", [80, 2400])
def test_an_opened_stream_goes_on_as_one_that_heard_the_silence_itself(
    tiny_checkpoint: Checkpoint, sound: np.ndarray, delay_ms: int
) -> None:
    model = tiny_checkpoint.model
    n = model.n_silent_samples
    fresh = model.make_state(delay_ms)
    heard = greedy_ids(model, sound[:, :n], fresh)
    assert heard.shape == (LEFT_PAD_TOKENS - 1,)
    rest = mx.array(sound[:, n:])
    expected = greedy_ids(model, rest, fresh)
    first, second = model.open_state(delay_ms), model.open_state(delay_ms)
    for state in (first, second):
        np.testing.assert_array_equal(greedy_ids(model, rest, state), expected)
    assert second.decoder.cache.n_slots == fresh.decoder.cache.n_slots


def test_opening_another_stream_of_a_delay_runs_no_layer(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_checkpoint.model
    Session(tiny_checkpoint, delay_ms=960)
    monkeypatch.setattr(type(model.encoder), "step_together", None)
    monkeypatch.setattr(type(model.decoder), "step_together", None)
    assert Session(tiny_checkpoint, delay_ms=960).samples_wanted < 1280


def test_end_of_sequence_is_never_chosen() -> None:
    logits = mx.zeros((2, 10))
    logits[:, EOS_ID] = 5.0
    logits[1, 7] = 1.0
    assert greedy(logits).tolist() == [0, 7]


def test_a_pass_is_queued_only_when_the_one_before_has_ended(
    tiny_checkpoint: Checkpoint, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two passes that are both on their way give a ring two owners, and it is copied.
    model = tiny_checkpoint.model
    state = model.open_state(80)
    greedy_ids(model, sound[:, : 40 * 1280], state)
    cache = state.decoder.cache
    assert cache.n_slots == cache.capacity

    def buffers() -> list[int]:
        views = [np.array(ring, copy=False) for ring in cache.rings]
        return [view.__array_interface__["data"][0] for view in views]

    order: list[tuple[str, mx.array]] = []
    wait, queue = mx.eval, mx.async_eval

    def waited(tokens: list[mx.array]) -> None:
        order.append(("waited", tokens[0]))
        wait(tokens)

    def queued(tokens: list[mx.array], *others: object) -> None:
        order.append(("queued", tokens[0]))
        queue(tokens, *others)

    audio = mx.random.normal((1, 8, model.config.decoder.dim))
    mx.eval(audio, cache.rings)
    before = buffers()
    with monkeypatch.context() as patched:
        patched.setattr(mx, "eval", waited)
        patched.setattr(mx, "async_eval", queued)
        decode_all(model, DecodeRequest(audio, state))
    assert [what for what, _ in order] == ["waited", "queued"] * 8
    tokens = [token for _, token in order]
    for pass_queued, then_waited in zip(tokens[1:-1:2], tokens[2::2], strict=True):
        assert pass_queued is then_waited
    mx.eval(cache.rings)
    assert buffers() == before
