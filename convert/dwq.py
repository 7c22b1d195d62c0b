"""Takes the codes of a rounded model, and scales and biases that were learned for them.

    rounded    GPTQ has made a whole model of its own, in DEST.partial/rounded
    learned    its scales and biases have been learned, in DEST.partial/learned.safetensors
    written    the result has the codes of the one and the scales of the other

After a kill, what is whole of these is not made again.
"""

import os
from pathlib import Path

import mlx.core as mx

from voxmlx import limit_memory, load
from voxmlx.layouts import Module, open_model, packed_path
from voxmlx.layouts.configs import Precision

from .affine import Quantized
from .disk import Stamp, disk_errors, sync
from .distillation import OnLearned, distilled
from .plan import Plan
from .rounding import Round
from .source import Source
from .student import pieces_of
from .verify import roomy_dtype

__all__ = ["Dwq", "learn"]


class Dwq:
    """Gives each matrix what is rounded and learned already."""

    def __init__(self, rounded: Path, learned: Path) -> None:
        self._rounded = open_model(rounded)
        self._stamps = [Stamp.of(path) for path in self._rounded.paths]
        arrays = mx.load(str(learned))
        assert isinstance(arrays, dict)
        self._learned = arrays

    def begin(self, module: Module, precision: Precision, source: Source) -> Round:
        """Return what gives the rows of `module`, whatever rows it is asked for."""
        own = self._rounded.modules[module.path]
        with Source(self._rounded, self._stamps) as rounded:
            codes = rounded.whole(own, "weight", mx.uint32)
        names = (f"{module.path}.{suffix}" for suffix in ("scales", "biases"))
        scales, biases = (self._learned.pop(name) for name in names)
        start = 0

        def next_rows(rows: mx.array) -> Quantized:
            nonlocal start
            part = slice(start, start + rows.shape[0])
            start = part.stop
            return Quantized(codes[part], scales[part], biases[part])

        return next_rows


def learn(plan: Plan, rounded: Path, learned: Path, on_learned: OnLearned) -> None:
    """Write scales and biases for the codes in `rounded` to `learned`, whole or not."""
    source = load(plan.files.directory, roomy_dtype(plan), embedding_bits=16)
    limit_memory()
    pieces = pieces_of(source, plan.calibration)
    del source
    has_metal = mx.metal.is_available()
    network = load(rounded, "bfloat16" if has_metal else "float32").model
    of_source = plan.files.precisions
    fixed_paths = {
        path
        for path, precision in plan.precisions.items()
        if of_source.get(path) == precision
    }
    fixed = {packed_path(path) for path in fixed_paths}
    found = distilled(
        network,
        pieces,
        plan.dtype,
        fixed,
        saves_memory=has_metal,
        on_learned=on_learned,
    )
    content: dict[str, mx.array] = {}
    starts = dict.fromkeys(found, 0)
    # The parts of a product are rows below each other, in the order of the modules.
    for path, module in plan.files.modules.items():
        product = packed_path(path)
        if path not in plan.precisions or product not in found:
            continue
        part = slice(starts[product], starts[product] + module.shape[0])
        starts[product] = part.stop
        for suffix, rows in zip(("scales", "biases"), found[product], strict=True):
            content[f"{path}.{suffix}"] = rows[part]
    # What runs once per stream, as the delay's matrices do, learns nothing.
    made = open_model(rounded)
    with Source(made, [Stamp.of(path) for path in made.paths]) as kept:
        for path in plan.precisions.keys() - fixed_paths:
            for suffix in ("scales", "biases"):
                if (name := f"{path}.{suffix}") not in content:
                    array = kept.whole(made.modules[path], suffix, plan.mx_dtype)
                    content[name] = array
    begun = learned.with_name("begun-" + learned.name)
    with disk_errors(learned):
        # MLX's stub leaves out that nothing is returned.
        mx.save_safetensors(str(begun), content)  # pyright: ignore[reportUnknownMemberType]
        sync(begun)
        os.replace(begun, learned)
