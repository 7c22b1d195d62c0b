"""The same file by a path, a pipe, `live --input` and an upload: the same text."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
import soundfile

from tests.audio.made_files import KINDS, make_file, make_film
from tests.audio.wav_bytes import encode, wav_bytes
from tests.serve.loopback import PATIENCE_S, Loopback, serving
from voxmlx import Checkpoint, demo, load
from voxmlx.live.__main__ import main as live
from voxmlx.transcribe import main as transcribe

TEXT = "turn on the heating"
TRANSCRIPTIONS = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Float32 [22 400]: "turn on the heating"."""
    samples, _ = soundfile.read(demo.SAMPLE, dtype="float32")
    return samples[round(2.9 * 16_000) :][: round(1.4 * 16_000)]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("demo")


@pytest.fixture(scope="module")
def server(checkpoint: Checkpoint) -> Iterator[Loopback]:
    with serving(checkpoint) as server:
        yield server


class Doors:
    """All ways in, with the demo model that is loaded once."""

    def __init__(
        self,
        server: Loopback,
        checkpoint: Checkpoint,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self._server = server
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for module in ("voxmlx.cli.arguments", "voxmlx.live.local_sessions"):
            monkeypatch.setattr(f"{module}.load_model", lambda _: checkpoint)
        monkeypatch.setattr("voxmlx.transcribe.load_model", lambda _: checkpoint)

    def _said(self, status: int) -> tuple[int, str, str]:
        out, err = self._capsys.readouterr()
        return status, out, err

    def path(self, path: Path, *options: str) -> tuple[int, str, str]:
        status = transcribe(["--demo", *options, str(path)])
        return self._said(status)

    def pipe(self, path: Path, *options: str) -> tuple[int, str, str]:
        with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as cat:
            self._monkeypatch.setattr("sys.stdin", cat.stdout)
            status = transcribe(["--demo", *options, "-"])
        return self._said(status)

    def live(self, path: Path, *options: str) -> tuple[int, str, str]:
        status = live(["--demo", "--plain", *options, "--input", str(path)])
        return self._said(status)

    def upload(self, path: Path, **fields: str) -> dict[str, Any]:
        with httpx.Client(base_url=self._server.http, timeout=PATIENCE_S) as client:
            files = {"file": (path.name, path.read_bytes())}
            return client.post(TRANSCRIPTIONS, files=files, data=fields).json()

    def texts(self, path: Path) -> list[str]:
        """What each says; every one must succeed."""
        told: list[str] = []
        for status, out, _ in (self.path(path), self.pipe(path), self.live(path)):
            assert status == 0
            told.append(" ".join(out.split()))
        return [*told, self.upload(path)["text"].strip()]


@pytest.fixture
def doors(
    server: Loopback,
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Doors:
    return Doors(server, checkpoint, monkeypatch, capsys)


@pytest.mark.parametrize("kind", KINDS)
def test_what_phones_browsers_and_films_hold_is_heard_through_every_door(
    tmp_path: Path, sound: np.ndarray, doors: Doors, kind: str
) -> None:
    path = make_file(tmp_path / f"memo.{kind}", sound, kind)
    assert doors.texts(path) == [TEXT] * 4


def stale(sound: np.ndarray) -> bytes:
    pcm = encode(sound, "s16")
    return wav_bytes(pcm, riff_size=36 + len(pcm) // 2, data_size=len(pcm) // 2)


def promising(sound: np.ndarray) -> bytes:
    pcm = encode(sound, "s16")
    return wav_bytes(pcm, riff_size=72 + len(pcm), data_size=36 + len(pcm))


def split_in_two(sound: np.ndarray) -> bytes:
    pcm = encode(sound, "s16")
    first, second = pcm[:20_000], pcm[20_000:]
    part = b"LIST\x04\0\0\0INFO" + b"data" + len(second).to_bytes(4, "little") + second
    return wav_bytes(first, after=part)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (stale, "wrong_length"),
        (promising, "cut_short"),
        (split_in_two, None),
        (lambda s: wav_bytes(encode(s, "s16"), riff_size=0, data_size=0), None),
    ],
)
def test_sound_behind_a_header_that_is_wrong_is_heard_through_every_door(
    tmp_path: Path, sound: np.ndarray, doors: Doors, make: Any, code: str | None
) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(make(sound))
    assert doors.texts(path) == [TEXT] * 4
    told = doors.upload(path).get("warnings", [])
    assert [warning["code"] for warning in told] == ([code] if code else [])
    for _, out, err in (
        doors.path(path, "--format", "json"),
        doors.pipe(path, "--format", "json"),
    ):
        codes = [warning["code"] for warning in json.loads(out).get("warnings", [])]
        assert codes == ([code] if code else [])
        assert len(err.splitlines()) == len(codes)
    _, _, err = doors.live(path)
    assert len(re.findall("warning: ", err)) == (1 if code else 0)


def test_mp3_in_a_wav_is_written_to_a_directory(
    tmp_path: Path, sound: np.ndarray, doors: Doors
) -> None:
    path = tmp_path / "m.wav"
    with av.open(str(path), "w", format="wav") as file:
        stream = file.add_stream("libmp3lame", rate=16_000)
        stream.codec_context.layout = "mono"  # pyright: ignore[reportAttributeAccessIssue]
        frame = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
        frame.sample_rate, frame.pts = 16_000, 0
        resampler = av.AudioResampler("fltp", "mono", 16_000, frame_size=576)
        for ready in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(ready))  # pyright: ignore[reportAttributeAccessIssue]
        file.mux(stream.encode(None))  # pyright: ignore[reportAttributeAccessIssue]
    assert doors.texts(path) == [TEXT] * 4
    status, _, _ = doors.path(path, "--output-dir", str(tmp_path / "out"))
    assert status == 0
    assert (tmp_path / "out" / "m.txt").read_text() == TEXT + "\n"


def test_subtitles_fit_a_film_whose_sound_starts_late(
    tmp_path: Path, sound: np.ndarray, doors: Doors
) -> None:
    path = make_film(tmp_path / "late.mkv", sound, 4.9)
    for told in (
        doors.path(path, "--format", "srt"),
        doors.pipe(path, "--format", "srt"),
    ):
        begin = re.search(r"00:00:(\d\d),(\d\d\d) -->", told[1])
        assert begin is not None
        assert int(begin[1]) * 1000 + int(begin[2]) == pytest.approx(5_290, abs=40)


def test_inverted_stereo_is_heard_from_one_channel(
    tmp_path: Path, sound: np.ndarray, doors: Doors
) -> None:
    path = tmp_path / "anti.wav"
    soundfile.write(path, np.stack([sound, -sound], axis=1), 16_000)
    assert doors.texts(path) == [TEXT] * 4
    _, out, err = doors.path(path, "--format", "json")
    assert [w["code"] for w in json.loads(out)["warnings"]] == ["inverted"]
    assert "cancel each other" in err


def test_a_channel_that_is_asked_for_is_heard_alone(
    tmp_path: Path, sound: np.ndarray, doors: Doors
) -> None:
    path = tmp_path / "call.wav"
    hum = np.sin(np.arange(len(sound)) * 0.05).astype(np.float32) / 2
    soundfile.write(path, np.stack([hum, sound], axis=1), 16_000)
    for door in (doors.path, doors.pipe, doors.live):
        status, out, _ = door(path, "--channel", "2")
        assert (status, out.strip()) == (0, TEXT)
    assert doors.upload(path, channel="2")["text"] == TEXT
    refused = doors.upload(path, channel="split")["error"]["message"]
    assert refused.startswith("channel is 'split', expected a number from 1, or mix")
    status, out, err = doors.path(path, "--channel", "3")
    assert (status, out) == (1, "")
    assert "has 2 channels, expected channel 3; choose one from 1 to 2, or mix" in err


PAGE = b"<!DOCTYPE html>\n<html><body>" + b"<p>404</p>" * 400


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(PAGE, id="a web page"),
        pytest.param(b"just some words\n" * 99, id="text"),
        pytest.param(np.random.default_rng(0).bytes(90_000), id="noise"),
        pytest.param(bytes(90_000), id="zeros"),
    ],
)
def test_what_is_no_sound_is_refused_through_every_door(
    tmp_path: Path, doors: Doors, junk: bytes
) -> None:
    path = tmp_path / "junk.m4a"
    path.write_bytes(junk)
    for status, out, err in (doors.path(path), doors.pipe(path), doors.live(path)):
        assert (status, out) == (1, "")
        assert err.startswith("voxmlx: error: ")
        assert len(err.splitlines()) == 1
        assert re.search(r"ff\w+ ", err), "no command to paste"
    assert doors.upload(path)["error"]["code"] == "invalid_audio"


def test_compressed_sound_in_a_pipe_gives_its_text_by_the_real_command(
    tmp_path: Path, sound: np.ndarray
) -> None:
    path = make_file(tmp_path / "memo.m4a", sound, "m4a")
    done = subprocess.run(
        [sys.executable, "-m", "voxmlx.transcribe", "--demo", "-"],
        input=path.read_bytes(),
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (TEXT.encode() + b"\n", b"")
