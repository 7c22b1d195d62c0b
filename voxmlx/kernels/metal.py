"""The operations as Metal kernels: for each, its names, template, grid and outputs."""

from functools import cache, lru_cache

import mlx.core as mx

from voxmlx.kernels.evaluation import evaluate
from voxmlx.kernels.launch import Launch, MetalKernel

__all__ = [
    "MAX_OFFSET",
    "MAX_STEP_QUERIES",
    "MAX_WINDOW_SLOTS",
    "add_rms_norm_metal",
    "fits_lanes",
    "quantize_rows_metal",
    "queries_per_read",
    "ring_attention_q8_metal",
    "window_attention_metal",
]

# Beyond so many queries at once reading the ring is no longer what a step costs.
MAX_STEP_QUERIES = 16

# `window_attention` has one threadgroup per head: the encoder's 756 slots keep it busy
# for long enough, the decoder's 8192 are better shared out as stock attention does.
MAX_WINDOW_SLOTS = 1024

_ADD_RMS_NORM = MetalKernel(
    "add_rms_norm",
    inputs=("x", "residual", "bias", "weight", "eps"),
    outputs=("h", "y"),
)
_THREADS_PER_ROW = 256

_QUANTISE_ROWS = MetalKernel("quantize_rows", inputs=("kv",), outputs=("rows",))

_RING_ATTENTION_Q8 = MetalKernel(
    "ring_attention_q8",
    inputs=("queries", "rows", "meta", "scale"),
    outputs=("outs", "maxima", "sums"),
)
_RING_COMBINE = MetalKernel(
    "ring_combine", inputs=("outs", "maxima", "sums"), outputs=("out",)
)
# Parts of a ring: enough threadgroups for the largest GPU once it is long, few results
# to combine while it is short.
_BLOCKS_SHORT, _BLOCKS_LONG = 8, 32
_SHORT_RING = 512

_WINDOW_ATTENTION = MetalKernel(
    "window_attention",
    inputs=("qkv", "bias", "angles", "ring", "meta", "scale"),
    outputs=("out", "rows"),
)
_SIMDGROUPS = 8

# Shapes that recur are few: those of common steps, of every size of the rings.
_MAX_LAUNCHES = 256

# Kernels count in 32 bits where they read a ring.
MAX_OFFSET = 2**31

# Queries that read a ring's row together; their sums are in registers.
_QUERIES_PER_READ = 4

# Numbers of a row that one lane holds in the attention bodies.
_PER_LANE = 8


def add_rms_norm_metal(
    x: mx.array,
    residual: mx.array,
    weight: mx.array,
    eps: float,
    bias: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """`add_rms_norm_reference` in one launch."""
    dtype = x.dtype
    if bias is None:
        bias = _zeros(x.shape[2], dtype)
    has_rows = weight.ndim == 2 and weight.shape[0] > 1
    launch = _norm_launch(x.shape, dtype, has_rows)
    h, y = _ADD_RMS_NORM([x, residual, bias, weight, _constant(eps)], launch)
    return h, y


@lru_cache(_MAX_LAUNCHES)
def _norm_launch(
    shape: tuple[int, int, int], dtype: mx.Dtype, has_rows: bool
) -> Launch:
    B, N, D = shape
    return Launch(
        template=(("T", dtype), ("D", D), ("ROWS", int(has_rows))),
        grid=(B * N * _THREADS_PER_ROW, 1, 1),
        threadgroup=(_THREADS_PER_ROW, 1, 1),
        output_shapes=(shape, shape),
        output_dtypes=(dtype, dtype),
    )


def quantize_rows_metal(kv: mx.array) -> mx.array:
    """`quantize_rows_reference` in one launch."""
    return _QUANTISE_ROWS([kv], _rows_launch(kv.shape, kv.dtype))[0]


@lru_cache(_MAX_LAUNCHES)
def _rows_launch(shape: tuple[int, int, int, int], dtype: mx.Dtype) -> Launch:
    B, H, N, D = shape
    return Launch(
        template=(("T", dtype), ("D", D)),
        grid=(32, B * H * N, 1),
        threadgroup=(32, 1, 1),
        output_shapes=((B, H, N, D + 4),),
        output_dtypes=(mx.int8,),
    )


def fits_lanes(head_dim: int) -> bool:
    """Return whether the attention bodies can share a row of `head_dim` among lanes."""
    # 256 numbers of 8 simdgroups' 4 queries are all the memory a threadgroup has.
    return head_dim in (16, 32, 64, 128)


def ring_attention_q8_metal(
    queries: mx.array, rows: mx.array, meta: mx.array, scale: float
) -> mx.array:
    """`ring_attention_q8_reference` in two launches."""
    attend, combine = _ring_launches(queries.shape, queries.dtype, rows.shape)
    parts = _RING_ATTENTION_Q8([queries, rows, meta, _constant(scale)], attend)
    return _RING_COMBINE(parts, combine)[0]


@lru_cache(_MAX_LAUNCHES)
def _ring_launches(
    shape: tuple[int, int, int, int],
    dtype: mx.Dtype,
    ring_shape: tuple[int, int, int, int],
) -> tuple[Launch, Launch]:
    B, H, N, D = shape
    _, n_ring_heads, n_slots, row = ring_shape
    assert B * n_ring_heads * n_slots * row < MAX_OFFSET
    n_kv_heads = n_ring_heads // 2
    tile = 1 if N == 1 else _QUERIES_PER_READ
    blocks = _BLOCKS_SHORT if n_slots <= _SHORT_RING else _BLOCKS_LONG
    group = H // n_kv_heads
    attend = Launch(
        template=(
            ("T", dtype),
            ("D", D),
            ("G", group),
            ("QT", tile),
            ("BLOCKS", blocks),
        ),
        grid=(32 * n_kv_heads, blocks * group, B * -(-N // tile)),
        threadgroup=(32, group, 1),
        output_shapes=((B, H, N, blocks, D), (B, H, N, blocks), (B, H, N, blocks)),
        output_dtypes=(mx.float32, mx.float32, mx.float32),
    )
    combine = Launch(
        template=(("T", dtype), ("D", D), ("BLOCKS", blocks)),
        grid=(B * H * N * D, 1, 1),
        threadgroup=(256, 1, 1),
        output_shapes=(shape,),
        output_dtypes=(dtype,),
    )
    return attend, combine


def window_attention_metal(
    qkv: mx.array,
    angles: mx.array,
    bias: mx.array | None,
    ring: mx.array,
    meta: mx.array,
    scale: float,
) -> tuple[mx.array, mx.array]:
    """`window_attention_reference` in one launch."""
    if bias is None:
        bias = _zeros(qkv.shape[2], qkv.dtype)
    launch = _window_launch(qkv.shape, qkv.dtype, ring.shape, queries_per_read())
    inputs = [qkv, bias, angles, ring, meta, _constant(scale)]
    out, rows = _WINDOW_ATTENTION(inputs, launch)
    return out, rows


@lru_cache(_MAX_LAUNCHES)
def _window_launch(
    shape: tuple[int, int, int],
    dtype: mx.Dtype,
    ring_shape: tuple[int, int, int, int],
    tile: int,
) -> Launch:
    B, N, width = shape
    _, n_ring_heads, capacity, D = ring_shape
    assert B * n_ring_heads * capacity * D < MAX_OFFSET
    H = width // D - n_ring_heads
    return Launch(
        template=(
            ("T", dtype),
            ("D", D),
            ("H", H),
            ("HK", n_ring_heads // 2),
            ("QT", tile),
            ("SIMDGROUPS", _SIMDGROUPS),
        ),
        grid=(32 * _SIMDGROUPS * H, B * -(-N // tile), 1),
        threadgroup=(32 * _SIMDGROUPS, 1, 1),
        output_shapes=((B, N, H, D), (B, n_ring_heads, N, D)),
        output_dtypes=(dtype, dtype),
    )


@cache
def queries_per_read() -> int:
    """Return how many queries of `window_attention` read a row together.

    Half as many on a large GPU: a threadgroup per head would not keep its cores busy.
    The last letter of a name is "s", "c" or "d" for a Pro, a Max and an Ultra.
    """
    if not mx.metal.is_available():
        return _QUERIES_PER_READ
    is_large = str(mx.device_info().get("architecture", ""))[-1:] in ("s", "c", "d")
    return _QUERIES_PER_READ // 2 if is_large else _QUERIES_PER_READ


@cache
def _constant(value: float) -> mx.array:
    """A number as the buffer a kernel reads it from; templates take integers only."""
    array = mx.array([value])
    evaluate(array)
    return array


@cache
def _zeros(n: int, dtype: mx.Dtype) -> mx.array:
    array = mx.zeros(n, dtype)
    evaluate(array)
    return array
