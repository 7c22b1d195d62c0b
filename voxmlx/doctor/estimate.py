"""Estimates of real time on a machine, from bytes, launches and arithmetic of a step."""

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
from voxmlx.doctor.chips import Chip
from voxmlx.kernels import SCALE_BYTES
from voxmlx.kernels.evaluation import evaluate
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
    "StepEstimate",
    "default_model",
    "estimates",
    "measured_speed",
    "median_s",
    "speed_of",
    "step_bytes",
    "step_estimate",
    "weight_bytes",
]

FULL_SIZE = ModelConfig(
    AudioConfig(16000, 12.5, 128, 160, 400, 1.5),
    EncoderConfig(1280, 32, 64, 5120, 32, 32, 1e6, 1e-5, 750),
    DecoderConfig(3072, 26, 128, 9216, 32, 8, 1e6, 1e-5, 8192, 131072, 32),
    4,
)

# Of one step of the full-size model by bits of the rings; `python -m benchmarks.launches`
# counts them.
N_LAUNCHES = {16: 598, 8: 624}


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

# Estimates leave out what nobody knows of: a little is left for that.
_COMFORTABLE = 0.8

# What `chips.ASSUMPTIONS` says in words.
_OPERATIONS_PER_WEIGHT = 4 * 3.2
_FEWER_OPERATIONS_FROM, _FEWER_OPERATIONS = 15, 0.45
_NOT_HIDDEN = 0.35
_RING_OPERATIONS = 14.4e6 * 32 * 1.1  # of a layer, in 8 bits
_PACED = 1.1

_PROBE_BYTES = 256_000_000
_N_PROBE_LAUNCHES = 200


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of a machine: bytes it reads a second, and seconds that a launch takes."""

    bytes_per_s: float
    launch_s: float


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """Milliseconds of the parts of a step, one after another, 80 ms apart."""

    encoder_ms: float
    decoder_ms: float
    rings_ms: float
    launches_ms: float
    host_ms: float

    @property
    def total_ms(self) -> float:
        parts = self.encoder_ms + self.decoder_ms + self.rings_ms
        return parts + self.launches_ms + self.host_ms


@dataclass(frozen=True, slots=True)
class RealTimeEstimate:
    """Needs of a recipe on a machine: memory, and times of a step.

    `start_ms` is for a stream that has just begun, `step_ms` for one at its full
    window. `verdict` is "yes", "just", "no", or "no room". `holds_hours` is how long a
    stream keeps up: None stands for ever.
    """

    recipe: str
    kv_bits: int
    memory_bytes: int
    step_bytes: int
    start_ms: float
    step_ms: float
    share: float
    verdict: str
    holds_hours: float | None


def weight_bytes(
    recipe: Recipe, config: ModelConfig = FULL_SIZE, *, under: tuple[str, ...] = ("",)
) -> int:
    """Return the bytes of all matrices that a step reads, without norms and biases.

    `under` names parts of the network, such as "encoder."; then only of those.
    """
    n_bits = 0.0
    for module in model_modules(config):
        if not module.path.startswith(under):
            continue
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
    return _decoder_ring_bytes(kv_bits, config) + _encoder_ring_bytes(config)


def _decoder_ring_bytes(kv_bits: int, config: ModelConfig) -> int:
    d = config.decoder
    row = d.head_dim + SCALE_BYTES if kv_bits == 8 else 2 * d.head_dim
    return 2 * d.n_layers * d.n_kv_heads * d.sliding_window * row


def _encoder_ring_bytes(config: ModelConfig) -> int:
    e = config.encoder
    return 4 * e.n_layers * e.n_kv_heads * e.sliding_window * e.head_dim


def step_bytes(recipe: Recipe, kv_bits: int, config: ModelConfig = FULL_SIZE) -> int:
    """Return the bytes that one step reads once both windows are full."""
    return weight_bytes(recipe, config) + ring_bytes(kv_bits, config)


def speed_of(chip: Chip) -> Speed:
    """Return the speed that is assumed of a chip."""
    return Speed(chip.gb_per_s * chip.share * 1e9, chip.launch_us / 1e6)


def step_estimate(
    speed: Speed,
    recipe: Recipe,
    kv_bits: int,
    filled: float = 1.0,
    chip: Chip | None = None,
    config: ModelConfig = FULL_SIZE,
) -> StepEstimate:
    """Estimate a step whose windows are `filled`, from 0 to 1.

    Without a `chip` arithmetic and Python are taken for free.
    """
    per_ms = speed.bytes_per_s / 1000
    encoder = weight_bytes(recipe, config, under=("encoder.", "adapter."))
    decoder = weight_bytes(recipe, config, under=("decoder.",))
    encoder_ms, host_ms = encoder / per_ms, 0.0
    rings_ms = filled * _decoder_ring_bytes(kv_bits, config) / per_ms
    if chip is not None:
        host_ms = chip.host_ms * _PACED
        computing_ms = _encoder_computing_ms(chip, config) * _PACED
        shorter, longer = sorted((encoder_ms, computing_ms))
        encoder_ms = longer + _NOT_HIDDEN * shorter
        if kv_bits == 8:
            n = filled * config.decoder.n_layers * _RING_OPERATIONS
            rings_ms = max(rings_ms, n / chip.operations_per_ms * _PACED)
    return StepEstimate(
        encoder_ms=encoder_ms,
        decoder_ms=decoder / per_ms,
        rings_ms=rings_ms + filled * _encoder_ring_bytes(config) / per_ms,
        launches_ms=1000 * N_LAUNCHES[kv_bits] * speed.launch_s * _PACED,
        host_ms=host_ms,
    )


def _encoder_computing_ms(chip: Chip, config: ModelConfig) -> float:
    """Milliseconds of the arithmetic of four encoder frames and the adapter."""
    n_weights = sum(
        prod(module.shape)
        for module in model_modules(config)
        if module.path.startswith(("encoder.", "adapter.")) and len(module.shape) == 2
    )
    n = n_weights * _OPERATIONS_PER_WEIGHT
    if chip.generation >= _FEWER_OPERATIONS_FROM:
        n *= _FEWER_OPERATIONS
    return n / chip.operations_per_ms


def estimates(
    speed: Speed,
    memory_bytes: int | None,
    config: ModelConfig = FULL_SIZE,
    *,
    chip: Chip | None = None,
) -> list[RealTimeEstimate]:
    """Return an estimate for each of ESTIMATED, with rings of 16 and of 8 bits."""
    found: list[RealTimeEstimate] = []
    for recipe in ESTIMATED:
        for kv_bits in (16, 8):
            n_bytes = step_bytes(recipe, kv_bits, config)
            start_ms, full_ms = (
                step_estimate(speed, recipe, kv_bits, filled, chip, config).total_ms
                for filled in (0.0, 1.0)
            )
            # What a step reads is about all there is, once.
            found.append(
                RealTimeEstimate(
                    recipe.name,
                    kv_bits,
                    n_bytes,
                    n_bytes,
                    start_ms,
                    full_ms,
                    full_ms / AUDIO_TOKEN_MS,
                    _verdict(full_ms, n_bytes, memory_bytes),
                    _holds_hours(start_ms, full_ms, config),
                )
            )
    return found


def _holds_hours(start_ms: float, full_ms: float, config: ModelConfig) -> float | None:
    """Hours until a step takes longer than its sound; None: never.

    Steps get longer as the decoder's window fills, and then stay as they are.
    """
    if full_ms <= AUDIO_TOKEN_MS:
        return None
    room = max(0.0, (AUDIO_TOKEN_MS - start_ms) / (full_ms - start_ms))
    return room * config.decoder.sliding_window * AUDIO_TOKEN_MS / 3_600_000


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
    evaluate(large, small)

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
    evaluate(run())
    taken: list[float] = []
    while len(taken) < n and (not taken or sum(taken) < budget_s):
        start = time.perf_counter()
        evaluate(run())
        taken.append(time.perf_counter() - start)
    return median(taken)
