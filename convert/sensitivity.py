"""python -m convert.sensitivity: which weights suffer most from few bits."""

# pyright: standard
# mlx.nn has no types.

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from voxmlx import Checkpoint, load
from voxmlx.cli.arguments import run_command
from voxmlx.decoding.loop import greedy_ids
from voxmlx.layouts.configs import Precision

from .model_reading import forced_logits
from .quality import Sound, read_sounds

__all__ = ["GROUPS", "SensitivityRow", "main", "rank"]

# Globs over the network's paths, as a recipe's rules have them.
GROUPS = (
    "encoder.layers.*.attention.qkv_proj",
    "encoder.layers.*.attention.o_proj",
    "encoder.layers.*.mlp.gate_up_proj",
    "encoder.layers.*.mlp.down_proj",
    "adapter.*",
    "decoder.layers.*.attention.qkv_proj",
    "decoder.layers.*.attention.o_proj",
    "decoder.layers.*.mlp.gate_up_proj",
    "decoder.layers.*.mlp.down_proj",
    "decoder.embedding",
)
_UNQUANTIZED_BITS = 16


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """The change of the logits when one group alone is quantized."""

    group: str
    n_weights: int
    saved_bytes: float
    error: float  # root mean square over tokens and vocabulary

    @property
    def error_per_saved_mb(self) -> float:
        return self.error / (self.saved_bytes / 1e6)


def rank(
    checkpoint: Checkpoint, sounds: Sequence[Sound], precision: Precision
) -> list[SensitivityRow]:
    """Every group, the one whose bits are best spent first."""
    prepared = [_prepared(checkpoint, sound) for sound in sounds]
    modules = dict(checkpoint.model.named_modules())
    rows: list[SensitivityRow] = []
    for group in GROUPS:
        chosen = {
            path: module
            for path, module in modules.items()
            if fnmatchcase(path, group) and isinstance(module, nn.Linear | nn.Embedding)
        }
        kept = {path: module.weight for path, module in chosen.items()}
        for module in chosen.values():
            module.weight = _rounded(module.weight, precision)
        squares, n = 0.0, 0
        for samples, ids, reference in prepared:
            found = _logits(checkpoint, samples, ids)
            squares += float(((found - reference).astype(np.float64) ** 2).sum())
            n += found.size
        for path, module in chosen.items():
            module.weight = kept[path]
        n_weights = sum(weight.size for weight in kept.values())
        saved = n_weights * (_UNQUANTIZED_BITS - precision.stored_bits) / 8
        rows.append(SensitivityRow(group, n_weights, saved, (squares / n) ** 0.5))
    return sorted(rows, key=lambda row: row.error_per_saved_mb, reverse=True)


def _prepared(
    checkpoint: Checkpoint, sound: Sound
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Padded samples, the ids the model makes of them, and their logits."""
    model = checkpoint.model
    padded = sound.padded_by(model.left_pad_tokens)
    samples = np.pad(padded, (0, model.mel.lookahead))
    ids = greedy_ids(model, samples[None], model.make_state())
    ids = ids[ids >= 0]
    return samples, ids, _logits(checkpoint, samples, ids)


def _logits(
    checkpoint: Checkpoint, samples: NDArray[np.float32], ids: NDArray[np.int32]
) -> NDArray[np.float32]:
    return np.concatenate(list(forced_logits(checkpoint, samples, ids)))


def _rounded(weight: mx.array, precision: Precision) -> mx.array:
    """`weight` as quantization gives it back."""
    bits, group_size = precision.bits, precision.group_size
    if weight.shape[1] % group_size:
        return weight
    parts = mx.quantize(weight, group_size=group_size, bits=bits)
    result = mx.dequantize(*parts, group_size=group_size, bits=bits)
    mx.eval(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m convert.sensitivity",
        description="Rank the groups of weights by the logit error that quantizing "
        "each alone makes per megabyte it saves.",
    )
    parser.add_argument("model", metavar="MODEL", help="directory or Hub id")
    parser.add_argument("--audio", nargs="+", type=Path, required=True)
    parser.add_argument("--bits", type=int, default=4, choices=(2, 3, 4, 5, 6, 8))
    parser.add_argument("--group-size", type=int, default=64, choices=(32, 64, 128))
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    sounds = read_sounds(options.audio)
    precision = Precision(options.bits, options.group_size)
    print(f"{'group':38} {'weights':>12} {'RMS error':>10} {'per MB saved':>13}")
    for row in rank(
        load(options.model, "float32", embedding_bits=16), sounds, precision
    ):
        print(
            f"{row.group:38} {row.n_weights:12,} {row.error:10.5f} "
            f"{row.error_per_saved_mb:13.6f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
