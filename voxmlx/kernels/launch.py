"""One Metal kernel: its body, its names, and how MLX is asked to run it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import mlx.core as mx

__all__ = ["Launch", "MetalKernel"]


@dataclass(frozen=True, slots=True)
class Launch:
    """One dispatch: `grid` counts threads, `threadgroup` threads of a group."""

    template: tuple[tuple[str, mx.Dtype | int], ...]
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    output_shapes: tuple[tuple[int, ...], ...]
    output_dtypes: tuple[mx.Dtype, ...]


@dataclass(frozen=True, slots=True)
class MetalKernel:
    """The names a body uses for its buffers, in the order it gets and gives them."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def body(self) -> str:
        """Return the body of the Metal function; MLX writes its head."""
        path = files("voxmlx.kernels").joinpath(f"{self.name}.metal")
        return path.read_text(encoding="utf-8")

    def __call__(self, inputs: Sequence[mx.array], launch: Launch) -> list[mx.array]:
        return compiled(self)(
            inputs=list(inputs),
            template=list(launch.template),
            grid=launch.grid,
            threadgroup=launch.threadgroup,
            output_shapes=list(launch.output_shapes),
            output_dtypes=list(launch.output_dtypes),
        )


@cache
def compiled(kernel: MetalKernel) -> Callable[..., Any]:
    """MLX's callable for a kernel; it compiles once per template."""
    # The stub says `object`.
    build: Callable[..., Any] = mx.fast.metal_kernel
    made: Callable[..., Any] = build(
        name=f"voxmlx_{kernel.name}",
        input_names=list(kernel.inputs),
        output_names=list(kernel.outputs),
        source=kernel.body(),
    )
    return made
