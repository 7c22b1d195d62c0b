"""Runs in a peer's own environment: its steps and transcriptions, timed on request.

    PYTHON peer_worker.py mlx-audio|voxmlx|transcribe-cpp PATH

Reads lines of JSON ({"task": name, ...}), answers each with one: the seconds or the
milliseconds it took, or {"error": ...}. It uses nothing of this repository: the package
named voxmlx in here is the peer's. Peers run as they are, but for what is said below.
The models are loaded on the CPU with as many threads as OMP_NUM_THREADS says.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
import contextlib
import io
import json
import os
import resource
import sys
import time
import wave
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

DELAY_TOKENS, LEFT_PAD_TOKENS, PIECE = 6, 32, 1280
# A peer that asks for more fails on its own, instead of taking the machine along.
MAX_ADDRESS_SPACE = 16 * 2**30

__all__ = ["SoundResult", "Subject", "serve", "timed_steps"]

# A module of each peer that brings all that is imported before a model is loaded.
_IMPORTED = {
    "mlx-audio": "mlx_audio.stt.utils",
    "voxmlx": "voxmlx",
    "transcribe-cpp": "transcribe_cpp",
}


class SoundResult(NamedTuple):
    """Text and ids of a sound; None where a peer does not say them."""

    text: str | None
    n_tokens: int | None


class Subject(Protocol):
    """One implementation, loaded."""

    def decoder_step(self) -> Callable[[], None]: ...
    def encoder_step(self) -> Callable[[], None]: ...
    def stream(self, sound: np.ndarray, delay_tokens: int) -> SoundResult: ...
    def file(self, path: str) -> SoundResult: ...


def serve(load: Callable[[], Subject], packages: Sequence[str]) -> None:
    """Load, then answer requests until standard input ends.

    The first answer is what loading took, and the versions of `packages`.
    """
    answers = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        subject = load()
        load_s = time.perf_counter() - start
        versions = {name: version(name) for name in packages}
        _say(answers, {"load_s": load_s, "versions": versions})
        steps: dict[str, Callable[[], None]] = {}
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                _say(answers, _do(subject, steps, asked))
            # Whatever a peer breaks with is the result.
            except Exception as error:
                message = str(error).splitlines() or [""]
                _say(answers, {"error": f"{type(error).__name__}: {message[0]}"[:160]})


def _say(answers: Any, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


def _peak_bytes() -> int:
    """`voxmlx.memory.peak_bytes`, which peers do not have."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return int(next(x for x in lines if x.startswith("VmHWM:")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _do(
    subject: Subject, steps: dict[str, Callable[[], None]], asked: dict[str, Any]
) -> dict[str, Any]:
    match asked["task"]:
        case "memory":
            return {"resident_peak_mb": _peak_bytes() / 1e6}
        case "stream":
            sound = np.load(asked["sound"])
            start = time.perf_counter()
            heard = subject.stream(sound, asked.get("delay_tokens", DELAY_TOKENS))
            return {"seconds": time.perf_counter() - start, **heard._asdict()}
        case "file":
            start = time.perf_counter()
            heard = subject.file(asked["path"])
            return {"seconds": time.perf_counter() - start, **heard._asdict()}
        case name:  # decoder_step, encoder_step, products
            if name not in steps:
                steps[name] = getattr(subject, name)()
                timed_steps(steps[name], asked["warm"])
            return {"ms": timed_steps(steps[name], asked["n"])}


def timed_steps(step: Callable[[], None], n: int) -> list[float]:
    """Milliseconds of each of n calls."""
    taken: list[float] = []
    for _ in range(n):
        start = time.perf_counter()
        step()
        taken.append(1000 * (time.perf_counter() - start))
    return taken


class MlxAudio:
    """mlx-audio: its loader, session, and `generate`."""

    def __init__(self, directory: Path) -> None:
        import mlx.core as mx
        from mlx_audio.stt.models.voxtral_realtime import encoder
        from mlx_audio.stt.utils import load

        dim = json.loads((directory / "config.json").read_text())["decoder"]["dim"]
        made = encoder.AudioEncoder.__init__

        def with_dim(self: Any, config: Any) -> None:
            # Its adapter has the real model's width, whatever config.json says.
            made(self, config)
            linear = encoder.nn.Linear
            self.audio_language_projection_0 = linear(
                config.dim * config.downsample_factor, dim, bias=False
            )
            self.audio_language_projection_2 = linear(dim, dim, bias=False)

        encoder.AudioEncoder.__init__ = with_dim
        self.model = load(directory, strict=True)
        mx.eval(self.model.parameters())
        self.dim = dim

    def decoder_step(self) -> Callable[[], None]:
        import mlx.core as mx

        decoder = self.model.decoder
        audio = mx.random.normal((self.dim,))
        cache, token, position = decoder.make_cache(), mx.array(32), 0

        def step() -> None:
            nonlocal cache, token, position
            embedding = audio + decoder.tok_embeddings(token.reshape(1))[0]
            h, cache = decoder.forward(embedding[None], position, cache)
            token = mx.argmax(decoder.logits(h.squeeze(0)))
            token.item()
            position += 1

        return step

    def encoder_step(self) -> Callable[[], None]:
        import mlx.core as mx
        from mlx_audio.stt.models.voxtral_realtime import streaming

        encoder = self.model.encoder
        stem = streaming.StreamingConvStem(encoder)
        layers = streaming.StreamingEncoder(encoder)
        adapter = streaming.StreamingDownsampler(encoder)
        mel = mx.random.normal((128, 8))
        # Its first piece is one frame short of whole tokens; so they are from here on.
        stem.step(mel)

        def step() -> None:
            mx.eval(adapter.step(layers.step(stem.step(mel))))

        return step

    def stream(self, sound: np.ndarray, delay_tokens: int) -> SoundResult:
        session = self.model.create_streaming_session(
            max_tokens=10**9, transcription_delay_ms=80 * delay_tokens
        )
        parts: list[str] = []
        for start in range(0, len(sound), PIECE):
            session.feed(sound[start : start + PIECE])
            parts += session.step(max_decode_tokens=16)
        session.close()
        while not session.done:
            parts += session.step(max_decode_tokens=16)
        return SoundResult("".join(parts), len(session.generated))

    def file(self, path: str) -> SoundResult:
        heard = self.model.generate(path)
        return SoundResult(heard.text, heard.generation_tokens)


class Voxmlx:
    """awni/voxmlx: its loader, `generate`, and its loop for the microphone."""

    def __init__(self, directory: Path) -> None:
        import mlx.core as mx

        import voxmlx

        self.package = voxmlx
        self.model, self.tokenizer, self.config = voxmlx.load_model(str(directory))
        mx.eval(self.model.parameters())
        self.time = self.model.time_embedding(mx.array([DELAY_TOKENS], mx.float32))

    def decoder_step(self) -> Callable[[], None]:
        import mlx.core as mx
        from voxmlx.cache import RotatingKVCache

        window = self.config["sliding_window"]
        cache = [RotatingKVCache(window) for _ in range(self.config["n_layers"])]
        audio = mx.random.normal((self.config["dim"],))
        token = mx.array(32)

        def step() -> None:
            nonlocal token
            embedding = audio + self.model.language_model.embed(token.reshape(1, 1))
            logits = self.model.decode(embedding, self.time, mask=None, cache=cache)
            token = mx.argmax(logits[0, -1:], axis=-1).squeeze()
            token.item()

        return step

    def encoder_step(self) -> Callable[[], None]:
        import mlx.core as mx

        mel = mx.random.normal((128, 8))
        state: tuple[Any, ...] = (None, None, None, None)

        def step() -> None:
            nonlocal state
            audio, *kept = self.model.encode_step(mel, *state)
            state = tuple(kept)
            mx.eval(audio)

        return step

    def stream(self, sound: np.ndarray, delay_tokens: int) -> SoundResult:
        """Its loop, with a microphone that gives the next piece whenever it sleeps."""
        if delay_tokens != DELAY_TOKENS:
            raise NotImplementedError("its delay is fixed")
        stream: Any = import_module("voxmlx.stream")

        pieces = iter(np.split(sound, range(PIECE, len(sound), PIECE)))
        n_tokens = 0
        said = self.tokenizer.decode

        class Microphone:
            def __init__(self, callback: Any, **_: Any) -> None:
                Microphone.callback = staticmethod(callback)

            def start(self) -> None: ...
            def stop(self) -> None: ...
            def close(self) -> None: ...

        def sleep(_: float) -> None:
            piece = next(pieces, None)
            if piece is None:
                raise KeyboardInterrupt
            Microphone.callback(piece[:, None], len(piece), None, None)

        def decode(*arguments: Any, **options: Any) -> str:
            nonlocal n_tokens
            n_tokens += 1
            return said(*arguments, **options)

        class Clock:
            monotonic = staticmethod(time.monotonic)

        Clock.sleep = staticmethod(sleep)
        self.tokenizer.decode = decode
        stream.sd.InputStream = Microphone
        stream.time = Clock
        stream.load_model = lambda _: (self.model, self.tokenizer, self.config)
        try:
            stream.stream_transcribe("")
        finally:
            self.tokenizer.decode = said
        return SoundResult(None, n_tokens)

    def file(self, path: str) -> SoundResult:
        prompt, n_delay = self.package._build_prompt_tokens(self.tokenizer)
        tokens = self.package.generate(
            self.model, path, prompt, n_delay, eos_token_id=self.tokenizer.eos_id
        )
        return SoundResult(self.tokenizer.decode(tokens), len(tokens))


class TranscribeCpp:
    """transcribe.cpp: its Python binding, on the CPU."""

    def __init__(self, path: Path) -> None:
        import transcribe_cpp

        self.package = transcribe_cpp
        self.model = transcribe_cpp.Model(path, backend="cpu")
        n_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        # As ours has it here; its own default is half precision.
        self.session = self.model.session(n_threads=n_threads, kv_type="f32")

    def decoder_step(self) -> Callable[[], None]:
        raise NotImplementedError("its interface has no single steps")

    encoder_step = decoder_step

    def stream(self, sound: np.ndarray, delay_tokens: int) -> SoundResult:
        options = self.package.VoxtralRealtimeStreamOptions(
            # Otherwise it waits for a second of sound.
            num_delay_tokens=delay_tokens,
            min_decode_interval_ms=0,
        )
        with self.session.stream(family=options) as stream:
            for start in range(0, len(sound), PIECE):
                stream.feed(sound[start : start + PIECE])
                stream.text()
            stream.finalize()
            return SoundResult(stream.text().full, None)

    def file(self, path: str) -> SoundResult:
        with wave.open(path) as opened:
            frames = opened.readframes(opened.getnframes())
        sound = np.frombuffer(frames, np.int16).astype(np.float32) / 2**15
        return SoundResult(self.session.run(sound).text, None)


_KINDS: dict[str, Callable[[Path], Subject]] = {
    "mlx-audio": MlxAudio,
    "voxmlx": Voxmlx,
    "transcribe-cpp": TranscribeCpp,
}


def main() -> None:
    peer, path = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    import_module(_IMPORTED[peer])
    packages = [peer, "transcribe-cpp-native" if peer == "transcribe-cpp" else "mlx"]
    serve(lambda: _KINDS[peer](Path(path)), packages)


if __name__ == "__main__":
    main()
