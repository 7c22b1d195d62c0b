"""Bare samples -> blocks, as they come.

FFmpeg reads them in packets of 1024 samples and waits until one is full. So the last
128 ms of 8 kHz sound in a live pipe would not be heard before more comes. Here its
decoders get what is there.
"""

from collections.abc import Callable, Iterator
from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext

from voxmlx.audio.frame_samples import as_float32
from voxmlx.audio.sound_decoder import DecodedSound, Lost, ReadableBytes

__all__ = ["RawPcmReader"]


class RawPcmReader:
    """Interleaved samples of one of FFmpeg's formats ("s16le", "alaw", ...)."""

    def __init__(
        self,
        content: ReadableBytes,
        name: str,
        rate: int,
        n_channels: int,
    ) -> None:
        """`rate` is in Hz."""
        self.format_name = name
        self.rate = rate
        self.n_channels = n_channels
        # Bytes behind the last whole sample, once all is read.
        self.n_odd_bytes = 0
        self._content = content
        codec = av.CodecContext.create(f"pcm_{name}", "r")
        assert isinstance(codec, AudioCodecContext)
        codec.sample_rate = rate
        codec.layout = f"{n_channels}C"
        self._codec: Any = codec  # its packets have no complete types
        bits = {"u8": 8, "alaw": 8, "mulaw": 8, "s24le": 24, "s16le": 16, "f64le": 64}
        self._step_bytes = bits.get(name, 32) // 8 * n_channels

    def decoded(
        self, block_s: float, has_more: Callable[[], bool]
    ) -> Iterator[DecodedSound | Lost]:
        """Yield all sound in order, in blocks as `SoundDecoder` has them."""
        n_wanted = max(1, round(block_s * self.rate)) * self._step_bytes
        pending = b""
        n_samples = 0
        while piece := self._content.read(n_wanted - len(pending)):
            pending += piece
            if len(pending) < n_wanted and has_more():
                continue
            n_whole = len(pending) // self._step_bytes * self._step_bytes
            if n_whole:
                yield from self._decode(pending[:n_whole], n_samples)
                n_samples += n_whole // self._step_bytes
                pending = pending[n_whole:]
        n_whole = len(pending) // self._step_bytes * self._step_bytes
        yield from self._decode(pending[:n_whole], n_samples)
        self.n_odd_bytes = len(pending) - n_whole

    def close(self) -> None:
        """The bytes are left to their owner."""

    def _decode(self, samples: bytes, n_before: int) -> Iterator[DecodedSound]:
        if not samples:
            return
        time_s = n_before / self.rate
        for frame in self._codec.decode(av.Packet(samples)):
            yield DecodedSound(as_float32(frame), self.rate, time_s)
