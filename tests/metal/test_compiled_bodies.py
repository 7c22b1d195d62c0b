"""What MLX's compiler makes of our element-wise bodies, run in the emulator."""

import re

import mlx.core as mx
import numpy as np
import pytest

from tests.metal.conftest import Emulate
from tests.metal.emulator.compiled_body import CompiledBody
from tests.metal.emulator.source import MetalError
from tests.sounds import speech_like
from voxmlx import Checkpoint
from voxmlx.kernels import gelu_reference, ops, swiglu_reference
from voxmlx.kernels.cases import LIMITS
from voxmlx.kernels.evaluation import as_numpy
from voxmlx.kernels.switches import NAMES
from voxmlx.model import VoxtralRealtime
from voxmlx.model.state import VoxtralState

pytestmark = pytest.mark.usefixtures("compiler")

DTYPES = (
    mx.float32,
    pytest.param(mx.float16, marks=pytest.mark.slow),
    pytest.param(mx.bfloat16, marks=pytest.mark.slow),
)
Kernel = tuple[CompiledBody, mx.array]


def normal(key: int, *shape: int) -> mx.array:
    return 2 * mx.random.normal(shape, key=mx.random.key(key))


def wide(*arrays: mx.array) -> list[mx.array]:
    return [array.astype(mx.float32) for array in arrays]


def swiglu_kernel(dtype: mx.Dtype) -> Kernel:
    x = normal(0, 1, 4, 36).astype(dtype)
    return CompiledBody(swiglu_reference, x), swiglu_reference(*wide(x))


def gelu_kernel(dtype: mx.Dtype) -> Kernel:
    x, bias = normal(1, 1, 4, 18).astype(dtype), normal(2, 18).astype(dtype)
    return CompiledBody(gelu_reference, x, bias), gelu_reference(*wide(x, bias))


def rotation_kernel(dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Of a step of two positions, two groups of queries, keys, and values."""
    turns = np.random.default_rng(3).uniform(-3, 3, (1, 2, 1, 1, 8))
    angles = np.ones((1, 2, 4, 1, 8), np.complex64)
    angles[:, :, :-1] = np.exp(1j * turns)
    x, bias = normal(4, 1, 2, 4 * 3 * 16).astype(dtype), normal(5, 192).astype(dtype)
    made: list[CompiledBody] = []

    def compiled(self: ops.Fused, *arrays: mx.array) -> mx.array:
        made.append(CompiledBody(self.body, *arrays))
        return self.body(*arrays)

    with monkeypatch.context() as patch:
        patch.setattr(ops, "has_metal", lambda: True)
        patch.setattr(ops.Fused, "__call__", compiled)
        ops.rotate(x, ops.rotation(angles, 3), bias)
    (kernel,) = made
    return kernel, rotated(x, angles, bias).reshape(kernel.shape)


def rotated(x: mx.array, angles: np.ndarray, bias: mx.array) -> mx.array:
    wide_x, wide_bias = (as_numpy(array) for array in wide(x, bias))
    pairs = wide_x + wide_bias
    complex_pairs = pairs.view(np.complex64).reshape(1, 2, 4, 3, 8) * angles
    return mx.array(np.ascontiguousarray(complex_pairs).view(np.float32))


def error(got: mx.array, exact: mx.array) -> float:
    off = mx.abs(got.astype(mx.float32) - exact).max() / mx.abs(exact).max()
    return float(off)  # pyright: ignore[reportArgumentType] -- MLX's stub


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bodies_are_right_as_mlx_compiles_them(
    dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kernel, exact in (
        swiglu_kernel(dtype),
        gelu_kernel(dtype),
        rotation_kernel(dtype, monkeypatch),
    ):
        assert error(kernel.run(), exact) <= LIMITS[dtype]


def test_a_view_that_reads_backwards_leaves_its_memory() -> None:
    x = normal(6, 1, 3, 4, 2)
    kernel = CompiledBody(lambda a, b: a + b, x, x[..., ::-1])
    with pytest.raises(MetalError):
        kernel.run()


# What could be wrong in such a kernel: in its indices, and in its arithmetic.
BUGS = {
    "the last axis is one short": (r"i\) < xshape", "i) < xshape - 1"),
    "a thread skips an element": (r"constexpr int N_ = 4", "constexpr int N_ = 3"),
    "an output is skipped": (r"index\+\+;", "index += 2;"),
    "rows do not follow": (r"pos\.y \* uint\(in_strides\[\d+\]\)", "pos.y"),
    "positions do not follow": (r"uint l = zpos % ", "uint l = 0 * "),
    "an input stands still": (
        r"  index_\w+ \+= in_strides\[\d+\];\n  index\+\+",
        "  index++",
    ),
    "an input begins elsewhere": (r"_memory \+ [1-9]\d*;", "_memory + 0;"),
    "two numbers are swapped": (
        r"(tmp_\w+) = (\w+)\[(index_\w+)\];((?:.|\n)*?)(tmp_\w+) = (\w+)\[(index_\w+)\];",
        r"\1 = \6[\7];\4\5 = \2[\3];",
    ),
    "a product is left out": (r"Multiply\(\)\((tmp_\w+), tmp_\w+\)", r"\1"),
    "a quotient is left out": (r"Divide\(\)\((tmp_\w+), tmp_\w+\)", r"\1"),
    "a sum is left out": (r"Add\(\)\((tmp_\w+), tmp_\w+\)", r"\1"),
    "a sigmoid is left out": (r"Sigmoid\(\)\((tmp_\w+)\)", r"\1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, replacement = BUGS[bug]

    def changed(text: str) -> str:
        return re.sub(pattern, replacement, text, count=1)

    for make in (
        swiglu_kernel,
        gelu_kernel,
        lambda dtype: rotation_kernel(dtype, monkeypatch),
    ):
        kernel, exact = make(mx.float32)
        if changed(kernel.text) == kernel.text:
            continue
        try:
            if not error(kernel.run(changed), exact) <= LIMITS[mx.float32]:
                return
        except MetalError:
            return
    pytest.fail("nothing was wrong with the result")


def test_a_whole_step_is_right_as_a_mac_computes_it(
    emulate: Emulate, tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_checkpoint.model
    state = model.open_state()
    sound = speech_like(2 * 1280)[None]
    first, second = sound[:, :1280], sound[:, 1280:]
    mx.eval(model.encode(first, state), state.arrays())
    expected = step(model, second, state.copy())
    emulate(",".join(NAMES), checks=False)
    n_runs = 0

    def run(self: ops.Fused, *arrays: mx.array) -> mx.array:
        nonlocal n_runs
        n_runs += 1
        return CompiledBody(self.body, *arrays).run()

    monkeypatch.setattr(ops, "has_metal", lambda: True)
    monkeypatch.setattr(ops.Fused, "__call__", run)
    got = step(model, second, state.copy())
    config = tiny_checkpoint.config
    # SwiGLU in each layer, a rotation in the decoder's, GELU after two convolutions and
    # in the adapter.
    n = config.encoder.n_layers + 2 * config.decoder.n_layers + 3
    assert n_runs == n
    for one, exact in zip(got, expected, strict=True):
        assert error(one, exact) <= LIMITS[mx.float32]


def step(
    model: VoxtralRealtime, sound: np.ndarray, state: VoxtralState
) -> tuple[mx.array, mx.array]:
    """The audio embedding and the logits of one live step."""
    audio = model.encode(sound, state)
    embedding = audio + model.decoder.embed(mx.array([[33]]))
    logits = model.decoder.step(embedding, state.decoder, n_logits=1)
    mx.eval(audio, logits, state.arrays())
    return audio, logits
