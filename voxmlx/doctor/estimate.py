"""Estimates of real time on a machine, from the bytes that a step reads."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from statistics import median

import mlx.core as mx

from voxmlx.config import (
    AUDIO_TOKEN_MS,
    AudioConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
)
from voxmlx.kernels import SCALE_BYTES
from voxmlx.layouts import model_modules
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.embedding import DEFAULT_EMBEDDING_BITS, EMBEDDING
from voxmlx.layouts.recipes import RECIPES, Recipe, Rule

__all__ = [
    "ESTIMATED",
    "FULL_SIZE",
    "N_LAUNCHES",
    "RealTimeEstimate",
    "Speed",
    "default_model",
    "estimates",
    "measured_speed",
    "median_s",
    "step_bytes",
    "weight_bytes",
]

FULL_SIZE = ModelConfig(
    AudioConfig(16000, 12.5, 128, 160, 400, 1.5),
    EncoderConfig(1280, 32, 64, 5120, 32, 32, 1e6, 1e-5, 750),
    DecoderConfig(3072, 26, 128, 9216, 32, 8, 1e6, 1e-5, 8192, 131072, 32),
    4,
)

# Of one step of the full-size model; `python -m benchmarks.launches` counts them.
N_LAUNCHES = 598


def default_model(embedding_bits: int = DEFAULT_EMBEDDING_BITS) -> Recipe:
    """Return the recipe of the default model, with its embedding quantized at load.

    `embedding_bits` is one of EMBEDDING_BITS.
    """
    precision = None if embedding_bits == 16 else Precision(embedding_bits, 64)
    rules = (Rule(EMBEDDING, precision), *RECIPES["q4"].rules)
    return Recipe("default", "what is loaded unless another is named", rules)


# What is estimated: the default model, and what `voxmlx convert` makes in affine groups.
ESTIMATED = (
    default_model(),
    RECIPES["bf16"],
    *(recipe for recipe in RECIPES.values() if recipe.is_rounded),
)

# Estimates are of bytes and launches alone: a little is left for all else.
_COMFORTABLE = 0.8

_PROBE_BYTES = 256_000_000
_N_PROBE_LAUNCHES = 200


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of a machine: bytes it reads a second, and seconds that a launch takes."""

    bytes_per_s: float
    launch_s: float


@dataclass(frozen=True, slots=True)
class RealTimeEstimate:
    """Needs of a recipe on a machine: time of a step at the full window, and memory.

    `verdict` is "yes", "just", "no", or "no room".
    """

    recipe: str
    kv_bits: int
    memory_bytes: int
    step_bytes: int
    step_ms: float
    verdict: str


def weight_bytes(recipe: Recipe, config: ModelConfig = FULL_SIZE) -> int:
    """Return the bytes of all matrices that a step reads, without norms and biases."""
    n_bits = 0.0
    for module in model_modules(config):
        # The delay's matrices are read once per session.
        if len(module.shape) < 2 or ".ada." in module.path:
            continue
        precision = recipe.precision(module)
        n_bits += prod(module.shape) * (
            16 if precision is None else precision.stored_bits
        )
    return int(n_bits / 8)


def ring_bytes(kv_bits: int, config: ModelConfig = FULL_SIZE) -> int:
    """Return the bytes of both transformers' keys and values at their full windows."""
    d = config.decoder
    row = d.head_dim + SCALE_BYTES if kv_bits == 8 else 2 * d.head_dim
    decoder = 2 * d.n_layers * d.n_kv_heads * d.sliding_window * row
    e = config.encoder
    return decoder + 4 * e.n_layers * e.n_kv_heads * e.sliding_window * e.head_dim


def step_bytes(recipe: Recipe, kv_bits: int, config: ModelConfig = FULL_SIZE) -> int:
    """Return the bytes that one step reads once both windows are full."""
    return weight_bytes(recipe, config) + ring_bytes(kv_bits, config)


def estimates(
    speed: Speed, memory_bytes: int | None, config: ModelConfig = FULL_SIZE
) -> list[RealTimeEstimate]:
    """Return an estimate for each of ESTIMATED, with rings of 16 and of 8 bits."""
    found: list[RealTimeEstimate] = []
    for recipe in ESTIMATED:
        weights = weight_bytes(recipe, config)
        for kv_bits in (16, 8):
            n_bytes = weights + ring_bytes(kv_bits, config)
            step_s = n_bytes / speed.bytes_per_s + N_LAUNCHES * speed.launch_s
            # What a step reads is about all there is, once.
            found.append(
                RealTimeEstimate(
                    recipe.name,
                    kv_bits,
                    n_bytes,
                    n_bytes,
                    step_s * 1000,
                    _verdict(step_s * 1000, n_bytes, memory_bytes),
                )
            )
    return found


def _verdict(step_ms: float, needed: int, memory_bytes: int | None) -> str:
    if memory_bytes is not None and needed > memory_bytes:
        return "no room"
    if step_ms > AUDIO_TOKEN_MS:
        return "no"
    return "yes" if step_ms <= _COMFORTABLE * AUDIO_TOKEN_MS else "just"


def measured_speed(probe_bytes: int = _PROBE_BYTES) -> Speed:
    """Measure the default device: reading a large array, and launching small kernels."""
    large = mx.ones(probe_bytes // 4)
    small = mx.ones(3072)
    mx.eval(large, small)

    def launches() -> mx.array:
        x = small
        for _ in range(_N_PROBE_LAUNCHES):
            x = x + small
        return x

    read_s = median_s(lambda: large.sum())
    launch_s = median_s(launches)
    return Speed(large.nbytes / read_s, launch_s / _N_PROBE_LAUNCHES)


def median_s(run: Callable[[], object], *, n: int = 9, budget_s: float = 0.5) -> float:
    """Return the median seconds that `run` takes, of up to `n` runs."""
    mx.eval(run())
    taken: list[float] = []
    while len(taken) < n and (not taken or sum(taken) < budget_s):
        start = time.perf_counter()
        mx.eval(run())
        taken.append(time.perf_counter() - start)
    return median(taken)
