"""One Metal kernel: its body, its names, and how MLX is asked to run it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import mlx.core as mx

__all__ = ["Launch", "MetalKernel"]


@dataclass(frozen=True)
class Launch:
    """One dispatch: `grid` counts threads, `threadgroup` threads of a group.

    Made once per shape: what a call of MLX's then costs is half of what it did.
    """

    template: tuple[tuple[str, mx.Dtype | int], ...]
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    output_shapes: tuple[tuple[int, ...], ...]
    output_dtypes: tuple[mx.Dtype, ...]

    @cached_property
    def options(self) -> dict[str, Any]:
        """Return the options of MLX's callable, without the inputs."""
        return {
            "template": list(self.template),
            "grid": self.grid,
            "threadgroup": self.threadgroup,
            "output_shapes": list(self.output_shapes),
            "output_dtypes": list(self.output_dtypes),
        }


@dataclass(frozen=True, eq=False)
class MetalKernel:
    """The names a body uses for its buffers, in the order it gets and gives them.

    Each is one of a kind, and found quickly for it.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def body(self) -> str:
        """Return the body of the Metal function; MLX writes its head."""
        path = files("voxmlx.kernels").joinpath(f"{self.name}.metal")
        return path.read_text(encoding="utf-8")

    def __call__(self, inputs: list[mx.array], launch: Launch) -> list[mx.array]:
        return compiled(self)(inputs=inputs, **launch.options)


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
