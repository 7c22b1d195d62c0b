"""Events as JSON lines on standard output, for another program: `--format jsonl`.

docs/worker.md describes each kind of line.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

import voxmlx
from voxmlx.cli.outputs import StandardOutput
from voxmlx.config import SAMPLE_RATE
from voxmlx.events import ChannelEvent, Event, Finished
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.text.formats import FormatOptions, make_writer
from voxmlx.text.split_writers import SplitEvent, make_split_writer

__all__ = ["SCHEMA", "JsonDisplay", "JsonOutput", "JsonSplitDisplay", "head_line"]

SCHEMA = 1
"""The version of the lines: it grows when a program that read them would fail."""

_STATUS_EVERY_S = 1.0


def head_line(head: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the first line: `head` between versions and sample rate."""
    versions = {"schema": SCHEMA, "package_version": voxmlx.__version__}
    return {**versions, **head, "sample_rate": SAMPLE_RATE}


class JsonOutput:
    """Lines of JSON on standard output, each written out at once. A context manager.

    `time_ms` is the stream time that has been heard.
    """

    def __init__(
        self,
        first_line: Callable[[], str],
        *,
        n_streams: int = 1,
        n_before: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`n_before` samples were heard before this run."""
        self._first_line = first_line
        self._n_samples = n_before
        self._now = now
        self._status_at = now()
        self._n_going_on = n_streams

    @property
    def is_over(self) -> bool:
        """Return whether all streams have finished: no line follows."""
        return self._n_going_on == 0

    @property
    def time_ms(self) -> int:
        return self._n_samples * 1000 // SAMPLE_RATE

    def __enter__(self) -> Self:
        self._output = StandardOutput().__enter__()
        self._output.write(self._first_line())
        return self

    def __exit__(self, *raised: object) -> None:
        self._output.__exit__(*raised)

    def notice(self, sentence: str, /) -> None:
        """Write a sentence for people: about the microphone, the pace, the server."""
        self.write("notice", message=sentence)

    def write(self, kind: str, **fields: Any) -> None:
        """Write a line that is no event of the stream."""
        line = json.dumps({"type": kind, **fields}, ensure_ascii=False)
        self._output.write(f"{line}\n")

    def _note(self, event: Event) -> None:
        """Note the end of a stream."""
        self._n_going_on -= isinstance(event, Finished)

    def _is_status_due(self) -> bool:
        now = self._now()
        if self.is_over or now - self._status_at < _STATUS_EVERY_S:
            return False
        self._status_at = now
        return True

    def _write_status(self, metrics: StreamMetrics, **stamp: Any) -> None:
        self.write(
            "status",
            **stamp,
            time_ms=self.time_ms,
            level_db=round(metrics.level_db, 1),
            lag_ms=round(1000 * metrics.lag_s),
        )


class JsonDisplay(JsonOutput):
    """Writes a line for the stream, for each event, and for what else happens.

    A listener.
    """

    def __init__(
        self,
        head: Mapping[str, Any],
        *,
        has_tokens: bool = False,
        n_before: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`head` is what the first line says, see `head_line`."""
        options = FormatOptions(has_tokens=has_tokens)
        self._writer = make_writer("jsonl", options, head_line(head))
        # `end` of a stream that has said nothing is its first line.
        super().__init__(self._writer.end, n_before=n_before, now=now)

    def on_audio(self, samples: np.ndarray, /) -> None:
        self._n_samples += len(samples)

    def on_events(self, events: Sequence[Event], /) -> None:
        for event in events:
            self._output.write(self._writer.feed(event))
            self._note(event)

    def on_tick(self, metrics: StreamMetrics, /) -> None:
        if self._is_status_due():
            self._write_status(metrics)


class JsonSplitDisplay(JsonOutput):
    """The same of several channels: lines of a channel have its number and label."""

    def __init__(
        self,
        head: Mapping[str, Any],
        labels: Sequence[str],
        *,
        has_tokens: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        options = FormatOptions(has_tokens=has_tokens)
        self._writer = make_split_writer("jsonl", labels, options, head_line(head))
        self._labels = labels
        self._n_heard = [0] * len(labels)
        super().__init__(self._writer.end, n_streams=len(labels), now=now)

    def on_audio(self, channel: int, samples: np.ndarray, /) -> None:
        self._n_heard[channel - 1] += len(samples)
        self._n_samples = max(self._n_heard)

    def on_events(self, events: Sequence[SplitEvent], /) -> None:
        for event in events:
            self._output.write(self._writer.feed(event))
            if isinstance(event, ChannelEvent):
                self._note(event.event)

    def on_tick(self, metrics: Sequence[StreamMetrics], /) -> None:
        if self._is_status_due():
            for number, (label, one) in enumerate(
                zip(self._labels, metrics, strict=True), 1
            ):
                self._write_status(one, channel=number, label=label)
