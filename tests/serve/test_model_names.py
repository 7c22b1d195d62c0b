"""A model that is not served is refused, whatever door its name comes in by."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.serve.loopback import PATIENCE_S, Loopback, serving
from tests.serve.scripts import OPENAI, Talk, WyomingTalk, append, served
from tests.serve.test_requests import TRANSCRIPTIONS, wav
from tests.sounds import speech_like
from voxmlx import Checkpoint
from voxmlx.config import BASE_MODEL
from voxmlx.errors import RequestError
from voxmlx.serve.conversation import Conversation, Hints
from voxmlx.serve.model_names import check_model, read_model_name

KNOWN = [
    *("demo", "whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"),
    *("gpt-4o-mini-transcribe-2025-12-15", "gpt-realtime", "gpt-realtime-whisper"),
    *("gpt-transcribe", "gpt-4o-realtime-preview", "voxtral-mini-latest"),
    *("voxtral-mini-2507", "voxtral-mini-transcribe-realtime-2602", BASE_MODEL),
]
UNKNOWN = [
    *("other", "Demo", "gpt-4o", "whisper-2", "gpt-4o-mini-tts", "gpt"),
    *("gpt-4o-transcribe-diarize", "voxtral-mini-tts-2603", "voxtral-small-latest"),
    *("mlx-community/Voxtral-Mini-4B-Realtime-6bit", "demo ", "whisper-1\n", ""),
]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Checkpoint) -> Iterator[Loopback]:
    with serving(tiny_checkpoint) as server:
        yield server


@pytest.mark.parametrize("name", [None, *KNOWN])
def test_names_that_clients_must_send_stand_for_the_model(name: str | None) -> None:
    check_model(name, ["demo"])


@pytest.mark.parametrize("name", UNKNOWN)
def test_any_other_name_is_refused_with_the_one_that_is_served(name: str) -> None:
    with pytest.raises(RequestError, match="is not served, 'demo' is") as caught:
        check_model(name, ["demo"])
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")


def openai_update(model: str, *, is_beta: bool = False) -> dict[str, Any]:
    about = {"model": model}
    if is_beta:
        session: dict[str, Any] = {"input_audio_transcription": about}
        return {"type": "transcription_session.update", "session": session}
    session = {"audio": {"input": {"transcription": about}}}
    return {"type": "session.update", "session": session}


def test_clients_of_vllm_are_told_in_its_words() -> None:
    talk = Talk()
    (error,) = talk.says({"type": "session.update", "model": "other"})
    assert (error["type"], error["code"]) == ("error", "model_not_found")
    assert "'other' is not served, 'demo' is" in error["error"]
    assert talk.says({"type": "session.update", "model": "whisper-1"}) == []
    assert talk.says({"type": "session.update"}) == []


@pytest.mark.parametrize("is_beta", [False, True])
def test_clients_of_openai_are_told_which_field_it_is(is_beta: bool) -> None:
    talk = Talk(OPENAI)
    (error,) = talk.says(openai_update("other", is_beta=is_beta))
    assert error["error"]["code"] == "model_not_found"
    assert error["error"]["param"].endswith("transcription.model")
    assert error["error"]["type"] == "invalid_request_error"
    (updated,) = talk.says(openai_update("gpt-4o-transcribe", is_beta=is_beta))
    assert updated["type"].endswith("session.updated")
    assert updated["session"]


def test_clients_of_wyoming_are_told() -> None:
    talk = WyomingTalk()
    (error,) = talk.says({"type": "transcribe", "name": "other"})
    assert (error["type"], error["code"]) == ("error", "model_not_found")
    assert talk.is_closed
    assert WyomingTalk().says({"type": "transcribe", "name": "demo"}) == []


@pytest.mark.parametrize(
    "path", ["/v1/realtime?intent=transcription", "/v1/audio/transcriptions/realtime?"]
)
def test_a_websocket_for_another_model_is_not_opened(tiny: Loopback, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"{tiny.ws}{path}&model=no"):
        pass
    answer = refused.value.response
    assert answer.status_code == 404
    error = json.loads(answer.body or b"")["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    for name in ("demo", "gpt-realtime", ""):
        with connect(f"{tiny.ws}{path}&model={name}") as websocket:
            first = json.loads(websocket.recv(timeout=PATIENCE_S))
            assert first["type"] == "session.created"


def test_uploads_and_look_ups_for_another_model_get_404(tiny: Loopback) -> None:
    sound = {"file": ("a.wav", wav(speech_like(4_000, seed=5)))}
    with httpx.Client(base_url=tiny.http, timeout=PATIENCE_S) as client:
        for answer in (
            client.post(TRANSCRIPTIONS, files=sound, data={"model": "other"}),
            client.get("/v1/models/other"),
        ):
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "model_not_found"
        for name in ("demo", "whisper-1", "voxtral-mini-latest", ""):
            answer = client.post(TRANSCRIPTIONS, files=sound, data={"model": name})
            assert answer.status_code == 200, name


def test_a_model_may_have_several_names_of_which_the_first_is_shown() -> None:
    talk = Talk()
    several = replace(served(), model="voxtral", aliases=("stt",))
    talk.conversation = Conversation(several, Hints())
    assert talk.says({"type": "session.update", "model": "stt"}) == []
    (updated,) = talk.says(
        {"type": "session.update", "model": "voxtral", "delay_ms": 960}
    )
    assert updated["session"]["model"] == "voxtral"
    (error,) = talk.says({"type": "session.update", "model": "demo"})
    assert "'voxtral' or 'stt' is" in error["error"]
    talk.says(append())


@pytest.mark.parametrize("text", ["", " a", "a\n", "a\0b", "x" * 257])
def test_a_name_that_no_client_can_send_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name"):
        read_model_name(text)
    assert read_model_name("my/model") == "my/model"
