"""A WAV's samples as far as they really go, whatever the sizes in it say.

FFmpeg reads as far as the header's size, and no further. Measured with FFmpeg 8.1,
each of these loses sound there: a size that was written while the recording went on
and never corrected (`stale`), a size that wrapped at 4 GiB, a size of 0 with sound
behind it in a pipe. With `ignore_length` it reads on, but then labels behind the
samples become noise. So the parts of a WAV are walked here, and FFmpeg gets the
samples alone.
"""

import struct
from dataclasses import dataclass

from voxmlx.audio.byte_source import ByteSource
from voxmlx.errors import AudioError

__all__ = ["WavBytes", "is_wav"]

# "RIFF", the size of the rest, "WAVE": what a WAV is known by.
WAV_HEAD_BYTES = 12
_RIFF_IDS = (b"RIFF", b"RF64", b"BW64")

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE

# How FFmpeg calls samples without a header: (encoding, bytes a sample).
_RAW_FORMATS = {
    (_PCM, 1): "u8",
    (_PCM, 2): "s16le",
    (_PCM, 3): "s24le",
    (_PCM, 4): "s32le",
    (_FLOAT, 4): "f32le",
    (_FLOAT, 8): "f64le",
    (_ALAW, 1): "alaw",
    (_MULAW, 1): "mulaw",
}

# 16 to 40 bytes are usual; codecs add a few dozen.
_MAX_FMT_BYTES = 4096

# A writer that cannot seek back to fill in a size leaves a stand-in:
# 0xFFFFFFFF (ffmpeg), 0x7FFFF000 less a remainder (sox), 0x80000000 (arecord).
_STAND_INS = (range(0x7FFF_E000, 0x8000_0001), range(0xFFFF_FF00, 0x1_0000_0000))

# Labels, pictures and the like are smaller. What claims more is taken for sound.
_MAX_PART_BYTES = 1 << 26

_WRAP_BYTES = 1 << 32


@dataclass(frozen=True, slots=True)
class _Format:
    """The content of a 'fmt ' part, and what it says."""

    content: bytes
    encoding: int
    rate: int
    n_channels: int
    step_bytes: int

    @property
    def raw_name(self) -> str | None:
        """FFmpeg's name of these samples without a header; None for packets."""
        bytes_per_sample, odd_bytes = divmod(self.step_bytes, self.n_channels)
        if odd_bytes:
            return None
        return _RAW_FORMATS.get((self.encoding, bytes_per_sample))


def is_wav(head: bytes) -> bool:
    """Return whether what starts with these 12 bytes is a WAV."""
    return head[:4] in _RIFF_IDS and head[8:12] == b"WAVE"


class WavBytes:
    """The samples of a WAV in a source, for FFmpeg to read without seeking.

    Plain samples come bare, in the format `raw_name` of FFmpeg. A codec's packets
    come behind a header without sizes. `unannounced_bytes` says at the end
    how many the header kept back. A size left open is not wrong.
    """

    def __init__(self, source: ByteSource) -> None:
        """Read up to the first sample. Raises AudioError for a damaged header."""
        self.unannounced_bytes = 0
        self.has_other_recording = False
        self._source = source
        self._pending = b""
        self._is_over = False
        self._ds64 = b""
        self._fact = b""
        self._skip(WAV_HEAD_BYTES)
        self.format, size = self._read_to_data(None)
        self._begin_data(size)
        # 0 stands in a header that its writer never filled in.
        self.promised_bytes = size or None
        self._prefix = b"" if self.format.raw_name else self._open_header()

    @property
    def n_samples(self) -> int | None:
        """Return how many samples per channel the header promises; None if open."""
        if self.format.raw_name is None:
            if len(self._fact) < 4:
                return None
            n_samples = int.from_bytes(self._fact[:4], "little")
            return None if n_samples == 0xFFFF_FFFF or not n_samples else n_samples
        if self.promised_bytes is None:
            return None
        return self.promised_bytes // self.format.step_bytes

    def read(self, n_bytes: int) -> bytes:
        """Return bytes for FFmpeg; errors are kept in the source, not raised."""
        if self._source.is_stopped:
            return b""
        try:
            return self._read(n_bytes)
        except BaseException as error:
            self._source.error = error
            return b""

    def _read(self, n_bytes: int) -> bytes:
        if self._prefix:
            piece, self._prefix = self._prefix[:n_bytes], self._prefix[n_bytes:]
            return piece
        while not self._is_over:
            if self._n_left is None:
                return self._take(n_bytes)
            if self._n_left > 0:
                piece = self._take(min(n_bytes, self._n_left))
                self._n_left -= len(piece)
                if not piece:
                    self._end_early(self._n_left)
                return piece
            self._go_on()
        return b""

    def _end_early(self, n_left: int) -> None:
        self._is_over = True
        if self._is_beyond:
            self.unannounced_bytes -= n_left

    def _go_on(self) -> None:
        """Decide what follows the bytes that the header spoke of."""
        pad = self._data_bytes % 2
        following = self._peek(8 + pad)
        if _is_part(following[pad:]) or _is_tag(following[pad:]):
            self._skip(pad)
        elif len(following) > pad and not _is_part(following):
            # No label, not the end: the samples go on. A size that wrapped is right
            # again 4 GiB later.
            self._n_left = _WRAP_BYTES
            self._is_beyond = True
            self.unannounced_bytes += _WRAP_BYTES
            return
        if _is_tag(self._peek(8)):
            self._is_over = True
            self._drain()
            return
        try:
            other, size = self._read_to_data(self.format)
        except _NoMoreData:
            self._is_over = True
            self._drain()
            return
        if other.content[:16] != self.format.content[:16]:
            self.has_other_recording = True
            self._is_over = True
            self._drain()
            return
        self._begin_data(size)

    def _begin_data(self, size: int | None) -> None:
        self._n_left = size
        self._data_bytes = size or 0
        self._is_beyond = False

    def _read_to_data(self, known: _Format | None) -> tuple[_Format, int | None]:
        """Read parts up to the next samples; their format and size in bytes."""
        fmt = known
        while True:
            entry = self._read_up_to(8)
            if len(entry) < 8:
                if known is not None:
                    raise _NoMoreData
                raise self._ends_early()
            part_id, size = struct.unpack("<4sI", entry)
            if part_id == b"data":
                break
            if part_id in _RIFF_IDS and known is not None:
                self._skip(4)
                continue
            padded = size + size % 2
            if part_id not in (b"fmt ", b"ds64", b"fact"):
                self._skip(padded)
                continue
            if size > _MAX_FMT_BYTES:
                raise AudioError(
                    f"{self._source.name} is a damaged WAV: its {part_id.decode()!r} "
                    f"part claims {size} bytes, expected about 20; write it again with "
                    "ffmpeg"
                )
            content = self._read_up_to(padded)
            if len(content) < padded:
                if known is not None:
                    raise _NoMoreData
                raise self._ends_early()
            if part_id == b"fmt ":
                fmt = self._parse_format(content)
            elif part_id == b"ds64":
                self._ds64 = content
            else:
                self._fact = content
        if fmt is None:
            raise AudioError(
                f"{self._source.name} is a damaged WAV: it does not say how its samples "
                "are written ('fmt '); write it again with ffmpeg"
            )
        return fmt, self._true_size(size)

    def _true_size(self, size: int) -> int | None:
        if size == 0xFFFF_FFFF and len(self._ds64) >= 16:
            # RF64 keeps here the sizes that do not fit into 32 bits.
            size = struct.unpack_from("<Q", self._ds64, 8)[0]
            return size or None
        return None if any(size in stand_ins for stand_ins in _STAND_INS) else size

    def _parse_format(self, content: bytes) -> _Format:
        if len(content) < 16:
            raise AudioError(
                f"{self._source.name} is a damaged WAV: it does not say how its samples "
                "are written ('fmt '); write it again with ffmpeg"
            )
        encoding, n_channels, rate, _, step_bytes, bits = struct.unpack_from(
            "<HHIIHH", content
        )
        if encoding == _EXTENSIBLE and len(content) >= 26:
            encoding = struct.unpack_from("<H", content, 24)[0]
        if n_channels == 0 or rate == 0:
            raise AudioError(
                f"{self._source.name} is a damaged WAV: its header claims {n_channels} "
                f"channels at {rate} Hz; write it again with ffmpeg"
            )
        if encoding in (_PCM, _FLOAT, _ALAW, _MULAW) and step_bytes == 0:
            step_bytes = (bits + 7) // 8 * n_channels
        return _Format(content, encoding, rate, n_channels, step_bytes)

    def _open_header(self) -> bytes:
        """Return a header that leaves all sizes open, for `ignore_length`."""
        parts = _part(b"fmt ", self.format.content)
        if self._fact:
            parts += _part(b"fact", self._fact)
        return b"RIFF\xff\xff\xff\xffWAVE" + parts + b"data\xff\xff\xff\xff"

    def _peek(self, n_bytes: int) -> bytes:
        piece = self._read_up_to(n_bytes)
        self._pending = piece + self._pending
        return piece

    def _take(self, n_bytes: int) -> bytes:
        if self._pending:
            piece, self._pending = self._pending[:n_bytes], self._pending[n_bytes:]
            return piece
        return self._source.read(n_bytes)

    def _read_up_to(self, n_bytes: int) -> bytes:
        pieces: list[bytes] = []
        while n_bytes > 0 and (piece := self._take(n_bytes)):
            pieces.append(piece)
            n_bytes -= len(piece)
        return b"".join(pieces)

    def _skip(self, n_bytes: int) -> None:
        while n_bytes > 0 and (piece := self._take(min(n_bytes, 1 << 16))):
            n_bytes -= len(piece)

    def _drain(self) -> None:
        # The writer of a pipe should see its last bytes taken, not a broken pipe.
        while self._take(1 << 16):
            pass

    def _ends_early(self) -> AudioError:
        return AudioError(
            f"{self._source.name} is a WAV that ends inside its header, before the "
            "first sample; fetch it again"
        )


class _NoMoreData(Exception):
    """No further samples: a WAV has ended."""


def _part(part_id: bytes, content: bytes) -> bytes:
    return (
        part_id + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    )


def _is_tag(head: bytes) -> bool:
    """Return whether what follows is a tag of MP3's kinds, as some writers append."""
    return head.startswith((b"TAG", b"ID3", b"APETAGEX"))


def _is_part(head: bytes) -> bool:
    """Return whether 8 bytes begin a labelled part: four letters and a size.

    Sound looks like this in less than one of 100 000 places.
    """
    if len(head) < 8:
        return False
    letters = all(0x20 <= byte < 0x7F for byte in head[:4])
    size = int.from_bytes(head[4:8], "little")
    is_samples = head[:4] in (b"data", *_RIFF_IDS)
    return letters and (is_samples or size <= _MAX_PART_BYTES)
