"""Launches of a step on Metal and bytes that it moves, from MLX's own graph.

The graph is recorded by `mx.export_function`, which runs nothing: neither a GPU nor
the weights are needed, and the step may be of any size. On the way, `on_metal` lets
the operations take the form they have on a Mac.

A launch is one kernel put on the GPU's queue. What changes only shape or strides
launches nothing; so that this can be told, every array's strides are followed. A
reshape of what lies in another order is a copy, and so is a product's input that is
not contiguous. Concatenating launches a copy per part; an element-wise chain that
`mx.compile` fuses is one launch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from math import prod
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np

from voxmlx.kernels import ops
from voxmlx.kernels.switches import NAMES, KernelSwitches

__all__ = ["Trace", "on_metal", "trace"]

_RESHAPES = {"Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze"}
# Host work, or nothing at all.
_FREE = {"StopGradient", "Depends", "NumberOfElements"}
# Kernels that have their (first) inputs copied if those are not contiguous.
_WANT_CONTIGUOUS = {"QuantizedMatmul", "rms_norm", "Matmul", "Softmax"}
# MLX unfolds a convolution of this kind and multiplies.
_LAUNCHES = {"Convolution": 2}
_ATTENTION = "scaled_dot_product_attention"
# Kernels of ours, all of whose inputs are copied if they are not contiguous.
_OURS = (*NAMES, "ring_combine")
_KERNELS = (_ATTENTION, *_OURS, "rms_norm", "dequantize")
# They read the rings as they lie.
_READERS = {_ATTENTION, "window_attention", "ring_attention_q8"}
# From so many keys on, MLX attends with grouped queries in two passes.
_TWO_PASS_KEYS = 4096


@dataclass(slots=True)
class Trace:
    """Counts of what one call would do."""

    launches: Counter[str] = field(default_factory=Counter)
    n_views: int = 0
    bytes_written: int = 0
    cache_bytes_moved: int = 0
    """Bytes of the rings that are copied, apart from the rows that are written."""
    dtypes: Counter[str] = field(default_factory=Counter)
    """Of all arrays that a launch writes."""

    @property
    def n_launches(self) -> int:
        return self.launches.total()


class _Array:
    """An array's dtype, and its shape and strides as those of a NumPy array.

    That array has no memory: it is only ever viewed.
    """

    def __init__(self, shape: tuple[int, ...], dtype: mx.Dtype) -> None:
        strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
        nothing = np.zeros(1, np.int8)
        self.layout = np.lib.stride_tricks.as_strided(nothing, shape, strides)
        self.dtype = dtype

    @property
    def n_bytes(self) -> int:
        return self.layout.size * self.dtype.size

    @property
    def is_contiguous(self) -> bool:
        return self.layout.flags.c_contiguous

    def seen_as(self, layout: Any) -> "_Array":
        view = _Array.__new__(_Array)
        view.layout, view.dtype = layout, self.dtype
        return view


def trace(
    step: Callable[..., Any], arrays: Sequence[mx.array], rings: Sequence[mx.array] = ()
) -> Trace:
    """Record step(*arrays, *rings) and count. The arrays may be unevaluated."""
    recorded: list[dict[str, Any]] = []
    mx.export_function(recorded.append, step, *arrays, *rings)
    by_type = {record["type"]: record for record in recorded}
    inputs = by_type["inputs"]["inputs"]
    nodes = [record for record in recorded if record["type"] == "primitive"]
    constants = [
        (name, value.shape, value.dtype)
        for record in recorded
        if record["type"] == "constants"
        for name, value in record["constants"]
    ]
    counter = _Counter(nodes)
    for name, shape, dtype in [*inputs, *constants]:
        counter.arrays[name] = _Array(tuple(shape), dtype)
    counter.of_rings = {name for name, _, _ in inputs[len(inputs) - len(rings) :]}
    for node in nodes:
        counter.add(node)
    return counter.result


class _Counter:
    """Walks the nodes in the order they were recorded."""

    def __init__(self, nodes: Sequence[dict[str, Any]]) -> None:
        self.arrays: dict[str, _Array] = {}
        self.of_rings: set[str] = set()
        self.result = Trace()
        self._n_uses = Counter(name for node in nodes for name, *_ in node["inputs"])

    def add(self, node: dict[str, Any]) -> None:
        sources = [name for name, *_ in node["inputs"]]
        kind = _kind(node)
        view = self._view(kind, node, sources)
        if view is not None:
            self.result.n_views += 1
            self.arrays.update(view)
            if sources[0] in self.of_rings:
                self.of_rings |= set(view)
            return
        reads_ring = [name for name in sources if name in self.of_rings]
        written = 0
        for name, shape, dtype in node["outputs"]:
            self.arrays[name] = _Array(tuple(shape), dtype)
            written += self.arrays[name].n_bytes
            self.result.dtypes[str(dtype).removeprefix("mlx.core.")] += 1
        if written == 0:
            return
        if kind == "SliceUpdate":
            written = self._update(node, sources)
        elif kind not in _READERS and reads_ring:
            self.result.cache_bytes_moved += written
        if kind in _WANT_CONTIGUOUS:
            self._copy_strided(sources[:1])
        if kind in _OURS:
            self._copy_strided(sources)
        self.result.bytes_written += written
        self.result.launches[kind] += self._n_launches(kind, node, sources)

    def _n_launches(
        self, kind: str, node: dict[str, Any], sources: Sequence[str]
    ) -> int:
        if kind == "Concatenate":
            return sum(self.arrays[name].layout.size > 0 for name in sources)
        if kind == _ATTENTION:
            (_, queries, _), (_, keys, _) = node["inputs"][:2]
            is_grouped = queries[1] > keys[1]
            return 1 + (is_grouped and keys[2] >= _TWO_PASS_KEYS)
        return _LAUNCHES.get(kind, 1)

    def _update(self, node: dict[str, Any], sources: Sequence[str]) -> int:
        """Bytes written by a slice update: in place if nobody else has the target."""
        target, rows = sources[:2]
        is_ring = target in self.of_rings
        if is_ring:
            self.of_rings.add(node["outputs"][0][0])
        written = self.arrays[rows].n_bytes
        if self._n_uses[target] > 1:
            whole = self.arrays[target].n_bytes
            self.result.launches["Copy"] += 1
            self.result.cache_bytes_moved += whole * is_ring
            written += whole
        return written

    def _copy_strided(self, sources: Sequence[str]) -> None:
        for name in sources:
            if not self.arrays[name].is_contiguous:
                self.result.launches["Copy"] += 1
                self.result.bytes_written += self.arrays[name].n_bytes

    def _view(
        self, kind: str, node: dict[str, Any], sources: Sequence[str]
    ) -> dict[str, _Array] | None:
        """The outputs of a node that launches nothing, None for one that does."""
        if not sources:
            return None
        source = self.arrays[sources[0]]
        layout, arguments = source.layout, node["arguments"]
        outputs = {name: tuple(shape) for name, shape, _ in node["outputs"]}
        if kind in _FREE:
            return dict.fromkeys(outputs, source)
        if kind in _RESHAPES:
            ((name, shape),) = outputs.items()
            try:
                return {name: source.seen_as(np.reshape(layout, shape, copy=False))}
            except ValueError:
                return None
        if kind == "Transpose":
            return dict.fromkeys(
                outputs, source.seen_as(layout.transpose(arguments[0]))
            )
        if kind == "Slice":
            slices = tuple(
                slice(start, stop if step > 0 or stop >= 0 else None, step)
                for start, stop, step in zip(*arguments, strict=True)
            )
            return dict.fromkeys(outputs, source.seen_as(layout[slices]))
        if kind == "Broadcast":
            return {
                name: source.seen_as(np.broadcast_to(layout, shape))
                for name, shape in outputs.items()
            }
        if kind == "Split":
            parts = np.split(layout, *arguments)
            return {
                name: source.seen_as(part)
                for name, part in zip(outputs, parts, strict=True)
            }
        if kind == "AsStrided":
            shape, strides, _ = arguments
            return dict.fromkeys(
                outputs,
                source.seen_as(np.lib.stride_tricks.as_strided(layout, shape, strides)),
            )
        if kind == "View":
            ((name, shape, dtype),) = node["outputs"]
            if not source.is_contiguous:
                return None
            return {name: _Array(tuple(shape), dtype)}
        if kind == "Contiguous" and source.is_contiguous:
            return dict.fromkeys(outputs, source)
        return None


def _kind(node: dict[str, Any]) -> str:
    """A primitive's name; of a kernel of ours or a stand-in, its own."""
    name: str = node["name"]
    if name != "CustomKernel":
        return name
    name = node["arguments"][0].removeprefix("custom_kernel_")
    # Between a prefix of MLX's and the template comes the name it was given.
    for known in (*_KERNELS, *sorted(_FUSED, key=len, reverse=True)):
        if known in name:
            return known
    return name


# Names of the stand-ins made so far for what MLX's compiler fuses.
_FUSED: set[str] = set()


@contextmanager
def on_metal(kernels: str = "on") -> Iterator[None]:
    """Let operations be recorded in the form that they have on a Mac.

    MLX's fused operations fall apart into small ones on a CPU; here each is one node,
    as on a GPU. So is an element-wise body that `mx.compile` makes one kernel of, once
    MLX's compiler has shown that it does. `kernels` of ours run as VOXMLX_KERNELS has
    it.
    """
    attend = mx.fast.scaled_dot_product_attention
    with (
        patch.object(mx.fast, "rms_norm", _rms_norm),
        patch.object(mx.fast, attend.__name__, _attend),
        patch.object(mx, "dequantize", _dequantize),
        patch.object(ops, "has_metal", lambda: True),
        # Nothing is computed here, so nothing can be begun.
        patch.object(mx, "async_eval", lambda *_: None),
        patch.object(ops, "kernel_switches", lambda: KernelSwitches(kernels, None)),
        patch.object(ops.Fused, "__call__", _fused),
    ):
        yield


def _rms_norm(x: mx.array, weight: mx.array | None, eps: float) -> mx.array:
    inputs = [x] if weight is None else [x, weight]
    return _stand_in("rms_norm", inputs, x.shape, x.dtype)


def _attend(
    q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: mx.array | None = None
) -> mx.array:
    inputs = [q, k, v] if mask is None else [q, k, v, mask]
    return _stand_in(_ATTENTION, inputs, q.shape, q.dtype)


def _dequantize(
    w: mx.array, scales: mx.array, biases: mx.array, *, bits: int, **_: Any
) -> mx.array:
    shape = (*w.shape[:-1], w.shape[-1] * 32 // bits)
    return _stand_in("dequantize", [w, scales, biases], shape, scales.dtype)


def _fused(self: ops.Fused, *arrays: mx.array) -> mx.array:
    """One node in the place of what MLX's compiler fuses.

    Within a recording nothing is compiled, so it is done beside, on zeros.
    """
    name = f"fused_{self.body.__name__.removesuffix('_reference').strip('_')}"
    zeros = [mx.zeros(a.shape, a.dtype) for a in arrays]
    with patch.object(ops, "has_metal", lambda: False):
        compiled = mx.compile(self.body)(*zeros)
    _FUSED.add(name)
    assert _n_kernels(compiled) == 1, f"{self.body.__name__} is not fused into one"
    return _stand_in(name, list(arrays), compiled.shape, compiled.dtype)


def _n_kernels(array: mx.array) -> int:
    """Kernels in an array's graph, but for the zeros it starts from."""
    dot = StringIO()
    mx.export_to_dot(dot, array)
    labels = [
        line.split('label ="')[1].split('"')[0]
        for line in dot.getvalue().splitlines()
        if "shape=rectangle" in line
    ]
    views = {"Full", "Broadcast", "Split", "Slice", *_RESHAPES}
    return sum(label not in views for label in labels)


def _stand_in(
    name: str, inputs: list[mx.array], shape: Sequence[int], dtype: mx.Dtype
) -> mx.array:
    """A node with these inputs and such an output; its body is never run."""
    # The stub says `object`.
    make: Callable[..., Any] = mx.fast.metal_kernel
    kernel: Callable[..., Any] = make(
        name=name,
        input_names=[f"input_{i}" for i in range(len(inputs))],
        output_names=["output"],
        source="output[0] = 0;",
        ensure_row_contiguous=False,
    )
    (output,) = kernel(
        inputs=inputs,
        grid=(1, 1, 1),
        threadgroup=(1, 1, 1),
        output_shapes=[tuple(shape)],
        output_dtypes=[dtype],
    )
    return output
