"""What NumPy computes on a CPU is what MLX computes with the same layers."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import soundfile

from tests.tiny import TinyModel
from voxmlx import Session, TokenDecoded, demo, load
from voxmlx.kernels import dense_product, gelu, kernel_switches
from voxmlx.kernels.switches import NUMPY
from voxmlx.model.attention import begin_step
from voxmlx.model.cache import RingKVCache
from voxmlx.model.layer import pass_layers
from voxmlx.model.numpy_layers import numpy_layers
from voxmlx.model.voxtral import VoxtralRealtime

if mx.metal.is_available():
    pytest.skip("layers run in NumPy where there is no GPU", allow_module_level=True)


@pytest.fixture(autouse=True)
def _in_numpy() -> Iterator[None]:
    with kernel_switches().trying(NUMPY):
        yield


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> VoxtralRealtime:
    return load(TinyModel().write(tmp_path_factory.mktemp("tiny")), "float32").model


@pytest.fixture
def only_mlx() -> Callable[..., Any]:
    """Run a function with MLX's operations."""

    def run(function: Callable[..., Any]) -> Any:
        with kernel_switches().without(NUMPY):
            return function()

    return run


def sound(n: int, dim: int, seed: int) -> mx.array:
    return mx.random.normal((1, n, dim), key=mx.random.key(seed))


def through(
    stack: Any, steps: Sequence[int], norms: mx.array | None, cache: RingKVCache
) -> list[np.ndarray]:
    """Step a stack by so many positions each; what comes out, with all added."""
    out: list[np.ndarray] = []
    for i, n in enumerate(steps):
        step = begin_step([cache], stack.rotary, [n], stack.config.n_kv_heads)
        x = sound(n, stack.config.dim, 100 + i)
        residual = pass_layers(stack.layers, x, step, norms)
        out.append(np.array(residual.normed(mx.ones(x.shape[2]), 1e-5)[0]))
    return out


# Live steps past the window, one long step that wraps inside, and live steps again.
ENCODER_STEPS = [4] * 9 + [40] + [4] * 5
DECODER_STEPS = [8, 1, 1, 1, 45, 1, 1]


def states(network: VoxtralRealtime) -> dict[str, tuple[Any, Any, mx.array | None]]:
    decoder = network.decoder.make_state([6])
    return {
        "encoder": (network.encoder, network.encoder.make_state().cache, None),
        "decoder": (network.decoder, decoder.cache, decoder.mlp_norms),
    }


@pytest.mark.parametrize(
    ("part", "steps"), [("encoder", ENCODER_STEPS), ("decoder", DECODER_STEPS)]
)
def test_every_form_of_step_gives_what_mlx_gives(
    network: VoxtralRealtime,
    only_mlx: Callable[..., Any],
    part: str,
    steps: list[int],
) -> None:
    stack, cache, norms = states(network)[part]
    other = cache.copy()
    expected = only_mlx(lambda: through(stack, steps, norms, other))
    got = through(stack, steps, norms, cache)
    for one, right in zip(got, expected, strict=True):
        assert np.abs(one - right).max() < 2e-5 * np.abs(right).max()
    for one, right in zip(cache.rings, other.rings, strict=True):
        assert np.abs(np.array(one) - np.array(right)).max() < 1e-4


def test_streams_of_any_age_share_a_step(
    network: VoxtralRealtime, only_mlx: Callable[..., Any]
) -> None:
    decoder, sizes = network.decoder, [1, 2, 1]

    def run() -> np.ndarray:
        made = [decoder.make_state([delay]) for delay in (6, 3, 30)]
        for state, n in zip(made, (3, 40, 0), strict=True):
            if n:
                decoder.step(sound(n, decoder.config.dim, n), state, n_logits=0)
        parts = [sound(n, decoder.config.dim, 7 + n) for n in sizes]
        logits = decoder.step_together(parts, made, [1, 2, 1])
        assert logits is not None
        return np.array(logits)

    expected = only_mlx(run)
    assert np.abs(run() - expected).max() < 2e-5 * np.abs(expected).max()


def test_a_copy_of_a_cache_keeps_its_rings(network: VoxtralRealtime) -> None:
    stack, cache, _ = states(network)["encoder"]
    through(stack, [4, 4], None, cache)
    copy = cache.copy()
    kept = [np.array(ring) for ring in copy.rings]
    through(stack, [4], None, cache)
    for ring, before in zip(copy.rings, kept, strict=True):
        assert (np.array(ring) == before).all()
    went_on = [np.array(ring) for ring in cache.rings]
    through(stack, [4], None, copy)
    for ring, before in zip(cache.rings, went_on, strict=True):
        assert (np.array(ring) == before).all()


def test_rings_are_written_in_place(network: VoxtralRealtime) -> None:
    stack, cache, _ = states(network)["encoder"]
    through(stack, [4], None, cache)
    before = [np.asarray(ring).ctypes.data for ring in cache.rings]
    through(stack, [4], None, cache)
    assert [np.asarray(ring).ctypes.data for ring in cache.rings] == before


def test_what_mlx_may_still_read_is_not_written_over(
    network: VoxtralRealtime, only_mlx: Callable[..., Any]
) -> None:
    stack, cache, _ = states(network)["encoder"]
    through(stack, [4, 4], None, cache)
    only_mlx(lambda: through(stack, [4], None, cache))
    lazily = cache.rings[0] * 1
    through(stack, [4], None, cache)
    held = int(cache.length[0])
    assert (np.array(lazily)[:, :, held - 4 : held] == 0).all()


def test_new_weights_are_seen(network: VoxtralRealtime) -> None:
    stack, cache, _ = states(network)["encoder"]
    before = through(stack, [4], None, cache.copy())[0]
    down = stack.layers[0].mlp.down_proj
    kept = down.weight
    down.weight = kept * 2
    changed = through(stack, [4], None, cache.copy())[0]
    down.weight = kept
    assert np.abs(changed - before).max() > 0.1
    assert (through(stack, [4], None, cache.copy())[0] == before).all()


def test_what_numpy_lacks_is_left_to_mlx(network: VoxtralRealtime) -> None:
    decoder, x = network.decoder, sound(1, network.decoder.config.dim, 1)

    def computed(state: Any, x: mx.array, layers: Any = decoder.layers) -> Any:
        n_kv = decoder.config.n_kv_heads
        step = begin_step([state.cache], decoder.rotary, [1], n_kv)
        return numpy_layers(layers, x, step, state.mlp_norms)

    assert computed(decoder.make_state([6]), x) is not None
    assert computed(decoder.make_state([6]), x.astype(mx.bfloat16)) is None
    assert computed(decoder.make_state([6], kv_bits=8), x) is None
    assert computed(decoder.make_state([6, 3]), mx.repeat(x, 2, axis=0)) is None
    lone = type(decoder)(decoder.config)
    nn.quantize(lone, group_size=32, bits=4)
    assert computed(decoder.make_state([6]), x, lone.layers) is None


def test_the_demos_ids_are_those_of_mlx(only_mlx: Callable[..., Any]) -> None:
    checkpoint = load(demo.DIRECTORY, "float32")
    spoken, _ = soundfile.read(demo.SAMPLE, dtype="float32", frames=2 * 16_000)

    def ids() -> list[int]:
        session = Session(checkpoint)
        pieces = np.split(spoken, range(1280, len(spoken), 1280))
        events = [event for piece in pieces for event in session.push(piece)]
        events += session.finish()
        return [e.token_id for e in events if isinstance(e, TokenDecoded)]

    assert ids() == only_mlx(ids)


def test_the_tail_of_gelu_is_exact() -> None:
    x = np.linspace(-6, 6, 4001).astype(np.float32)
    exact = [v * math.erfc(-v / math.sqrt(2)) / 2 for v in x.tolist()]
    got = np.array(gelu(mx.array(x)))
    assert np.abs(got - exact).max() < 4e-7
    biased = np.array(gelu(mx.array(x - 1)[None], mx.full((len(x),), 1.0)))
    assert np.abs(biased - got).max() < 1e-6


def test_a_product_without_rows_is_empty() -> None:
    weight = mx.ones((5, 3))
    assert dense_product(mx.zeros((1, 0, 3)), weight).shape == (1, 0, 5)
    for n in (1, 2, 4, 5):
        assert (np.array(dense_product(mx.ones((1, n, 3)), weight)) == 3).all()
