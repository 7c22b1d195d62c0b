"""Moves scales and biases, codes fixed, until the logits follow the source's.

`mlx_lm.quant.dwq` does it: the gradient of KL between both models' choices, through the
whole network, by Adam. The memory is that of the rounded model and of the activations
of some pieces of sound.

The rate falls along a cosine: at its end nothing moves any more.

Invariant: on pieces that nothing was learned of, KL gets no larger; else nothing moves.

This is the only file that imports mlx_lm, and it does so only when it is used.
"""

import math
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO

import mlx.core as mx
from mlx import optimizers

from voxmlx.errors import OutputError
from voxmlx.kernels import kernel_switches
from voxmlx.layouts.recipes import DtypeName
from voxmlx.model import VoxtralRealtime

from .student import LearnableProduct, Piece, Student, learnable

__all__ = ["OnLearned", "check_mlx_lm", "distilled"]

# Hears how many steps are done, and of how many.
OnLearned = Callable[[int, int], object]

# Measured on the demo, see benchmarks/results/rounding.md.
_BATCH = 4
_EPOCHS = 3
_RATE = 1e-4
_TEMPERATURE = 1.0
# Each n-th piece tells whether anything was gained.
_HELD_OUT = 8


def check_mlx_lm() -> None:
    """Raise OutputError unless mlx-lm is installed."""
    if find_spec("mlx_lm") is None:
        raise OutputError(
            "--rounding dwq needs mlx-lm, which is not installed; "
            'pip install "voxmlx-realtime[convert]"'
        )


def distilled(
    network: VoxtralRealtime,
    pieces: Sequence[Piece],
    dtype: DtypeName,
    fixed: Collection[str] = (),
    *,
    saves_memory: bool,
    on_learned: OnLearned | None = None,
    epochs: int = _EPOCHS,
    rate: float = _RATE,
    temperature: float = _TEMPERATURE,
    batch: int = _BATCH,
) -> dict[str, tuple[mx.array, mx.array]]:
    """Return scales and biases in `dtype` for the quantized modules, by path.

    `pieces` are of the source; the modules of `fixed` stay as they are. With
    `saves_memory` activations are computed twice. `network` is used up.
    """
    # Local import: it brings transformers, which nothing else here needs.
    from mlx_lm.quant.dwq import dwq_quantize

    with kernel_switches().with_gradients():
        products = learnable(network, dtype, fixed)
        before = {path: product.stored() for path, product in products.items()}
        if not any(_is_learned(product) for product in products.values()):
            return before
        student = Student(network, pieces)
        train, valid = _split(len(pieces))
        batch = min(batch, len(train))
        order = random.Random(0)
        drawn = [i for _ in range(epochs) for i in order.sample(train, len(train))]
        n_steps, n_done = len(drawn) // batch, 0

        def target(numbers: mx.array, _: int, split: str) -> tuple[mx.array, mx.array]:
            nonlocal n_done
            if split == "train" and on_learned is not None:
                n_done += 1
                on_learned(n_done, n_steps)
            return student.wanted(numbers)

        was = student.divergence(valid, batch)
        # It has bars and advice of its own for a terminal.
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            dwq_quantize(
                student,
                target,
                optimizers.Adam(
                    lambda step: rate * (1 + mx.cos(math.pi * step / n_steps)) / 2,
                    betas=[0.9, 0.95],
                    bias_correction=True,
                ),
                [student.numbers(i) for i in drawn],
                # It wants a whole batch, though its figures are not used.
                [student.numbers(valid[0])] * batch,
                batch_size=batch,
                max_seq_length=2**30,
                seed=0,
                dtype=mx.float32,
                gradient_checkpoint=saves_memory,
                temperature=temperature,
            )
        is_better = student.divergence(valid, batch) < was
    if not is_better:
        return before
    return {path: product.stored() for path, product in products.items()}


def _is_learned(product: LearnableProduct) -> bool:
    # As mlx_lm chooses. Eight bits leave nothing that a scale could mend.
    return product.mode == "affine" and product.bits < 8


def _split(n_pieces: int) -> tuple[list[int], list[int]]:
    """Numbers of pieces to learn of, and to judge by; the same ones if there is one."""
    valid = list(range(_HELD_OUT - 1, n_pieces, _HELD_OUT)) or [n_pieces - 1]
    train = [i for i in range(n_pieces) if i not in valid]
    return train or valid, valid
