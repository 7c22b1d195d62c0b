"""A session's promises to its owner."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings

from tests.contract import cut, piece_sizes
from tests.driven import drive
from tests.sounds import speech_like
from voxmlx import (
    LEGAL_DELAYS_MS,
    Checkpoint,
    Event,
    Finished,
    Session,
    TextDelta,
    TokenDecoded,
    Transcript,
    UtteranceEnd,
    WordFinal,
)
from voxmlx.config import EOS_ID
from voxmlx.decoding.choosing import greedy
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.decoding.rules import GUARDS
from voxmlx.errors import AudioError, DelayError, SessionError

SOUND = speech_like(4 * 16_000 + 777, seed=11)


def transcribe(
    checkpoint: Checkpoint, pieces: Sequence[np.ndarray], delay_ms: int = 480
) -> list[Event]:
    session = Session(checkpoint, delay_ms=delay_ms)
    events = [event for piece in pieces for event in session.push(piece)]
    return events + session.finish()


def ids(events: Sequence[Event]) -> list[int]:
    return [e.token_id for e in events if isinstance(e, TokenDecoded)]


def text(events: Sequence[Event]) -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta))


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Checkpoint) -> list[Event]:
    """What SOUND says when it arrives in one piece."""
    return transcribe(tiny_checkpoint, [SOUND])


@given(sizes=piece_sizes(len(SOUND)))
@settings(max_examples=15, deadline=None)
def test_ids_and_text_do_not_depend_on_block_size(
    tiny_checkpoint: Checkpoint, whole: list[Event], sizes: list[int]
) -> None:
    pieces = transcribe(tiny_checkpoint, cut(SOUND, sizes))
    assert ids(pieces) == ids(whole)
    assert text(pieces) == text(whole)


def test_single_samples_give_the_same_ids(tiny_checkpoint: Checkpoint) -> None:
    sound = SOUND[:4000]
    pieces = [sound[i : i + 1] for i in range(len(sound))]
    assert ids(transcribe(tiny_checkpoint, pieces)) == ids(
        transcribe(tiny_checkpoint, [sound])
    )


@pytest.mark.parametrize("n_samples", [0, 1, 1279, 1280, 1281, 16_000])
@pytest.mark.parametrize("delay_ms", [80, 480, 2400])
def test_a_stream_gives_one_id_per_audio_token_and_ten_more(
    tiny_checkpoint: Checkpoint, n_samples: int, delay_ms: int
) -> None:
    events = transcribe(tiny_checkpoint, [SOUND[:n_samples]], delay_ms)
    assert len(ids(events)) == -(-n_samples // 1280) + 10
    assert events[-1] == Finished(n_samples // 16, len(ids(events)))


@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize("piece", [1, 160, 1280])
def test_an_id_comes_with_the_sample_that_completes_its_sound(
    tiny_checkpoint: Checkpoint, piece: int, speculate: bool
) -> None:
    session = Session(tiny_checkpoint, speculate=speculate)
    n_ids = 0
    # The prompt's positions give no id: the first comes with the sound's second.
    due = session.samples_wanted + 1280 * (1 + session.delay_ms // 80)
    n_heard = due - 4 * 1280 - 7
    assert ids(session.push(SOUND[:n_heard])) == []
    while n_heard < due + 5 * 1280:
        wanted = session.samples_wanted
        n = min(piece, wanted - 1)
        if n:
            assert ids(session.push(SOUND[n_heard : n_heard + n])) == []
            n_heard += n
        else:
            came = ids(session.push(SOUND[n_heard : n_heard + 1]))
            n_heard += 1
            n_ids += len(came)
            assert len(came) == (n_heard >= due)
    assert n_ids == 6


def test_int16_and_float64_are_heard_as_float32(tiny_checkpoint: Checkpoint) -> None:
    sound = SOUND[:32_000]
    expected = ids(transcribe(tiny_checkpoint, [sound]))
    pcm = (sound * 32768).astype(np.int16)
    assert ids(transcribe(tiny_checkpoint, [pcm])) == expected
    assert ids(transcribe(tiny_checkpoint, [sound.astype(np.float64)])) == expected


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (np.zeros((10, 2), np.float32), r"float32 of shape \[10, 2\]"),
        (np.zeros((1, 10), np.int16), r"int16 of shape \[1, 10\]"),
        (np.zeros(10, np.int32), "int32"),
        (np.zeros(10, np.complex64), "complex64"),
        (np.array(0.5, np.float32), r"shape \[\]"),
        (np.array([0, np.nan, 0], np.float32), "sample 1 of 3 .* is nan"),
        (np.array([0, 0, -np.inf]), "sample 2 of 3 .* is -inf"),
        (np.array([1e300]), "sample 0"),
        ([0.0, 0.1], "list"),
    ],
)
def test_bad_sound_is_refused_and_the_session_goes_on(
    tiny_checkpoint: Checkpoint, whole: list[Event], bad: np.ndarray, named: str
) -> None:
    session = Session(tiny_checkpoint)
    events = session.push(SOUND[:20_000])
    with pytest.raises(AudioError, match=named):
        session.push(bad)
    events += session.push(SOUND[20_000:]) + session.finish()
    assert ids(events) == ids(whole)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_a_caller_may_use_its_buffer_again(
    tiny_checkpoint: Checkpoint, dtype: type
) -> None:
    scale = 32767 if dtype is np.int16 else 1
    sound = (SOUND * scale).astype(dtype)
    session, careful = Session(tiny_checkpoint), Session(tiny_checkpoint)
    buffer = np.zeros(1000, dtype)
    events: list[Event] = []
    expected: list[Event] = []
    for start in range(0, len(sound) - 999, 1000):
        buffer[:] = sound[start : start + 1000]
        events += session.push(buffer)
        buffer[:] = scale  # before the audio token is whole
        expected += careful.push(sound[start : start + 1000].copy())
    assert events + session.finish() == expected + careful.finish()


@pytest.mark.parametrize("delay_ms", [0, 20, 100, -80, 1280, 2480, 480.5, "480", True])
def test_an_illegal_delay_is_refused_with_the_legal_ones(
    tiny_checkpoint: Checkpoint, delay_ms: int
) -> None:
    with pytest.raises(DelayError, match=r"80, 160, .* 1200, 2400"):
        Session(tiny_checkpoint, delay_ms=delay_ms)


def test_every_legal_delay_is_accepted(tiny_checkpoint: Checkpoint) -> None:
    assert len(LEGAL_DELAYS_MS) == 16
    for delay_ms in LEGAL_DELAYS_MS:
        assert Session(tiny_checkpoint, delay_ms=delay_ms).delay_ms == delay_ms


def test_a_finished_session_takes_no_more_sound(tiny_checkpoint: Checkpoint) -> None:
    session = Session(tiny_checkpoint)
    session.finish()
    assert session.finish() == []
    with pytest.raises(SessionError, match="open a new Session"):
        session.push(SOUND)
    with pytest.raises(SessionError, match="open a new Session"):
        session.flush()


def test_flush_is_silence_and_the_stream_goes_on(tiny_checkpoint: Checkpoint) -> None:
    session = Session(tiny_checkpoint, delay_ms=240)
    first = session.push(SOUND[:20_000])
    n_before = len(ids(first))
    first += session.flush()
    # Every audio token pushed so far, and 0.8 s more, has its id now.
    assert len(ids(first)) == -(-20_000 // 1280) + 10 > n_before
    lookahead = tiny_checkpoint.model.mel.lookahead
    silence = np.zeros(-20_000 % 1280 + (3 + 10) * 1280 + lookahead, np.float32)
    assert session.duration_ms == (20_000 + len(silence)) // 16
    events = first + session.push(SOUND[20_000:]) + session.finish()
    heard = [SOUND[:20_000], silence, SOUND[20_000:]]
    assert ids(events) == ids(transcribe(tiny_checkpoint, heard, 240))


def test_two_sessions_with_different_delays_do_not_disturb_each_other(
    tiny_checkpoint: Checkpoint,
) -> None:
    sessions = {ms: Session(tiny_checkpoint, delay_ms=ms) for ms in (80, 2400)}
    events: dict[int, list[Event]] = {80: [], 2400: []}
    for piece in np.split(SOUND, range(3000, len(SOUND), 3000)):
        for ms, session in sessions.items():
            events[ms] += session.push(piece)
    for ms, session in sessions.items():
        events[ms] += session.finish()
        assert ids(events[ms]) == ids(transcribe(tiny_checkpoint, [SOUND], ms))


def test_times_are_stream_time_and_never_decrease(tiny_checkpoint: Checkpoint) -> None:
    events = transcribe(tiny_checkpoint, [SOUND])
    tokens = [e for e in events if isinstance(e, TokenDecoded)]
    assert [t.index for t in tokens] == list(range(len(tokens)))
    assert [t.time_ms for t in tokens] == [80 * (i + 1) for i in range(len(tokens))]
    times = [e.time_ms for e in events if isinstance(e, TextDelta)]
    assert times == sorted(times)


def test_text_is_the_decoding_of_all_ids(tiny_checkpoint: Checkpoint) -> None:
    events = transcribe(tiny_checkpoint, [SOUND])
    assert text(events) == tiny_checkpoint.tokenizer.decode(ids(events))
    assert text(events)


def test_nothing_a_session_holds_grows(tiny_checkpoint: Checkpoint) -> None:
    session = Session(tiny_checkpoint)

    def held() -> dict[str, int]:
        state = session.state
        arrays = [*state.encoder.cache.rings, *state.decoder.cache.rings]
        arrays += [
            state.mel.pending,
            state.encoder.pending,
            state.token,
            *state.encoder.cache.waiting,
        ]
        sizes = {f"array {i}": a.size for i, a in enumerate(arrays)}
        sizes["pending"] = session.timeline.n_waiting
        return sizes

    piece = SOUND[: 1280 * 20]
    session.push(piece)
    before = held()
    for _ in range(8):
        session.push(piece)
    assert held() == before


def test_words_are_the_text_and_come_in_order(
    tiny_checkpoint: Checkpoint, whole: list[Event]
) -> None:
    words = [e.word for e in whole if isinstance(e, WordFinal)]
    assert "".join(w.lead + w.text for w in words).strip() == text(whole).strip()
    times = [time for w in words for time in (w.start_ms, w.end_ms)]
    assert times == sorted(times)
    assert times[-1] <= len(SOUND) // 16
    assert Transcript.from_events(whole).text == text(whole).strip()


def test_events_do_not_depend_on_block_size_whatever_is_asked_for(
    tiny_checkpoint: Checkpoint,
) -> None:
    options = {
        "guards": tuple(GUARDS),
        "hotwords": ["the ring", "you"],
        "hotword_boost": 4.0,
        "replacements": {"a": "b"},
        "confidence": True,
        "pause_ms": 400,
    }

    def heard(size: int) -> list[Event]:
        session = Session(tiny_checkpoint, **options)
        pieces = np.split(SOUND, range(size, len(SOUND), size))
        return [e for p in pieces for e in session.push(p)] + session.finish()

    expected = heard(len(SOUND))
    for size in (997, 20_000):
        events = heard(size)
        assert [type(e) for e in events] == [type(e) for e in expected]
        for event, other in zip(events, expected, strict=True):
            match event, other:
                case TokenDecoded(logprob=float(a)), TokenDecoded(logprob=float(b)):
                    # Steps of another size add up in another order.
                    assert a == pytest.approx(b, abs=1e-3)
                case WordFinal(word=word), WordFinal(word=expected_word):
                    assert (word.text, word.start_ms, word.end_ms) == (
                        expected_word.text,
                        expected_word.start_ms,
                        expected_word.end_ms,
                    )
                case _:
                    assert event == other


def test_logprobs_are_those_of_the_models_logits(tiny_checkpoint: Checkpoint) -> None:
    session = Session(tiny_checkpoint, alternatives=5)
    tokens = [
        e
        for e in session.push(SOUND[:30_000]) + session.finish()
        if isinstance(e, TokenDecoded)
    ]
    seen: list[np.ndarray] = []

    def choose(logits: mx.array) -> mx.array:
        seen.append(np.array(logits[0], np.float64))
        return greedy(logits)

    def noted(request: DecodeRequest) -> None:
        request.choose = choose

    plain = Session(tiny_checkpoint)
    plain.timeline.push(SOUND[:30_000])
    plain.timeline.end()
    assert ids(drive(plain, tiny_checkpoint.model, noted)) == [
        token.token_id for token in tokens
    ]
    for token, logits in zip(tokens, seen, strict=True):
        logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert token.logprob == pytest.approx(logprobs[token.token_id], abs=1e-3)
        best = np.argsort(-logprobs)[:5]
        assert [a.logprob for a in token.alternatives] == pytest.approx(
            logprobs[best], abs=1e-3
        )
        assert token.alternatives[0].token_id in (token.token_id, EOS_ID)


def test_nothing_is_known_that_was_not_asked_for(whole: list[Event]) -> None:
    assert {e.logprob for e in whole if isinstance(e, TokenDecoded)} == {None}
    assert {e.alternatives for e in whole if isinstance(e, TokenDecoded)} == {()}
    assert {e.word.confidence for e in whole if isinstance(e, WordFinal)} == {None}


def test_the_stream_ends_its_last_utterance(whole: list[Event]) -> None:
    ends = [i for i, e in enumerate(whole) if isinstance(e, UtteranceEnd)]
    last_word = max(i for i, e in enumerate(whole) if isinstance(e, WordFinal))
    assert ends[-1] > last_word
    assert ends[-1] < len(whole) - 1


def test_the_end_of_a_block_finishes_the_stream_and_loses_no_word(
    tiny_checkpoint: Checkpoint, whole: list[Event]
) -> None:
    with Session(tiny_checkpoint) as session:
        events = session.push(SOUND)
    assert session.is_finished
    with pytest.raises(SessionError, match="after finish"):
        session.push(SOUND)
    assert events + session.finish() == whole
    assert session.finish() == []
    with Session(tiny_checkpoint) as session:
        events = session.push(SOUND) + session.finish()
    assert events == whole
    assert session.finish() == []


def test_an_exception_leaves_the_stream_to_its_owner(
    tiny_checkpoint: Checkpoint, whole: list[Event]
) -> None:
    session = Session(tiny_checkpoint)
    events = session.push(SOUND)
    with pytest.raises(AudioError), session:
        session.push(SOUND[None])
    assert not session.is_finished
    assert events + session.finish() == whole
