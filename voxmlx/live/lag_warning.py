"""Plain sentences for a machine that lags or a stream that recovers."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from voxmlx.cli.recovery_notice import RecoveryNotice
from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.events import Event
from voxmlx.live.stream_metrics import StreamMetrics

__all__ = ["LagWarning", "RecoveryWarning"]

_LAG_S = 5.0
_FOR_S = 20.0


class LagWarning:
    """Says once what to do when text has lagged by 5 s for 20 s on end. A listener."""

    def __init__(
        self,
        notify: Callable[[str], None],
        server: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notify = notify
        self._server = server
        self._clock = clock
        self._since: float | None = None
        self._is_said = False

    def on_audio(self, samples: np.ndarray, /) -> None:
        del samples

    def on_events(self, events: Sequence[Event], /) -> None:
        del events

    def on_tick(self, metrics: StreamMetrics, /) -> None:
        if self._is_said:
            return
        if metrics.lag_s < _LAG_S:
            self._since = None
            return
        now = self._clock()
        self._since = self._since or now
        if now - self._since >= _FOR_S:
            self._is_said = True
            self._notify(self._sentence(metrics))

    def _sentence(self, metrics: StreamMetrics) -> str:
        lags = f"text lags by {metrics.lag_s:.0f} s and no sound is dropped"
        if self._server is not None:
            return (
                f"{lags}: {self._server} decodes too slowly for all its clients, or "
                "the way there is slow"
            )
        return (
            f"this machine decodes {metrics.figures().tokens_per_s:.1f} tokens/s and "
            f"real time needs {1000 / AUDIO_TOKEN_MS:g}, so {lags}; a model of fewer "
            "bits keeps up better (voxmlx convert SOURCE DEST --recipe q4), and so "
            "does closing other programs"
        )


class RecoveryWarning:
    """Shows what a `RecoveryNotice` says. A listener."""

    def __init__(self, notify: Callable[[str], None], dtype: str) -> None:
        """`dtype` is what --dtype asked for."""
        self._notify = notify
        self._notice = RecoveryNotice(dtype)

    def on_audio(self, samples: np.ndarray, /) -> None:
        del samples

    def on_events(self, events: Sequence[Event], /) -> None:
        for event in events:
            sentence = self._notice.observe(event)
            if sentence is not None:
                self._notify(sentence)

    def on_tick(self, metrics: StreamMetrics, /) -> None:
        del metrics
