"""The realtime dialects, message by message, without a network."""

import base64
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serve.scripts import (
    BETA,
    DIALECTS,
    MISTRAL,
    OPENAI,
    Talk,
    append,
    audio,
    first_sound,
    mistral_append,
)
from voxmlx.errors import RequestError
from voxmlx.events import TextDelta, UtteranceEnd, Word, WordFinal
from voxmlx.serve.conversation import Hints
from voxmlx.serve.pcm import ENCODINGS, PcmDecoder
from voxmlx.serve.protocol import Failed, Finish, Flush, Lagging, Open, PushAudio
from voxmlx.serve.stream_options import StreamOptions
from voxmlx.serve.text_buffer import TextBuffer

GA_UPDATE = {"type": "session.update", "session": {"type": "transcription"}}


def types(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


def kinds(talk: Talk) -> list[type]:
    return [type(command) for command in talk.commands]


# ---------------------------------------------------------------- vLLM


def test_a_vllm_client_is_served_as_vllm_documents() -> None:
    talk = Talk()
    assert talk.told[0]["type"] == "session.created"
    assert talk.says({"type": "session.update", "model": "demo"}) == []
    assert talk.says({"type": "input_audio_buffer.commit"}) == []
    assert talk.says(append(160), append(320)) == []
    assert talk.hears(TextDelta(" one", 80)) == [
        {"type": "transcription.delta", "delta": " one"}
    ]
    done = talk.says({"type": "input_audio_buffer.commit", "final": True})
    assert done[-1] == {
        "type": "transcription.done",
        "text": " one end",
        "usage": {"prompt_tokens": 39, "completion_tokens": 2, "total_tokens": 41},
    }
    assert kinds(talk) == [Open, PushAudio, PushAudio, Finish]
    assert talk.n_heard == 480
    assert not talk.is_closed


def test_a_vllm_client_may_leave_out_all_but_its_sound() -> None:
    talk = Talk()
    talk.says(append(), {"type": "input_audio_buffer.commit", "final": True})
    assert kinds(talk) == [Open, PushAudio, Finish]
    assert types(talk.told) == [
        "session.created",
        "transcription.delta",
        "transcription.done",
    ]


def test_another_utterance_follows_on_the_same_connection() -> None:
    talk = Talk()
    for _ in range(3):
        talk.says(append(), {"type": "input_audio_buffer.commit", "final": True})
    assert kinds(talk) == [Open, PushAudio, Finish] * 3
    assert [m["text"] for m in talk.told if m["type"] == "transcription.done"] == [
        " end"
    ] * 3


def test_what_our_own_client_asks_for_it_is_told() -> None:
    talk = Talk()
    updated = talk.says(
        {
            "type": "session.update",
            "model": "demo",
            "delay_ms": 960,
            "pause_ms": 400,
            "hotwords": ["Voxtral"],
            "include": ["words", "lag"],
        }
    )
    assert updated[0]["session"]["delay_ms"] == 960
    talk.says(append())
    assert talk.commands[0] == Open(StreamOptions(960, 400, ("Voxtral",)))
    told = talk.hears(
        TextDelta(" one", 80),
        WordFinal(Word("one", 0, 60), 160),
        UtteranceEnd(0, 60, 400),
        Lagging(20, 0),
    )
    assert told == [
        {"type": "transcription.delta", "delta": " one", "time_ms": 80},
        {
            "type": "transcription.word",
            "text": "one",
            "lead": " ",
            "start_ms": 0,
            "end_ms": 60,
            "time_ms": 160,
        },
        {
            "type": "transcription.utterance_end",
            "start_ms": 0,
            "end_ms": 60,
            "time_ms": 400,
        },
        {"type": "session.lag", "lag_ms": 20, "waiting_ms": 0},
    ]


def test_only_much_lag_and_its_end_are_news_to_others() -> None:
    talk = Talk()
    talk.says(append())
    told = talk.hears(
        Lagging(20, 0), Lagging(1500, 900), Lagging(30, 0), Lagging(20, 0)
    )
    assert [m["lag_ms"] for m in told] == [1500, 30]


@pytest.mark.parametrize("hotwords", [["a"] * 1001, ["a" * 500] * 41, ["a" * 20_001]])
def test_hot_words_that_would_hold_up_others_are_refused(hotwords: list[str]) -> None:
    talk = Talk()
    (error,) = talk.says({"type": "session.update", "hotwords": hotwords})
    assert error["type"] == "error"
    assert "expected at most" in error["error"]
    (updated,) = talk.says({"type": "session.update", "hotwords": ["a" * 20] * 1000})
    assert len(updated["session"]["hotwords"]) == 1000


RATES = [
    (Hints(), lambda rate: {"rate": rate}),
    (
        OPENAI,
        lambda rate: {
            "session": {
                "audio": {"input": {"format": {"type": "audio/pcm", "rate": rate}}}
            }
        },
    ),
    (
        MISTRAL,
        lambda rate: {
            "session": {"audio_format": {"encoding": "pcm_mulaw", "sample_rate": rate}}
        },
    ),
]


@pytest.mark.parametrize(("hints", "wanted"), RATES, ids=["vllm", "openai", "mistral"])
def test_a_short_message_cannot_become_hours_of_sound(
    hints: Hints, wanted: Callable[[int], dict[str, Any]]
) -> None:
    talk = Talk(hints)
    for rate in (1000, 7999, 192_001):
        (error,) = talk.says({"type": "session.update", **wanted(rate)})
        assert error["type"] == "error"
        assert "expected 8000 to 192000" in json.dumps(error)
    for rate in (8000, 192_000):
        (updated,) = talk.says({"type": "session.update", **wanted(rate)})
        assert updated["type"] == "session.updated"


# -------------------------------------------------------------- OpenAI


def test_the_first_greeting_serves_both_dialects_of_its_path() -> None:
    created = Talk().told[0]
    assert created["type"] == "session.created"
    assert {"id", "created", "event_id", "session"} <= set(created)
    assert created["session"]["type"] == "transcription"


@pytest.mark.parametrize("hints", [Hints(), OPENAI])
def test_an_openai_client_hears_turns_that_end_at_pauses(hints: Hints) -> None:
    talk = Talk(hints)
    assert types(talk.says(GA_UPDATE)) == ["session.updated"]
    talk.says(append(2400))
    assert talk.commands[0] == Open(StreamOptions(pause_ms=500))
    first = talk.hears(TextDelta(" one", 800), TextDelta(" two", 1200))
    assert types(first) == [
        "input_audio_buffer.speech_started",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.delta",
    ]
    assert first[0]["audio_start_ms"] == 500
    ended = talk.hears(UtteranceEnd(600, 1250, 1760))
    assert types(ended) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert ended[-1]["transcript"] == "one two"
    assert ended[-1]["usage"] == {"type": "duration", "seconds": 0.1}
    assert ended[-1]["item_id"] == first[0]["item_id"]
    talk.hears(TextDelta(" three", 3000))
    assert (
        talk.hears(UtteranceEnd(0, 1, 2))[1]["previous_item_id"]
        == (first[0]["item_id"])
    )


def test_without_turn_detection_the_client_commits() -> None:
    talk = Talk()
    none = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
    updated = talk.says({"type": "session.update", "session": none})
    assert updated[0]["session"]["audio"]["input"]["turn_detection"] is None
    talk.says(append(2400))
    talk.hears(TextDelta(" one", 80), UtteranceEnd(0, 1, 2))
    told = talk.says({"type": "input_audio_buffer.commit"})
    assert types(told) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert told[-1]["transcript"] == "one flushed"
    assert kinds(talk) == [Open, PushAudio, Flush]
    again = talk.says({"type": "input_audio_buffer.commit"})
    assert again[0]["error"]["code"] == "input_audio_buffer_commit_empty"


def test_times_are_on_the_clock_of_the_clients_sound() -> None:
    talk = Talk(OPENAI)
    talk.says(append(2400), {"type": "input_audio_buffer.commit"})
    told = talk.hears(TextDelta(" x", 5000))  # 1000 ms of it the flush's silence
    assert told[0]["audio_start_ms"] == 5000 - 1000 - 300


def test_the_beta_names_are_answered_by_the_beta_names() -> None:
    talk = Talk(BETA)
    assert talk.told[0]["type"] == "transcription_session.created"
    updated = talk.says(
        {
            "type": "transcription_session.update",
            "session": {
                "input_audio_format": "g711_ulaw",
                "input_audio_transcription": {"model": "demo", "language": "en"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 700},
            },
        }
    )
    assert types(updated) == ["transcription_session.updated"]
    assert updated[0]["session"]["input_audio_format"] == "g711_ulaw"
    assert updated[0]["session"]["turn_detection"]["silence_duration_ms"] == 700
    talk.says(append(400))  # 800 bytes: 0.1 s of mu-law
    talk.hears(TextDelta(" x", 80))
    told = talk.hears(UtteranceEnd(0, 1, 2))
    assert types(told)[2:] == [
        "conversation.item.created",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert told[-1]["usage"]["seconds"] == 0.1


@pytest.mark.parametrize(
    ("name", "delay_ms"), [("minimal", 160), ("medium", 480), ("xhigh", 2400)]
)
def test_their_words_for_a_delay_choose_one_of_ours(name: str, delay_ms: int) -> None:
    talk = Talk()
    transcription = {"delay": name, "keywords": ["Voxtral"]}
    session = {"audio": {"input": {"transcription": transcription}}}
    talk.says({"type": "session.update", "session": session}, append(2400))
    assert talk.commands[0] == Open(
        StreamOptions(delay_ms, 500, ("Voxtral",), hotwords_are_hints=True)
    )


def test_what_was_cleared_is_not_told() -> None:
    talk = Talk(OPENAI)
    talk.says(append(2400))
    talk.hears(TextDelta(" secret", 80))
    told = talk.says({"type": "input_audio_buffer.clear"})
    assert types(told) == ["input_audio_buffer.cleared"]
    assert "speech_started" in talk.hears(TextDelta(" new", 5000))[0]["type"]


def test_speech_to_speech_is_refused() -> None:
    told = Talk().says({"type": "session.update", "session": {"type": "realtime"}})
    assert told[0]["error"]["param"] == "session.type"


# ------------------------------------------------------------- Mistral


def test_a_mistral_client_is_served_as_mistral_does() -> None:
    talk = Talk(MISTRAL)
    assert talk.told[0]["session"]["audio_format"] == {
        "encoding": "pcm_s16le",
        "sample_rate": 16000,
    }
    updated = talk.says(
        {
            "type": "session.update",
            "session": {
                "audio_format": {"encoding": "pcm_f32le", "sample_rate": 48000},
                "target_streaming_delay_ms": 240,
                "context_bias": ["Voxtral"],
                "turn_detection": {"min_silence_ms": 400},
            },
        }
    )
    assert updated[0]["session"]["target_streaming_delay_ms"] == 240
    sound = {"type": "input_audio.append", "audio": audio(48000, "<f4")}
    talk.says(sound, {"type": "input_audio.flush"})
    assert talk.commands[0] == Open(StreamOptions(240, 400, ("Voxtral",)))
    talk.says({"type": "input_audio.end"})
    assert types(talk.told[2:]) == [
        "turn.start",
        "transcription.text.delta",
        "transcription.done",
        "transcription.text.delta",
        "turn.end",
        "transcription.done",
    ]
    done = [m["text"] for m in talk.told if m["type"] == "transcription.done"]
    assert done == [" flushed", " end"]
    assert talk.is_closed
    assert kinds(talk) == [Open, PushAudio, Flush, PushAudio, Finish]
    assert talk.n_heard == 16000
    assert talk.says(sound)[0]["error"]["code"] == 400


def test_speakers_are_refused_rather_than_ignored() -> None:
    talk = Talk(MISTRAL)
    told = talk.says({"type": "session.update", "session": {"diarize": True}})
    assert "diarize" in told[0]["error"]["message"]


# ----------------------------------------------------------- all of them


@pytest.mark.parametrize("hints", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize(
    "message",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"type": 3}',
        '{"type": "session.delete"}',
        "[" * 100_000,
        '{"type": "session.update", "session": 3}',
        '{"type": "session.update", "session": {"turn_detection": 3}}',
        '{"type": "input_audio_buffer.append"}',
        '{"type": "input_audio_buffer.append", "audio": "?"}',
        '{"type": "input_audio_buffer.append", "audio": "\\ud800"}',
        '{"type": "input_audio.append", "audio": 7}',
    ],
)
def test_a_message_that_is_wrong_gets_an_error_and_no_more(
    hints: Hints, message: str
) -> None:
    talk = Talk(hints)
    told = talk.says(message)
    if not (hints is MISTRAL and "turn_detection" in message):  # it has no such field
        assert types(told) == ["error"]
    assert not talk.is_closed
    assert talk.commands == []


@pytest.mark.parametrize("name", ["mistral", "vllm"])
def test_options_cannot_change_once_there_is_sound(name: str) -> None:
    talk = Talk(DIALECTS[name])
    change: dict[str, Any]
    if name == "mistral":
        talk.says(mistral_append())
        change = {"session": {"target_streaming_delay_ms": 960}}
    else:
        talk.says(append())
        change = {"delay_ms": 960}
    assert types(talk.says({"type": "session.update", **change})) == ["error"]


@pytest.mark.parametrize("hints", DIALECTS.values(), ids=DIALECTS)
def test_a_stream_that_fails_ends_the_connection_with_the_reason(hints: Hints) -> None:
    talk = Talk(hints)
    told = talk.hears(Failed(RequestError("full", code="at_capacity", status=503)))
    assert types(told) == ["error"]
    assert "full" in json.dumps(told)
    assert talk.is_closed


@pytest.mark.parametrize("hints", DIALECTS.values(), ids=DIALECTS)
def test_a_server_that_goes_away_brings_out_the_last_words(hints: Hints) -> None:
    talk = Talk(hints)
    talk.says(first_sound(hints))
    talk.follow(talk.conversation.end())
    assert talk.is_closed
    assert "end" in json.dumps(talk.told[-1])


def test_text_kept_for_the_end_stays_bounded() -> None:
    text = TextBuffer(max_chars=10)
    for i in range(1000):
        text.add(f"{i % 10}")
    assert text.pop() == "0123456789"
    assert text.pop() == ""


# ----------------------------------------------------------------- sound


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
def test_sound_does_not_depend_on_how_its_bytes_were_cut(
    encoding: str, rate: int
) -> None:
    rng = np.random.default_rng(1)
    sound = rng.uniform(-0.5, 0.5, 2000)
    payload = {
        "pcm_u8": np.round(sound * 2**7 + 2**7).astype("u1"),
        "pcm_s16le": (sound * 2**15).astype("<i2"),
        "pcm_s24le": (sound * 2**31).astype("<i4").view("u1").reshape(-1, 4)[:, 1:],
        "pcm_s32le": (sound * 2**31).astype("<i4"),
        "pcm_f16le": sound.astype("<f2"),
        "pcm_f32le": sound.astype("<f4"),
    }.get(encoding, rng.integers(0, 256, 2000, np.uint8)).tobytes()

    def decoded(cuts: list[int]) -> np.ndarray:
        pcm = PcmDecoder(encoding, rate)
        edges = [0, *cuts, len(payload)]
        pairs = itertools.pairwise(edges)
        parts = [pcm.push(payload[a:b]) for a, b in pairs]
        return np.concatenate([*parts, pcm.flush()])

    whole = decoded([])
    cuts = sorted(rng.integers(0, len(payload), 30).tolist())
    np.testing.assert_array_equal(decoded(cuts), whole)
    if rate == 16000 and encoding.startswith(("pcm_s", "pcm_u")):
        step = 2**-7 if encoding == "pcm_u8" else 2**-15
        np.testing.assert_allclose(whole, sound, atol=step)


@pytest.mark.parametrize("n_channels", [2, 3, 32])
def test_channels_are_mixed_however_their_bytes_were_cut(n_channels: int) -> None:
    rng = np.random.default_rng(2)
    sound = rng.uniform(-0.5, 0.5, (6000, n_channels)).astype("<f4")
    payload = sound.tobytes()

    def decoded(n_bytes: int) -> np.ndarray:
        pcm = PcmDecoder("pcm_f32le", 16_000, n_channels)
        starts = range(0, len(payload), n_bytes)
        parts = [pcm.push(payload[start : start + n_bytes]) for start in starts]
        return np.concatenate([*parts, pcm.flush()])

    np.testing.assert_allclose(decoded(len(payload)), sound.mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(decoded(1001), decoded(len(payload)))


def test_g711_is_as_the_standard_tables_say() -> None:
    ulaw = PcmDecoder("pcm_mulaw", 16000)
    alaw = PcmDecoder("pcm_alaw", 16000)
    u = ulaw.push(bytes([0x00, 0x80, 0xFF, 0x7F])) * 32768
    assert u.tolist() == [-32124, 32124, 0, 0]
    a = alaw.push(bytes([0x55, 0xD5, 0x2A, 0xAA])) * 32768
    assert a.tolist() == [-8, 8, -32256, 32256]


# ------------------------------------------------------------------ fuzz

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
TYPES = [
    "session.update",
    "transcription_session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "input_audio.append",
    "input_audio.flush",
    "input_audio.end",
    "response.create",
]
NAMES = [
    *("model", "delay_ms", "draft_delay_ms", "pause_ms", "hotwords", "include"),
    *("event_id", "final"),
    *("audio", "input", "format", "rate", "transcription", "turn_detection", "delay"),
    *("input_audio_format", "input_audio_transcription", "silence_duration_ms"),
    *("audio_format", "encoding", "sample_rate", "target_streaming_delay_ms", "type"),
    *("context_bias", "diarize", "keywords", "language", "prefix_padding_ms"),
]
VALUES = (
    JSON
    | st.sampled_from([audio(0), audio(1), audio(1281), audio(40, "<f4"), "AAA="])
    | st.just(base64.b64encode(b"\xff" * 40).decode())  # NaN, as float
    | st.sampled_from([*ENCODINGS, "audio/pcm", "g711_ulaw", "transcription", "high"])
    | st.sampled_from([80, 480, 2400, 500, 16000, 24000, 1e400, -1, 10**30])
)
OBJECTS = st.recursive(
    VALUES,
    lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)
MESSAGES = (
    st.fixed_dictionaries(
        {"type": st.sampled_from(TYPES)},
        optional=dict.fromkeys((*NAMES[:9], "session"), OBJECTS),
    ).map(json.dumps)
    | JSON.map(json.dumps)
    | st.text(max_size=40)
)


def converse(hints: Hints, messages: list[str]) -> None:
    talk = Talk(hints)
    for message in messages:
        if talk.is_closed:
            return
        talk.says(message)
    talk.follow(talk.conversation.end())
    assert talk.is_closed


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(DIALECTS.values())), st.lists(MESSAGES, max_size=8))
def test_no_message_whatever_breaks_a_conversation(
    hints: Hints, messages: list[str]
) -> None:
    converse(hints, messages)


@pytest.mark.slow
@settings(max_examples=2500, deadline=None)
@given(
    st.sampled_from(list(DIALECTS.values())),
    st.lists(MESSAGES, min_size=4, max_size=12),
)
def test_ten_thousand_messages_break_no_conversation(
    hints: Hints, messages: list[str]
) -> None:
    converse(hints, messages)
