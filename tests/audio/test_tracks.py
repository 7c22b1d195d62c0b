"""Films with several sound tracks, with longer pictures, and names like addresses."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

import voxmlx.audio.long_mp4
from tests.audio.made_files import make_film, make_tracks
from tests.audio.test_mutated import Forward
from voxmlx import AudioError
from voxmlx.audio.files import open_audio
from voxmlx.events import SoundWarning

TONES = {"eng": 300, "deu": 700}


def tone(hertz: int) -> np.ndarray:
    return (np.sin(np.arange(16_000) * hertz * 2 * np.pi / 16_000) / 4).astype("f4")


def heard(
    file: Path | io.BytesIO | Forward, track: int | None = None
) -> tuple[int, list[SoundWarning]]:
    """The tone in Hz, and the warnings."""
    with open_audio(file, track=track, name="film") as audio:
        sound = np.concatenate(list(audio.pieces()))
        spectrum = np.abs(np.fft.rfft(sound))
        hertz = int(spectrum.argmax()) * 16_000 / len(sound)
        return round(hertz, -1), audio.take_warnings()  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("is_long", [False, True])
@pytest.mark.parametrize("container", ["matroska", "mp4", "mov", "mpegts"])
def test_a_film_with_two_tracks_says_which_one_is_heard(
    tmp_path: Path, container: str, is_long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_long:
        monkeypatch.setattr(voxmlx.audio.long_mp4, "_MAX_ENTRIES", 0)
    tones = {language: tone(hertz) for language, hertz in TONES.items()}
    content = make_tracks(tmp_path / "film", tones, container).read_bytes()
    for file in (io.BytesIO, Forward):
        hertz, warnings = heard(file(content))
        assert hertz == 300
        assert [warning.code for warning in warnings] == ["tracks"]
        # QuickTime has numbers for languages, of which FFmpeg knows some.
        named = "1" if container == "mov" else "1 (eng), 2 (deu); track 1 is heard"
        assert warnings[0].message.startswith(f"film has 2 sound tracks, {named}")
        assert warnings[0].message.endswith("is heard, another one with --track N")
        assert heard(file(content), 1) == (300, [])
        assert heard(file(content), 2) == (700, [])
        with pytest.raises(AudioError, match="2 sound tracks, no track 3"):
            heard(file(content), 3)


@pytest.mark.parametrize("is_long", [False, True])
@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_the_track_that_is_marked_is_heard(
    tmp_path: Path, container: str, is_long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_long:
        monkeypatch.setattr(voxmlx.audio.long_mp4, "_MAX_ENTRIES", 0)
    tones = {language: tone(hertz) for language, hertz in TONES.items()}
    path = make_tracks(tmp_path / "film", tones, container, "deu")
    hertz, warnings = heard(path)
    assert hertz == 700
    assert "track 2 is heard" in warnings[0].message


def test_a_plain_file_has_one_track(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(300), 16_000)
    assert heard(tmp_path / "a.wav", 1) == (300, [])
    with pytest.raises(AudioError, match="one sound track, expected track 2"):
        heard(tmp_path / "a.wav", 2)


@pytest.mark.parametrize("container", ["matroska", "mp4", "mov", "avi"])
def test_pictures_longer_than_the_sound_are_no_cut(
    tmp_path: Path, container: str
) -> None:
    path = make_film(tmp_path / "film", tone(300), 0.0, container)
    assert heard(path) == (300, [])


@pytest.mark.parametrize("kind", ["W64", "NIST"])
def test_a_cut_file_of_a_rare_kind_is_told(tmp_path: Path, kind: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(300), 16_000, format=kind, subtype="PCM_16")
    content = file.getvalue()
    for whole in (io.BytesIO(content), Forward(content)):
        assert heard(whole) == (300, [])
    for cut in (io.BytesIO(content[:-8_000]), Forward(content[:-8_000])):
        _, warnings = heard(cut)
        assert [warning.code for warning in warnings] == ["cut_short"]
        assert "promises 1.000 s of sound, it holds 0.750 s" in warnings[0].message


@pytest.mark.parametrize(
    "name",
    ["http:evil", "concat:a.wav|b.wav", "data:audio", "file:a.wav", "a%20b:c.wav",
     "-x.wav", "pipe:0", "subfile,,start,0,end,9,,:a.wav", "a\nb.wav", "tcp:localhost"],
)  # fmt: skip
def test_a_name_like_an_address_is_the_name_of_a_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioError, match="does not exist"):
        open_audio(name)
    with open(name, "wb") as file:
        soundfile.write(file, tone(300), 16_000, format="WAV", subtype="PCM_16")
    assert heard(Path(name))[0] == 300
    with open_audio(name) as audio:
        assert sum(map(len, audio.pieces())) == 16_000


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\nsecret.wav\n",
        "ffconcat version 1.0\nfile secret.wav\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD><BaseURL>secret.wav</BaseURL></MPD>',
        "[playlist]\nFile1=secret.wav\n",
    ],
    ids=["m3u8", "concat", "sdp", "dash", "pls"],
)
@pytest.mark.parametrize("padding", [b"", b"\0" * 600], ids=["text", "binary"])
def test_a_list_of_other_files_opens_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, padding: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("secret.wav", tone(300), 16_000)
    Path("list.wav").write_bytes(text.encode() + padding)
    n_open = len(os.listdir("/dev/fd"))
    with pytest.raises(AudioError):
        open_audio("list.wav")
    assert len(os.listdir("/dev/fd")) == n_open
