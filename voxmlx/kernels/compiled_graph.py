"""Graphs that MLX compiles once per size and then builds without Python."""

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

from voxmlx.kernels import ops
from voxmlx.kernels.switches import COMPILED_LAYERS

__all__ = ["CompiledGraph"]

# Every size is compiled once. These are the sizes of live steps and of short drafts.
_MOST_POSITIONS = 4


class CompiledGraph:
    """A `body` of arrays [1, T, ...] that is compiled once per size, on Metal.

    The first argument says how many positions T a call has. All that a result depends
    on is an argument: arrays, or numbers, strings and None. What else `body` reads is
    a constant of the compiled graph. On a CPU compiling has a price (see `Fused`), so
    there `body` itself runs, as it does for long steps.
    """

    def __init__(self, body: Callable[..., Any]) -> None:
        self.body = body

        def keyed(_: int, *arguments: Any) -> Any:
            return body(*arguments)

        self._compiled = cast(Callable[..., Any], mx.compile(keyed))

    def __call__(self, x: mx.array, *arguments: Any) -> Any:
        if self.is_on(x):
            return self.run(x, *arguments)
        return self.body(x, *arguments)

    def is_on(self, x: mx.array) -> bool:
        """Return whether a call with the first argument `x` uses what was compiled."""
        return (
            ops.has_metal()
            and x.shape[0] == 1
            and x.shape[1] <= _MOST_POSITIONS
            and ops.kernel_switches().is_on(COMPILED_LAYERS)
        )

    def run(self, *arguments: Any) -> Any:
        """Return what `body` does, compiled."""
        # Which kernels a graph has is settled when it is compiled.
        return self._compiled(ops.kernel_switches().n_changes, *arguments)
