"""Hours of sound take no more memory than a minute, whatever holds them."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

pytestmark = pytest.mark.slow

MAX_GROWTH_MB = 20

# Container, codec, rate and options of the muxer.
HOLDERS = {
    "m4a": ("ipod", "aac", 48_000, {}),
    "m4a, index first": ("ipod", "aac", 48_000, {"movflags": "faststart"}),
    "mp4 in fragments": (
        "mp4",
        "aac",
        48_000,
        {"movflags": "frag_keyframe+empty_moov"},
    ),
    "mov, pcm": ("mov", "pcm_s16le", 8_000, {}),
    "mkv": ("matroska", "aac", 48_000, {}),
    "webm": ("webm", "libopus", 48_000, {}),
    "mp3": ("mp3", "libmp3lame", 16_000, {}),
    "ogg": ("ogg", "libopus", 48_000, {}),
    "flac": ("flac", "flac", 8_000, {}),
    "wav": ("wav", "pcm_s16le", 8_000, {}),
    "ts": ("mpegts", "aac", 48_000, {}),
}

# What a process took at the most. Linux counts a child's with its parent's in
# getrusage, and apart in /proc.
_READ = """
import resource, sys
from pathlib import Path
from voxmlx.audio.files import open_audio
path = sys.argv[1]
with open_audio(sys.stdin.buffer if path == "-" else path) as audio:
    n = sum(len(piece) for piece in audio.pieces())
status = Path("/proc/self/status")
if status.exists():
    peak_kb = int(status.read_text().partition("VmHWM:")[2].split()[0])
else:
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(n, peak_kb / 1024)
"""


def make(path: Path, holder: str, minutes: int) -> Path:
    """Write the packets of one encoded minute again and again."""
    container, codec, rate, options = HOLDERS[holder]
    noise = np.random.default_rng(0).standard_normal((1, rate * 60)) * 0.05
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        context = stream.codec_context
        context.layout, context.bit_rate = "mono", 32_000
        frame = av.AudioFrame.from_ndarray(noise.astype(np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = rate, 0
        context.open()
        assert context.format is not None
        resampler = av.AudioResampler(
            context.format.name, "mono", rate, context.frame_size or 1024
        )
        packets = [
            packet
            for ready in [*resampler.resample(frame), *resampler.resample(None)]
            for packet in stream.encode(ready)
        ]
        first, last = packets[0], packets[-1]
        assert first.pts is not None
        assert last.pts is not None
        span = last.pts + (last.duration or 0) - first.pts
        for minute in range(minutes):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.stream, again.time_base = stream, packet.time_base
                again.pts = again.dts = (packet.pts or 0) + minute * span
                again.duration = packet.duration
                file.mux(again)
    return path


def memory_mb(path: Path, *, is_piped: bool) -> tuple[float, float]:
    """Minutes read, and the most memory that this took, in a process of its own."""
    with subprocess.Popen(
        ["cat", str(path)] if is_piped else ["true"], stdout=subprocess.PIPE
    ) as cat:
        said = subprocess.run(
            [sys.executable, "-c", _READ, "-" if is_piped else str(path)],
            stdin=cat.stdout,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    n_samples, memory = said.split()
    return int(n_samples) / 16_000 / 60, float(memory)


@pytest.mark.parametrize("is_piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize(
    ("holder", "hours"),
    [(name, 8 if "m4a" in name else 2) for name in HOLDERS],
)
def test_hours_take_no_more_memory_than_a_minute(
    tmp_path: Path, holder: str, hours: int, is_piped: bool
) -> None:
    short = make(tmp_path / "short", holder, 1)
    long = make(tmp_path / "long", holder, hours * 60)
    minutes, least = memory_mb(short, is_piped=is_piped)
    assert minutes == pytest.approx(1, abs=0.01)
    minutes, most = memory_mb(long, is_piped=is_piped)
    long.unlink()
    assert minutes == pytest.approx(hours * 60, abs=0.5)
    assert most - least < MAX_GROWTH_MB
