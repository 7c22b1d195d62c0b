"""Small copies of corpora in the layouts they are published in."""

import csv
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from voxmlx import demo

__all__ = [
    "HEATING",
    "LIGHTS",
    "SOUND",
    "TIME",
    "ami",
    "chime4",
    "common_voice",
    "earnings",
    "fleurs",
    "gigaspeech",
    "librispeech",
    "manifest",
    "meanwhile",
    "sound_bytes",
    "switchboard",
    "tedlium",
]

_sample, _ = soundfile.read(demo.SAMPLE, dtype="float32")


def _seconds(start: float, end: float) -> np.ndarray:
    return _sample[round(16_000 * start) : round(16_000 * end)]


# "turn on the heating", "what time is it", "turn on the lights"; and all in a row.
HEATING, TIME, LIGHTS = _seconds(3.0, 5.2), _seconds(5.3, 6.9), _seconds(6.9, 9.0)
SOUND = _seconds(3.0, 9.0)


def sound_bytes(
    samples: np.ndarray, kind: str = "WAV", rate: int = 16_000, subtype: str = "PCM_16"
) -> bytes:
    """Return a sound file: samples [n] or [n, channels] at `rate`."""
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format=kind, subtype=subtype)
    return content.getvalue()


def _write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def librispeech(root: Path, said: Sequence[tuple[np.ndarray, str]]) -> Path:
    """Write test-clean with one chapter, and dev-clean with the first utterance."""
    for part, rows in (("test-clean", said), ("dev-clean", said[:1])):
        chapter = root / "LibriSpeech" / part / "1089" / "134686"
        lines: list[str] = []
        for i, (samples, text) in enumerate(rows):
            name = f"1089-134686-{i:04d}"
            _write(chapter / f"{name}.flac", sound_bytes(samples, "FLAC"))
            lines.append(f"{name} {text}\n")
        _write(chapter / "1089-134686.trans.txt", "".join(lines))
    return root / "LibriSpeech"


def fleurs(
    root: Path,
    said: Mapping[str, Sequence[tuple[np.ndarray, str]]],
    *,
    is_packed: bool = True,
) -> Path:
    """Write languages by FLEURS' names; the archive has a sound that no line names."""
    for language, rows in said.items():
        folder = root / "data" / language
        sounds = {f"{i}.wav": sound_bytes(s) for i, (s, _) in enumerate(rows)}
        lines = [
            f"{i}\t{i}.wav\t{text}\t{text.lower()}\tx | y\t{len(samples)}\tMALE\n"
            for i, (samples, text) in enumerate(rows)
        ]
        _write(folder / "test.tsv", "".join(lines))
        if not is_packed:
            for name, content in sounds.items():
                _write(folder / "audio" / "test" / name, content)
            continue
        (folder / "audio").mkdir(parents=True)
        with tarfile.open(folder / "audio" / "test.tar.gz", "w:gz") as archive:
            for name, content in {"other.wav": b"", **sounds}.items():
                member = tarfile.TarInfo(f"test/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return root


def common_voice(root: Path, said: Sequence[tuple[np.ndarray, str]]) -> Path:
    """Write one language of a release, its clips as MP3."""
    folder = root / "cv-corpus-9.0" / "en"
    names = [f"common_voice_en_{i}.mp3" for i in range(len(said))]
    for name, (samples, _) in zip(names, said, strict=True):
        content = sound_bytes(samples, "MP3", subtype="MPEG_LAYER_III")
        _write(folder / "clips" / name, content)
    with (folder / "test.tsv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)
        rows.writerow(["client_id", "path", "sentence", "up_votes", "down_votes"])
        for name, (_, text) in zip(names, said, strict=True):
            rows.writerow(["a1b2", name, text, 2, 0])
    return folder.parent


def tedlium(
    root: Path, samples: np.ndarray, rows: Sequence[tuple[float, float, str]]
) -> Path:
    """Write release 3 with one talk in legacy/test."""
    test = root / "TEDLIUM_release-3" / "legacy" / "test"
    _write(test / "sph" / "AimeeMullins_2009P.sph", sound_bytes(samples, "NIST"))
    lines = [
        f"AimeeMullins_2009P 1 AimeeMullins {start} {end} <o,f0,female> {text}\n"
        for start, end, text in rows
    ]
    _write(test / "stm" / "AimeeMullins_2009P.stm", ";; comment\n" + "".join(lines))
    return root / "TEDLIUM_release-3"


def earnings(root: Path, calls: Mapping[str, tuple[np.ndarray, str]]) -> Path:
    """Write Earnings-21: punctuation has a column of its own."""
    folder = root / "earnings21"
    for name, (samples, text) in calls.items():
        content = sound_bytes(samples, "MP3", subtype="MPEG_LAYER_III")
        _write(folder / "media" / f"{name}.mp3", content)
        lines = ["token|speaker|ts|endTs|punctuation|case|tags|wer_tags"]
        for word in text.split():
            token = word.rstrip(".,?")
            lines.append(f"{token}|0|||{word[len(token) :]}|LC|[]|[]")
        lines.insert(2, "<crosstalk>|0||||CA|[]|[]")
        _write(
            folder / "transcripts" / "nlp_references" / f"{name}.nlp", "\n".join(lines)
        )
    return folder


def meanwhile(
    root: Path, videos: Mapping[str, tuple[np.ndarray, str, str, str]]
) -> Path:
    """Write meanwhile.json and a sound per video: samples, begin, end, text."""
    content = {
        name: {"begin": begin, "end": end, "text": text}
        for name, (_, begin, end, text) in videos.items()
    }
    _write(root / "meanwhile.json", json.dumps(content))
    for name, (samples, *_) in videos.items():
        _write(root / "audio" / f"{name}.flac", sound_bytes(samples, "FLAC"))
    return root


def ami(
    root: Path, samples: np.ndarray, rows: Sequence[tuple[float, float, str]]
) -> Path:
    """Write one speaker of the meeting ES2004a, who wears the second headset."""
    audio = root / "amicorpus" / "ES2004a" / "audio"
    _write(audio / "ES2004a.Headset-0.wav", sound_bytes(np.zeros_like(samples)))
    _write(audio / "ES2004a.Headset-1.wav", sound_bytes(samples))
    space = 'xmlns:nite="http://nite.sourceforge.net/"'
    words: list[str] = []
    segments: list[str] = []
    for start, end, text in rows:
        first = len(words)
        for word in text.split():
            punctuation = ' punc="true"' if word in ".,?" else ""
            name = f"ES2004a.A.words{len(words)}"
            words.append(f'<w nite:id="{name}"{punctuation}>{word}</w>')
        name = f"ES2004a.A.words{len(words)}"
        words.append(f'<vocalsound nite:id="{name}" type="laugh"/>')
        segments.append(
            f'<segment transcriber_start="{start}" transcriber_end="{end}"><nite:child '
            f'href="ES2004a.A.words.xml#id(ES2004a.A.words{first})..id({name})"/>'
            "</segment>"
        )
    notes = root / "ami_public_manual_1.6.2"
    for folder, kind, content in (
        ("words", "words", words),
        ("segments", "segments", segments),
    ):
        text = f"<nite:root {space}>{''.join(content)}</nite:root>"
        _write(notes / folder / f"ES2004a.A.{kind}.xml", text)
    speaker = '<speaker nxt_agent="A" channel="1" global_name="FEE013"/>'
    meeting = f'<meeting observation="ES2004a">{speaker}</meeting>'
    _write(
        notes / "corpusResources" / "meetings.xml",
        f"<nite:root {space}>{meeting}</nite:root>",
    )
    return root


def chime4(root: Path, samples: np.ndarray, text: str) -> Path:
    """Write one sentence, real in the one-channel track and simulated."""
    data = root / "CHiME3" / "data"
    for kind, content in (
        ("real", f"F05_442C0201_BUS {text}\n"),
        ("simu", f"F05_442C0202_BUS {text} <NOISE>\n"),
    ):
        name = content.split()[0]
        track = data / "audio" / "16kHz" / "isolated_1ch_track" / f"et05_bus_{kind}"
        _write(track / f"{name}.wav", sound_bytes(samples))
        _write(data / "transcriptions" / f"et05_{kind}.trn_all", content)
    return root / "CHiME3"


def gigaspeech(
    root: Path, samples: np.ndarray, rows: Sequence[tuple[float, float, str]]
) -> Path:
    """Write one recording of TEST and the names of one of XL that is not there."""
    path = "audio/podcast/P0000/POD1000000004.opus"
    content = sound_bytes(samples, "OGG", subtype="OPUS")
    _write(root / path, content)
    segments = [
        {
            "sid": f"POD1000000004_S{i:07d}",
            "begin_time": start,
            "end_time": end,
            "text_tn": text,
            "subsets": ["{TEST}"],
        }
        for i, (start, end, text) in enumerate(rows)
    ]
    audios = [
        {"aid": "POD1", "path": "audio/none.opus", "subsets": ["{XL}"], "segments": []},
        {"aid": "POD2", "path": path, "subsets": ["{TEST}"], "segments": segments},
    ]
    _write(root / "GigaSpeech.json", json.dumps({"dataset": "x", "audios": audios}))
    return root


def switchboard(root: Path, left: np.ndarray, right: np.ndarray, text: str) -> Path:
    """Write a call of two channels at 8 kHz; side B says the text."""
    n = min(len(left), len(right))
    both = np.stack([left[:n:2], right[:n:2]], axis=1)
    _write(
        root / "swb1_d1" / "sw02001.sph",
        sound_bytes(both, "NIST", rate=8_000, subtype="ULAW"),
    )
    folder = root / "swb_ms98_transcriptions" / "20" / "2001"
    _write(folder / "sw2001A-ms98-a-trans.text", "sw2001A-ms98-a-0001 0 1 [silence]\n")
    end = n / 16_000
    line = f"sw2001B-ms98-a-0001 0.0 {end} {text}\n"
    _write(folder / "sw2001B-ms98-a-trans.text", line)
    return root


def manifest(
    root: Path, samples: np.ndarray, rows: Sequence[tuple[float, float, str]]
) -> Path:
    """Write a manifest with NeMo's keys: parts of one sound."""
    _write(root / "sounds" / "talk.wav", sound_bytes(samples))
    lines = [
        json.dumps(
            {
                "audio_filepath": "sounds/talk.wav",
                "offset": start,
                "duration": end - start,
                "text": text,
                "lang": "en",
            }
        )
        for start, end, text in rows
    ]
    _write(root / "test_manifest.json", "\n".join(lines) + "\n")
    return root / "test_manifest.json"
