"""Stands in for `mx.fast.metal_kernel` on a machine without Metal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import mlx.core as mx
import numpy as np

from tests.metal.emulator.dispatch import Buffer, Options, Size, Stats, dispatch
from tests.metal.emulator.source import MetalError, Program, translate
from tests.metal.emulator.toolchain import toolchain

__all__ = ["EmulatedKernel", "Job", "traced"]

# Outputs start with one, then with the other: what depends on it was never written.
_POISONS = (0xFF, 0x5A)


@dataclass(frozen=True, slots=True)
class Traced:
    """What MLX would have sent to the GPU."""

    source: str
    grid: Size
    threadgroup: Size
    is_copied: bool  # inputs that are not contiguous would be copied first


@dataclass(frozen=True, slots=True)
class Job:
    """One dispatch, ready to run: for the sanitizers, and for looking at."""

    program: Program
    buffers: list[Buffer]
    grid: Size
    threadgroup: Size


def traced(kernel: Any, inputs: Sequence[mx.array], **launch: Any) -> Traced:
    """Ask MLX for the source it generates and the dispatch it would make.

    Exporting a function records the kernels it calls without running them.
    """
    nodes: list[list[Any]] = []

    def record(node: dict[str, Any]) -> None:
        if node.get("name") == "CustomKernel":
            nodes.append(node["arguments"])

    def call(*arrays: mx.array) -> Any:
        return kernel(inputs=list(arrays), stream=mx.gpu, **launch)

    mx.export_function(record, call, *inputs)
    arguments = nodes[0]
    return Traced(
        source=arguments[1],
        grid=cast(Size, tuple(arguments[2:5])),
        threadgroup=cast(Size, tuple(arguments[5:8])),
        is_copied=bool(arguments[9]),
    )


class EmulatedKernel:
    """Called like what `mx.fast.metal_kernel` returns, with the same arguments.

    `n_copies` counts inputs that were not contiguous, which a GPU would have copied
    before the launch; `n_calls` the launches. With `checks` every call runs twice, over
    differently poisoned memory; without `runs` none is compiled or run, and outputs are
    zeros: for looking at what would have been.
    """

    def __init__(
        self,
        name: str,
        input_names: Sequence[str],
        output_names: Sequence[str],
        source: str,
        header: str = "",
        ensure_row_contiguous: bool = True,
        atomic_outputs: bool = False,
        *,
        options: Options | None = None,
        checks: bool = True,
        runs: bool = True,
    ) -> None:
        self._kernel = mx.fast.metal_kernel(
            name=name,
            input_names=list(input_names),
            output_names=list(output_names),
            source=source,
            header=header,
            ensure_row_contiguous=ensure_row_contiguous,
            atomic_outputs=atomic_outputs,
        )
        self._input_names = list(input_names)
        self._output_names = list(output_names)
        self.options = options or Options()
        self.checks = checks
        self.runs = runs
        self.n_calls = 0
        self.n_copies = 0
        self.stats: Stats | None = None
        self.last_job: Job | None = None
        self._programs: dict[Any, tuple[Traced, Program]] = {}

    def __call__(
        self,
        *,
        inputs: Sequence[Any],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[mx.Dtype],
        grid: Size,
        threadgroup: Size,
        template: Sequence[tuple[str, Any]] | None = None,
        init_value: float | None = None,
    ) -> list[mx.array]:
        job = self.job(
            inputs=inputs,
            output_shapes=output_shapes,
            output_dtypes=output_dtypes,
            grid=grid,
            threadgroup=threadgroup,
            template=template,
        )
        self.last_job = job
        if not self.runs:
            return [
                mx.zeros(shape, dtype)
                for shape, dtype in zip(output_shapes, output_dtypes, strict=True)
            ]
        library = toolchain().library(job.program.text)
        outputs = [buffer for buffer in job.buffers if buffer.is_output]
        poisons = _POISONS if self.checks and init_value is None else _POISONS[:1]
        runs: list[list[np.ndarray]] = []
        for poison in poisons:
            for buffer, dtype in zip(outputs, output_dtypes, strict=True):
                if init_value is None:
                    buffer.array.reshape(-1).view(np.uint8)[:] = poison
                else:
                    buffer.array[...] = _to_numpy(mx.array(init_value, dtype))
            options = replace(self.options, poison=poison)
            self.stats = dispatch(
                library, job.buffers, job.grid, job.threadgroup, options
            )
            runs.append([buffer.array.copy() for buffer in outputs])
        self.n_calls += 1
        for name, first, last in zip(
            self._output_names, runs[0], runs[-1], strict=True
        ):
            _check_same(name, first, last)
        return [
            _from_numpy(array, dtype)
            for array, dtype in zip(runs[0], output_dtypes, strict=True)
        ]

    def programs(self) -> list[Program]:
        """What the calls so far were compiled from, one per kind of call."""
        return [program for _, program in self._programs.values()]

    def job(self, *, inputs: Sequence[Any], **launch: Any) -> Job:
        """The dispatch that a call with these arguments would run."""
        arrays = [x if isinstance(x, mx.array) else mx.array(x) for x in inputs]
        launch = {key: value for key, value in launch.items() if value is not None}
        key = repr((launch, [(x.shape, x.dtype) for x in arrays]))
        if key not in self._programs:
            found = traced(self._kernel, arrays, **launch)
            self._programs[key] = (found, translate(found.source))
        found, program = self._programs[key]
        values: dict[str, Buffer] = {}
        for name, x in zip(self._input_names, arrays, strict=True):
            content, strides, is_contiguous = _content(x, is_copied=found.is_copied)
            self.n_copies += found.is_copied and not is_contiguous
            for suffix, array in (
                ("", content),
                ("_shape", np.array(x.shape, np.int32)),
                ("_strides", np.array(strides, np.int64)),
                ("_ndim", np.array([x.ndim], np.int32)),
            ):
                values[name + suffix] = Buffer(name + suffix, array)
        for name, shape, dtype in zip(
            self._output_names,
            launch["output_shapes"],
            launch["output_dtypes"],
            strict=True,
        ):
            values[name] = Buffer(
                name, np.zeros(shape, _numpy_dtype(dtype)), is_output=True
            )
        buffers = [values[name] for name in program.buffer_names()]
        return Job(program, buffers, found.grid, found.threadgroup)


def _content(x: mx.array, *, is_copied: bool) -> tuple[np.ndarray, list[int], bool]:
    """The memory a kernel sees of `x`, strides in elements, and if it lies in order."""
    mx.eval(x)
    plain: Any = x.view(mx.uint16) if x.dtype == mx.bfloat16 else x
    view = np.asarray(memoryview(plain))
    is_contiguous = bool(view.flags.c_contiguous)
    if is_copied or view.size == 0:
        view = np.ascontiguousarray(view)
    strides = [step // view.itemsize for step in view.strides]
    n = 1 + sum((d - 1) * s for d, s in zip(view.shape, strides, strict=True))
    flat = np.lib.stride_tricks.as_strided(
        view, (n if view.size else 0,), (view.itemsize,)
    )
    return np.array(flat), strides, is_contiguous


def _check_same(name: str, first: np.ndarray, last: np.ndarray) -> None:
    differ = first.reshape(-1).view(np.uint8) != last.reshape(-1).view(np.uint8)
    if differ.any():
        element = int(np.argmax(differ)) // first.itemsize
        raise MetalError(
            f"output '{name}': {int(differ.sum())} bytes depend on memory that was "
            f"never written, the first of them in element {element}"
        )


def _numpy_dtype(dtype: mx.Dtype) -> np.dtype:
    if dtype == mx.bfloat16:
        return np.dtype(np.uint16)
    return np.array(mx.zeros((1,), dtype)).dtype


def _to_numpy(x: mx.array) -> np.ndarray:
    return np.array(x.view(mx.uint16) if x.dtype == mx.bfloat16 else x)


def _from_numpy(array: np.ndarray, dtype: mx.Dtype) -> mx.array:
    made = mx.array(array)
    return made.view(mx.bfloat16) if dtype == mx.bfloat16 else made
