"""PCM out of a byte stream, a WAV's or headerless, checked to its end.

libsndfile cannot read what cannot seek, and shortens a file that was cut without
a word. Here a stream is read front to back, and ends where it said it would.
"""

from collections.abc import Callable, Iterator

import numpy as np

from voxmlx.audio.wav_header import (
    CUT_ADVICE,
    FLOAT,
    PCM,
    RIFF_IDS,
    ByteStream,
    WavHeader,
    read_up_to,
)
from voxmlx.config import SAMPLE_RATE
from voxmlx.errors import AudioError

__all__ = ["PcmStream", "is_plain_pcm", "raw_stream", "refuse_cut_file"]


class PcmStream:
    """Interleaved samples of a byte stream, as [n, channels] float32 blocks.

    `n_samples` counts samples per channel; None while unknown.
    """

    def __init__(
        self, stream: ByteStream, header: WavHeader, name: str, *, first: bytes = b""
    ) -> None:
        """`first` was taken from the stream already and comes before the rest."""
        self._stream = stream
        self._header = header
        self._name = name
        self._first = first
        self.rate = header.rate
        self.n_channels = header.n_channels
        self.n_samples = _promised_samples(header)

    def blocks(self, max_samples: int) -> Iterator[np.ndarray]:
        """Yield [n, channels], 1 to `max_samples` samples as they arrive.

        A pipe is never waited on for more than it holds, so that a live one is
        heard while it speaks. Raises AudioError for a stream that ends before its
        header said or inside a sample.
        """
        header = self._header
        decode = _DECODERS[header.encoding, header.bytes_per_sample]
        step_bytes = _step_bytes(header)
        n_left = self.n_samples
        pending = self._first
        while n_left is None or n_left > 0:
            n_wanted = max_samples if n_left is None else min(max_samples, n_left)
            if len(pending) < step_bytes:
                got = self._stream.read1(n_wanted * step_bytes - len(pending))
                if not got:
                    break
                pending += got
            n_whole = min(len(pending) // step_bytes, n_wanted)
            if n_whole > 0:
                whole = n_whole * step_bytes
                yield decode(pending[:whole]).reshape(-1, header.n_channels)
                pending = pending[whole:]
                n_left = None if n_left is None else n_left - n_whole
        if n_left:
            raise _cut_short(self._name, header, n_left)
        if n_left is None and pending:
            raise AudioError(
                f"{self._name} ends in the middle of a sample: {len(pending)} of "
                f"{step_bytes} bytes; was it cut, or is it in another format?"
            )
        self._read_to_the_end()

    def close(self) -> None:
        """The byte stream is left to whoever opened it."""

    def _read_to_the_end(self) -> None:
        """What follows the samples: labels to ignore, sound never to miss."""
        data_bytes = self._header.data_bytes or 0
        read_up_to(self._stream, data_bytes % _step_bytes(self._header))
        read_up_to(self._stream, data_bytes % 2)
        if read_up_to(self._stream, 4) in RIFF_IDS:
            raise AudioError(
                f"{self._name} is several WAV files one after the other, expected one; "
                "transcribe them one by one"
            )
        # The writer of a pipe should see its last bytes taken, not a broken pipe.
        while self._stream.read1(1 << 16):
            pass


def is_plain_pcm(header: WavHeader) -> bool:
    """Whether PcmStream reads it: integers or floats, not a codec's packets."""
    return (header.encoding, header.bytes_per_sample) in _DECODERS


def raw_stream(
    stream: ByteStream, first: bytes, name: str, rate: int = SAMPLE_RATE
) -> PcmStream:
    """Headerless 16-bit little-endian mono sound at `rate` Hz."""
    header = WavHeader(PCM, rate, 1, 2, data_start=0, data_bytes=None)
    return PcmStream(stream, header, name, first=first)


def refuse_cut_file(header: WavHeader, n_file_bytes: int, name: str) -> None:
    """Raise AudioError when a file has fewer samples than its header promises."""
    promised = _promised_samples(header)
    if promised is not None:
        n_held = max(0, n_file_bytes - header.data_start) // _step_bytes(header)
        if n_held < promised:
            raise _cut_short(name, header, promised - n_held)


def _step_bytes(header: WavHeader) -> int:
    """Bytes of one sample of every channel."""
    return header.bytes_per_sample * header.n_channels


def _promised_samples(header: WavHeader) -> int | None:
    if header.data_bytes is None:
        return None
    return header.data_bytes // _step_bytes(header)


def _cut_short(name: str, header: WavHeader, n_missing: int) -> AudioError:
    promised = _promised_samples(header) or 0
    return AudioError(
        f"{name} is cut short: its header promises {promised} samples "
        f"({promised / header.rate:.1f} s), it holds {promised - n_missing} "
        f"({(promised - n_missing) / header.rate:.1f} s); {CUT_ADVICE}"
    )


def _decode_u8(pcm: bytes) -> np.ndarray:
    return (np.frombuffer(pcm, np.uint8).astype(np.float32) - 128) / 128


def _decode_s16(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 2**15


def _decode_s24(pcm: bytes) -> np.ndarray:
    # The upper three bytes of 32 bits put the sign where it belongs.
    wide = np.zeros((len(pcm) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(pcm, np.uint8).reshape(-1, 3)
    return wide.view("<i4")[:, 0].astype(np.float32) / 2**31


def _decode_s32(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i4").astype(np.float32) / 2**31


def _decode_f32(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<f4").astype(np.float32)


def _decode_f64(pcm: bytes) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinite values are refused further on
        return np.frombuffer(pcm, "<f8").astype(np.float32)


_DECODERS: dict[tuple[int, int], Callable[[bytes], np.ndarray]] = {
    (PCM, 1): _decode_u8,
    (PCM, 2): _decode_s16,
    (PCM, 3): _decode_s24,
    (PCM, 4): _decode_s32,
    (FLOAT, 4): _decode_f32,
    (FLOAT, 8): _decode_f64,
}
