"""Rows of the table of error rates: from hypotheses to figures, Markdown and JSON."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.hypotheses import Hypothesis, WerRun
from benchmarks.normalizers import Normalizer
from benchmarks.published import PublishedRow
from benchmarks.scoring import Errors, Score, aligned_lines, score
from benchmarks.word_times import Marked, TimeErrors
from convert.word_errors import WordErrors
from voxmlx.events import Word

__all__ = ["Lag", "WerRow", "Worst", "markdown", "rows_of"]

_TITLES = (
    "set",
    "system",
    "kv bits",
    "delay, ms",
    "normalizer",
    "error rate",
    "95 %",
    "S",
    "D",
    "I",
    "said",
    "utterances",
    "hours",
    "x real time",
    "lag p50, ms",
    "p95",
)
# Between two utterances, so that the times of their words do not touch.
_GAP_MS = 1000


@dataclass(frozen=True, slots=True)
class Lag:
    """From the end of an audio token's sound, and the delay, to its events, in ms."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Worst:
    """One of the utterances with most errors, and lines that show them."""

    id: str
    errors: Errors
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WerRow:
    """Figures of one run with one normalizer; rates are shares, not per cent."""

    run: WerRun
    normalizer: str
    measure: str
    errors: Errors
    interval: tuple[float, float] | None
    n_utterances: int
    hours: float
    times_real_time: float
    lag: Lag | None
    times: TimeErrors | None
    worst: tuple[Worst, ...]

    @property
    def error_rate(self) -> float | None:
        """Return errors over what was said; None where nothing was."""
        return self.errors.n_wrong / self.errors.n_said if self.errors.n_said else None

    def content(self) -> dict[str, Any]:
        """Return all figures for JSON."""
        return {"error_rate": self.error_rate, **asdict(self)}


def rows_of(
    run: WerRun,
    hypotheses: Iterable[Hypothesis],
    normalizers: Sequence[Normalizer],
    *,
    lag: Lag | None = None,
    n_worst: int = 5,
) -> list[WerRow]:
    """Score a run with each of the normalizers. The order of hypotheses has no effect."""
    scored: dict[str, list[tuple[str, Errors]]] = {n.name: [] for n in normalizers}
    worst: dict[str, list[tuple[int, str, Score]]] = {n.name: [] for n in normalizers}
    times = _WordTimes()
    sound_s = busy_s = 0.0
    n_utterances = 0
    for one in hypotheses:
        n_utterances += 1
        sound_s, busy_s = sound_s + one.sound_s, busy_s + one.busy_s
        times.add(one)
        for normalizer in normalizers:
            result = score(one.said, one.heard, normalizer)
            scored[normalizer.name].append((one.id, result.errors))
            if result.errors.n_wrong:
                heap = worst[normalizer.name]
                heapq.heappush(heap, (result.errors.n_wrong, one.id, result))
                if len(heap) > n_worst:
                    heapq.heappop(heap)
    rows: list[WerRow] = []
    for normalizer in normalizers:
        errors = [errors for _, errors in sorted(scored[normalizer.name], key=_id)]
        drawn = WordErrors(
            tuple(one.n_wrong for one in errors), tuple(one.n_said for one in errors)
        )
        rows.append(
            WerRow(
                run,
                normalizer.name,
                normalizer.measure,
                sum(errors, Errors()),
                # One utterance drawn anew is the same utterance.
                drawn.interval() if n_utterances > 1 else None,
                n_utterances,
                sound_s / 3600,
                sound_s / busy_s if busy_s else 0.0,
                lag,
                times.errors(),
                tuple(
                    Worst(name, found.errors, tuple(aligned_lines(found.pairs)))
                    for _, name, found in sorted(
                        worst[normalizer.name], key=lambda x: (-x[0], x[1])
                    )
                ),
            )
        )
    return rows


def _id(pair: tuple[str, Errors]) -> str:
    return pair[0]


class _WordTimes:
    """Marks and words of utterances, one after another on one clock."""

    def __init__(self) -> None:
        self._marks: list[Marked] = []
        self._words: list[Word] = []
        self._offset_ms = 0
        self._is_marked = True

    def add(self, one: Hypothesis) -> None:
        if one.word_ends_ms is None:
            self._is_marked = False
            return
        ends = [self._offset_ms + end for end in one.word_ends_ms]
        self._marks += map(Marked, one.said.split(), [None, *ends[:-1]], ends)
        self._words += (
            Word(w.text, self._offset_ms + w.start_ms, self._offset_ms + w.end_ms)
            for w in one.words
        )
        self._offset_ms += round(1000 * one.sound_s) + _GAP_MS

    def errors(self) -> TimeErrors | None:
        """Return None where marks are missing."""
        return TimeErrors.of(self._marks, self._words) if self._is_marked else None


def markdown(rows: Sequence[WerRow], others: Sequence[PublishedRow]) -> str:
    """Return the table, figures of others among ours by set, then the worst utterances."""
    lines = ["| " + " | ".join(_TITLES) + " |", "|" + "---|" * len(_TITLES)]
    for name in dict.fromkeys(row.run.set for row in rows):
        lines += [_line(row) for row in rows if row.run.set == name]
        lines += [_line_of_other(row) for row in others if row.name == name]
    marked = [row for row in rows if row.times is not None]
    if marked:
        lines += ["", "Words' times, in ms (late is positive):", ""]
        lines += [
            "| set | system | delay | words | ends, mean | median | within 80 | starts, mean "
            "| within 160 |",
            "|---|---|---|---|---|---|---|---|---|",
            *map(_times_line, marked),
        ]
    for row in rows:
        if row.worst:
            lines += ["", f"## Worst of {_title(row)}", ""]
        for one in row.worst:
            e = one.errors
            lines += [
                f"`{one.id}`: {e.n_wrong} errors in {e.n_said} {_unit(row)} "
                f"({e.substitutions} S, {e.deletions} D, {e.insertions} I)",
                "",
                "```",
                *one.lines,
                "```",
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"


def _title(row: WerRow) -> str:
    run = row.run
    return f"{run.set}, {_system(run)}, {run.delay_ms} ms, {row.normalizer}"


def _system(run: WerRun) -> str:
    model = run.model.rstrip("/").rpartition("/")[2]
    return f"{model}, {run.recipe}, {run.dtype}"


def _unit(row: WerRow) -> str:
    return "words" if row.measure == "WER" else "characters"


def _line(row: WerRow) -> str:
    run, e = row.run, row.errors
    rate = "-" if row.error_rate is None else f"{row.measure} {row.error_rate:.2%}"
    span = "-"
    if row.interval is not None:
        span = f"{row.interval[0]:.2%} to {row.interval[1]:.2%}"
    lag = (
        ("-", "-") if row.lag is None else (f"{row.lag.p50:.0f}", f"{row.lag.p95:.0f}")
    )
    cells = (
        run.set,
        _system(run),
        run.kv_bits,
        run.delay_ms,
        row.normalizer,
        rate,
        span,
        e.substitutions,
        e.deletions,
        e.insertions,
        f"{e.n_said} {_unit(row)}",
        row.n_utterances,
        f"{row.hours:.2f}",
        f"{row.times_real_time:.1f}",
        *lag,
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _line_of_other(row: PublishedRow) -> str:
    cells = [row.name, row.system, "-", str(row.delay_ms), row.normalizer]
    cells += [f"{row.error_rate:.2f}%", "-", "-", "-", "-", "-"]
    cells += [str(row.n_utterances or "-"), "-", "-", "-", "-"]
    return "| " + " | ".join(cells) + " |"


def _times_line(row: WerRow) -> str:
    t = row.times
    assert t is not None
    starts = "- | -"
    if t.start_mean is not None and t.start_within is not None:
        starts = f"{t.start_mean:+.0f} | {t.start_within:.1%}"
    return (
        f"| {row.run.set} | {_system(row.run)} | {row.run.delay_ms} | {t.n_words} "
        f"| {t.end_mean:+.0f} | {t.end_median:+.0f} | {t.end_within:.1%} | {starts} |"
    )
