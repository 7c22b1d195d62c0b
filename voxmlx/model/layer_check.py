"""Tries compiled layers on this very machine, with the weights of a loaded network."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import mlx.core as mx

from voxmlx.kernels import Case, check_kernels, kernel_switches
from voxmlx.kernels.cases import LIMITS
from voxmlx.kernels.evaluation import evaluate
from voxmlx.kernels.switches import COMPILED_LAYERS
from voxmlx.model.attention import begin_step
from voxmlx.model.cache import RingKVCache
from voxmlx.model.decoder import Decoder
from voxmlx.model.encoder import Encoder
from voxmlx.model.layer import Residual
from voxmlx.model.voxtral import VoxtralRealtime

__all__ = ["check_compiled_layers", "layer_cases"]


def check_compiled_layers(network: VoxtralRealtime) -> None:
    """Let layers run compiled, if this machine has Metal and they are right."""
    switches = kernel_switches()
    if mx.metal.is_available() and switches.why_off(COMPILED_LAYERS) is None:
        check_kernels(layer_cases(network), switches)


def layer_cases(network: VoxtralRealtime) -> Iterator[Case]:
    """Yield a case for a layer of the encoder and of the decoder, at a live step's size.

    What is exact is the layer as Python builds it, on the same device.
    """
    encoder, decoder = network.encoder, network.decoder
    frames = encoder.make_state().cache
    yield _case(encoder, frames, encoder.group, None)
    state = decoder.make_state([6])
    yield _case(decoder, state.cache, 1, state.mlp_norms[0])


def _case(
    stack: Encoder | Decoder, cache: RingKVCache, n: int, norm: mx.array | None
) -> Case:
    layer, dtype = stack.layers[0], stack.dtype
    keys = mx.random.split(mx.random.key(n))
    x, branch = (
        mx.random.normal((1, n, stack.config.dim), key=key).astype(dtype)
        for key in (keys[0], keys[1])
    )
    down_proj: Any = layer.mlp.down_proj
    residual = Residual(x, branch, down_proj.get("bias"))

    def run() -> tuple[mx.array, ...]:
        own = cache.copy()
        step = begin_step([own], stack.rotary, [n], stack.config.n_kv_heads)
        left = layer(residual, 0, step, norm)
        own.write_waiting()
        assert left.branch is not None
        return left.x, left.branch, own.rings[0]

    def compiled() -> tuple[mx.array, ...]:
        with kernel_switches().trying(COMPILED_LAYERS):
            return run()

    with kernel_switches().without(COMPILED_LAYERS):
        expected = run()
        evaluate(expected)
    label = f"{type(stack).__name__.lower()}, {n} position{'s' if n > 1 else ''}"
    exact = partial(tuple, [array.astype(mx.float32) for array in expected])
    return Case(COMPILED_LAYERS, label, LIMITS[dtype], compiled, exact)
