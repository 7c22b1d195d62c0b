"""python -m benchmarks.launches: kernels launched by one 80 ms step on a Mac.

Counted from MLX's graph of the full-size model, whose weights are never made: one
steady step of one session, 4 bits, half precision, both rings full. Then the same
without kernels of ours and with rings of 8 bits, beside a peer. Ends in one JSON line.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from benchmarks.full_size_checkpoint import FULL_SIZE
from benchmarks.graph import Trace, on_metal, trace
from benchmarks.provenance import closing_line
from voxmlx.config import AUDIO_TOKEN_MS, LEFT_PAD_TOKENS, ModelConfig
from voxmlx.decoding.choosing import greedy, logits_of
from voxmlx.layouts import model_modules, packed_path
from voxmlx.layouts.recipes import DEFAULT_RECIPE, RECIPES, precisions
from voxmlx.model.cache import RingKVCache
from voxmlx.model.voxtral import VoxtralRealtime
from voxmlx.session_options import DRAFT_WINDOW_MS

# awni/voxmlx 0.0.2, its graph counted in the same way: nodes that launch. Each of 64
# concatenations of its encoder launches once more.
PEER = {"encoder": 705 + 64, "decoder": 601}

DRAFT_WINDOW = DRAFT_WINDOW_MS // AUDIO_TOKEN_MS

__all__ = [
    "DRAFT_WINDOW",
    "full_size_network",
    "ring_sizes",
    "traced_decoder",
    "traced_encoder",
    "traced_pair",
]


def full_size_network(
    recipe: str = DEFAULT_RECIPE, dtype: mx.Dtype = mx.bfloat16
) -> VoxtralRealtime:
    """4.4 B parameters, quantized by one of RECIPES, none of them computed."""
    config = ModelConfig.from_params(FULL_SIZE.params())
    network = VoxtralRealtime(config)
    chosen = {
        packed_path(path): {"bits": p.bits, "group_size": p.group_size}
        for path, p in precisions(RECIPES[recipe], model_modules(config), {}).items()
    }
    if chosen:
        nn.quantize(network, class_predicate=lambda path, _: chosen.get(path, False))
    network.set_dtype(dtype)
    return network


def traced_encoder(network: VoxtralRealtime, kernels: str = "on") -> Trace:
    """8 mel frames, from the host -> 4 encoder frames -> one audio embedding."""
    state = network.encoder.make_state()
    cache, stem = state.cache, state.stem
    cache.fill()
    rings = list(cache.rings)
    n_mels, dtype = network.config.audio.num_mel_bins, network.encoder.dtype
    carried = [mx.zeros((1, 8, n_mels), dtype)]
    carried += [stem.conv1.pending, stem.conv2.pending]
    with on_metal(kernels):
        n, before = network.encoder.group, cache.copy()
        if before.rotates_entries(before.advance(n), n):
            # The step before left its entries to be written.
            c = network.config.encoder
            shape = (1, 2 * c.n_kv_heads, n, c.head_dim)
            carried += [mx.zeros(shape, dtype) for _ in rings]
    names, weights = _parameters(network)

    def step(*arrays: mx.array) -> list[mx.array]:
        weights, carried_in, rings = _split(arrays, len(names), len(carried))
        mel, stem.conv1.pending, stem.conv2.pending, *cache.waiting = carried_in
        network.update(tree_unflatten(list(zip(names, weights, strict=True))))
        cache.rings = list(rings)
        audio = network.adapter(network.encoder.step(mel, state))
        left = [stem.conv1.pending, stem.conv2.pending, state.pending]
        return [audio, *left, *cache.arrays()]

    return _traced(network, step, [*weights, *carried], rings, kernels)


def traced_decoder(
    network: VoxtralRealtime, kernels: str = "on", *, kv_bits: int = 16
) -> Trace:
    """Audio embedding and the id before -> the next id."""
    dim = network.config.decoder.dim
    state = network.decoder.make_state([6], kv_bits=kv_bits)
    state.cache.fill()
    rings = list(state.cache.rings)
    carried = [mx.zeros((1, 1, dim), network.decoder.dtype), mx.zeros((1, 1), mx.int32)]
    names, weights = _parameters(network)

    def step(*arrays: mx.array) -> list[mx.array]:
        weights, (audio, token), rings = _split(arrays, len(names), 2)
        network.update(tree_unflatten(list(zip(names, weights, strict=True))))
        state.cache.rings = list(rings)
        embedding = audio + network.decoder.embed(token)
        logits = network.decoder.step(embedding, state, n_logits=1)[:, 0]
        best = greedy(logits)
        return [best, logits_of(best, logits), *state.cache.rings]

    return _traced(network, step, [*weights, *carried], rings, kernels)


def traced_pair(network: VoxtralRealtime, window: int) -> Trace:
    """A decoder step of two rows: the confirmed text, and a draft of `window` positions."""
    dim = network.config.decoder.dim
    states = [
        network.decoder.make_state([12]),
        network.decoder.make_state([2], window=window),
    ]
    for state in states:
        state.cache.fill()
    n_layers = len(states[0].cache.rings)
    rings = [ring for state in states for ring in state.cache.rings]
    carried = [mx.zeros((1, 1, dim), network.decoder.dtype), mx.zeros((1, 2), mx.int32)]
    names, weights = _parameters(network)

    def step(*arrays: mx.array) -> list[mx.array]:
        weights, (audio, tokens), rings = _split(arrays, len(names), 2)
        network.update(tree_unflatten(list(zip(names, weights, strict=True))))
        for i, state in enumerate(states):
            state.cache.rings = list(rings[i * n_layers : (i + 1) * n_layers])
        embedded = network.decoder.embed(tokens)
        rows = [audio + row for row in mx.split(embedded, 2, axis=1)]
        logits = network.decoder.step_together(rows, states, [1, 1])
        assert logits is not None
        best = greedy(logits)
        written = [ring for state in states for ring in state.cache.rings]
        return [best, logits_of(best, logits), *written]

    return _traced(network, step, [*weights, *carried], rings, "on")


def ring_sizes(cache: RingKVCache, n_silent: int) -> list[int]:
    """Slots that rings have one after another, from a session's opening on."""
    cache.advance(n_silent)
    cache = cache.packed()
    sizes = [cache.n_slots]
    while cache.n_slots < cache.capacity:
        cache.advance(cache.step)
        if cache.n_slots > sizes[-1]:
            sizes.append(cache.n_slots)
    return sizes


def _traced(
    network: VoxtralRealtime,
    step: Callable[..., Any],
    arrays: list[mx.array],
    rings: list[mx.array],
    kernels: str,
) -> Trace:
    """Trace `step`, and give the network its own weights back."""
    own = network.parameters()
    try:
        with on_metal(kernels):
            return trace(step, arrays, rings)
    finally:
        network.update(own)


def _parameters(network: VoxtralRealtime) -> tuple[list[str], list[mx.array]]:
    flat: Any = tree_flatten(network.parameters())
    return [name for name, _ in flat], [array for _, array in flat]


def _split(
    arrays: tuple[mx.array, ...], n_first: int, n_second: int
) -> tuple[tuple[mx.array, ...], ...]:
    n = n_first + n_second
    return arrays[:n_first], arrays[n_first:n], arrays[n:]


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.launches", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--draft-delay",
        action="store_true",
        help="also count a step that decodes a draft in the same pass",
    )
    arguments = parser.parse_args()
    network = full_size_network()
    # NumPy computes the spectrogram, which is uploaded with the step.
    print("mel         0 launches")
    traces = {
        "encoder": traced_encoder(network),
        "decoder": traced_decoder(network),
    }
    for part, counted in traces.items():
        print(
            f"{part:8} {counted.n_launches:4} launches, {counted.n_views} views, "
            f"{counted.bytes_written / 1e6:.2f} MB written, "
            f"{counted.cache_bytes_moved / 1e6:.2f} MB of cache moved"
        )
        for kind, n in counted.launches.most_common():
            print(f"{n:16} {kind}")
    compared = {"awni/voxmlx 0.0.2": PEER}
    for name, kv_bits, kernels in (
        ("without kernels of ours", 16, "off"),
        ("with them", 16, "on"),
        ("--kv-bits 8, without", 8, "off"),
        ("--kv-bits 8, with them", 8, "on"),
    ):
        compared[name] = {
            "encoder": traced_encoder(network, kernels).n_launches,
            "decoder": traced_decoder(network, kernels, kv_bits=kv_bits).n_launches,
        }
    print(f"\n{'launches of a step':24} {'encoder':>8} {'decoder':>8}")
    for name, n in compared.items():
        print(f"{name:24} {n['encoder']:8} {n['decoder']:8}")
    if arguments.draft_delay:
        pair, alone = traced_pair(network, DRAFT_WINDOW), traces["decoder"]
        compared["with a draft"] = {
            "encoder": traces["encoder"].n_launches,
            "decoder": pair.n_launches,
        }
        products = [kind for kind in alone.launches if "Matmul" in kind]
        print(
            f"{'with a draft':24} {traces['encoder'].n_launches:8} {pair.n_launches:8}"
        )
        print(
            "products, each of which reads its weights once: "
            f"{sum(alone.launches[kind] for kind in products)} of a step alone, "
            f"{sum(pair.launches[kind] for kind in products)} with a draft"
        )
    group = network.encoder.group
    sizes = {
        "encoder": ring_sizes(
            network.encoder.make_state().cache, (LEFT_PAD_TOKENS - 1) * group
        ),
        "decoder": ring_sizes(network.decoder.make_state([6]).cache, LEFT_PAD_TOKENS),
    }
    print("\nslots of the rings as they fill; each growth copies them once")
    for part, slots in sizes.items():
        print(f"{part:8} {' -> '.join(map(str, slots))}")
    print(
        closing_line(
            "launches",
            ring_slots=sizes,
            compared=compared,
            launches={part: counted.n_launches for part, counted in traces.items()},
            bytes_written={part: t.bytes_written for part, t in traces.items()},
            cache_bytes_moved={part: t.cache_bytes_moved for part, t in traces.items()},
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
