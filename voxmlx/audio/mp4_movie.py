"""The index of an MP4: its sound tracks, and parts of them as files of their own."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from voxmlx.audio.mp4_boxes import Box, Mp4Content, boxes, make_box
from voxmlx.audio.mp4_tables import SAMPLES_PER_ENTRY, SampleTables, Span

__all__ = ["Movie", "SoundTrack", "Window", "read_movie"]

# Boxes that describe a track are small ones.
_MAX_DESCRIPTION_BYTES = 1 << 20

_IS_ENABLED = 1
_SPEED_1 = 1 << 16
_VERSION_1 = 1 << 24


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a track as an MP4 of its own.

    `header` is all before the sound. `places` are where the sound stands in the whole
    file: (position, bytes). `shift` is added to its time stamps.
    """

    header: bytes
    places: list[tuple[int, int]]
    shift: int


@dataclass(frozen=True, slots=True)
class _Edit:
    """What is played: a silence, and then the media from `begin` to `end`.

    All in units of the track; None is the end of the media.
    """

    silence: int
    begin: int
    end: int | None


class SoundTrack:
    """A track of sound, whose tables stay in the file."""

    def __init__(self, content: Mp4Content, movie: "Movie", track: Box) -> None:
        """Raises KeyError, ValueError or struct.error for a track of a rare kind."""
        self._content = content
        self._movie = movie
        parts = self._inside(track)
        self._head = _whole(content, parts[b"tkhd"])
        self.is_enabled = bool(self._head[11] & _IS_ENABLED)
        media = self._inside(parts[b"mdia"])
        self._media_head = _whole(content, media[b"mdhd"])
        self._handler = _whole(content, media[b"hdlr"])
        self._timescale = _timescale(self._media_head)
        information = self._inside(media[b"minf"])
        tables = self._inside(information.pop(b"stbl"))
        self._information = b"".join(_whole(content, b) for b in information.values())
        self._description = _whole(content, tables[b"stsd"])
        self._tables = SampleTables(content, tables)
        self._edit = self._read_edit(parts.get(b"edts"))

    @property
    def language(self) -> str:
        """Return its language in three letters, "" if it is not said."""
        at = 40 if self._media_head[8] else 28
        (packed,) = struct.unpack_from(">H", self._media_head, at)
        letters = "".join(chr((packed >> n & 31) + 0x60) for n in (10, 5, 0))
        return "" if letters == "und" or not letters.isalpha() else letters

    @property
    def length_s(self) -> Fraction:
        """Return how long the track is played, with the silence before it."""
        edit, duration = self._edit, self._tables.duration
        end = duration if edit.end is None else min(edit.end, duration)
        return Fraction(edit.silence + max(0, end - edit.begin), self._timescale)

    @property
    def must_be_searched(self) -> bool:
        """Return whether reading its sound needs seeking."""
        return not self._tables.is_forward

    @property
    def has_one_size(self) -> bool:
        """Return whether all samples have the same size."""
        return self._tables.has_one_size

    def windows(self, n_entries: int) -> Iterator[Window]:
        """Yield parts of about `n_entries` packets, as far as they are played.

        The first may have twice as many: a decoder is right only after some packets.
        """
        edit = self._edit
        before: Span | None = None
        is_first = True
        for span in self._tables.spans(n_entries):
            if edit.end is not None and span.begin >= edit.end:
                return
            if span.end <= edit.begin:
                before = span
                continue
            if is_first and before is not None:
                span = before.joined(span)
            shift = edit.silence + max(0, span.begin - edit.begin)
            yield Window(self._header(span, is_first=is_first), span.places, shift)
            is_first = False

    def _header(self, span: Span, *, is_first: bool) -> bytes:
        """Return the head of an MP4 whose sound is the span."""

        def header(position: int) -> bytes:
            tables = self._tables.written(span, self._description, position)
            media = make_box(
                b"mdia",
                self._media_head,
                self._handler,
                make_box(b"minf", self._information, tables),
            )
            track = make_box(b"trak", self._head, self._cut(span), media)
            rest = self._movie.other_boxes() if is_first else b""
            index = make_box(
                b"moov", self._movie.head_for(self._timescale), track, rest
            )
            sound = struct.pack(">I4sQ", 1, b"mdat", 16 + span.n_bytes)
            return self._movie.file_type + index + sound

        return header(len(header(0)))

    def _cut(self, span: Span) -> bytes:
        """Return the edit list of a part of the media; none if all of it is played."""
        edit = self._edit
        first = max(edit.begin, span.begin)
        last = span.end if edit.end is None else min(edit.end, span.end)
        if (first, last) == (span.begin, span.end):
            return b""
        played = (last - first, first - span.begin, _SPEED_1)
        entry = struct.pack(">IIQqI", _VERSION_1, 1, *played)
        return make_box(b"edts", make_box(b"elst", entry))

    def _read_edit(self, box: Box | None) -> _Edit:
        """Raises ValueError for a list that plays several parts."""
        listed = None if box is None else self._inside(box).get(b"elst")
        if listed is None:
            return _Edit(0, 0, None)
        content = _whole(self._content, listed)[8:]
        (n_rows,) = struct.unpack_from(">I", content, 4)
        form = ">QqI" if content[0] else ">IiI"
        rows = [
            *struct.iter_unpack(form, content[8:][: n_rows * struct.calcsize(form)])
        ]
        silence = 0
        while rows and rows[0][1] == -1:
            silence += rows.pop(0)[0]
        if len(rows) != 1 or rows[0][1] < 0 or rows[0][2] != _SPEED_1:
            raise ValueError(rows)
        scale = Fraction(self._timescale, self._movie.timescale)
        duration, begin, _ = rows[0]
        end = begin + round(duration * scale) if duration else None
        return _Edit(round(silence * scale), begin, end)

    def _inside(self, box: Box) -> dict[bytes, Box]:
        return {inner.kind: inner for inner in boxes(self._content, box.begin, box.end)}


class Movie:
    """The index (moov), which ends at `end` of the file.

    `tracks` are those of sound, unless the file is in fragments. `n_entries` is about
    how large FFmpeg's index of all tracks would be.
    """

    def __init__(self, content: Mp4Content, file_type: bytes, index: Box) -> None:
        """Raises KeyError, ValueError or struct.error for an index of a rare kind."""
        self.file_type = file_type
        self.end = index.end
        self.tracks: list[SoundTrack] = []
        self.n_entries = 0
        self._content = content
        inner = list(boxes(content, index.begin, index.end))
        kinds = {box.kind: box for box in inner}
        self.is_fragmented = b"mvex" in kinds
        self._head = _whole(content, kinds[b"mvhd"])
        self.timescale = _timescale(self._head)
        self._others = [
            box
            for box in inner
            if box.kind not in (b"mvhd", b"trak", b"mvex")
            and box.end - box.position <= _MAX_DESCRIPTION_BYTES
        ]
        for box in inner:
            if box.kind == b"trak" and not self.is_fragmented:
                self._add(box)

    def head_for(self, timescale: int) -> bytes:
        """Return the movie's head with the clock of a track."""
        at = _timescale_at(self._head)
        return self._head[:at] + struct.pack(">I", timescale) + self._head[at + 4 :]

    def other_boxes(self) -> bytes:
        """Return what besides tracks may matter, as a note of an encoder's delay."""
        return b"".join(_whole(self._content, box) for box in self._others)

    def _add(self, track: Box) -> None:
        content = self._content
        media = _first(content, track, b"mdia")
        tables = _first(content, _first(content, media, b"minf"), b"stbl")
        sizes = _first(content, tables, b"stsz")
        size, n_samples = struct.unpack(">II", content.read_at(sizes.begin + 4, 8))
        self.n_entries += n_samples // SAMPLES_PER_ENTRY if size else n_samples
        handler = _first(content, media, b"hdlr")
        if content.read_at(handler.begin + 8, 4) == b"soun":
            self.tracks.append(SoundTrack(content, self, track))


def read_movie(content: Mp4Content, file_type: bytes, index: Box) -> Movie | None:
    """Return the index of an MP4; None of one that is damaged or of a rare kind."""
    try:
        return Movie(content, file_type, index)
    except (ValueError, LookupError, struct.error):
        return None


def _first(content: Mp4Content, box: Box, kind: bytes) -> Box:
    for inner in boxes(content, box.begin, box.end):
        if inner.kind == kind:
            return inner
    raise KeyError(kind)


def _whole(content: Mp4Content, box: Box) -> bytes:
    if box.end - box.position > _MAX_DESCRIPTION_BYTES:
        raise ValueError(box)
    return content.read_at(box.position, box.end - box.position)


def _timescale_at(head: bytes) -> int:
    """Return where an mvhd or mdhd has its ticks per second."""
    return 28 if head[8] else 20


def _timescale(head: bytes) -> int:
    (timescale,) = struct.unpack_from(">I", head, _timescale_at(head))
    if not timescale:
        raise ValueError(head)
    return timescale
