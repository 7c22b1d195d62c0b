"""Hypotheses of a set, in a JSONL file that is gone on with after an interruption."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from benchmarks.passage_decoder import PassageReading
from voxmlx.errors import OutputError
from voxmlx.events import Word

__all__ = ["Hypotheses", "Hypothesis", "WerRun"]


@dataclass(frozen=True, slots=True)
class WerRun:
    """All that decides hypotheses: another run never goes on in the same file."""

    set: str
    model: str
    recipe: str
    dtype: str
    kv_bits: int
    delay_ms: int
    is_long_form: bool


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One passage; words only where the ends of the words that were said are known."""

    id: str
    said: str
    heard: str
    sound_s: float
    busy_s: float
    word_ends_ms: tuple[float, ...] | None = None
    words: tuple[Word, ...] = ()

    @classmethod
    def of(cls, reading: PassageReading) -> "Hypothesis":
        """Keep of a reading what the figures need."""
        passage = reading.passage
        marks = passage.word_ends_ms
        return cls(
            passage.id,
            passage.text,
            reading.text,
            round(reading.sound_s, 4),
            round(reading.busy_s, 4),
            marks,
            () if marks is None else reading.words,
        )


class Hypotheses:
    """The file of one run: a line that names the run, then one per passage.

    A context manager. Opened a second time, it keeps all whole lines; what was being
    written when a run was cut off goes.
    """

    def __init__(self, path: Path, run: WerRun) -> None:
        """Raises OutputError for a file of another run, or one that cannot be written."""
        self.path = path
        self._run = run
        self._ids: set[str] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("r+b" if path.exists() else "w+b")
            try:
                self._go_on()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written: {error.strerror or error}"
            ) from None

    @property
    def ids(self) -> set[str]:
        """Return the ids of the passages that were heard already."""
        return self._ids

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, hypothesis: Hypothesis) -> None:
        """Write a line; it is on its way to the disk when this returns."""
        row: dict[str, Any] = {
            "id": hypothesis.id,
            "said": hypothesis.said,
            "heard": hypothesis.heard,
            "sound_s": hypothesis.sound_s,
            "busy_s": hypothesis.busy_s,
        }
        if hypothesis.word_ends_ms is not None:
            row["word_ends_ms"] = hypothesis.word_ends_ms
            row["words"] = [[w.text, w.start_ms, w.end_ms] for w in hypothesis.words]
        self._write(row)
        self._ids.add(hypothesis.id)

    def __iter__(self) -> Iterator[Hypothesis]:
        """Yield the hypotheses in the order of the file, one at a time in memory."""
        with self.path.open("rb") as lines:
            next(lines, None)
            for line in lines:
                row = json.loads(line)
                marks = row.get("word_ends_ms")
                yield Hypothesis(
                    row["id"],
                    row["said"],
                    row["heard"],
                    row["sound_s"],
                    row["busy_s"],
                    None if marks is None else tuple(marks),
                    tuple(Word(*word) for word in row.get("words", ())),
                )

    def _go_on(self) -> None:
        """Read what is there, and cut off a line that is not whole."""
        end = 0
        for number, line in enumerate(self._file):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if row is None:
                break
            if number == 0:
                self._check(row)
            else:
                self._ids.add(row["id"])
            end += len(line)
        self._file.seek(end)
        self._file.truncate()
        if end == 0:
            self._write(asdict(self._run))

    def _check(self, row: object) -> None:
        if row != asdict(self._run):
            raise OutputError(
                f"{self.path} holds {json.dumps(row)}, expected the run "
                f"{json.dumps(asdict(self._run))}; choose another --output"
            )

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
