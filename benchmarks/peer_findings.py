"""Findings about transcribe.cpp: delays, windows and memory, a case for each."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.gguf_checkpoint import write_gguf
from benchmarks.peer_models import EMBEDDING, write_source
from benchmarks.peer_process import PeerSettings, Worker
from tests.sounds import speech_like
from tests.tiny import EOS, TinyModel
from voxmlx import demo

__all__ = ["FINDINGS_OF", "Finding", "findings", "first_difference"]

FINDINGS_OF = "transcribe-cpp"
SAMPLE_RATE = 16_000
# Delay tokens: 240, 480 and 2400 ms.
_DELAYS = (3, 6, 30)
# Its decoder sees all of this long after the prompt of 2400 ms, and none of the demo's
# window is left then.
_SHORT_S, _LONG_S = 1.6, 20.0
_FILES_S = (60, 120, 240)
# The real windows: its prompt must be shorter than they are.
_LONG_WINDOWS = TinyModel(encoder_window=750, decoder_window=8192)

Finding = dict[str, str]


def findings(settings: PeerSettings) -> list[Finding]:
    """Try every case. Needs the peer's interpreter in `settings`."""
    cases: Sequence[Callable[[Path, PeerSettings], Finding]] = (
        _delay_of_files,
        _window_of_files,
        _memory_of_files,
        _end_of_sequence,
    )
    found: list[Finding] = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            found.append(case(Path(folder), settings))
    return found


def first_difference(ours: str, theirs: str) -> str | None:
    """Return where `theirs` departs from `ours`, with the text around; None: nowhere.

    White space around both does not count.
    """
    ours, theirs = ours.strip(), theirs.strip()
    if ours == theirs:
        return None
    pairs = enumerate(zip(ours, theirs, strict=False))
    shared = min(len(ours), len(theirs))
    at = next((i for i, (a, b) in pairs if a != b), shared)
    if at == len(theirs):
        return f"stops at character {at} of {len(ours)}, before {ours[at : at + 12]!r}"
    begin = max(0, at - 12)

    def around(text: str) -> str:
        return repr(text[begin : at + 12])

    return f"differs at character {at}: {around(theirs)}, not {around(ours)}"


def _delay_of_files(room: Path, settings: PeerSettings) -> Finding:
    sound = speech_like(6 * SAMPLE_RATE, seed=1)
    file, streamed = _sounds(room, sound)
    source = write_source(_LONG_WINDOWS, room / "source")
    tekken = json.loads((source / "tekken.json").read_text())
    offline: list[str] = []
    of_streams: dict[int, str] = {}
    for delay in _DELAYS:
        tekken["audio"]["transcription_delay_ms"] = 80 * delay
        (source / "tekken.json").write_text(json.dumps(tekken))
        path = write_gguf(source, room / f"{delay}.gguf")
        with settings.start(FINDINGS_OF, path) as worker:
            offline.append(_text(worker, "file", **file))
            of_streams[delay] = _text(worker, "stream", **streamed, delay_tokens=delay)
    same = "one text" if len(set(offline)) == 1 else "different texts"
    equal = [f"{80 * d} ms" for d, text in of_streams.items() if text == offline[0]]
    return {
        "finding": "A file is decoded at a delay of 2400 ms, whatever is asked.",
        "case": "Random network; its GGUF file says 240, 480 or 2400 ms; 6 s of sound as "
        "a file, and as a stream at each delay.",
        "seen": f"The three files gave {same}, that of the stream at "
        f"{' and '.join(equal) or 'no delay'} (streams: "
        f"{len(set(of_streams.values()))} different texts).",
    }


def _window_of_files(room: Path, settings: PeerSettings) -> Finding:
    spoken, _ = soundfile.read(demo.SAMPLE, dtype="float32")
    seen: list[str] = []
    path = write_gguf(demo.DIRECTORY, room / "demo.gguf")
    with settings.start(FINDINGS_OF, path) as worker:
        for seconds in (_SHORT_S, _LONG_S):
            sound = spoken[: int(seconds * SAMPLE_RATE)]
            file, streamed = _sounds(room, sound)
            stream = _text(worker, "stream", **streamed, delay_tokens=_DELAYS[-1])
            offline = _text(worker, "file", **file)
            difference = first_difference(stream, offline)
            seen.append(f"{seconds:g} s: {difference or 'equal'}")
    return {
        "finding": "A file is decoded without the decoder's window.",
        "case": "The demo, whose decoder sees 96 positions (7.7 s); its text of a file "
        "beside its own stream of the same sound at 2400 ms.",
        "seen": "; ".join(seen) + ".",
    }


def _memory_of_files(room: Path, settings: PeerSettings) -> Finding:
    spoken, _ = soundfile.read(demo.SAMPLE, dtype="float32")
    gguf = write_gguf(demo.DIRECTORY, room / "demo.gguf")
    seen: list[str] = []
    for who, path in (("ours", demo.DIRECTORY), (FINDINGS_OF, gguf)):
        peaks: list[str] = []
        for seconds in _FILES_S:
            file, _ = _sounds(room, np.resize(spoken, seconds * SAMPLE_RATE))
            with settings.start(who, path) as worker:
                worker.ask("file", **file)
                peaks.append(f"{worker.ask('memory')['resident_peak_mb']:.0f}")
        seen.append(f"{who} {', '.join(peaks)} MB")
    lengths = ", ".join(map(str, _FILES_S))
    return {
        "finding": "Memory of a file grows with the square of its length: the encoder's "
        "mask has T x T numbers.",
        "case": f"The demo; a file of {lengths} s, each in a fresh process; resident peak.",
        "seen": "; ".join(seen) + ".",
    }


def _end_of_sequence(room: Path, settings: PeerSettings) -> Finding:
    sound = speech_like(20 * SAMPLE_RATE, seed=1)
    _, streamed = _sounds(room, sound)
    tensors = _LONG_WINDOWS.tensors()
    tensors[EMBEDDING][EOS] *= 2
    source = _LONG_WINDOWS.write(room / "source", tensors=tensors)
    gguf = write_gguf(source, room / "tiny.gguf")
    texts: dict[str, str] = {}
    for who, path in (("ours", source), (FINDINGS_OF, gguf)):
        with settings.start(who, path) as worker:
            texts[who] = _text(worker, "stream", **streamed)
    ours, theirs = texts["ours"], texts[FINDINGS_OF]
    where = first_difference(ours, theirs) or "equal"
    return {
        "finding": "An end-of-sequence id ends a stream; sound that follows is not heard.",
        "case": "Random network that says this id within seconds; 20 s as a stream.",
        "seen": f"Its text {where}.",
    }


def _sounds(room: Path, sound: NDArray[Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return how a worker is asked for it as a file, and as a stream of the same numbers."""
    wav, npy = room / "sound.wav", room / "sound.npy"
    soundfile.write(wav, sound, SAMPLE_RATE, "PCM_16")
    exact, _ = soundfile.read(wav, dtype="float32")
    np.save(npy, exact)
    return {"path": str(wav)}, {"sound": str(npy)}


def _text(worker: Worker, task: str, **options: Any) -> str:
    answer = worker.ask(task, **options)
    return answer.get("text") or f"error: {answer.get('error')}"
