"""python -m benchmarks.roofline [--recipe q4] [--kv-bits 16]: what a step cannot beat.

Bytes that one 80 ms step of the full-size model must read, from its config and recipe;
this machine's copy bandwidth, and from both the floor of a step in ms; launches and
bytes written, from MLX's graph; Apple's chips by their published bandwidths. With
--model, a step of that model is timed against the floor of its own bytes. Ends in one
JSON line.
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from benchmarks.launches import full_size_network, traced_decoder, traced_encoder
from benchmarks.provenance import closing_line
from voxmlx import Checkpoint, load
from voxmlx.config import AUDIO_TOKEN_MS, SAMPLES_PER_AUDIO_TOKEN, ModelConfig
from voxmlx.decoding.loop import greedy_ids
from voxmlx.doctor.chips import CHIPS
from voxmlx.doctor.estimate import (
    ESTIMATED,
    FULL_SIZE,
    default_model,
    median_s,
    ring_bytes,
    weight_bytes,
)
from voxmlx.layouts.embedding import EMBEDDING_BITS
from voxmlx.layouts.recipes import Recipe

# Published memory bandwidths, GB/s, by chip and cores of its GPU.
APPLE_GB_PER_S = {f"{chip.name} ({chip.n_cores})": chip.gb_per_s for chip in CHIPS}
_COPIED_BYTES = 256_000_000
_RECIPES = {recipe.name: recipe for recipe in ESTIMATED}

__all__ = ["BytesRead", "bytes_read", "copy_bytes_per_s", "default_model_bytes", "main"]


@dataclass(frozen=True, slots=True)
class BytesRead:
    """Bytes that one steady step reads, by kind; rings at `share` of their windows."""

    weights: int
    rings: int

    @property
    def total(self) -> int:
        return self.weights + self.rings

    def floor_ms(self, bytes_per_s: float) -> float:
        return 1000 * self.total / bytes_per_s


def bytes_read(
    recipe: Recipe,
    kv_bits: int = 16,
    config: ModelConfig = FULL_SIZE,
    *,
    share: float = 1.0,
) -> BytesRead:
    """`share`: 0 as a session starts, 1 once both windows are full."""
    return BytesRead(
        weight_bytes(recipe, config), int(share * ring_bytes(kv_bits, config))
    )


def default_model_bytes() -> dict[tuple[int, int], int]:
    """Return bytes of a step at full windows by bits of embedding and of rings."""
    found: dict[tuple[int, int], int] = {}
    for embedding_bits in EMBEDDING_BITS:
        recipe = default_model(embedding_bits)
        for kv_bits in (16, 8):
            found[embedding_bits, kv_bits] = bytes_read(recipe, kv_bits).total
    return found


def copy_bytes_per_s(n_bytes: int = _COPIED_BYTES) -> float:
    """Bytes read and written per second when an array far over any cache is copied."""
    if not mx.metal.is_available():
        # MLX's CPU backend computes more slowly than memory delivers.
        source = np.ones(n_bytes // 4, np.float32)
        target = np.zeros_like(source)
        return 2 * source.nbytes / median_s(lambda: np.copyto(target, source))
    array = mx.ones(n_bytes // 4)
    mx.eval(array)
    return 2 * array.nbytes / median_s(lambda: mx.abs(array))


def measured(checkpoint: Checkpoint, kv_bits: int, n: int = 60) -> tuple[int, float]:
    """(bytes of a step's weights and rings, ms that one takes) of a loaded model."""
    model = checkpoint.model
    state = model.open_state(kv_bits=kv_bits)
    samples = mx.zeros((1, SAMPLES_PER_AUDIO_TOKEN))
    taken: list[float] = []
    for _ in range(n):
        start = time.perf_counter()
        greedy_ids(model, samples, state)
        taken.append(1000 * (time.perf_counter() - start))
    taken.sort()
    return stored_bytes(checkpoint), taken[len(taken) // 2]


def stored_bytes(checkpoint: Checkpoint) -> int:
    """Return the bytes of all weights as stored, without the delay's matrices."""
    flat: Any = tree_flatten(checkpoint.model.parameters())
    return sum(array.nbytes for name, array in flat if ".ada." not in name)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--recipe", choices=_RECIPES, default="q4")
    parser.add_argument("--kv-bits", type=int, choices=(8, 16), default=16)
    parser.add_argument("--model", help="time a step of this one: directory, id, demo")
    arguments = parser.parse_args()
    recipe, kv_bits = _RECIPES[arguments.recipe], arguments.kv_bits
    speed = copy_bytes_per_s()
    opening = bytes_read(recipe, kv_bits, share=0)
    full = bytes_read(recipe, kv_bits)
    print(f"full-size model, {arguments.recipe}, rings of {kv_bits} bits")
    for name, read in (("a session's start", opening), ("full windows", full)):
        print(
            f"{name:18} reads {read.total / 1e9:.2f} GB a step: "
            f"{12.5 * read.total / 1e9:.0f} GB/s for real time, here (copying "
            f"{speed / 1e9:.1f} GB/s) at least {read.floor_ms(speed):.0f} ms"
        )
    compared = default_model_bytes()
    print("\nthe default model at full windows, bytes a step")
    for (embedding_bits, ring_bits), n_bytes in compared.items():
        print(
            f"  --embedding-bits {embedding_bits:<3} --kv-bits {ring_bits:<3} "
            f"{n_bytes / 1e9:.2f} GB"
        )
    print()
    # Launches do not depend on bits.
    network = full_size_network()
    traces = {
        "decoder": traced_decoder(network, kv_bits=kv_bits),
        "encoder": traced_encoder(network),
    }
    for part, counted in traces.items():
        print(
            f"{part:18} {counted.n_launches} launches, "
            f"{counted.bytes_written / 1e6:.2f} MB written"
        )
    floors = {
        chip: [read.floor_ms(gb_per_s * 1e9) for read in (opening, full)]
        for chip, gb_per_s in APPLE_GB_PER_S.items()
    }
    print(f"\n{'':11} {'GB/s':>5} {'start':>8} {'full':>8}   of {AUDIO_TOKEN_MS} ms")
    for chip, (start_ms, full_ms) in floors.items():
        print(f"{chip:11} {APPLE_GB_PER_S[chip]:5.0f} {start_ms:7.1f}  {full_ms:7.1f}")
    reached = None
    if arguments.model:
        n_bytes, step_ms = measured(load(arguments.model), kv_bits)
        floor_ms = 1000 * n_bytes / speed
        reached = {
            "model": arguments.model,
            "bytes_read": n_bytes,
            "floor_ms": floor_ms,
            "step_ms": step_ms,
            "fraction": floor_ms / step_ms,
        }
        print(
            f"\n{arguments.model}: a step takes {step_ms:.2f} ms, its floor is "
            f"{floor_ms:.2f} ms: {floor_ms / step_ms:.0%} of the bandwidth reached"
        )
    print(
        closing_line(
            "roofline",
            recipe=arguments.recipe,
            kv_bits=kv_bits,
            bytes_read={"start": asdict(opening), "full": asdict(full)},
            launches={part: t.n_launches for part, t in traces.items()},
            bytes_written={part: t.bytes_written for part, t in traces.items()},
            copy_gb_per_s=speed / 1e9,
            default_model={
                f"embedding {e}, rings {r}": n for (e, r), n in compared.items()
            },
            floor_ms={
                "start": opening.floor_ms(speed),
                "full": full.floor_ms(speed),
            },
            reached=reached,
            apple_floor_ms=floors,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
