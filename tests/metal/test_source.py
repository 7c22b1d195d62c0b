"""What Metal's own compiler would refuse is found without it."""

from pathlib import Path

import mlx.core as mx
import pytest

from tests.metal.conftest import Emulate
from tests.metal.emulator.toolchain import toolchain
from tests.metal.streams import DTYPES
from voxmlx import kernels
from voxmlx.kernels import switches

FOLDER = Path(kernels.__file__).parent


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_streams", [1, 3])
def test_no_kernel_confuses_address_spaces_or_converts_in_silence(
    emulate: Emulate, dtype: mx.Dtype, n_streams: int
) -> None:
    # Inputs of fewer than eight elements are in another address space: meta of one
    # and of three streams lie on either side of that.
    emulated = emulate(runs=False)
    B = n_streams
    x = mx.zeros((B, 2, 1, 32), dtype)
    kernels.add_rms_norm(x[:, 0], x[:, 1], x[:, 0, 0], 1e-5)
    rows = kernels.quantize_rows(mx.concatenate([x, x], axis=1))
    meta = mx.array([[1, 1, 1]] * B, mx.int32)
    kernels.ring_attention_q8(x, rows, meta, 0.5)
    qkv, angles = mx.zeros((B, 2, 6 * 32), dtype), mx.ones((1, 2, 3, 1, 32))
    ring = mx.zeros((B, 4, 8, 32), dtype)
    kernels.window_attention(qkv, angles, qkv[0, 0], ring, meta, 0.5)
    names = {path.stem for path in FOLDER.glob("*.metal")}
    assert set(emulated) == names
    for kernel in emulated.values():
        for program in kernel.programs():
            assert toolchain().lint(program.text) == []


def test_every_kernel_that_can_be_switched_has_a_body() -> None:
    assert all((FOLDER / f"{name}.metal").exists() for name in switches.NAMES)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.metal")), ids=lambda p: p.stem)
def test_a_body_says_what_it_is_for_before_anything_else(path: Path) -> None:
    # The reason to keep it, in launches or bytes; the second launch of another
    # kernel has that one's.
    comment = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("//"):
            break
        comment += line + "\n"
    assert "Buys launches" in comment or "Buys bytes" in comment or "Second" in comment


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.metal")), ids=lambda p: p.stem)
def test_a_body_names_no_attribute_in_a_comment_alone(path: Path) -> None:
    # MLX adds a parameter for each attribute whose name occurs in the text.
    code, comments = "", ""
    for line in path.read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition("//")
        code += before + "\n"
        comments += after + "\n"
    for name in ("thread_position_in_grid", "threadgroup_position_in_grid", "_shape"):
        assert name in code or name not in comments
