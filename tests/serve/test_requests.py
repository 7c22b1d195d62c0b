"""Requests by HTTP: what is answered, what is refused, and how."""

import asyncio
import http.client
import io
import json
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from tests.serve.loopback import IDLE, PATIENCE_S, Loopback, serving, until
from tests.sounds import speech_like
from voxmlx import Checkpoint, Session, Transcript
from voxmlx.audio.files import AudioFile, open_audio
from voxmlx.events import Event, Finished, SoundWarning
from voxmlx.serve.multipart_form import MultipartForm
from voxmlx.serve.response_formats import TranscriptionParams
from voxmlx.serve.stream_options import StreamOptions
from voxmlx.serve.transcriptions import UploadJob
from voxmlx.serve.upload_body import UploadBody, UploadTotal
from voxmlx.web.limits import Limits

TRANSCRIPTIONS = "/v1/audio/transcriptions"


def wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


SOUND = speech_like(20_000, seed=4)


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Checkpoint) -> Iterator[Loopback]:
    with serving(tiny_checkpoint, limits=Limits(max_body_bytes=2 << 20)) as server:
        yield server


@pytest.fixture
def client(tiny: Loopback) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=tiny.http, timeout=PATIENCE_S) as client:
        yield client


def post(client: httpx.Client, sound: bytes = b"", **fields: Any) -> httpx.Response:
    sound = sound or wav(SOUND)
    return client.post(TRANSCRIPTIONS, files={"file": ("a.wav", sound)}, data=fields)


def test_options_of_a_request_are_the_sessions(
    client: httpx.Client, tiny_checkpoint: Checkpoint
) -> None:
    session = Session(tiny_checkpoint, delay_ms=960, hotwords=["the ring"])
    whole = Transcript.from_events(session.push(SOUND) + session.finish())
    told = post(client, delay_ms="960", keywords=["the ring"]).json()
    assert told["text"] == whole.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "docx"}, "response_format"),
        ({"delay_ms": "100"}, "delay"),
        ({"delay_ms": "soon"}, "delay_ms"),
        ({"timestamp_granularities[]": "page"}, "timestamp_granularities"),
        ({"keywords": ["x"] * 99, "delay_ms": "81"}, "delay"),
    ],
)
def test_a_wish_that_cannot_be_met_is_named(
    client: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    answer = post(client, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "sound", [b"RIFF", b"\0" * 5000, wav(SOUND)[:30], b"#!/bin/sh"]
)
def test_what_is_no_sound_is_refused_by_its_own_name(
    client: httpx.Client, sound: bytes
) -> None:
    error = post(client, sound).json()["error"]
    assert error["code"] == "invalid_audio"
    assert "a.wav" in error["message"]
    assert "voxmlx-" not in error["message"], "where we keep it is nobody's business"


def test_a_file_that_was_cut_off_gives_what_there_is_and_a_warning(
    client: httpx.Client, tiny: Loopback
) -> None:
    for form in ("json", "verbose_json"):
        answer = post(client, wav(SOUND)[:-3200], response_format=form)
        assert answer.status_code == 200
        (warning,) = answer.json()["warnings"]
        assert warning["code"] == "cut_short"
        assert warning["message"].startswith("a.wav is cut short")
    until(lambda: tiny.scheduler.n_slots == 0)


def test_a_request_without_a_file_is_told_so(client: httpx.Client) -> None:
    assert client.post(TRANSCRIPTIONS).json()["error"]["param"] == "file"
    answer = client.post(TRANSCRIPTIONS, data={"file": "text"}, files={"x": b"y"})
    assert answer.status_code == 400


@contextmanager
def begun(
    server: Loopback, *headers: tuple[str, str]
) -> Iterator[http.client.HTTPConnection]:
    """A request for a transcript whose body is still to come."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=PATIENCE_S
    )
    connection.putrequest("POST", TRANSCRIPTIONS, skip_host=True)
    form = {"host": "127.0.0.1", "content-type": "multipart/form-data; boundary=x"}
    for name, value in (form | dict(headers)).items():
        connection.putheader(name, value)
    connection.endheaders()
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (b"file_url=http%3A%2F%2Fx%2Fa.wav&model=x", "file_url is not fetched"),
        (b"file_id=3", "file_id is unknown"),
        (b"file_url=&model=whisper-1", "file is missing"),
        (b"", "file is missing"),
        (b"&".join([b"a=b"] * 2000), "more than 1100 fields"),
        (b"a=" + b"x" * 300_000, "more than 262144 bytes"),
        (b"file_id=%ff%00&&&=;", "file_id is unknown"),
    ],
)
def test_a_form_that_has_no_file_is_told_why(
    client: httpx.Client, tiny: Loopback, form: bytes, why: str
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post(TRANSCRIPTIONS, content=form, headers=headers)
    assert answer.status_code == 400
    assert why in answer.json()["error"]["message"]
    until(lambda: tiny.scheduler.n_slots == 0)


def test_a_body_that_is_too_large_is_refused_before_it_comes(tiny: Loopback) -> None:
    with begun(tiny, ("content-length", str(3 << 20))) as connection:
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.load(answer)["error"]["code"] == "body_too_large"


def test_a_large_body_that_does_not_say_so_is_cut(tiny: Loopback) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with begun(tiny, ("transfer-encoding", "chunked")) as connection:
        # Sent until there is an answer; sockets hold less than 20 MB.
        for part in [head, *[bytes(65_536)] * 400]:
            if select.select([connection.sock], [], [], 0.001)[0]:
                break
            connection.send(b"%x\r\n%s\r\n" % (len(part), part))
        else:
            pytest.fail("all of it was taken")
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.load(answer)["error"]["code"] == "body_too_large"
    until(lambda: tiny.scheduler.n_slots == 0)


def test_a_body_that_stops_coming_is_not_waited_for(
    tiny_checkpoint: Checkpoint,
) -> None:
    with (
        serving(tiny_checkpoint, limits=Limits(body_idle_s=0.3)) as server,
        begun(server, ("content-length", "1000")) as connection,
    ):
        connection.send(b"--x\r\n")
        assert connection.getresponse().status == 408


def test_a_server_with_no_place_says_when_to_come_again(
    tiny_checkpoint: Checkpoint,
) -> None:
    with (
        serving(tiny_checkpoint, max_sessions=1) as server,
        httpx.Client(base_url=server.http, timeout=PATIENCE_S) as client,
    ):
        slot = server.scheduler.open_slot(lambda _: None)
        answer = post(client)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "at_capacity"
        assert answer.headers["retry-after"] == "1"
        slot.release()
        assert post(client).status_code == 200


@pytest.mark.parametrize("is_stream", ["true", "false"])
def test_a_client_that_hangs_up_leaves_nothing(
    tiny: Loopback, is_stream: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # Of what was asked before, nothing is under way.
    until(lambda: tiny.tasks() == IDLE)

    async def hang_up() -> None:
        sound = wav(speech_like(30 * 16_000, seed=1).astype(np.float32))
        files, fields = {"file": ("a.wav", sound)}, {"stream": is_stream}
        patience = httpx.Timeout(PATIENCE_S, read=0.3)
        async with httpx.AsyncClient(base_url=tiny.http, timeout=patience) as client:
            try:
                async with client.stream(
                    "POST", TRANSCRIPTIONS, files=files, data=fields
                ) as answer:
                    async for _ in answer.aiter_bytes():
                        return
            except httpx.TimeoutException:
                return

    asyncio.run(hang_up())
    scheduler = tiny.scheduler
    until(lambda: (scheduler.n_slots, scheduler.n_streams) == (0, 0))
    until(lambda: tiny.tasks() == IDLE)
    until(lambda: list(tmp_path.iterdir()) == [])


class Owned:
    """A sound file that notes which thread does what with it, and what overlaps."""

    def __init__(self, audio: AudioFile, uses: list[tuple[str, int]]) -> None:
        self._audio = audio
        self._uses = uses
        self._is_being_read = threading.Lock()

    def _note(self, what: str) -> None:
        self._uses.append((what, threading.get_ident()))

    def pieces(self, piece_s: float) -> Iterator[np.ndarray]:
        for piece in self._audio.pieces(piece_s):
            with self._is_being_read:
                self._note("read")
                time.sleep(0.2)  # a client may hang up meanwhile
            yield piece

    def take_warnings(self) -> list[SoundWarning]:
        return self._audio.take_warnings()

    def close(self) -> None:
        self._note("close")
        assert self._is_being_read.acquire(blocking=False), "closed under its reader"
        self._audio.close()

    def __enter__(self) -> Self:
        self._note("open")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.mark.parametrize("is_stream", ["true", "false"])
def test_only_the_thread_that_reads_a_file_touches_it(
    tiny: Loopback, is_stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A decoder that is closed under the thread that reads it ends the process.
    uses: list[tuple[str, int]] = []
    monkeypatch.setattr(
        "voxmlx.serve.sound_reader.open_audio",
        lambda file, **options: Owned(open_audio(file, **options), uses),
    )
    sound = wav(speech_like(20 * 16_000, seed=1).astype(np.float32))
    files, fields = {"file": ("a.wav", sound)}, {"stream": is_stream}
    request = httpx.Request(
        "POST", tiny.http + TRANSCRIPTIONS, files=files, data=fields
    )
    with begun(tiny, *request.headers.items()) as connection:
        connection.send(request.read())
        until(lambda: len(uses) > 1)
    until(lambda: tiny.scheduler.n_slots == 0)
    until(lambda: uses[-1][0] == "close")
    assert {what for what, _ in uses} == {"open", "read", "close"}
    assert len({thread for _, thread in uses}) == 1
    assert uses[0][1] != threading.get_ident()


def test_a_transcript_that_is_being_made_is_finished_at_the_end(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    take_warnings = AudioFile.take_warnings

    def take_late(audio: AudioFile) -> list[SoundWarning]:
        assert may_end.wait(PATIENCE_S)
        return take_warnings(audio)

    monkeypatch.setattr(AudioFile, "take_warnings", take_late)
    sound = speech_like(160_000, seed=6)
    session = Session(tiny_checkpoint)
    whole = Transcript.from_events(session.push(sound) + session.finish())
    with (
        serving(tiny_checkpoint) as server,
        httpx.Client(base_url=server.http, timeout=PATIENCE_S) as client,
    ):
        told: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: told.append(post(client, wav(sound))))
        asking.start()
        until(lambda: server.scheduler.n_streams == 1)
        server.end()
        until(lambda: server.scheduler.is_draining)
        may_end.set()
        asking.join(PATIENCE_S)
        assert told[0].json()["text"] == whole.text


def test_a_file_waits_for_a_client_that_does_not_read_its_events(
    tiny: Loopback, tiny_checkpoint: Checkpoint
) -> None:
    sound = speech_like(60 * 16_000, seed=8)
    session = Session(tiny_checkpoint)
    whole = session.push(sound) + session.finish()
    limits = Limits(max_unread_events=20)
    kind = "multipart/form-data; boundary=x"
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    whole_body = head + wav(sound) + b"\r\n--x--\r\n"

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": whole_body, "more_body": False}

    async def read_late() -> tuple[int, list[Event]]:
        headers = [(b"content-type", kind.encode())]
        request = Request({"type": "http", "headers": headers}, receive)
        body = UploadBody(request, limits, UploadTotal(1 << 30))
        job = UploadJob(body, tiny.scheduler, limits, lambda _: None)
        form = MultipartForm(kind)
        await job.receive(form)
        await job.start(TranscriptionParams(StreamOptions()), form.finish())
        n_unread = -1
        while job.n_unread <= 20:
            await asyncio.sleep(0.01)
        while n_unread != job.n_unread:  # until nothing more comes
            n_unread = job.n_unread
            await asyncio.sleep(1.0)
        events = [event async for event in job.events()]
        job.close()
        return n_unread, events

    n_unread, events = asyncio.run(read_late())
    assert 20 < n_unread < len(whole) / 2
    assert events == whole
    until(lambda: tiny.scheduler.n_slots == 0)


def test_health_counts_sessions(client: httpx.Client, tiny: Loopback) -> None:
    until(lambda: tiny.scheduler.n_slots == 0)
    slot = tiny.scheduler.open_slot(lambda _: None)
    assert client.get("/health").json() == {
        "status": "ok",
        "model": "demo",
        "sessions": 1,
        "max_sessions": 16,
    }
    slot.release()


def test_metrics_say_what_happened(
    client: httpx.Client, tiny: Loopback, tiny_checkpoint: Checkpoint
) -> None:
    until(lambda: tiny.scheduler.n_slots == 0)
    session = Session(tiny_checkpoint)
    session.push(SOUND)
    finished = session.finish()[-1]
    assert isinstance(finished, Finished)

    def samples() -> dict[str, float]:
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {
            "".join([sample.name, *sample.labels.values()]): sample.value
            for family in families
            for sample in family.samples
        }

    before = samples()
    assert post(client).status_code == 200
    assert client.get("/nowhere").status_code == 404
    until(lambda: tiny.scheduler.n_slots == 0)
    after = samples()
    gained = {name: value - before.get(name, 0) for name, value in after.items()}
    assert gained["voxmlx_tokens_totalfile"] == finished.n_tokens
    assert gained["voxmlx_step_seconds_countfile"] > 0
    # How long a file waits says nothing about how far live text lags.
    assert gained["voxmlx_tokens_totallive"] == 0
    assert gained["voxmlx_lag_seconds_count"] == 0
    assert gained["voxmlx_errors_totalnot_found"] == 1
    assert after["voxmlx_sessions"] == 0
    assert after["voxmlx_waiting_seconds"] == 0


def test_the_page_comes_from_here_alone(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in ("style.css", "app.js", "capture.js", "subtitles.js"):
        part = client.get(f"/page/{name}")
        assert part.status_code == 200
        assert "http" not in part.text.replace("https and localhost", "").replace(
            '"https:"', ""
        ), "it would need a network"
    assert client.get("/page/../app.py").status_code == 404
    assert client.get("/page/%2e%2e/app.py").status_code == 404


def test_a_key_guards_all_but_the_page(tiny_checkpoint: Checkpoint) -> None:
    with (
        serving(tiny_checkpoint, keys=("secret",)) as server,
        httpx.Client(base_url=server.http, timeout=PATIENCE_S) as client,
    ):
        for path in ("/", "/health", "/page/app.js"):
            assert client.get(path).status_code == 200
        for path in ("/v1/models", "/metrics"):
            assert client.get(path).status_code == 401
            headers = {"Authorization": "Bearer secret"}
            assert client.get(path, headers=headers).status_code == 200
        refused = post(client)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["code"] == "invalid_api_key"


def test_pages_of_strangers_are_refused_and_those_allowed_are_told(
    tiny_checkpoint: Checkpoint,
) -> None:
    friend = "https://notes.example"
    with (
        serving(tiny_checkpoint, origins=(friend,)) as server,
        httpx.Client(base_url=server.http, timeout=PATIENCE_S) as client,
    ):

        def get(origin: str) -> httpx.Response:
            return client.get("/v1/models", headers={"Origin": origin})

        assert get("https://evil.example").status_code == 403
        assert get(friend).headers["access-control-allow-origin"] == friend
        rebound = client.get("/v1/models", headers={"Host": "rebound.example"})
        assert rebound.status_code == 421


def test_errors_are_objects_of_openais(client: httpx.Client) -> None:
    for answer in (client.get("/v1/nothing"), client.get(TRANSCRIPTIONS)):
        error = json.loads(answer.text)["error"]
        assert set(error) == {"message", "type", "param", "code"}
