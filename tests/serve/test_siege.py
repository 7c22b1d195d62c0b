"""A server under attack: it answers, forgets its attackers, and serves the others."""

import asyncio
import base64
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import av
import httpx
import numpy as np
import psutil
import pytest
import soundfile
from websockets.sync.client import connect
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStop
from wyoming.client import AsyncTcpClient

from tests.serve.attackers import upload_request
from tests.serve.conftest import alone
from tests.serve.loopback import PATIENCE_S, pcm16, said, until
from tests.serve.test_command import started, wyoming_port
from voxmlx import Checkpoint

MAX_GROWTH_BYTES = 30 << 20


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of ten seconds, of the kinds that people send."""
    directory = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    loud = rng.standard_normal((10 * 96_000, 2)).astype(np.float32) * 0.1
    soundfile.write(directory / "a.flac", loud, 96_000)
    soundfile.write(directory / "a.wav", loud[::6, 0], 16_000)
    soundfile.write(directory / "a.mp3", loud[::2], 48_000)
    with av.open(str(directory / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        pcm = (loud[::2, 0] * 32768).clip(-32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return sorted(directory.iterdir())


def live_text(url: str, samples: np.ndarray) -> str:
    """What a client at the pace of speech is told."""
    url = url.replace("http", "ws") + "/v1/realtime"
    with connect(url, max_queue=None, ping_interval=None) as websocket:
        began = time.monotonic()
        for i, start in enumerate(range(0, len(samples), 1280)):
            audio = base64.b64encode(pcm16(samples[start : start + 1280])).decode()
            message = {"type": "input_audio_buffer.append", "audio": audio}
            time.sleep(max(0.0, began + i * 0.08 - time.monotonic()))
            websocket.send(json.dumps(message))
        websocket.send('{"type": "input_audio_buffer.commit", "final": true}')
        return said(websocket, "transcription.done")[-1]["text"].strip()


def starved_s(task: Path) -> float:
    """How long a thread has waited for a core, where the system tells it (Linux)."""
    try:
        return int((task / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


@contextmanager
def watched(url: str, pid: int) -> Iterator[list[float]]:
    """How long /health took, again and again; the list is complete at the end.

    Less the time for which a thread of the server, or ours, waited for a core: other
    processes had it then.
    """
    took_s: list[float] = []
    is_over = threading.Event()

    def watch() -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not is_over.wait(0.1):
                tasks = [
                    *Path(f"/proc/{pid}/task").glob("*"),
                    Path("/proc/thread-self"),
                ]
                before = {task: starved_s(task) for task in tasks}
                began = time.monotonic()
                # A connection of its own each time, as a stranger's.
                headers = {"Connection": "close"}
                assert client.get(f"{url}/health", headers=headers).status_code == 200
                spent_s = time.monotonic() - began
                *others, ours = (starved_s(task) - n for task, n in before.items())
                took_s.append(spent_s - ours - max(others, default=0.0))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield took_s
        finally:
            is_over.set()
            watching.result(PATIENCE_S)


def wyoming_text(port: int, samples: np.ndarray) -> str:
    """What a client of Wyoming at the pace of speech is told."""

    async def talk() -> str:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            began = time.monotonic()
            for i, start in enumerate(range(0, len(samples), 1280)):
                audio = pcm16(samples[start : start + 1280])
                sound = AudioChunk(rate=16_000, width=2, channels=1, audio=audio)
                await asyncio.sleep(max(0.0, began + i * 0.08 - time.monotonic()))
                await client.write_event(sound.event())
            await client.write_event(AudioStop().event())
            while (event := await client.read_event()) is not None:
                if Transcript.is_type(event.type):
                    return Transcript.from_event(event).text
            raise AssertionError("the connection has ended")

    return asyncio.run(talk())


def is_idle(url: str) -> bool:
    return httpx.get(f"{url}/health", timeout=PATIENCE_S).json()["sessions"] == 0


def attack(
    url: str, wyoming: int, seconds: float, sounds: Sequence[Path]
) -> dict[str, int]:
    ports = [url.rpartition(":")[2], str(wyoming)]
    command = [sys.executable, "-m", "tests.serve.attackers", *ports, str(seconds)]
    done = subprocess.run(
        [*command, *map(str, sounds)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def upload_until_told(url: str, process: subprocess.Popen[str]) -> bytes:
    """Be in the middle of an upload when the server is told to end."""
    request = upload_request(bytes(5_000_000))
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with socket.create_connection(address, PATIENCE_S) as plain:
        plain.sendall(request[:1_000_000])
        until(lambda: not is_idle(url))
        process.send_signal(signal.SIGTERM)
        answer = b""
        with contextlib.suppress(ConnectionError):  # the rest was not read
            while piece := plain.recv(65_536):
                answer += piece
        return answer


@pytest.mark.parametrize(
    ("seconds", "n_live", "n_hang_ups", "patience_s"),
    [
        # Beside other tests, the machine may be busy with them.
        pytest.param(5.0, 3, 5, 5.0, id="short"),
        pytest.param(60.0, 10, 300, 1.0, id="long", marks=pytest.mark.slow),
    ],
)
def test_a_siege_changes_nothing(
    demo_checkpoint: Checkpoint,
    sample: np.ndarray,
    sounds: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    n_live: int,
    n_hang_ups: int,
    patience_s: float,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    n = round(seconds * 16_000)
    whole = np.round(sample * 32768).clip(-32768, 32767).astype(np.float32) / 32768
    spoken = [np.resize(np.roll(whole, -16_000 * i), n) for i in range(n_live)]
    expected = [alone(demo_checkpoint, samples) for samples in spoken]
    doors: list[str] = []
    options = ("--max-sessions", "30", "--wyoming-port", "0")
    with started(*options, told=doors) as (process, url):
        wyoming = wyoming_port(doors)

        def talk(i: int, n: int | None = None) -> str:
            """Every third one speaks Wyoming."""
            if i % 3 == 2:
                return wyoming_text(wyoming, spoken[i][:n])
            return live_text(url, spoken[i][:n])

        resources = psutil.Process(process.pid)
        # What is made once has been made, by as many as will be there.
        with ThreadPoolExecutor(n_live) as pool:
            attack(url, wyoming, min(seconds, 10.0), sounds)
            list(pool.map(lambda i: talk(i, 48_000), range(n_live)))
        until(lambda: is_idle(url))
        before = resources.memory_info().rss
        with watched(url, process.pid) as took_s, ThreadPoolExecutor(n_live) as pool:
            talks = [pool.submit(talk, i) for i in range(n_live)]
            counts = attack(url, wyoming, seconds * 0.8, sounds)
            # A disk is full where no file may grow.
            limit = resources.rlimit(psutil.RLIMIT_FSIZE)
            resources.rlimit(psutil.RLIMIT_FSIZE, (100_000, limit[1]))
            files = {"file": ("a.wav", sounds[-1].read_bytes())}
            path = f"{url}/v1/audio/transcriptions"
            refused = httpx.post(path, files=files, timeout=PATIENCE_S)
            assert refused.status_code == 507
            resources.rlimit(psutil.RLIMIT_FSIZE, limit)
            told = [one.result(PATIENCE_S) for one in talks]
        assert told == expected
        assert max(took_s) < patience_s
        assert counts["uploads"] + counts["more uploads"] >= n_hang_ups, counts
        for name in ("utterances", "halves", "floods"):
            assert counts[f"wyoming {name}"] > 0, counts
        until(lambda: is_idle(url))
        assert list(tmp_path.iterdir()) == []
        # Threads of the last uploads may still be closing their files.
        until(lambda: resources.memory_info().rss - before < MAX_GROWTH_BYTES)
        answer = upload_until_told(url, process)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"shutting_down"' in answer
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
