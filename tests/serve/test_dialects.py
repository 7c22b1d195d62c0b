"""What each dialect promises beyond its plain course of messages."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from tests.serve.scripts import (
    DIALECTS,
    MISTRAL,
    OPENAI,
    Talk,
    append,
    audio,
    first_sound,
    mistral_append,
)
from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.events import (
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.serve.conversation import Hints
from voxmlx.serve.pcm import decode_base64
from voxmlx.serve.protocol import Finish, Flush, Open, PushAudio
from voxmlx.serve.token_logprobs import TokenLogprobs
from voxmlx.text.utterances import MAX_PAUSE_MS, MIN_PAUSE_MS

LOGPROBS = "item.input_audio_transcription.logprobs"


def kinds(talk: Talk) -> list[type]:
    return [type(command) for command in talk.commands]


def of_type(told: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [message for message in told if message["type"].endswith(kind)]


# -------------------------------------------------------------- OpenAI


def update(**transcription: Any) -> dict[str, Any]:
    about: dict[str, Any] = {"transcription": transcription, "turn_detection": None}
    session = {"type": "transcription", "audio": {"input": about}}
    return {"type": "session.update", "session": session}


COMMIT = {"type": "input_audio_buffer.commit"}


def test_options_that_change_are_of_the_stream_after_the_turn() -> None:
    """LiveKit's agents change key terms while somebody speaks; no error may tell them."""
    talk = Talk(OPENAI)
    talk.says(update(keywords=["Ann"]), append(24_000))
    (told,) = talk.says(update(keywords=["Ann", "Bo"], delay="high"))
    assert told["type"] == "session.updated"
    assert told["session"]["audio"]["input"]["transcription"]["delay"] == "high"
    assert kinds(talk) == [Open, PushAudio]
    talk.says(COMMIT)
    assert [kind for kind in kinds(talk)[2:] if kind != PushAudio] == [Flush, Finish]
    talk.says(append(24_000), COMMIT)
    opened = [command for command in talk.commands if isinstance(command, Open)]
    assert [one.options.hotwords for one in opened] == [("Ann",), ("Ann", "Bo")]
    assert [one.options.delay_ms for one in opened] == [480, 960]
    done = of_type(talk.told, "transcription.completed")
    assert len(done) == 2
    assert of_type(talk.told, "error") == []


def test_options_that_change_between_turns_are_of_the_next_stream() -> None:
    talk = Talk(OPENAI)
    talk.says(update(), append(24_000), COMMIT)
    talk.says(update(keywords=["Bo"]))
    assert kinds(talk)[-1] == Finish
    n = len(talk.told)
    talk.says(update(keywords=["Bo"]))
    assert [message["type"] for message in talk.told[n:]] == ["session.updated"]
    talk.says(append(24_000), COMMIT)
    opened = [command for command in talk.commands if isinstance(command, Open)]
    assert [one.options.hotwords for one in opened] == [(), ("Bo",)]


def test_times_go_on_over_streams_of_one_client() -> None:
    talk = Talk(OPENAI)
    session = {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
    talk.says({"type": "session.update", "session": session}, append(24_000))
    talk.hears(TextDelta(" one", 500))
    wanted = {"input_audio_transcription": {"keywords": ["Bo"]}}
    talk.says({"type": "session.update", "session": wanted})
    told = talk.hears(UtteranceEnd(0, 600, 900))
    assert of_type(told, "speech_stopped")[0]["audio_end_ms"] == 600
    talk.says(append(24_000))
    told = talk.hears(TextDelta(" two", 500))
    # The second stream begins in the pause, at whole audio tokens: 720 ms.
    assert of_type(told, "speech_started")[0]["audio_start_ms"] == 720 + 500 - 300


def test_a_list_that_is_empty_takes_hot_words_back() -> None:
    talk = Talk(OPENAI)
    talk.says(update(keywords=["Bo"]), update(language="en"), append(2400))
    talk.says(update(keywords=[]), COMMIT, append(2400))
    vllm = Talk()
    for hotwords in (["Bo"], []):
        vllm.says({"type": "session.update", "hotwords": hotwords})
    mistral = Talk(MISTRAL)
    for hotwords in (["Bo"], []):
        session = {"context_bias": hotwords}
        mistral.says({"type": "session.update", "session": session})
    vllm.says(append(160))
    mistral.says(mistral_append(160))
    opened = [
        c for t in (talk, vllm, mistral) for c in t.commands if isinstance(c, Open)
    ]
    assert [one.options.hotwords for one in opened] == [("Bo",), (), (), ()]


# ------------------------------------------------------------- Mistral


FLUSH, END = {"type": "input_audio.flush"}, {"type": "input_audio.end"}


def test_each_flushed_utterance_has_its_done_and_the_session_goes_on() -> None:
    talk = Talk(MISTRAL)
    for n_seconds, text in ((2, " one"), (1, " two")):
        talk.says(mistral_append(n_seconds * 16_000))
        talk.hears(TokenDecoded(1000, 0, 80), TextDelta(text, 80))
        done = talk.says(FLUSH)[-1]
        assert done["type"] == "transcription.done"
        assert done["text"] == f"{text} flushed"
        assert done["usage"]["prompt_audio_seconds"] == n_seconds
        assert done["usage"]["completion_tokens"] == 1
        assert not talk.is_closed
    assert kinds(talk) == [Open, PushAudio, Flush, PushAudio, Flush]
    assert talk.says(END)[-1]["text"] == " end"
    assert talk.is_closed


def test_the_prompt_is_counted_once_however_many_segments() -> None:
    talk = Talk(MISTRAL)
    talk.says(mistral_append(16_000), FLUSH, mistral_append(16_000), FLUSH, END)
    usages = [m["usage"] for m in of_type(talk.told, "transcription.done")]
    assert [usage["prompt_tokens"] for usage in usages] == [39, 0, 0]


def test_a_flush_before_any_sound_is_answered() -> None:
    talk = Talk(MISTRAL)
    (done,) = talk.says(FLUSH)
    assert (done["type"], done["text"], done["language"]) == (
        "transcription.done",
        "",
        None,
    )
    assert talk.commands == []


def test_a_flush_without_new_sound_decodes_no_silence() -> None:
    talk = Talk(MISTRAL)
    talk.says(mistral_append(16_000), FLUSH)
    (done,) = talk.says(FLUSH)
    assert (done["type"], done["text"]) == ("transcription.done", "")
    assert kinds(talk) == [Open, PushAudio, Flush]


def test_turns_keep_the_clients_clock_across_a_flush() -> None:
    talk = Talk(MISTRAL)
    talk.says({"type": "session.update", "session": {"turn_detection": {}}})
    talk.says(mistral_append(16_000), FLUSH)
    told = talk.hears(
        UtteranceEnd(0, 900, 1000), TextDelta(" x", 3000), UtteranceEnd(0, 3500, 4300)
    )
    assert [m["time_s"] for m in told if m["type"] != "transcription.text.delta"] == [
        0,  # 900 ms less 1000 ms of silence of ours
        2.0,
        2.5,
    ]


# -------------------------------------------------------------- OpenAI


def openai_update(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": session}


@pytest.mark.parametrize(
    ("asked_ms", "has_ms"),
    [(0, MIN_PAUSE_MS), (200, MIN_PAUSE_MS), (60_000, MAX_PAUSE_MS)],
)
def test_a_silence_that_is_not_possible_becomes_the_nearest(
    asked_ms: int, has_ms: int
) -> None:
    turns = {"type": "server_vad", "silence_duration_ms": asked_ms}
    talk = Talk(OPENAI)
    (updated,) = talk.says(openai_update(audio={"input": {"turn_detection": turns}}))
    found = updated["session"]["audio"]["input"]["turn_detection"]
    assert found["silence_duration_ms"] == has_ms
    talk.says(append())
    assert isinstance(talk.commands[0], Open)
    assert talk.commands[0].options.pause_ms == has_ms


def test_a_silence_below_ours_is_no_error_for_mistrals_clients_either() -> None:
    talk = Talk(MISTRAL)
    turns = {"turn_detection": {"min_silence_ms": 100}}
    (updated,) = talk.says({"type": "session.update", "session": turns})
    assert updated["type"] == "session.updated"


def test_log_probabilities_come_with_deltas_and_transcripts_if_asked_for() -> None:
    talk = Talk(OPENAI)
    (updated,) = talk.says(openai_update(include=[LOGPROBS]))
    assert updated["session"]["include"] == [LOGPROBS]
    talk.says(append(2400))
    assert isinstance(talk.commands[0], Open)
    assert talk.commands[0].options.confidence
    (delta,) = of_type(
        talk.hears(
            TokenDecoded(STREAMING_WORD_ID, 0, 80, -0.5),
            TokenDecoded(1000, 1, 160, -0.25),
            TextDelta(" é", 160),
        ),
        ".delta",
    )
    entry = {"token": " é", "bytes": [32, 195, 169], "logprob": -0.25}
    assert delta["logprobs"] == [entry]
    (completed,) = of_type(talk.hears(UtteranceEnd(0, 160, 700)), ".completed")
    assert completed["logprobs"] == [entry]


def test_nobody_is_told_log_probabilities_who_has_not_asked() -> None:
    talk = Talk(OPENAI)
    talk.says(append(2400))
    told = talk.hears(TokenDecoded(1000, 0, 80), TextDelta(" x", 80))
    told += talk.hears(UtteranceEnd(0, 80, 700))
    assert "logprobs" not in json.dumps(told)
    (error,) = talk.says(openai_update(include=["everything"]))
    assert error["error"]["param"] == "session.include"


def test_ids_of_one_character_have_one_entry() -> None:
    logprobs = TokenLogprobs()
    events = [
        TokenDecoded(STREAMING_PAD_ID, 0, 0, -1.0),
        TokenDecoded(1001, 1, 80, -0.25),
        TokenDecoded(1002, 2, 160, -0.5),
        TextDelta("好", 160),
        TextDelta(" rest", 200),
    ]
    told = [entry for event in events for entry in logprobs.push(event)]
    assert told == [{"token": "好", "bytes": [229, 165, 189], "logprob": -0.75}]


# ---------------------------------------------------------------- vLLM


def test_words_have_their_confidence_if_asked_for() -> None:
    talk = Talk()
    include = ["words", "confidence"]
    (updated,) = talk.says({"type": "session.update", "include": include})
    assert updated["session"]["include"] == sorted(include)
    talk.says(append())
    assert isinstance(talk.commands[0], Open)
    assert talk.commands[0].options.confidence
    (word,) = talk.hears(WordFinal(Word("one", 0, 60, 0.5), 160))
    assert word["confidence"] == 0.5
    (error,) = talk.says({"type": "session.update", "include": ["words"]})
    assert error["error"].startswith("confidence cannot change")


# ------------------------------------------------------ sound and silence


@pytest.mark.parametrize("line_break", ["\n", "\r\n", " "])
def test_base64_may_have_line_breaks(line_break: str) -> None:
    payload = bytes(range(256))
    text = base64.encodebytes(payload).decode().replace("\n", line_break)
    assert decode_base64(text) == payload
    talk = Talk(OPENAI)
    sound = base64.encodebytes(bytes(4800)).decode()
    talk.says({"type": "input_audio_buffer.append", "audio": sound})
    talk.hears(TextDelta(" x", 80))
    (completed,) = of_type(talk.hears(UtteranceEnd(0, 80, 700)), ".completed")
    assert completed["usage"]["seconds"] == 0.1


def quiet(talk: Talk) -> list[dict[str, Any]]:
    n = len(talk.told)
    talk.follow(talk.conversation.quiet())
    return talk.told[n:]


def test_sound_that_is_refused_opens_no_stream() -> None:
    """Else sound that follows is of a stream that the decoder does not know."""
    talk = Talk(MISTRAL)
    session = {"audio_format": {"encoding": "pcm_f32le", "sample_rate": 16_000}}
    talk.says({"type": "session.update", "session": session})
    nan = base64.b64encode(np.full(160, np.nan, "<f4").tobytes()).decode()
    (told,) = talk.says({"type": "input_audio.append", "audio": nan})
    assert told["type"] == "error"
    talk.says({"type": "input_audio.append", "audio": audio(160, "<f4")})
    assert kinds(talk) == [Open, PushAudio]


@pytest.mark.parametrize("hints", DIALECTS.values(), ids=DIALECTS)
def test_a_client_that_stops_sending_gets_its_last_words_once(hints: Hints) -> None:
    talk = Talk(hints)
    assert quiet(talk) == []  # before any sound there are none
    talk.says(first_sound(hints))
    assert " flushed" in json.dumps(quiet(talk))
    assert quiet(talk) == []
    talk.says(first_sound(hints))
    assert " flushed" in json.dumps(quiet(talk))
    assert kinds(talk) == [Open, PushAudio, Flush, PushAudio, Flush]


def test_a_turn_of_a_client_that_stops_sending_ends() -> None:
    talk = Talk(OPENAI)
    talk.says(append(2400))
    talk.hears(TextDelta(" one", 80))
    (completed,) = of_type(quiet(talk), ".completed")
    assert completed["transcript"] == "one flushed"


def test_a_turn_that_its_client_commits_waits_for_the_commit() -> None:
    talk = Talk(OPENAI)
    talk.says(openai_update(audio={"input": {"turn_detection": None}}))
    talk.says(append(2400))
    assert [m["type"].rpartition(".")[2] for m in quiet(talk)] == ["delta"]
    told = talk.says({"type": "input_audio_buffer.commit"})
    assert told[-1]["transcript"] == "flushed"
    assert kinds(talk) == [Open, PushAudio, Flush]


def test_a_clear_without_new_sound_decodes_no_silence() -> None:
    talk = Talk(OPENAI)
    clear = {"type": "input_audio_buffer.clear"}
    talk.says(append(2400))
    for _ in range(3):
        (cleared,) = talk.says(clear)
        assert cleared["type"] == "input_audio_buffer.cleared"
    assert kinds(talk) == [Open, PushAudio, Flush]
    (error,) = talk.says({"type": "input_audio_buffer.commit"})
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"


def test_mistrals_transcript_is_not_done_because_its_client_is_quiet() -> None:
    """The official package ends at the first `transcription.done`."""
    talk = Talk(MISTRAL)
    talk.says(mistral_append(16_000))
    assert of_type(quiet(talk), ".done") == []
    assert talk.says(END)[-1]["text"] == " flushed end"
    assert kinds(talk)[-1] is Finish


def test_times_are_the_clients_after_a_silence_of_ours() -> None:
    talk = Talk()
    talk.says({"type": "session.update", "include": ["words"]}, append())
    quiet(talk)
    told = talk.hears(
        TextDelta(" one", 5000),
        WordFinal(Word("one", 4800, 5000), 5080),
        UtteranceEnd(4800, 5000, 5400),
    )
    assert [m["time_ms"] for m in told] == [4000, 4080, 4400]
    assert (told[1]["start_ms"], told[2]["end_ms"]) == (3800, 4000)
    talk.hears(Finished(0, 0))
    (delta,) = talk.hears(TextDelta(" two", 80))
    assert delta["time_ms"] == 80
