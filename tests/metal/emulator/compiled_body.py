"""The Metal kernel that MLX's compiler makes of an element-wise body, run without Metal.

MLX writes such a kernel from the body's graph when it first runs. The text below has the
form of MLX 0.32's kernels for strided inputs: an unsigned index for each input, four
elements of the last axis for a thread. The arithmetic is MLX's own, cut from the headers
in its wheel.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import mlx.core as mx
import numpy as np

from tests.metal.emulator.dispatch import Buffer, Options, dispatch
from tests.metal.emulator.source import MLX_HEADERS, translate
from tests.metal.emulator.toolchain import toolchain

__all__ = ["CompiledBody"]

_FOLDER = "mlx/backend/metal/kernels"
_TYPES = {
    mx.float32: ("float", np.dtype(np.float32)),
    mx.float16: ("float16_t", np.dtype(np.float16)),
    mx.bfloat16: ("bfloat16_t", np.dtype(np.uint16)),
}
_PER_THREAD = 4
_COMPLEX = re.compile(r"\n  template <>\n  complex64_t .*?\n  }(?=\n)", re.S)
_VIEWS = {"Broadcast", "Split"}


@dataclass(frozen=True, slots=True)
class _Leaf:
    """An input of the kernel: memory from its first element on, strides in elements."""

    name: str
    dtype: mx.Dtype
    memory: np.ndarray
    offset: int
    strides: tuple[int, ...]


class CompiledBody:
    """One body over given arrays: its Metal text, and what that computes.

    `changed` edits the text before it is compiled: a seeded bug.
    """

    def __init__(self, body: Callable[..., mx.array], *arrays: mx.array) -> None:
        mx.eval(arrays)
        nodes: list[dict[str, Any]] = []
        mx.export_function(nodes.append, body, *arrays)
        by_type = {node["type"]: node for node in nodes}
        ((output, shape, self.dtype),) = by_type["outputs"]["outputs"]
        self.shape: tuple[int, ...] = tuple(shape)
        names = [name for name, *_ in by_type["inputs"]["inputs"]]
        # What a name stands for, as a NumPy view of the memory it has.
        views = {
            name: (_view(x), x.dtype) for name, x in zip(names, arrays, strict=True)
        }
        constants = dict(by_type["constants"]["constants"])
        for name, value in constants.items():
            views[name] = (_view(value), value.dtype)
        lines: list[str] = []
        dtypes: dict[str, mx.Dtype] = {}
        renamed: dict[str, str] = {}
        primitives: set[str] = set()
        self.leaves: dict[str, _Leaf] = {}
        for node in nodes:
            if node["type"] != "primitive":
                continue
            sources: list[str] = [name for name, *_ in node["inputs"]]
            kind = node["name"]
            if kind in _VIEWS and sources[0] in views:
                self._add_views(node, views)
                continue
            if kind == "Broadcast":  # of what was computed: the same number
                renamed[node["outputs"][0][0]] = renamed.get(sources[0], sources[0])
                continue
            ((made, _, dtype),) = node["outputs"]
            operands: list[str] = []
            for source in sources:
                found = renamed.get(source, source)
                if found not in dtypes:
                    self._add_leaf(found, views)
                operands.append(f"tmp_{found}")
            type_ = _TYPES[dtype][0]
            if kind == "AsType":
                computed = f"static_cast<{type_}>({operands[0]})"
            else:
                computed = f"{kind}()({', '.join(operands)})"
                primitives.add(kind)
            lines.append(f"  {type_} tmp_{made} = {computed};")
            dtypes[made] = dtype
        self.text = self._kernel(lines, output)
        self._functors = "".join(map(_functor, sorted(primitives)))

    def _add_views(self, node: dict[str, Any], views: dict[str, Any]) -> None:
        layout, dtype = views[node["inputs"][0][0]]
        outputs = [(name, tuple(shape)) for name, shape, _ in node["outputs"]]
        if node["name"] == "Broadcast":
            ((name, shape),) = outputs
            views[name] = (np.broadcast_to(layout, shape), dtype)
        else:
            parts = np.split(layout, *node["arguments"])
            for (name, _), part in zip(outputs, parts, strict=True):
                views[name] = (part, dtype)

    def _add_leaf(self, name: str, views: dict[str, Any]) -> None:
        layout, dtype = views[name]
        whole = np.broadcast_to(layout, self.shape)
        root = layout
        while isinstance(root.base, np.ndarray):
            root = root.base
        memory = _memory(root)
        item = layout.itemsize
        offset = _address(whole) - _address(memory)
        strides = tuple(stride // item for stride in whole.strides)
        self.leaves[name] = _Leaf(name, dtype, memory, offset // item, strides)

    def _kernel(self, lines: list[str], output: str) -> str:
        ndim = len(self.shape)
        text = ["[[kernel]] void compiled("]
        for leaf in self.leaves.values():
            type_ = _TYPES[leaf.dtype][0]
            text.append(f"    device const {type_}* {leaf.name}_memory,")
        text += [
            "    constant const int64_t* in_strides,",
            f"    device {_TYPES[self.dtype][0]}* {output},",
            "    constant const int* output_shape,",
            "    uint3 pos [[thread_position_in_grid]],",
            "    uint3 grid [[threads_per_grid]]) {",
            f"  constexpr int N_ = {_PER_THREAD};",
            f"  int xshape = output_shape[{ndim - 1}];",
            "  uint index = N_ * pos.x + xshape * (pos.y + uint(grid.y) * pos.z);",
        ]
        for i, leaf in enumerate(self.leaves.values()):
            last, first = (i + 1) * ndim - 1, i * ndim
            type_, name = _TYPES[leaf.dtype][0], leaf.name
            # MLX binds the buffer at this offset.
            text += [
                f"  device const {type_}* {name} = {name}_memory + {leaf.offset};",
                f"  uint index_{name} = N_ * pos.x * uint(in_strides[{last}]) + "
                f"pos.y * uint(in_strides[{last - 1}]);",
                "  { uint zpos = pos.z;",
                f"  for (int d = {ndim - 3}; d >= 0; --d) {{",
                "    uint l = zpos % output_shape[d];",
                f"    index_{name} += l * uint(in_strides[{first} + d]);",
                "    zpos /= output_shape[d];",
                "  } }",
            ]
        text.append(
            "  for (int i = 0; i < N_ && (int(N_ * pos.x) + i) < xshape; ++i) {"
        )
        for leaf in self.leaves.values():
            type_, name = _TYPES[leaf.dtype][0], leaf.name
            text.append(f"  {type_} tmp_{name} = {name}[index_{name}];")
        text += [*lines, f"  {output}[index] = tmp_{output};"]
        for i, leaf in enumerate(self.leaves.values()):
            text.append(f"  index_{leaf.name} += in_strides[{(i + 1) * ndim - 1}];")
        text += ["  index++;", "  }", "}"]
        self._output = output
        return "\n".join(text)

    def run(self, changed: Callable[[str], str] = lambda text: text) -> mx.array:
        """Compile and run. Raises MetalError where the kernel leaves its memory."""
        program = translate(
            self._functors + changed(self.text),
            name="compiled",
            template="",
            prelude=f'#include "{_FOLDER}/utils.h"\n',
        )
        strides = [leaf.strides for leaf in self.leaves.values()]
        out = np.full(self.shape, 0xFF, np.uint8).astype(_TYPES[self.dtype][1])
        values = {
            "in_strides": np.array(strides, np.int64),
            "output_shape": np.array(self.shape, np.int32),
            self._output: out,
        }
        for leaf in self.leaves.values():
            values[f"{leaf.name}_memory"] = np.ascontiguousarray(leaf.memory)
        buffers = [
            Buffer(name, values[name], is_output=name == self._output)
            for name in program.buffer_names()
        ]
        *rest, dim1, dim0 = (1, 1, *self.shape)
        grid = (-(-dim0 // _PER_THREAD), dim1, prod(rest))
        library = toolchain().library(program.text)
        dispatch(library, buffers, grid, (1, 1, 1), Options())
        made = mx.array(out)
        return made.view(mx.bfloat16) if self.dtype == mx.bfloat16 else made


def _view(x: mx.array) -> np.ndarray:
    plain: Any = x.view(mx.uint16) if x.dtype == mx.bfloat16 else x
    return np.array(plain, copy=False)


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _memory(array: np.ndarray) -> np.ndarray:
    """All elements between the first and the last of a view, in the memory's order."""
    slices = (slice(None, None, -1 if s < 0 else 1) for s in array.strides)
    forwards = array[(..., *slices)]  # with the dots also of a scalar a view
    steps = zip(forwards.shape, forwards.strides, strict=True)
    n = 1 + sum((size - 1) * stride for size, stride in steps) // array.itemsize
    return np.lib.stride_tricks.as_strided(forwards, (n,), (array.itemsize,))


def _functor(name: str) -> str:
    """MLX's own arithmetic of a primitive, as its header has it."""
    for header in ("unary_ops.h", "binary_ops.h"):
        text = (MLX_HEADERS / _FOLDER / header).read_text("utf-8")
        match = re.search(rf"^struct {name} {{\n.*?^}};\n", text, re.M | re.S)
        if match is not None:
            needs = f'#include "{_FOLDER}/erf.h"\n' if name == "Erf" else ""
            # The emulator has no complex numbers.
            return needs + _COMPLEX.sub("", match.group(0))
    raise AssertionError(f"{name} is in neither of MLX's headers")
