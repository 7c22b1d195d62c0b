"""The budget of a step on a Mac, and that the counter counts what it says."""

import mlx.core as mx
import numpy as np
import pytest

from benchmarks.graph import Trace, on_metal, trace
from benchmarks.launches import (
    full_size_network,
    ring_sizes,
    traced_decoder,
    traced_encoder,
)
from voxmlx.kernels import gelu, rotate, rotation
from voxmlx.model.voxtral import VoxtralRealtime

MAX_DECODER_LAUNCHES = 298
MAX_ENCODER_LAUNCHES = 302
MAX_STEP_LAUNCHES = 600
MAX_CACHE_BYTES_MOVED = 1_000_000


@pytest.fixture(scope="module", params=[mx.bfloat16, mx.float16], ids=str)
def network(request: pytest.FixtureRequest) -> VoxtralRealtime:
    return full_size_network(dtype=request.param)


def test_a_full_size_decoder_step_keeps_its_budget(network: VoxtralRealtime) -> None:
    counted = traced_decoder(network)
    assert counted.n_launches <= MAX_DECODER_LAUNCHES, counted.launches
    assert counted.cache_bytes_moved <= MAX_CACHE_BYTES_MOVED


def test_a_full_size_encoder_step_keeps_its_budget(network: VoxtralRealtime) -> None:
    counted = traced_encoder(network)
    assert counted.n_launches <= MAX_ENCODER_LAUNCHES, counted.launches
    assert counted.cache_bytes_moved <= MAX_CACHE_BYTES_MOVED


def test_a_live_step_launches_at_most_600_kernels(network: VoxtralRealtime) -> None:
    traces = traced_encoder(network), traced_decoder(network)
    assert sum(counted.n_launches for counted in traces) <= MAX_STEP_LAUNCHES
    assert sum(counted.launches["SliceUpdate"] for counted in traces) == 32 + 26
    assert [counted.cache_bytes_moved for counted in traces] == [0, 0]


def test_a_step_in_half_precision_writes_nothing_in_float32(
    network: VoxtralRealtime,
) -> None:
    for counted in (traced_encoder(network), traced_decoder(network)):
        assert counted.n_launches > 100
        assert "float32" not in counted.dtypes


def test_rings_grow_at_most_14_times_and_then_never_again(
    network: VoxtralRealtime,
) -> None:
    encoder = ring_sizes(network.encoder.make_state().cache, 124)
    decoder = ring_sizes(network.decoder.make_state([6]).cache, 32)
    assert (encoder[-1], decoder[-1]) == (752 + 4, 8192)
    assert len(encoder) - 1 + len(decoder) - 1 <= 14


def test_counting_computes_no_weights() -> None:
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    network = full_size_network()
    for count in (traced_encoder, traced_decoder):
        count(network)
    # The delay's products, which a state holds the answers of: 26 * 2 * 3072 * 32.
    assert mx.get_peak_memory() - before < 64_000_000


def counted(step, *arrays: mx.array, rings: tuple[mx.array, ...] = ()) -> Trace:
    with on_metal():
        return trace(step, arrays, rings)


def test_views_launch_nothing_and_a_reshape_across_their_order_copies() -> None:
    x = mx.zeros((2, 3, 8))
    views = counted(lambda a: a.swapaxes(0, 1)[:, ::-1].reshape(3, 2, 4, 2), x)
    assert (views.n_launches, views.n_views) == (0, 3)
    copy = counted(lambda a: a.swapaxes(0, 1).reshape(6, 8), x)
    assert copy.launches == {"Reshape": 1}
    assert copy.bytes_written == x.nbytes


def test_one_row_may_be_transposed_and_reshaped_for_nothing() -> None:
    x = mx.zeros((1, 1, 6, 8))
    assert counted(lambda a: a.swapaxes(1, 2).reshape(1, 48), x).n_launches == 0


def test_concatenating_launches_a_copy_per_part_and_moves_a_ring() -> None:
    ring, row = mx.zeros((1, 2, 100, 8)), mx.zeros((1, 2, 1, 8))
    grown = counted(lambda a, r: mx.concatenate([r, a], axis=2), row, rings=(ring,))
    assert grown.launches == {"Concatenate": 2}
    assert grown.cache_bytes_moved == ring.nbytes + row.nbytes


def test_a_ring_is_written_in_place_unless_somebody_else_has_it() -> None:
    ring, row = mx.zeros((1, 2, 100, 8)), mx.zeros((1, 2, 1, 8))

    def alone(row: mx.array, ring: mx.array) -> mx.array:
        ring[:, :, 3:4] = row
        return ring

    def shared(row: mx.array, ring: mx.array) -> tuple[mx.array, mx.array]:
        first = ring[:, :, :1] + 1
        return first, alone(row, ring)

    in_place = counted(alone, row, rings=(ring,))
    assert in_place.launches == {"SliceUpdate": 1}
    assert (in_place.bytes_written, in_place.cache_bytes_moved) == (row.nbytes, 0)
    copied = counted(shared, row, rings=(ring,))
    assert copied.launches["Copy"] == 1
    assert copied.cache_bytes_moved >= ring.nbytes


def test_a_fused_chain_is_one_launch_and_what_mlx_cannot_fuse_is_refused() -> None:
    x = mx.zeros((1, 2, 24))
    assert counted(gelu, x).launches == {"fused_gelu": 1}
    angles = np.ones((1, 2, 3, 1, 4), np.complex64)
    rotated = counted(lambda a: rotate(a, rotation(angles, 1)), x)
    assert rotated.launches == {"fused_rotated_pairs": 1}
    with pytest.raises(AssertionError, match="not fused into one"):
        counted(type(gelu)(lambda a: mx.exp(a).sum() + a), x)


def test_a_leak_into_float32_shows() -> None:
    x = mx.zeros((4,), mx.float16)
    assert counted(lambda a: a * 2.0, x).dtypes == {"float16": 1}
    assert "float32" in counted(lambda a: a * mx.array(2.0), x).dtypes
