"""Time that reading a file takes, beside the time that the demo model takes for it.

    python -m benchmarks.decoding [--turns 5] [--seconds 60]

Each turn reads every kind of file, from its path and from a pipe, and then transcribes
the same sound. Times are CPU seconds per second of sound, all threads together, so that
other work on the machine disturbs them less. Ends in one JSON line; exit status 1 if
a kind takes over 2 % of the model's time.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.demo_sound import sample
from benchmarks.provenance import closing_line
from benchmarks.sound_formats import encode_file
from voxmlx import Session, load
from voxmlx.audio.files import open_audio
from voxmlx.checkpoint import Checkpoint

RATE = 16_000
MAX_SHARE = 0.02

# Suffix: (container, codec, rate); all have two channels.
KINDS = {
    "wav": ("wav", "pcm_s16le", 44_100),
    "flac": ("flac", "flac", 44_100),
    "m4a": ("ipod", "aac", 44_100),
    "mp4": ("mp4", "aac", 48_000),
    "mp3": ("mp3", "libmp3lame", 44_100),
    "opus": ("ogg", "libopus", 48_000),
    "webm": ("webm", "libopus", 48_000),
}


def speech(seconds: int) -> np.ndarray:
    """Return the demo's sample, again and again: float32 [n] at 16 kHz."""
    return np.resize(sample(), seconds * RATE)


def read_file(path: Path) -> float:
    """Read from the path; return the CPU seconds."""
    started = time.process_time()
    with open_audio(path) as audio:
        for _ in audio.pieces():
            pass
    return time.process_time() - started


def read_pipe(path: Path) -> float:
    """Read from a pipe that another thread fills; return the CPU seconds."""
    content = path.read_bytes()
    read_end, write_end = os.pipe()

    def fill() -> None:
        with open(write_end, "wb") as pipe:
            pipe.write(content)

    thread = threading.Thread(target=fill)
    started = time.process_time()
    thread.start()
    with open(read_end, "rb") as pipe, open_audio(pipe) as audio:
        for _ in audio.pieces():
            pass
    thread.join()
    return time.process_time() - started


def transcribe(checkpoint: Checkpoint, sound: np.ndarray) -> float:
    """Transcribe as the command does; return the CPU seconds."""
    session = Session(checkpoint, speculate=True)
    started = time.process_time()
    for first in range(0, len(sound), 5 * RATE):
        session.push(sound[first : first + 5 * RATE])
    session.finish()
    return time.process_time() - started


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    sound = speech(arguments.seconds)
    checkpoint = load("demo")
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    model: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Path] = {}
        for kind, (container, codec, rate) in KINDS.items():
            paths[kind] = Path(folder, f"sound.{kind}")
            encode_file(paths[kind], container, codec, rate, 2, sound, {})
        for _ in range(arguments.turns + 1):
            for kind, path in paths.items():
                times[kind, "path"].append(read_file(path))
                times[kind, "pipe"].append(read_pipe(path))
            model.append(transcribe(checkpoint, sound))
    per_second = 1000 / arguments.seconds
    model_ms = statistics.median(model[1:]) * per_second
    print(f"the demo model: {model_ms:.1f} ms for a second of sound\n")
    print("| file | from a path, ms | of the model | from a pipe, ms | of the model |")
    print("|---|---|---|---|---|")
    shares: dict[str, float] = {}
    for kind in paths:
        row = f"| {kind} |"
        for door in ("path", "pipe"):
            taken_ms = statistics.median(times[kind, door][1:]) * per_second
            shares[f"{kind}, {door}"] = taken_ms / model_ms
            row += f" {taken_ms:.2f} | {100 * taken_ms / model_ms:.1f} % |"
        print(row)
    rounded = {name: round(share, 4) for name, share in shares.items()}
    print(closing_line("decoding", model_ms=round(model_ms, 1), shares=rounded))
    return 1 if max(shares.values()) > MAX_SHARE else 0


if __name__ == "__main__":
    sys.exit(main())
