"""python -m benchmarks.host_time: what a live step costs the CPU, not the GPU.

Thread CPU time of building one step's graph and of handing it to MLX, for a network
with the full model's number of layers and tiny widths. "here" is the form of this
machine. "on a Mac" is the form with Metal kernels, which is built and thrown away, so
that it can be timed on any machine.

  python -m benchmarks.host_time --beside DIR   compare with another checkout, in turns

Ends in one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxmlx.config import AudioConfig, DecoderConfig, EncoderConfig, ModelConfig
from voxmlx.model import voxtral

__all__ = ["host_times", "main", "narrow_network"]

_WARM_UP = 5
_KINDS = ("built here", "submitted here", "built on a Mac")


def narrow_network() -> voxtral.VoxtralRealtime:
    """All layers of the full model, 64 numbers wide, in 4 bits."""
    encoder = EncoderConfig(64, 32, 16, 128, 4, 4, 1e6, 1e-5, 750)
    decoder = DecoderConfig(64, 26, 16, 128, 4, 1, 1e6, 1e-5, 8192, 512, 32)
    audio = AudioConfig(16_000, 12.5, 128, 160, 400, 1.5)
    network = voxtral.VoxtralRealtime(ModelConfig(audio, encoder, decoder, 4))
    nn.quantize(
        network,
        group_size=32,
        bits=4,
        class_predicate=lambda path, module: (
            isinstance(module, nn.Linear | nn.Embedding)
            and "ada" not in path
            and module.weight.shape[-1] % 32 == 0
        ),
    )
    mx.eval(network.parameters())
    return network


def host_times(n_steps: int) -> dict[str, float]:
    """Return the median milliseconds of each of _KINDS over so many live steps."""
    network = narrow_network()
    state = network.make_state(480)
    for _ in range(3):
        _decode(network, network.encode(mx.zeros((1, 20 * 1280)), state), state)
    mx.eval(state.arrays())
    rng = np.random.default_rng(0)
    sound: Any = rng.normal(0, 0.05, (1, 1280)).astype(np.float32)
    if isinstance(state.mel.pending, mx.array):  # a checkout with its mel on the GPU
        sound = mx.array(sound)
        mx.eval(sound)
    taken: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for _ in range(n_steps + _WARM_UP):
        built, submitted, request = _step(network, sound, state, mx.async_eval)
        request.ids()
        taken["built here"].append(built)
        taken["submitted here"].append(submitted)
    mx.eval(state.arrays())

    def as_on_a_mac(unused: mx.array) -> mx.array:
        for _ in range(n_steps + _WARM_UP):
            built, _, _ = _step(network, sound, state.copy(), lambda *_: None)
            taken["built on a Mac"].append(built)
        return unused

    ops, switches, on = _switches()
    with (
        # On a Mac each is one node; on a CPU they fall apart into several.
        patch.object(mx.fast, "scaled_dot_product_attention", _one_node),
        patch.object(mx.fast, "rms_norm", _one_node),
        patch.object(ops, "has_metal", lambda: True),
        patch.object(ops, switches, lambda: on),
    ):
        # Within a recording MLX makes nodes of Metal kernels without a GPU.
        mx.export_function(lambda *_: None, as_on_a_mac, mx.zeros(1))
    return {kind: median(times[_WARM_UP:]) for kind, times in taken.items()}


def _one_node(x: mx.array, *_: Any, **__: Any) -> mx.array:
    """Stand in for one of MLX's fused operations on a Mac."""
    return mx.abs(x)


def _step(
    network: voxtral.VoxtralRealtime,
    sound: Any,
    state: Any,
    submit: Callable[..., None],
) -> tuple[float, float, Any]:
    """Milliseconds of building a step and of submitting it, and what decodes it."""
    submitted = 0.0

    def timed(*arrays: Any) -> None:
        nonlocal submitted
        start = time.thread_time()
        submit(*arrays)
        submitted += time.thread_time() - start

    with patch.object(mx, "async_eval", timed):
        start = time.thread_time()
        request = _decode(network, network.encode(sound, state), state)
        spent = time.thread_time() - start
    return 1000 * (spent - submitted), 1000 * submitted, request


def _decode(network: Any, audio: mx.array, state: Any) -> Any:
    """Take audio embeddings [1, n, dim] through all passes; return the request.

    A checkout of before the folder `decoding` has its loop in the network.
    """
    try:
        from voxmlx.decoding.loop import decode_together
        from voxmlx.decoding.network_requests import DecodeRequest
    except ImportError:
        choosing: Any = import_module("voxmlx.model.choosing")
        made: Any = getattr(choosing, "DecodeRequest", None) or choosing.Decoding
        request: Any = made(audio, state)
        while not request.is_done:
            network.decode_together([request])
        return request
    request = DecodeRequest(audio, state)
    while not request.is_done:
        decode_together(network, [request])
    return request


def _switches() -> tuple[Any, str, Any]:
    """The module that chooses kernels, its switches' name, and them all on.

    A checkout of before 2026-11-26 has other names.
    """
    try:
        from voxmlx.kernels import ops
        from voxmlx.kernels.switches import KernelSwitches
    except ImportError:
        select: Any = import_module("voxmlx.kernels.select")
        gate: Any = import_module("voxmlx.kernels.gate")
        return select, "gate", gate.Gate("on", None)
    return ops, "kernel_switches", KernelSwitches("on", None)


def _in_turns(roots: list[Path], n_rounds: int, n_steps: int) -> list[dict[str, Any]]:
    """Every checkout's times, round by round, each in a process of its own."""
    rounds: list[list[dict[str, float]]] = [[] for _ in roots]
    for _ in range(n_rounds):
        for root, found in zip(roots, rounds, strict=True):
            # By its path: another checkout need not have this file.
            command = [sys.executable, __file__, "--worker", "--steps", str(n_steps)]
            environment = os.environ | {"PYTHONPATH": str(root)}
            if not mx.metal.is_available():
                # Graphs are timed, and NumPy builds none.
                environment["VOXMLX_KERNELS"] = "off"
            done = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
            found.append(json.loads(done.stdout))
    return [{k: median(r[k] for r in found) for k in _KINDS} for found in rounds]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--steps", type=int, default=40, help="of 80 ms in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", type=Path, help="another checkout to compare with")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(host_times(arguments.steps)))
        return 0
    # A local import: a worker may run in a checkout whose packages are others.
    from benchmarks.provenance import closing_line

    roots = [Path(__file__).parents[1]]
    if arguments.beside is not None:
        roots.append(arguments.beside.resolve())
    ours, *others = _in_turns(roots, arguments.rounds, arguments.steps)
    print(f"{'ms of thread CPU time a step':30} {'here':>8} {'beside':>8} {'ratio':>6}")
    for kind in _KINDS:
        line = f"{kind:30} {ours[kind]:8.2f}"
        for other in others:
            line += f" {other[kind]:8.2f} {ours[kind] / other[kind]:6.2f}"
        print(line)
    print(closing_line("host_time", ours=ours, beside=others))
    return 0


if __name__ == "__main__":
    sys.exit(main())
