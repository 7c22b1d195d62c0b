"""The sample tables of an MP4's track, read from the file as they are needed."""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from voxmlx.audio.mp4_boxes import Box, Mp4Content, make_box

__all__ = ["SAMPLES_PER_ENTRY", "SampleTables", "Span"]

# FFmpeg makes one entry of so many samples where all have one size.
SAMPLES_PER_ENTRY = 1024

_ROWS_READ = 4096

# A piece that may reach to the end of the file.
_ANY_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class _Piece:
    position: int
    n_samples: int
    n_bytes: int
    description: int


@dataclass(frozen=True, slots=True)
class Span:
    """Samples in a row, from `begin` to `end` in the time of the media.

    `sizes` are those of the samples unless all have one, `runs` pairs of a number of
    samples and how long each lasts.
    """

    pieces: list[_Piece]
    sizes: list[int]
    runs: list[tuple[int, int]]
    begin: int
    end: int

    def joined(self, following: "Span") -> "Span":
        """Return both as one."""
        return Span(
            self.pieces + following.pieces,
            self.sizes + following.sizes,
            self.runs + following.runs,
            self.begin,
            following.end,
        )

    @property
    def places(self) -> list[tuple[int, int]]:
        """Return where its sound stands in the whole file: (position, bytes)."""
        return [(piece.position, piece.n_bytes) for piece in self.pieces]

    @property
    def n_bytes(self) -> int:
        return sum(piece.n_bytes for piece in self.pieces)


class SampleTables:
    """Positions, sizes and durations of the samples of one track."""

    def __init__(self, content: Mp4Content, tables: Mapping[bytes, Box]) -> None:
        """Raises KeyError, ValueError or struct.error for tables of a rare kind."""
        self._content = content
        if b"ctts" in tables:
            raise ValueError(tables)
        self._durations = self._table(tables[b"stts"], ">II")
        self._runs = self._table(tables[b"stsc"], ">III")
        if b"stco" in tables:
            self._chunks = self._table(tables[b"stco"], ">I")
        else:
            self._chunks = self._table(tables[b"co64"], ">Q")
        begin = tables[b"stsz"].begin
        # All samples have this size; 0: each has its own.
        self._size, n_samples = struct.unpack(">II", content.read_at(begin + 4, 8))
        self._sizes = _Table(content, begin + 12, n_samples, ">I")
        self.duration: int = sum(n * ticks for n, ticks in self._durations.rows())

    @property
    def has_one_size(self) -> bool:
        """Return whether all samples have the same size."""
        return self._size > 0

    @property
    def is_forward(self) -> bool:
        """Return whether the sound stands in the file in the order of its time."""
        positions = (position for (position,) in self._chunks.rows())
        return all(before < after for before, after in pairwise(positions))

    def spans(self, n_entries: int) -> Iterator[Span]:
        """Yield all samples in parts of at most `n_entries` packets.

        Samples of one size are only divided between chunks.
        """
        durations = self._run_lengths()
        begin = 0
        for pieces, sizes in self._parts(n_entries):
            runs = durations(sum(piece.n_samples for piece in pieces))
            end = begin + sum(n * ticks for n, ticks in runs)
            yield Span(pieces, sizes, runs, begin, end)
            begin = end

    def written(self, span: Span, description: bytes, position: int) -> bytes:
        """Return the tables of a file that has the span alone, from `position` on."""
        positions: list[tuple[int, ...]] = []
        for piece in span.pieces:
            positions.append((position,))
            position += piece.n_bytes
        runs = [(i, p.n_samples, p.description) for i, p in enumerate(span.pieces, 1)]
        n_samples = sum(piece.n_samples for piece in span.pieces)
        sizes = struct.pack(f">{len(span.sizes)}I", *span.sizes)
        return make_box(
            b"stbl",
            description,
            _table_box(b"stts", ">II", span.runs),
            _table_box(b"stsc", ">III", runs),
            make_box(b"stsz", struct.pack(">III", 0, self._size, n_samples), sizes),
            _table_box(b"co64", ">Q", positions),
        )

    def _parts(self, n_entries: int) -> Iterator[tuple[list[_Piece], list[int]]]:
        """Yield pieces, and the sizes of their samples unless all have one size."""
        size_rows = (size for (size,) in self._sizes.rows())
        pieces: list[_Piece] = []
        sizes: list[int] = []
        n_taken = 0
        for position, n_left, description, next_position in self._places():
            if self._size:
                n_bytes = (next_position or _ANY_BYTES) - position
                pieces.append(_Piece(position, n_left, n_bytes, description))
                n_taken += n_left // SAMPLES_PER_ENTRY + 1
                n_left = 0
            while n_left:
                own = list(islice(size_rows, min(n_left, n_entries - n_taken)))
                if not own:
                    break
                pieces.append(_Piece(position, len(own), sum(own), description))
                sizes += own
                position += sum(own)
                n_left -= len(own)
                n_taken += len(own)
                if n_left:
                    yield pieces, sizes
                    pieces, sizes, n_taken = [], [], 0
            if n_taken >= n_entries:
                yield pieces, sizes
                pieces, sizes, n_taken = [], [], 0
        if pieces:
            yield pieces, sizes

    def _places(self) -> Iterator[tuple[int, int, int, int | None]]:
        """Yield each chunk's position, samples, description, and the next position."""
        runs = self._runs.rows()
        run = next(runs, None)
        following = next(runs, None)
        last: tuple[int, int, int] | None = None
        for number, (position,) in enumerate(self._chunks.rows(), 1):
            while following is not None and following[0] <= number:
                run, following = following, next(runs, None)
            if run is None:
                return
            if last is not None:
                yield *last, position
            last = (position, run[1], run[2])
        if last is not None:
            yield *last, None

    def _run_lengths(self) -> Callable[[int], list[tuple[int, int]]]:
        """Return what takes the durations of the next n samples: (samples, ticks)."""
        rows = self._durations.rows()
        n_left = ticks = 0

        def take(n: int) -> list[tuple[int, int]]:
            nonlocal n_left, ticks
            runs: list[tuple[int, int]] = []
            while n:
                if not n_left:
                    n_left, ticks = next(rows, (n, ticks))
                n_now = min(n, n_left)
                if n_now:
                    runs.append((n_now, ticks))
                n -= n_now
                n_left -= n_now
            return runs

        return take

    def _table(self, box: Box, form: str) -> "_Table":
        n_rows: int = struct.unpack(">I", self._content.read_at(box.begin + 4, 4))[0]
        if box.begin + 8 + n_rows * struct.calcsize(form) > box.end:
            raise ValueError(box)
        return _Table(self._content, box.begin + 8, n_rows, form)


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows of big-endian numbers, `form` of struct each, at `begin` in the content."""

    content: Mp4Content
    begin: int
    n_rows: int
    form: str

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows; fewer where the content ends."""
        n_bytes = struct.calcsize(self.form)
        for first in range(0, self.n_rows, _ROWS_READ):
            n = min(_ROWS_READ, self.n_rows - first)
            block = self.content.read_at(self.begin + first * n_bytes, n * n_bytes)
            whole = block[: len(block) // n_bytes * n_bytes]
            yield from struct.iter_unpack(self.form, whole)


def _table_box(kind: bytes, form: str, rows: list[tuple[int, ...]]) -> bytes:
    content = b"".join(struct.pack(form, *row) for row in rows)
    return make_box(kind, struct.pack(">II", 0, len(rows)), content)
