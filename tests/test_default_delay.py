"""A model's own delay holds wherever nobody asks for another one."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.sounds import speech_like
from tests.stages import session_ids
from voxmlx import Checkpoint, Session, Transcript, load, stream, transcribe
from voxmlx.decoding.loop import greedy_ids
from voxmlx.events import Event, TokenDecoded
from voxmlx.live import __main__ as live
from voxmlx.live import local_sessions
from voxmlx.serve import __main__ as serve
from voxmlx.serve.stream_options import StreamOptions

SOUND = speech_like(16_000 * 3, seed=2)


def with_audio(directory: Path, target: Path, **audio: object) -> Path:
    """A copy of a model whose tekken.json says otherwise about its streams."""
    shutil.copytree(directory, target)
    path = target / "tekken.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["audio"].update(audio)
    path.write_text(json.dumps(content), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def slow_dir(
    tiny_checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model, meant for 960 ms."""
    target = tmp_path_factory.mktemp("slow") / "model"
    return with_audio(tiny_checkpoint_dir, target, transcription_delay_ms=960.0)


@pytest.fixture(scope="module")
def slow(slow_dir: Path) -> Checkpoint:
    return load(slow_dir, "float32")


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sound") / "talk.wav"
    soundfile.write(path, SOUND, 16_000, subtype="PCM_16")
    return str(path)


def ids(events: list[Event]) -> list[int]:
    return [event.token_id for event in events if isinstance(event, TokenDecoded)]


def test_a_session_has_the_models_delay_unless_it_asks_for_another(
    slow: Checkpoint, tiny_checkpoint: Checkpoint
) -> None:
    assert (slow.delay_ms, tiny_checkpoint.delay_ms) == (960, 480)
    assert Session(slow).delay_ms == 960
    assert Session(slow, delay_ms=480).delay_ms == 480
    session = Session(slow)
    own = ids(session.push(SOUND) + session.finish())
    assert own == session_ids(tiny_checkpoint, SOUND, 960)
    assert own != session_ids(tiny_checkpoint, SOUND, 480)


def test_an_asynchronous_stream_has_the_models_delay(slow: Checkpoint) -> None:
    async def sound() -> AsyncIterator[np.ndarray]:
        yield SOUND

    async def collect(**options: int) -> list[Event]:
        return [event async for event in stream(sound(), slow, **options)]

    assert ids(asyncio.run(collect())) == session_ids(slow, SOUND, 960)
    assert ids(asyncio.run(collect(delay_ms=80))) == session_ids(slow, SOUND, 80)


@pytest.mark.parametrize(("asked", "delay_ms"), [([], 960), (["--delay", "80"], 80)])
def test_files_are_transcribed_at_the_models_delay(
    slow_dir: Path,
    wav: str,
    asked: list[str],
    delay_ms: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = ["--model", str(slow_dir), "--dtype", "float32", "--no-guards"]
    arguments = [wav, *model, "--format", "json", *asked]
    assert transcribe.main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["delay_ms"] == delay_ms
    session = Session(load(slow_dir, "float32"), delay_ms=delay_ms)
    events = session.push(SOUND) + session.finish()
    assert told["text"] == Transcript.from_events(events).text


@pytest.mark.parametrize(("asked", "delay_ms"), [([], 960), (["--delay", "80"], 80)])
def test_a_live_stream_has_the_models_delay(
    slow_dir: Path,
    wav: str,
    asked: list[str],
    delay_ms: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Session] = []

    def note(*given: object, **options: object) -> Session:
        opened.append(Session(*given, **options))  # pyright: ignore[reportArgumentType] -- handed on
        return opened[-1]

    monkeypatch.setattr(local_sessions, "Session", note)
    model = ["--model", str(slow_dir), "--dtype", "float32"]
    assert live.main(["--input", wav, "--plain", *model, *asked]) == 0
    assert [session.delay_ms for session in opened] == [delay_ms]


@pytest.mark.parametrize(("asked", "delay_ms"), [([], 960), (["--delay", "80"], 80)])
def test_a_servers_streams_have_the_models_delay(
    slow_dir: Path,
    asked: list[str],
    delay_ms: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from voxmlx.serve import app, server

    services: list[dict[str, Any]] = []

    class Noted(app.Service):
        def __init__(self, *given: Any, **options: Any) -> None:
            services.append(options)
            super().__init__(*given, **options)

    monkeypatch.setattr(app, "Service", Noted)
    monkeypatch.setattr(server.Server, "run", lambda *_: None)
    model = ["--model", str(slow_dir), "--dtype", "float32"]
    assert serve.main([*model, "--port", "0", *asked]) == 0
    (service,) = services
    assert service["options"] == StreamOptions(delay_ms=delay_ms)
    assert service["left_pad_tokens"] == 32


def test_padding_before_a_stream_is_the_models(
    tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    directory = with_audio(
        tiny_checkpoint_dir, tmp_path / "model", streaming_n_left_pad_tokens=20
    )
    checkpoint = load(directory, "float32")
    model = checkpoint.model
    n_right = 480 // 80 + 10
    padded = np.pad(SOUND, (20 * 1280, -len(SOUND) % 1280 + n_right * 1280))
    samples = np.pad(padded, (0, model.mel.lookahead))
    expected = greedy_ids(model, samples[None], model.make_state(480))
    assert model.make_state(480).n_forced == 20 + 6
    assert session_ids(checkpoint, SOUND, 480) == expected[expected >= 0].tolist()
