"""MP4 and QuickTime files, the long ones as a row of short ones.

FFmpeg keeps all of an MP4's index in memory, an entry for every packet of every track.
Measured with FFmpeg 8.1: eight hours of AAC cost 110 MB, eight hours in fragments 55 MB,
and no option of FFmpeg changes that. So FFmpeg gets a long file as a row of short ones,
and one decoder decodes them all.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import repeat
from typing import Any, BinaryIO

from av.error import FFmpegError
from av.packet import Packet

from voxmlx.audio.byte_source import ByteSource, ForwardBytes, SeekableBytes
from voxmlx.audio.kinds import needs_seeking
from voxmlx.audio.mp4_boxes import FileContent, Mp4Content, PipeContent, boxes
from voxmlx.audio.mp4_movie import Movie, read_movie
from voxmlx.audio.mp4_parts import Mp4Part, WindowPart, fragment_parts
from voxmlx.audio.sound_decoder import SoundDecoder, open_container, packets_of

__all__ = ["open_mp4"]

# FFmpeg alone reads what has less: 17 minutes of AAC, an index of 4 MB.
_MAX_ENTRIES = 50_000
# What FFmpeg gets at once of what has more: three minutes of AAC.
_PART_ENTRIES = 8_192

# The index of a pipe is held in memory up to here, and else in a file.
_MAX_PEEKED_BYTES = 1 << 18


def open_mp4(
    source: ByteSource, head: bytes, track: int | None
) -> tuple[SoundDecoder, BinaryIO | None]:
    """Open what begins with `head`; also return the copy of what a pipe gave, if any.

    `track` is the sound track to decode, from 1; None is the one for most.
    Raises FFmpegError, NoSound, AudioError and OSError.
    """
    if source.is_seekable:
        return _open_file(source, source.file_from_start(), head, track), None
    if needs_seeking(head):
        copy = source.file_from_start()
        return _or_close(copy, lambda: _open_file(source, copy, head, track))
    # A pipe whose index comes first is read as it comes.
    n_index = _index_end(FileContent(io.BytesIO(head), 0))
    if n_index is None:
        return SoundDecoder(ForwardBytes(source), track=track), None
    if n_index <= _MAX_PEEKED_BYTES:
        movie = _movie(FileContent(io.BytesIO(source.peek(n_index)), 0))
        if movie is None or not (movie.is_fragmented or _is_long(movie)):
            return _short(SoundDecoder(ForwardBytes(source), track=track), movie), None
    copy = source.new_copy()
    return _or_close(copy, lambda: _open_pipe(source, copy, n_index, track))


def _or_close(
    copy: BinaryIO, opened: Callable[[], SoundDecoder]
) -> tuple[SoundDecoder, BinaryIO]:
    try:
        return opened(), copy
    except BaseException:
        copy.close()
        raise


def _open_file(
    source: ByteSource, file: BinaryIO, head: bytes, track: int | None
) -> SoundDecoder:
    source.raise_error()
    position = file.tell()
    content = FileContent(file, source.start)
    movie = _movie(content)
    if movie is not None and movie.is_fragmented:
        before = content.read_at(0, movie.end)
        return _PartsDecoder(fragment_parts(source, before, file.read), None, track)
    if (
        movie is not None
        and (decoder := _long(source, movie, content, track)) is not None
    ):
        return decoder
    if needs_seeking(head):
        seekable = SeekableBytes(source, file, source.start)
        return _short(SoundDecoder(seekable, track=track), movie)
    file.seek(position)
    return _short(SoundDecoder(ForwardBytes(source), track=track), movie)


def _open_pipe(
    source: ByteSource, copy: BinaryIO, n_index: int, track: int | None
) -> SoundDecoder:
    """Open a pipe whose index is long, or that is in fragments."""
    source.copy_to(copy, n_index)
    content = FileContent(copy, 0)
    movie = _movie(content)
    if movie is not None and movie.is_fragmented:
        before = content.read_at(0, n_index)
        return _PartsDecoder(fragment_parts(source, before, source.read), None, track)
    if movie is not None:
        sound = PipeContent(source, n_index)
        if (decoder := _long(source, movie, sound, track, is_pipe=True)) is not None:
            return decoder
    copy.seek(0, io.SEEK_END)
    source.copy_to(copy)
    source.raise_error()
    return SoundDecoder(SeekableBytes(source, copy, 0), track=track)


def _short(decoder: SoundDecoder, movie: Movie | None) -> SoundDecoder:
    """Return a decoder of a whole file, with the length that its edits say.

    FFmpeg's is off where a track starts late: by the silence, or by half a packet.
    """
    if movie is not None and len(decoder.tracks) == len(movie.tracks):
        decoder.known_length_s = movie.tracks[decoder.track - 1].length_s
    return decoder


def _long(
    source: ByteSource,
    movie: Movie,
    sound: Mp4Content,
    track: int | None,
    *,
    is_pipe: bool = False,
) -> SoundDecoder | None:
    """Return a decoder of parts; None where FFmpeg reads the whole file as well."""
    if not _is_long(movie):
        return None
    tracks = movie.tracks
    if track is None:
        enabled = [n for n, one in enumerate(tracks, 1) if one.is_enabled]
        track = enabled[0] if enabled else 1
    if track > len(tracks):
        return None  # FFmpeg says what there is
    chosen = tracks[track - 1]
    if (is_pipe or chosen.has_one_size) and chosen.must_be_searched:
        return None
    windows = chosen.windows(_PART_ENTRIES)
    parts = (WindowPart(source, sound, window) for window in windows)
    decoder = _PartsDecoder(parts, chosen.length_s, None)
    decoder.track, decoder.tracks = track, [one.language for one in tracks]
    return decoder


def _is_long(movie: Movie) -> bool:
    return movie.n_entries > _MAX_ENTRIES and bool(movie.tracks)


def _movie(content: Mp4Content) -> Movie | None:
    """Return the index of an MP4; None if there is none, or one of a rare kind."""
    file_type = b""
    for box in boxes(content, 0, None):
        if box.kind == b"ftyp" and box.end - box.position <= 1 << 10:
            file_type = content.read_at(box.position, box.end - box.position)
        elif box.kind == b"moov":
            return read_movie(content, file_type, box)
        elif box.kind == b"moof":
            break
    return None


def _index_end(content: Mp4Content) -> int | None:
    """Return where the index ends; None if it does not stand before the sound."""
    for box in boxes(content, 0, None):
        if box.kind == b"moov":
            return box.end
    return None


class _PartsDecoder(SoundDecoder):
    """A decoder of short MP4 files that follow each other: one track, cut into parts."""

    def __init__(
        self, parts: Iterator[Mp4Part], length_s: Fraction | None, track: int | None
    ) -> None:
        """Read the header of the first. Raises FFmpegError and NoSound."""
        self._parts = parts
        self._first = next(parts)
        super().__init__(self._first, track=track)
        self.known_length_s = length_s

    @property
    def length_s(self) -> Fraction | None:
        # Of fragments, FFmpeg knows how long the first of them are.
        return self.known_length_s

    def packets(self) -> Iterator["Packet[Any] | None"]:
        part = self._first
        yield from _moved(super().packets(), part)
        while not part.is_last and (part := next(self._parts, None)) is not None:
            try:
                container = open_container(part)
            except FFmpegError:
                yield None
                continue
            with container:
                packets = packets_of(container, container.streams[self.stream_index])
                yield from map(_without_skip, _moved(packets, part))
        yield Packet()  # the decoder gives what it still holds


def _moved(
    packets: Iterable["Packet[Any] | None"], part: Mp4Part
) -> Iterator["Packet[Any] | None"]:
    """Yield the packets of a part at their time, without the mark of its end."""
    n_lost = 0
    for packet in packets:
        if packet is None:
            n_lost += 1
            continue
        if not packet.size:
            continue
        yield from repeat(None, n_lost)
        n_lost = 0
        if packet.pts is not None:
            packet.pts += part.shift
        if packet.dts is not None:
            packet.dts += part.shift
        yield packet
    if not part.is_last:
        # Where the bytes end, what is missing is told by the length.
        yield from repeat(None, n_lost)


def _without_skip(packet: "Packet[Any] | None") -> "Packet[Any] | None":
    """Return the packet of a later part: only the first one begins with a delay."""
    if packet is None or not packet.has_sidedata("skip_samples"):
        return packet
    plain = Packet(bytes(packet))
    plain.pts, plain.dts = packet.pts, packet.dts
    plain.duration, plain.time_base = packet.duration, packet.time_base
    return plain
