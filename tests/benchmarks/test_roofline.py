"""Bytes of a step, against numbers counted by hand."""

import pytest

from benchmarks.roofline import BytesRead, bytes_read, default_model_bytes
from voxmlx.layouts.recipes import RECIPES

# One decoder layer: q and o 3072 x 4096 each, k and v 3072 x 1024, three of 3072 x 9216.
_DECODER = 26 * (2 * 3072 * 4096 + 2 * 3072 * 1024 + 3 * 3072 * 9216) + 131072 * 3072
# One encoder layer: four of 1280 x 2048, three of 1280 x 5120; and the adapter.
_ENCODER = 32 * (4 * 1280 * 2048 + 3 * 1280 * 5120) + 5120 * 3072 + 3072 * 3072
# Convolutions of three taps are never quantized.
_STEM = 3 * 1280 * (128 + 1280)


@pytest.mark.parametrize(
    ("recipe", "bits"),
    [("q3", 3.5), ("q4", 4.5), ("mxfp4", 4.25), ("q8", 8.5), ("bf16", 16)],
)
def test_a_step_reads_every_weight_once(recipe: str, bits: float) -> None:
    read = bytes_read(RECIPES[recipe], share=0)
    assert read.weights == int((_DECODER + _ENCODER) * bits / 8 + 2 * _STEM)
    assert read.rings == 0


def test_full_rings_are_read_whole() -> None:
    decoder = 2 * 26 * 8 * 8192 * 128 * 2
    encoder = 2 * 32 * 32 * 750 * 64 * 2
    assert bytes_read(RECIPES["q4"]).rings == decoder + encoder
    in_8_bits = bytes_read(RECIPES["q4"], kv_bits=8).rings
    assert in_8_bits == decoder * (128 + 4) // 256 + encoder


def test_a_floor_is_bytes_over_bandwidth() -> None:
    assert BytesRead(weights=30_000_000, rings=4_000_000).floor_ms(68e9) == 0.5


def test_the_default_model_is_read_in_less_than_3_4_gb() -> None:
    found = default_model_bytes()
    assert found[16, 16] == pytest.approx(4.14e9, rel=0.002)
    assert found[8, 8] <= 3.4e9
