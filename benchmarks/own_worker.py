"""Answers what `peer_worker` answers, for our own package.

PYTHON -m benchmarks.own_worker DIRECTORY
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import mlx.core as mx
import numpy as np

from benchmarks.peer_worker import PIECE, SoundResult, serve
from voxmlx import Event, Session, TextDelta, TokenDecoded, load
from voxmlx.audio.files import open_audio
from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.decoding.loop import decode_all
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.file_transcript import file_events
from voxmlx.model.linear import matmul


class Ours:
    """This package, in float32."""

    def __init__(self, directory: Path) -> None:
        self.checkpoint = load(directory, "float32")
        self.model = self.checkpoint.model
        mx.eval(self.model.parameters())

    def decoder_step(self) -> Callable[[], None]:
        state = self.model.make_state()
        state.n_forced = 0
        audio = mx.random.normal((1, 1, self.checkpoint.config.decoder.dim))

        def step() -> None:
            decode_all(self.model, DecodeRequest(audio, state))

        return step

    def encoder_step(self) -> Callable[[], None]:
        state = self.model.encoder.make_state()
        mel = mx.random.normal((1, 8, 128))

        def step() -> None:
            mx.eval(self.model.adapter(self.model.encoder.step(mel, state)))

        return step

    def products(self) -> Callable[[], None]:
        """The matrix products of a decoder step, and nothing else of it."""
        decoder = self.model.decoder
        config = decoder.config
        widths = (
            config.dim,
            config.n_heads * config.head_dim,
            config.hidden_dim,
        )
        x, heads, hidden = (mx.random.normal((1, 1, width)) for width in widths)
        mx.eval(x, heads, hidden)

        def step() -> None:
            done = [matmul(decoder.embedding, x)]
            for layer in decoder.layers:
                done += [
                    matmul(layer.attention.qkv_proj, x),
                    matmul(layer.attention.o_proj, heads),
                    matmul(layer.mlp.gate_up_proj, x),
                    matmul(layer.mlp.down_proj, hidden),
                ]
            mx.eval(done)

        return step

    def stream(self, sound: np.ndarray, delay_tokens: int) -> SoundResult:
        session = Session(self.checkpoint, delay_ms=delay_tokens * AUDIO_TOKEN_MS)
        events: list[Event] = []
        for start in range(0, len(sound), PIECE):
            events += session.push(sound[start : start + PIECE])
        return _heard([*events, *session.finish()])

    def file(self, path: str) -> SoundResult:
        with open_audio(path) as audio:
            # As the command does it.
            session = Session(self.checkpoint, speculate=True)
            return _heard(file_events(audio, session))


def _heard(events: Iterable[Event]) -> SoundResult:
    parts: list[str] = []
    n_tokens = 0
    for event in events:
        if isinstance(event, TextDelta):
            parts.append(event.text)
        n_tokens += isinstance(event, TokenDecoded)
    return SoundResult("".join(parts), n_tokens)


def main() -> None:
    directory = Path(sys.argv[1])
    serve(lambda: Ours(directory), ["mlx"])


if __name__ == "__main__":
    main()
