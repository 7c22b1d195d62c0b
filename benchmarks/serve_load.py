"""Many clients at the pace of speech: how long after its sound does a client read text?

python -m benchmarks.serve_load [--sessions 32] [--seconds 60] [--demo | --model ...]
python -m benchmarks.serve_load --sessions 1 --uploads 4 [--rounds 5]

Starts the server as a user does, with as many places as there are clients, and talks to
it over sockets: the demo's sample, over and over, each client from another place in it,
in pieces of 40 ms as the page sends them. Lag is from when the sound that a text speaks
about, and its delay, were over to when the text was read; a piece's 40 ms is in it, as
an audio token needs 2.5 ms of the next one. One client too many must be refused.

With `--uploads`, all of it is done twice in one run, and so often in turns: alone, and
beside so many uploads of one hour each. The ratio of both lags says what uploads take
from live captions: of their 95th percentiles, round by round, its median and spread.
Every other round begins beside uploads. Ends in one JSON line.
"""

import argparse
import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.provenance import closing_line
from benchmarks.ratios import Ratio, Spread
from benchmarks.realtime import demo_sound
from benchmarks.uploads import uploading
from voxmlx.cli.arguments import add_model_arguments, run_command
from voxmlx.config import AUDIO_TOKEN_MS, DEFAULT_DELAY_MS, SAMPLES_PER_AUDIO_TOKEN

__all__ = ["Client", "main"]

_PIECE_SAMPLES = SAMPLES_PER_AUDIO_TOKEN // 2
_PIECE_MS = AUDIO_TOKEN_MS // 2
_PIECE_S = _PIECE_MS / 1000
_PATIENCE_S = 300.0
_UPLOAD_S = 3600.0

_LIVE_STEPS = 'voxmlx_step_seconds_count{kind="live"}'
_LIVE_STEP_SECONDS = 'voxmlx_step_seconds_sum{kind="live"}'
_LIVE_TOKENS = 'voxmlx_tokens_total{kind="live"}'
_FILE_TOKENS = 'voxmlx_tokens_total{kind="file"}'


@dataclass(slots=True)
class Client:
    """One connection, and what became of it."""

    pieces: list[str]
    delay_ms: int
    lags_ms: list[float] = field(default_factory=list[float])
    n_words: int = 0
    refusal: str | None = None
    _sent_at: list[float] = field(default_factory=list[float])

    async def talk(self, url: str, start_at: float, n_pieces: int) -> None:
        """Say so many pieces, the first one after `start_at`, and hear the answer."""
        await asyncio.sleep(start_at - time.perf_counter())
        async with connect(url, proxy=None, max_queue=None) as websocket:
            first = json.loads(await websocket.recv())
            if first["type"] == "error":
                self.refusal = first["code"]
                return
            update = {"delay_ms": self.delay_ms, "include": ["words"]}
            await websocket.send(json.dumps({"type": "session.update"} | update))
            hearing = asyncio.create_task(self._hear(websocket))
            start = time.perf_counter()
            for i in range(n_pieces):
                due = start + (i + 1) * _PIECE_S
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                # When it was spoken: what a busy client sends late is late.
                self._sent_at.append(due)
                await websocket.send(self.pieces[i % len(self.pieces)])
            final = {"type": "input_audio_buffer.commit", "final": True}
            await websocket.send(json.dumps(final))
            async with asyncio.timeout(_PATIENCE_S):
                await hearing

    async def _hear(self, websocket: ClientConnection) -> None:
        async for text in websocket:
            now = time.perf_counter()
            message = json.loads(text)
            match message["type"]:
                case "transcription.delta":
                    needed_ms = message["time_ms"] + self.delay_ms
                    i = -(-needed_ms // _PIECE_MS) - 1
                    if i < len(self._sent_at):  # later ones are about the end's silence
                        self.lags_ms.append(1000 * (now - self._sent_at[i]))
                case "transcription.word":
                    self.n_words += 1
                case "transcription.done":
                    return
                case "error":
                    self.refusal = message["code"]
                    return


@contextmanager
def _served(arguments: Sequence[str]) -> Iterator[tuple[str, int]]:
    """A server of its own process: its address, and its number."""
    command = [sys.executable, "-m", "voxmlx.serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = ""
        while not (found := re.search(r"http://(\S+)", told)):
            told = process.stderr.readline()
            if not told:
                raise SystemExit(f"the server did not start: {process.wait()}")
        try:
            yield found[1], process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _metrics(address: str) -> dict[str, float]:
    """What the server counts: name, with its labels, -> value."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.split() for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def _pieces(sound: np.ndarray, first: int) -> list[str]:
    """The sound's messages, beginning with piece number `first`."""
    pcm = (sound * 32768).clip(-32768, 32767).astype("<i2")
    parts = np.roll(pcm, -first * _PIECE_SAMPLES)
    messages: list[str] = []
    for piece in np.split(parts, len(parts) // _PIECE_SAMPLES):
        audio = base64.b64encode(piece.tobytes()).decode()
        messages.append(
            json.dumps({"type": "input_audio_buffer.append", "audio": audio})
        )
    return messages


async def _load(
    address: str, clients: list[Client], n_pieces: int, *, is_full: bool
) -> tuple[str | None, float]:
    """All clients talk; the refusal of one too many, and the seconds it took.

    Nobody is too many unless the server `is_full` with them.
    """
    url = f"ws://{address}/v1/realtime"
    started = time.perf_counter()
    extra = Client(clients[0].pieces, clients[0].delay_ms)
    token_s = AUDIO_TOKEN_MS / 1000
    begins = [started + 0.1 + i * token_s / len(clients) for i in range(len(clients))]
    talks = [
        client.talk(url, begin, n_pieces)
        for client, begin in zip(clients, begins, strict=True)
    ]
    if is_full:  # when all the others have their places
        talks.append(extra.talk(url, started + n_pieces * _PIECE_S / 2, n_pieces))
    await asyncio.gather(*talks)
    return extra.refusal, time.perf_counter() - started


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0, help="of sound for each")
    parser.add_argument("--uploads", type=int, default=0, help="at once, beside them")
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        help="with --uploads: alone and beside, so often",
    )
    arguments = parser.parse_args(argv)
    if arguments.uploads:
        return _compare(arguments)
    n = arguments.sessions
    clients = _clients(arguments)
    with _served(_server_arguments(arguments)) as (address, pid):
        # The first client of all finds the model's constants still to be computed.
        asyncio.run(Client(clients[0].pieces, 480).talk(*_soon(address), 25))
        before = _metrics(address)
        cpu_before = _cpu_s(pid)
        n_pieces = round(arguments.seconds / _PIECE_S)
        extra, took_s = asyncio.run(_load(address, clients, n_pieces, is_full=True))
        after = _metrics(address)
        cpu_s = _cpu_s(pid) - cpu_before
    gained = {name: value - before.get(name, 0.0) for name, value in after.items()}
    n_steps = gained[_LIVE_STEPS]
    lag = Spread.of([lag for client in clients for lag in client.lags_ms])
    figures: dict[str, Any] = {
        "sessions": n,
        "seconds": arguments.seconds,
        "took_s": took_s,
        "n_refused": sum(client.refusal is not None for client in clients),
        "one_too_many": extra,
        "n_texts": sum(len(client.lags_ms) for client in clients),
        "words_per_client": [
            min(c.n_words for c in clients),
            max(c.n_words for c in clients),
        ],
        "lag_ms": asdict(lag),
        "step_ms": 1000 * gained[_LIVE_STEP_SECONDS] / n_steps,
        "tokens_per_step": gained[_LIVE_TOKENS] / n_steps,
        "server_cpu": cpu_s / took_s,
        "load_average": os.getloadavg()[0],
    }
    print(f"{n} clients for {arguments.seconds:g} s: {figures['n_refused']} refused")
    print(f"one too many   {extra}")
    print(
        f"lag in ms      p50 {lag.p50:.0f}  p95 {lag.p95:.0f}  p99 {lag.p99:.0f}  "
        f"max {lag.max:.0f}"
    )
    print(
        f"server         {figures['step_ms']:.1f} ms a step of "
        f"{figures['tokens_per_step']:.1f} tokens, {figures['server_cpu']:.2f} processors"
    )
    print(closing_line("serve_load", model=arguments.model, **figures))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    """Live clients alone, and beside uploads, in turns on one server."""
    n_pieces = round(arguments.seconds / _PIECE_S)
    rounds: dict[str, list[Spread]] = {"alone": [], "beside": []}
    all_lags: dict[str, list[float]] = {"alone": [], "beside": []}
    speeds: list[float] = []  # of all uploads, in seconds of sound a second
    with _served(_server_arguments(arguments)) as (address, _):
        asyncio.run(_clients(arguments)[0].talk(*_soon(address), 25))
        for i in range(arguments.rounds):
            places = list(rounds) if i % 2 == 0 else list(rounds)[::-1]
            for place in places:
                n_uploads = arguments.uploads if place == "beside" else 0
                lags, speed = _round(address, arguments, n_pieces, n_uploads)
                rounds[place].append(Spread.of(lags))
                all_lags[place] += lags
                if n_uploads:
                    speeds.append(speed)
    ratio = Ratio.of(*([one.p95 for one in rounds[x]] for x in ("beside", "alone")))
    spreads = {place: Spread.of(values) for place, values in all_lags.items()}
    for place, lag in spreads.items():
        p95s = [one.p95 for one in rounds[place]]
        print(
            f"{place:<7} lag in ms  p50 {lag.p50:.0f}  p95 {lag.p95:.0f}  "
            f"p99 {lag.p99:.0f}  max {lag.max:.0f}  "
            f"(p95 by round {min(p95s):.0f}-{max(p95s):.0f})"
        )
    print(f"ratio of p95   {ratio}")
    print(
        f"uploads        {sum(speeds) / len(speeds):.1f} x the pace of speech, in all"
    )
    figures: dict[str, Any] = {
        "sessions": arguments.sessions,
        "uploads": arguments.uploads,
        "seconds": arguments.seconds,
        "rounds": arguments.rounds,
        "lag_ms": {place: asdict(lag) for place, lag in spreads.items()},
        "p95_ms": {place: [x.p95 for x in found] for place, found in rounds.items()},
        "p95_ratio": asdict(ratio),
        "uploads_speed": speeds,
        "load_average": os.getloadavg()[0],
    }
    print(closing_line("serve_load", model=arguments.model, **figures))
    return 0


def _round(
    address: str, arguments: argparse.Namespace, n_pieces: int, n_uploads: int
) -> tuple[list[float], float]:
    """Lags in ms of live clients beside uploads, and those uploads' speed.

    Live clients go first, so uploads may get no step at all beside them. Then the time
    until the first step counts too.
    """
    clients = _clients(arguments)
    with ExitStack() as stack:
        if n_uploads:
            stack.enter_context(uploading(address, n_uploads, demo_sound(), _UPLOAD_S))
        before, start = _metrics(address)[_FILE_TOKENS], time.perf_counter()
        asyncio.run(_load(address, clients, n_pieces, is_full=False))
        while not (n_tokens := _metrics(address)[_FILE_TOKENS] - before) and n_uploads:
            if time.perf_counter() - start > arguments.seconds + _PATIENCE_S:
                raise SystemExit(f"no step of an upload within {_PATIENCE_S:g} s")
            time.sleep(0.05)
        took_s = time.perf_counter() - start
    for client in clients:
        if client.refusal is not None:
            raise SystemExit(f"a live client was refused: {client.refusal}")
    lags = [lag for client in clients for lag in client.lags_ms]
    return lags, n_tokens * AUDIO_TOKEN_MS / 1000 / took_s


def _clients(arguments: argparse.Namespace) -> list[Client]:
    """As many as asked for, each from another place in the sound."""
    sound, n = demo_sound(), arguments.sessions
    n_all = len(sound) // _PIECE_SAMPLES
    delay_ms = arguments.delay or DEFAULT_DELAY_MS
    return [Client(_pieces(sound, i * n_all // n), delay_ms) for i in range(n)]


def _server_arguments(arguments: argparse.Namespace) -> list[str]:
    n = arguments.sessions + arguments.uploads
    return [
        *("--model", arguments.model, "--dtype", arguments.dtype),
        *("--kv-bits", str(arguments.kv_bits), "--max-sessions", str(n)),
        *("--max-uploads", str(max(1, arguments.uploads))),
    ]


def _soon(address: str) -> tuple[str, float]:
    return f"ws://{address}/v1/realtime", time.perf_counter()


def _cpu_s(pid: int) -> float:
    """Processor seconds that a process has had, where Linux tells it."""
    import psutil  # of the extra `bench`

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    sys.exit(main())
