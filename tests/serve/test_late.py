"""Passes that live clients share: drafts and guesses at a backlog are more rows of them."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import mlx.core as mx
import mlx.utils
import numpy as np
import pytest

from tests.serve.scheduled import Client, Steps, alone, events
from tests.sounds import speech_like
from voxmlx import Checkpoint
from voxmlx.decoding.rules import GUARDS
from voxmlx.decoding.speculation import Speculation
from voxmlx.events import TokenDecoded
from voxmlx.model.state import VoxtralState
from voxmlx.model.voxtral import VoxtralRealtime
from voxmlx.serve import openings
from voxmlx.serve.protocol import Finish
from voxmlx.serve.scheduler import Scheduler
from voxmlx.serve.stream_options import StreamOptions


@contextmanager
def counted(
    draw: Callable[[mx.array | None], None] = lambda logits: None,
) -> Iterator[list[list[int]]]:
    """Passes of the decoder: the positions of each request in them."""
    passes = list[list[int]]()
    logits_together = VoxtralRealtime.logits_together

    def noted(
        model: VoxtralRealtime,
        audio: Sequence[mx.array],
        tokens: Sequence[mx.array],
        states: Sequence[VoxtralState],
        n_logits: Sequence[int],
    ) -> mx.array | None:
        passes.append([part.shape[1] for part in tokens])
        logits = logits_together(model, audio, tokens, states, n_logits)
        draw(logits)
        return logits

    with patch.object(VoxtralRealtime, "logits_together", noted):
        yield passes


def guess(monkeypatch: pytest.MonkeyPatch, n_guesses: int) -> None:
    """Let every stream guess so many ids, whatever passes take on this machine."""
    monkeypatch.setattr(
        openings, "Speculation", lambda _: Speculation(n_guesses=n_guesses)
    )


def test_each_weight_is_read_once_for_drafts_and_for_who_is_late(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_checkpoint.model
    guess(monkeypatch, 3)
    scheduler = Scheduler(tiny_checkpoint, max_sessions=4, guards=tuple(GUARDS))
    drafts = (None, 80, 160, None)
    clients = [
        Client(scheduler, StreamOptions(delay_ms=480, draft_delay_ms=ms))
        for ms in drafts
    ]
    for i, client in enumerate(clients):  # each somewhere else in its stream
        client.says(speech_like(60_000 + 9_000 * i, seed=i))
    while scheduler.is_due or any(client.slot.stream is None for client in clients):
        scheduler.tick()
    # The last one is late: its guesses are verified by the pass of all others.
    clients[-1].says(speech_like(40 * 1280, seed=1))
    scheduler.tick()
    scheduler.tick()
    path = tmp_path / "step.dot"
    weights = dict(mlx.utils.tree_flatten(model.parameters()))
    monkeypatch.setattr(mx, "async_eval", lambda *_: None)
    for client in clients[:-1]:
        client.says(speech_like(1280, seed=1))
    with counted(lambda logits: mx.export_to_dot(str(path), logits, **weights)) as rows:
        scheduler.tick()
    # Three own rows, two of drafts, and the late one with its guesses.
    assert [sorted(one) for one in rows] == [[1, 1, 1, 1, 1, 4]]
    uses = Counter(re.findall(r'^"(.+)" -> ', path.read_text(), re.MULTILINE))
    for name, array in weights.items():
        if array.ndim == 1 or ".ada." in name:
            continue
        assert uses[name] == (2 if name == "decoder.embedding.weight" else 1), name


def test_slots_with_and_without_drafts_are_told_what_each_says_alone(
    steps: Steps,
) -> None:
    drafts = (None, 80, 240, None)
    clients = [
        Client(steps.scheduler, StreamOptions(delay_ms=960, draft_delay_ms=ms))
        for ms in drafts
    ]
    sounds = [speech_like(9_000 + 4_321 * i, seed=i) for i in range(4)]
    for i, (client, sound) in enumerate(zip(clients, sounds, strict=True)):
        client.says(sound, piece=701 + 997 * i)
        client.slot.submit(Finish())
    for client, sound, ms in zip(clients, sounds, drafts, strict=True):
        steps.tick_until_finished(client)
        expected = alone(steps.checkpoint, sound, delay_ms=960, draft_delay_ms=ms)
        assert events(list(client.notices.queue)) == expected


@pytest.mark.parametrize(("draft_ms", "share"), [(None, 0.6), (80, 0.7)])
def test_a_backlog_of_a_live_client_takes_fewer_passes(
    demo_checkpoint: Checkpoint,
    sample: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    draft_ms: int | None,
    share: float,
) -> None:
    """As after a sleep, or where the machine was too slow; ids are the same."""
    guess(monkeypatch, 7)
    steps = Steps(demo_checkpoint)
    client = Client(steps.scheduler, StreamOptions(draft_delay_ms=draft_ms))
    with counted() as passes:
        client.says_at_once(sample[: 4 * 16_000])
        client.slot.submit(Finish())
        steps.tick_until_finished(client)
    told = events(list(client.notices.queue))
    n_ids = sum(isinstance(event, TokenDecoded) for event in told)
    assert len(passes) < share * n_ids
    expected = alone(demo_checkpoint, sample[: 4 * 16_000], draft_delay_ms=draft_ms)
    assert told == expected


def test_who_is_late_delays_nobody_beside(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each audio token of a client in time is decoded by the next pass."""
    guess(monkeypatch, 3)
    late, timely = Client(steps.scheduler), Client(steps.scheduler)
    timely.says_at_once(speech_like(30 * 1280 + 200, seed=1))
    while steps.tick():
        pass
    late.says_at_once(speech_like(200 * 1280, seed=200))
    steps.tick(3)
    for i in range(20):
        before = timely.notices.qsize()
        timely.says_at_once(speech_like(1280, seed=i))
        assert steps.tick() == ["live"]
        assert timely.notices.qsize() > before
    assert late.slot.waiting_ms > 0
