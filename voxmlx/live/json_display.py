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
from voxmlx.events import Event, Finished
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.text.json_writers import JsonLinesWriter

__all__ = ["SCHEMA", "JsonDisplay"]

SCHEMA = 1
"""The version of the lines: it grows when a program that read them would fail."""

_STATUS_EVERY_S = 1.0


class JsonDisplay:
    """Writes a line for the stream, for each event, and for what else happens.

    A listener and a context manager. Each line is written out at once.
    """

    def __init__(
        self,
        head: Mapping[str, Any],
        *,
        has_tokens: bool = False,
        n_before: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`head` is what the first line says besides versions and the sample rate.

        `n_before` samples were heard before this run.
        """
        first = {
            "schema": SCHEMA,
            "package_version": voxmlx.__version__,
            **head,
            "sample_rate": SAMPLE_RATE,
        }
        self._writer = JsonLinesWriter(first, has_tokens=has_tokens)
        self._now = now
        self._status_at = now()
        self._n_samples = n_before
        self._is_over = False

    @property
    def time_ms(self) -> int:
        """Return the stream time that has been heard."""
        return self._n_samples * 1000 // SAMPLE_RATE

    def __enter__(self) -> Self:
        self._output = StandardOutput().__enter__()
        self._output.write(self._writer.end())
        return self

    def __exit__(self, *raised: object) -> None:
        self._output.__exit__(*raised)

    def on_audio(self, samples: np.ndarray, /) -> None:
        self._n_samples += len(samples)

    def on_events(self, events: Sequence[Event], /) -> None:
        for event in events:
            self._output.write(self._writer.feed(event))
            self._is_over = self._is_over or isinstance(event, Finished)

    def on_tick(self, metrics: StreamMetrics, /) -> None:
        now = self._now()
        if now - self._status_at >= _STATUS_EVERY_S and not self._is_over:
            self._status_at = now
            self.write(
                "status",
                time_ms=self.time_ms,
                level_db=round(metrics.level_db, 1),
                lag_ms=round(1000 * metrics.lag_s),
            )

    def notice(self, sentence: str, /) -> None:
        """Write a sentence for people: about the microphone, the pace, the server."""
        self.write("notice", message=sentence)

    def write(self, kind: str, **fields: Any) -> None:
        """Write a line that is no event of the stream."""
        line = json.dumps({"type": kind, **fields}, ensure_ascii=False)
        self._output.write(f"{line}\n")
