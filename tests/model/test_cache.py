"""A ring shows each query exactly the window a full history would."""

from unittest.mock import patch

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmlx.model import cache as cache_module
from voxmlx.model.cache import KV_BITS, RingKVCache


def make(
    window: int, step: int, batch: int = 1, bits: int = 16, first_slots: int = 3
) -> RingKVCache:
    with patch.object(cache_module, "FIRST_SLOTS", first_slots):
        return RingKVCache.make(
            n_layers=1,
            batch=batch,
            n_kv_heads=1,
            head_dim=1,
            window=window,
            step=step,
            dtype=mx.float32,
            bits=bits,
        )


def full_size(n_layers: int, heads: int, dim: int, window: int, step: int, bits: int):
    return RingKVCache.make(
        n_layers=n_layers,
        batch=1,
        n_kv_heads=heads,
        head_dim=dim,
        window=window,
        step=step,
        dtype=mx.float16,
        bits=bits,
    )


def encoder_rings() -> RingKVCache:
    return full_size(32, 32, 64, 750, 4, 16)


def decoder_rings(bits: int = 16) -> RingKVCache:
    return full_size(26, 8, 128, 8192, 1, bits)


def n_bytes(*caches: RingKVCache) -> int:
    return sum(ring.nbytes for cache in caches for ring in cache.rings)


def seen_by_queries(cache: RingKVCache, entries: np.ndarray) -> list[list[list[float]]]:
    """Push entries [B, n]; for each row and query, the entries it sees, sorted.

    A row of a single number loses nothing but its last bits to 8 bits.
    """
    B, n = entries.shape
    x = mx.array(entries.astype(np.float32))[:, None, :, None]
    plan = cache.advance(n)
    keys, values = cache.update(0, mx.concatenate([x, -x], axis=1), plan)
    np.testing.assert_array_equal(np.array(values), -np.array(keys))
    mask = np.ones((B, 1, n, keys.shape[2]), bool)
    if plan.mask is not None:
        mask &= np.array(plan.mask)
    exact = np.array(keys)[:, 0, :, 0]
    flat = np.rint(exact)
    np.testing.assert_allclose(exact, flat, rtol=2e-7)
    return [[sorted(flat[b][mask[b, 0, q]]) for q in range(n)] for b in range(B)]


def windows(first: int, n: int, window: int) -> list[list[float]]:
    """What n queries from entry `first` on should see, entries numbered from 1."""
    return [
        [float(e) for e in range(max(1, q - window + 1), q + 1)]
        for q in range(first, first + n)
    ]


@given(
    window=st.integers(1, 20),
    step=st.integers(1, 5),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=25),
    bits=st.sampled_from(KV_BITS),
)
@settings(max_examples=150)
def test_every_query_sees_itself_and_the_window_before_it(
    window: int, step: int, sizes: list[int], bits: int
) -> None:
    cache = make(window, step, bits=bits)
    done = 0
    for n in sizes:
        entries = np.arange(done + 1, done + n + 1)[None]
        assert seen_by_queries(cache, entries)[0] == windows(done + 1, n, window)
        done += n


@given(
    window=st.integers(1, 20),
    step=st.integers(2, 6),
    sizes=st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=25
    ),
    bits=st.sampled_from(KV_BITS),
)
@settings(max_examples=150)
def test_entries_taken_back_were_never_there(
    window: int, step: int, sizes: list[tuple[int, int]], bits: int
) -> None:
    cache = make(window, step, bits=bits)
    done = 0
    for n, n_back in sizes:
        n = min(n, step)
        n_back = min(n_back, n, step - 1)
        entries = np.arange(done + 1, done + n + 1)[None]
        entries[:, n - n_back :] = 999  # must never be seen again
        seen = seen_by_queries(cache, entries)[0]
        kept = windows(done + 1, n - n_back, window)
        assert seen[: n - n_back] == kept
        cache.trim(n_back)
        done += n - n_back
        assert cache.offset[0] == done


@given(
    histories=st.lists(st.integers(0, 40), min_size=2, max_size=4),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    bits=st.sampled_from(KV_BITS),
)
@settings(max_examples=60)
def test_rows_of_different_histories_see_their_own(
    histories: list[int], sizes: list[int], bits: int
) -> None:
    window, step = 7, 2
    cache = make(window, step, batch=len(histories), bits=bits)
    for row, n in enumerate(histories):
        alone = make(window, step, bits=bits)
        if n:
            seen_by_queries(alone, np.arange(1, n + 1)[None])
        cache.grow(cache.capacity)
        alone.grow(alone.capacity)
        (joint,), (single,) = cache.rings, alone.rings
        parts = [
            single if b == row else joint[b : b + 1] for b in range(len(histories))
        ]
        cache.rings = [mx.concatenate(parts)]
        cache.head[row], cache.length[row] = alone.head[0], alone.length[0]
    done = np.array(histories)
    for n in sizes:
        entries = done[:, None] + np.arange(1, n + 1)
        got = seen_by_queries(cache, entries)
        assert got == [windows(int(d) + 1, n, window) for d in done]
        done += n


def test_memory_does_not_grow_and_counters_stay_small() -> None:
    cache = make(window=8, step=4)
    for _ in range(50):
        seen_by_queries(cache, np.ones((1, 4)))
        seen_by_queries(cache, np.ones((1, 13)))
    assert cache.rings[0].shape == (1, 2, 12, 1)
    assert cache.head[0] < cache.capacity
    assert cache.length[0] == cache.capacity


def test_the_position_wraps_instead_of_growing() -> None:
    cache = make(window=4, step=1)
    cache.offset[:] = 2**64 - 2
    cache.advance(5)
    assert cache.offset[0] == 3


@pytest.mark.parametrize("bits", KV_BITS)
@pytest.mark.parametrize("n", [1, 3])
def test_a_copy_goes_its_own_way(n: int, bits: int) -> None:
    cache = make(window=4, step=1, bits=bits)
    seen_by_queries(cache, np.arange(1, 7)[None])
    copy = cache.copy()
    seen_by_queries(copy, np.full((1, n), 99))
    assert seen_by_queries(cache, np.array([[7]]))[0] == [[4.0, 5.0, 6.0, 7.0]]


@pytest.mark.parametrize("bits", KV_BITS)
@pytest.mark.parametrize("n_before", [0, 3, 7])
def test_a_copy_may_have_larger_steps(n_before: int, bits: int) -> None:
    cache = make(window=8, step=1, bits=bits)
    if n_before:
        seen_by_queries(cache, np.arange(1, n_before + 1)[None])
    unpacked = cache.packed().copy(step=4)
    assert unpacked.capacity == make(window=8, step=4).capacity
    done = n_before
    for _ in range(9):
        entries = np.arange(done + 1, done + 5)[None]
        assert seen_by_queries(unpacked, entries)[0] == windows(done + 1, 4, 8)
        unpacked.trim(3)
        done += 1


@pytest.mark.parametrize("bits", KV_BITS)
@pytest.mark.parametrize("n_before", [0, 3, 12, 40])
def test_a_copy_goes_on_where_the_packed_one_was(n_before: int, bits: int) -> None:
    cache = make(window=8, step=4, bits=bits)
    if n_before:
        seen_by_queries(cache, np.arange(1, n_before + 1)[None])
    packed = cache.packed()
    assert packed.n_slots == min(n_before, cache.capacity)
    for _ in range(2):
        copy = packed.copy()
        entries = np.arange(n_before + 1, n_before + 5)[None]
        assert seen_by_queries(copy, entries)[0] == windows(n_before + 1, 4, 8)


def test_a_common_step_on_a_full_decoder_ring_needs_no_mask() -> None:
    cache = make(window=8, step=1)
    for i in range(20):
        plan = cache.advance(1)
        cache.update(0, mx.zeros((1, 2, 1, 1)), plan)
        assert plan.mask is None, i


@pytest.mark.parametrize("bits", KV_BITS)
def test_a_common_step_writes_the_ring_in_place(bits: int) -> None:
    cache = RingKVCache.make(
        n_layers=1,
        batch=1,
        n_kv_heads=4,
        head_dim=64,
        window=4096,
        step=1,
        dtype=mx.float32,
        bits=bits,
    )
    cache.fill()
    ring_bytes = n_bytes(cache)
    x = mx.ones((1, 8, 1, 64))
    mx.eval(cache.rings, x)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    for _ in range(3):
        cache.update(0, x, cache.advance(1))
        mx.eval(cache.rings)
    assert mx.get_peak_memory() - before < ring_bytes / 100


def test_8_bits_take_at_most_0_52_of_16_bits_at_the_full_size() -> None:
    caches = {bits: decoder_rings(bits) for bits in KV_BITS}
    for cache in caches.values():
        cache.fill()
    assert n_bytes(caches[16]) == 26 * 2 * 8 * 8192 * 128 * 2
    assert n_bytes(caches[8]) <= 0.52 * n_bytes(caches[16])


@pytest.mark.parametrize("n_tokens", [37, 45, 70, 163, 300, 5000])
def test_rings_take_at_most_twice_what_their_entries_do(n_tokens: int) -> None:
    encoder, decoder = encoder_rings(), decoder_rings()
    for _ in range(n_tokens):
        encoder.advance(4)
        decoder.advance(1)
    of_entry = {id(encoder): 32 * 2 * 32 * 64 * 2, id(decoder): 26 * 2 * 8 * 128 * 2}
    for cache in (encoder, decoder):
        n_held = int(cache.length[0])
        assert n_bytes(cache) <= 2 * n_held * of_entry[id(cache)]
        assert n_bytes(cache) >= n_held * of_entry[id(cache)]


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=12))
@settings(max_examples=40)
def test_8_bit_entries_do_not_depend_on_the_step_they_came_in(sizes: list[int]) -> None:
    x = mx.random.normal((1, 2, sum(sizes), 8), key=mx.random.key(1))
    caches = [
        RingKVCache.make(
            n_layers=1,
            batch=1,
            n_kv_heads=2,
            head_dim=8,
            window=5,
            step=2,
            dtype=mx.float32,
            bits=8,
        )
        for _ in range(2)
    ]
    one_by_one: list[mx.array] = []
    for i in range(sum(sizes)):
        one = x[:, :, i : i + 1]
        kv = mx.concatenate([one, one], axis=1)
        one_by_one.append(caches[0].attend(0, one, kv, caches[0].advance(1), 0.3))
    done, in_steps = 0, []
    for n in sizes:
        piece = x[:, :, done : done + n]
        kv = mx.concatenate([piece, piece], axis=1)
        in_steps.append(caches[1].attend(0, piece, kv, caches[1].advance(n), 0.3))
        done += n
    np.testing.assert_allclose(
        np.array(mx.concatenate(in_steps, axis=2)),
        np.array(mx.concatenate(one_by_one, axis=2)),
        rtol=0,
        atol=1e-6,
    )
    assert (caches[0].rings[0] == caches[1].rings[0]).all().item()
