"""Cases that a kernel must pass before it runs, at the sizes of a model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import numpy as np

from voxmlx.config import DecoderConfig, EncoderConfig, ModelConfig
from voxmlx.kernels import metal, ops
from voxmlx.kernels.reference import (
    add_rms_norm_reference,
    attention_reference,
    gelu_reference,
    rotate_reference,
    swiglu_reference,
)
from voxmlx.kernels.ring_reference import (
    dequantize_rows,
    quantize_rows_reference,
    ring_attention_q8_reference,
    visible_slots,
    window_attention_reference,
)
from voxmlx.kernels.switches import STOCK_ATTENTION, STOCK_PRODUCT

__all__ = ["LIMITS", "Case", "cases"]

Arrays = tuple[mx.array, ...]

# Random numbers are the dearest part of a check: so many rows of a ring are drawn, and
# repeated with another weight.
_DRAWN_ROWS = 512


@dataclass(frozen=True, slots=True)
class Case:
    """One way to call a kernel: `run` it, what is `exact`, and what `stock` MLX has.

    `exact` is computed in float32 from the same inputs. An error is relative to the
    largest exact number, and may be `limit`.
    """

    kernel: str
    label: str
    limit: float
    run: Callable[[], Arrays]
    exact: Callable[[], Arrays]
    stock: Callable[[], Arrays] | None = None


def cases(config: ModelConfig, dtype: mx.Dtype, kv_bits: int) -> list[Case]:
    """Cases of all kernels a model in `dtype` with rings of `kv_bits` would use.

    The first of every kernel come first. Stock attention is tried as well: it has been
    seen to fail at just the size of this decoder (mlx issue 4022).
    """
    encoder, decoder, step = config.encoder, config.decoder, config.downsample_factor
    by_kernel = [list(_norms(config, dtype)), list(_stock(decoder, dtype))]
    by_kernel += [[case] for case in _compiled(config, dtype)]
    by_kernel.append(list(_products(decoder, dtype)))
    if metal.fits_lanes(encoder.head_dim):
        by_kernel.append(list(_windows(encoder, step, dtype)))
    if kv_bits == 8:
        by_kernel.append(list(_quantized(decoder, dtype)))
        if metal.fits_lanes(decoder.head_dim):
            by_kernel.append(list(_rings(decoder, dtype)))
    longest = max(map(len, by_kernel))
    return [some[i] for i in range(longest) for some in by_kernel if i < len(some)]


# Four times what rounding a result once can change; float32 is left room for sums of
# thousands in another order and a fast exponential.
LIMITS = {mx.float32: 2e-4, mx.float16: 2.0**-9, mx.bfloat16: 2.0**-6}


def _norms(config: ModelConfig, dtype: mx.Dtype) -> Iterator[Case]:
    for label, B, N, dim, n_weights, eps in (
        ("decoder, 1 session", 1, 1, config.decoder.dim, 1, config.decoder.norm_eps),
        ("encoder, 4 frames", 1, 4, config.encoder.dim, 0, config.encoder.norm_eps),
        ("decoder, 3 sessions", 3, 1, config.decoder.dim, 3, config.decoder.norm_eps),
    ):
        weight_shape = (n_weights, dim) if n_weights else (dim,)
        x, residual, weight = (
            _normal(key, *shape).astype(dtype)
            for key, shape in enumerate(((B, N, dim), (B, N, dim), weight_shape))
        )
        bias = None if n_weights else _normal(3, dim).astype(dtype)
        wide = None if bias is None else bias.astype(mx.float32)
        yield Case(
            "add_rms_norm",
            label,
            LIMITS[dtype],
            run=partial(metal.add_rms_norm_metal, x, residual, weight, eps, bias),
            exact=partial(
                add_rms_norm_reference, *_float32(x, residual, weight), eps, wide
            ),
            stock=partial(add_rms_norm_reference, x, residual, weight, eps, bias),
        )


def _compiled(config: ModelConfig, dtype: mx.Dtype) -> Iterator[Case]:
    """What MLX's compiler makes of our element-wise bodies, strided inputs included."""
    decoder, step = config.decoder, config.downsample_factor
    x = (3 * _normal(11, 1, step, 2 * config.encoder.hidden_dim)).astype(dtype)
    bias = _normal(12, x.shape[-1]).astype(dtype)
    n_groups = decoder.n_heads // decoder.n_kv_heads + 2
    width = n_groups * decoder.n_kv_heads * decoder.head_dim
    qkv = _normal(13, 1, 1, width).astype(dtype)
    turns = np.random.default_rng(14).uniform(-3, 3, decoder.head_dim // 2)
    angles = np.ones((1, 1, n_groups, 1, decoder.head_dim // 2), np.complex64)
    angles[:, :, :-1] = np.exp(1j * turns)

    def rotated() -> Arrays:
        laid_out = ops.rotation(angles, decoder.n_kv_heads)
        return (ops.rotate(qkv, laid_out),)

    def exact_rotated() -> Arrays:
        return (rotate_reference(qkv.astype(mx.float32), mx.array(angles)),)

    for name, run, exact in (
        (
            "swiglu",
            lambda: (ops.swiglu(x),),
            lambda: (_of_float32(swiglu_reference, x),),
        ),
        (
            "gelu",
            lambda: (ops.gelu(x, bias),),
            lambda: (_of_float32(gelu_reference, x, bias),),
        ),
        ("rotated_pairs", rotated, exact_rotated),
    ):
        yield Case(name, "one step", LIMITS[dtype], run, exact)


def _products(config: DecoderConfig, dtype: mx.Dtype) -> Iterator[Case]:
    """MLX's own products of the two common steps: one position, and four."""
    dim = config.dim // 32 * 32
    if not dim:
        return
    weight = _normal(15, 256, dim) / dim**0.5
    packed, scales, biases = mx.quantize(weight.astype(dtype), 32, 4)
    for n in (1, 4):
        x = _normal(16, 1, n, dim).astype(dtype)

        def run(x: mx.array = x) -> Arrays:
            return (mx.quantized_matmul(x, packed, scales, biases, True, 32, 4),)

        def exact(x: mx.array = x) -> Arrays:
            parts = packed, *_float32(scales, biases)
            return (
                x.astype(mx.float32) @ mx.dequantize(*parts, group_size=32, bits=4).T,
            )

        rows = "1 row" if n == 1 else f"{n} rows"
        # A backend may sum groups in the dtype; a wrong product is off by about one.
        yield Case(STOCK_PRODUCT, rows, 4 * LIMITS[dtype], run, exact)


def _of_float32(body: Callable[..., mx.array], *arrays: mx.array) -> mx.array:
    return body(*_float32(*arrays))


def _quantized(config: DecoderConfig, dtype: mx.Dtype) -> Iterator[Case]:
    for n_streams in (1, 3):
        shape = (n_streams, 2 * config.n_kv_heads, 1, config.head_dim)
        x = _normal(4, *shape).astype(dtype)

        def run(x: mx.array = x) -> Arrays:
            return dequantize_rows(metal.quantize_rows_metal(x), mx.float32)

        def exact(x: mx.array = x) -> Arrays:
            keys, values = mx.split(x.astype(mx.float32), 2, axis=1)
            return keys, values

        yield Case(
            "quantize_rows",
            f"{n_streams} row{'s' if n_streams > 1 else ''}",
            # Half a step of 127.
            0.51 / 127,
            run=run,
            exact=exact,
            stock=lambda x=x: dequantize_rows(quantize_rows_reference(x), mx.float32),
        )


def _windows(config: EncoderConfig, step: int, dtype: mx.Dtype) -> Iterator[Case]:
    window, D = config.sliding_window, config.head_dim
    capacity = -(-(window + step - 1) // step) * step
    n_heads = config.n_heads + 2 * config.n_kv_heads
    scale = D**-0.5
    for label, n_written in (
        ("full and wrapped", [7 * capacity + 8]),
        ("the first frames", [0]),
        ("3 sessions", [0, capacity - step, 2 * capacity + step]),
    ):
        B = len(n_written)
        ring = _drawn((B, 2 * config.n_kv_heads, capacity, D), 6).astype(dtype)
        # Twice the usual spread: some keys matter much more than others.
        qkv = (2 * _normal(8, B, step, n_heads * D)).astype(dtype)
        bias = _normal(3, n_heads * D).astype(dtype)
        angles = _normal(5, 1, step, 1, 1, D // 2) * 3
        turned = mx.stack([mx.cos(angles), mx.sin(angles)], axis=-1)
        still = mx.zeros((1, step, 1, 1, D // 2, 2)) + mx.array([1.0, 0.0])
        n_groups = config.n_heads // config.n_kv_heads + 1
        angles = mx.concatenate([turned] * n_groups + [still], axis=2)
        angles = mx.reshape(angles, (1, step, n_groups + 1, 1, D))
        meta = mx.array(
            [[n % capacity, min(n, capacity), window] for n in n_written], mx.int32
        )
        inputs = (qkv, angles, bias, ring, meta)
        wide = (*_float32(qkv, angles, bias, ring), meta)
        yield Case(
            "window_attention",
            label,
            LIMITS[dtype],
            run=partial(metal.window_attention_metal, *inputs, scale),
            exact=partial(window_attention_reference, *wide, scale),
            stock=partial(window_attention_reference, *inputs, scale),
        )


def _rings(config: DecoderConfig, dtype: mx.Dtype) -> Iterator[Case]:
    window = config.sliding_window
    short = min(window, 1024)
    for label, capacity, n_written in (
        ("1 position", window, [1]),
        (f"{window} positions, wrapped", window, [window + window // 3]),
        (f"{short - 1} positions", short, [short - 1]),
        (f"{short} positions", short, [short]),
        ("3 sessions", short, [5, short - 1, 2 * short + 7]),
    ):
        ring = _Ring.make(config, dtype, 1, capacity, capacity, n_written)
        rows = quantize_rows_reference(mx.concatenate([ring.k, ring.v], axis=1))

        def run(r: _Ring = ring, rows: mx.array = rows) -> Arrays:
            return (metal.ring_attention_q8_metal(r.queries, rows, r.meta, r.scale),)

        def exact(r: _Ring = ring, rows: mx.array = rows) -> Arrays:
            (queries,) = _float32(r.queries)
            return (ring_attention_q8_reference(queries, rows, r.meta, r.scale),)

        yield Case("ring_attention_q8", label, LIMITS[dtype], run, exact, ring.stock)


def _stock(config: DecoderConfig, dtype: mx.Dtype) -> Iterator[Case]:
    window = config.sliding_window
    short = min(window, 1024)
    for n in dict.fromkeys((window, short, short - 1, 1)):
        ring = _Ring.make(config, dtype, 1, n, n, [n])

        def exact(r: _Ring = ring) -> Arrays:
            queries, k, v = _float32(r.queries, r.k, r.v)
            return (attention_reference(queries, k, v, None, r.scale),)

        yield Case(STOCK_ATTENTION, f"{n} positions", LIMITS[dtype], ring.stock, exact)


@dataclass(frozen=True, slots=True)
class _Ring:
    """Queries over rings of streams that have written so many entries so far."""

    queries: mx.array
    k: mx.array
    v: mx.array
    meta: mx.array
    scale: float
    mask: mx.array | None

    @classmethod
    def make(
        cls,
        config: EncoderConfig | DecoderConfig,
        dtype: mx.Dtype,
        n_queries: int,
        capacity: int,
        window: int,
        n_written: list[int],
    ) -> "_Ring":
        B, D = len(n_written), config.head_dim
        k, v = (_drawn((B, config.n_kv_heads, capacity, D), key) for key in (6, 7))
        meta = mx.array(
            [[n % capacity, min(n, capacity), window] for n in n_written], mx.int32
        )
        is_all_seen = n_queries == 1 and min(n_written) >= capacity
        return cls(
            # Twice the usual spread: some keys matter much more than others.
            queries=(2 * _normal(8, B, config.n_heads, n_queries, D)).astype(dtype),
            k=k.astype(dtype),
            v=v.astype(dtype),
            meta=meta,
            scale=D**-0.5,
            mask=None if is_all_seen else visible_slots(meta, n_queries, capacity),
        )

    def stock(self) -> Arrays:
        return (
            mx.fast.scaled_dot_product_attention(
                self.queries, self.k, self.v, scale=self.scale, mask=self.mask
            ),
        )


def _drawn(shape: tuple[int, int, int, int], key: int) -> mx.array:
    """Random rows of rings [B, H, C, D]."""
    B, H, C, D = shape
    drawn = min(C, _DRAWN_ROWS)
    rows = mx.tile(_normal(key, B, H, drawn, D), (1, 1, -(-C // drawn), 1))
    return rows[:, :, :C] * (1 + _normal(9, C, 1) / 4)


def _normal(key: int, *shape: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(key))


def _float32(*arrays: mx.array) -> Arrays:
    return tuple(array.astype(mx.float32) for array in arrays)
