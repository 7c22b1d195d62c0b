"""The plan of a conversion: every byte it will write, known before it begins."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import mlx.core as mx

from voxmlx.layouts import ModelFiles, Module
from voxmlx.layouts.configs import Precision, our_architecture
from voxmlx.layouts.header import ITEM_BYTES
from voxmlx.layouts.recipes import DtypeName, Recipe, precisions

from .disk import Stamp
from .peer_layouts import WRITTEN, LayoutName, fitted, peer_config
from .quality import Sound
from .rounding import CALIBRATED, DEFAULT_ROUNDING, RoundingName

__all__ = ["INDEX_NAME", "SHARD_BYTES", "OutputTensor", "Plan", "Shard", "make_plan"]

SHARD_BYTES = 2**30
INDEX_NAME = "model.safetensors.index.json"

_CODES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One tensor of the result, under the name that its layout has for it."""

    module: Module
    suffix: str
    dtype: str
    shape: tuple[int, ...]
    layout: LayoutName = "voxmlx"

    @property
    def name(self) -> str:
        return f"{WRITTEN[self.layout].stored_path(self.module.path)}.{self.suffix}"

    @property
    def n_bytes(self) -> int:
        return ITEM_BYTES[self.dtype] * prod(self.shape)


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of the result; a module is never split between two."""

    name: str
    tensors: tuple[OutputTensor, ...]

    @property
    def header(self) -> bytes:
        """The safetensors header, its length first."""
        entries: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
        offset = 0
        for tensor in self.tensors:
            end = offset + tensor.n_bytes
            entries[tensor.name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [offset, end],
            }
            offset = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @property
    def n_bytes(self) -> int:
        return len(self.header) + sum(tensor.n_bytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole conversion. Equal plans of an unchanged source give equal bytes."""

    files: ModelFiles
    weights: tuple[Stamp, ...]
    tokenizer: Stamp
    recipe: Recipe
    dtype: DtypeName
    source_name: str
    version: str
    precisions: dict[str, Precision]
    rounding: RoundingName | None  # None: nothing is rounded anew
    calibration: tuple[Sound, ...]  # what GPTQ listens to
    shards: tuple[Shard, ...]
    layout: LayoutName = "voxmlx"

    @property
    def mx_dtype(self) -> mx.Dtype:
        return getattr(mx, self.dtype)

    @property
    def n_bytes(self) -> int:
        return sum(shard.n_bytes for shard in self.shards)

    @property
    def n_weights(self) -> int:
        """Numbers the network has, however they are stored."""
        n = 0
        for module in self.files.modules.values():
            size = 1
            for extent in module.shape:
                size *= extent
            n += size + (module.shape[0] if module.has_bias else 0)
        return n

    @property
    def bits_per_weight(self) -> float:
        n = sum(tensor.n_bytes for shard in self.shards for tensor in shard.tensors)
        return 8 * n / self.n_weights

    @property
    def bytes_per_audio_token(self) -> int:
        """Weights read to hear 80 ms: all but what only opens a session."""
        return sum(
            tensor.n_bytes
            for shard in self.shards
            for tensor in shard.tensors
            if ".ada." not in tensor.module.path
        )

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        quantization = _quantization(self.files, self.precisions, self.layout)
        if self.layout != "voxmlx":
            peer = peer_config(self.files.config, self.layout)
            return peer | ({"quantization": quantization} if quantization else {})
        return {
            **our_architecture(self.files.config),
            "quantization": quantization,
            "dtype": self.dtype,
            "recipe": self.recipe.name,
            "rounding": self.rounding,
            "source": self.source_name,
            "voxmlx_version": self.version,
        }

    @property
    def index(self) -> dict[str, Any]:
        """The content of the index of shards."""
        tensors = [(t, shard.name) for shard in self.shards for t in shard.tensors]
        return {
            "metadata": {"total_size": sum(t.n_bytes for t, _ in tensors)},
            "weight_map": {t.name: name for t, name in tensors},
        }

    @property
    def identity(self) -> str:
        """A digest of all that the result depends on."""
        facts = {
            "source": [
                [stamp.path.name, stamp.n_bytes, stamp.changed_ns]
                for stamp in (*self.weights, self.tokenizer)
            ],
            "config": self.config,
            "recipe": [self.recipe.name, self.rounding, self.layout, self.dtype],
            "shards": [shard.header.hex() for shard in self.shards],
            "calibration": [sound.digest for sound in self.calibration],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def make_plan(
    files: ModelFiles,
    recipe: Recipe,
    dtype: DtypeName,
    source_name: str,
    version: str,
    shard_bytes: int = SHARD_BYTES,
    rounding: RoundingName = DEFAULT_ROUNDING,
    calibration: Sequence[Sound] = (),
    layout: LayoutName = "voxmlx",
) -> Plan:
    """Decide every tensor's type, shape and file.

    Raises OutputError where the program of `layout` could not read the result.
    """
    chosen = precisions(recipe, files.modules.values(), files.precisions)
    chosen = fitted(chosen, files.modules, layout)
    groups: list[list[OutputTensor]] = [[]]
    n_held = 0
    for module in _in_order(files, rounding):
        tensors = _outputs(module, chosen.get(module.path), _CODES[dtype], layout)
        n = sum(tensor.n_bytes for tensor in tensors)
        if groups[-1] and n_held + n > shard_bytes:
            groups.append([])
            n_held = 0
        groups[-1] += tensors
        n_held += n
    shards = tuple(
        Shard(f"model-{i:05d}-of-{len(groups):05d}.safetensors", tuple(group))
        for i, group in enumerate(groups, 1)
    )
    return Plan(
        files,
        tuple(Stamp.of(path) for path in files.paths),
        Stamp.of(files.tokenizer_path),
        recipe,
        dtype,
        source_name,
        version,
        chosen,
        rounding if recipe.is_rounded else None,
        tuple(calibration),
        shards,
        layout,
    )


def _in_order(files: ModelFiles, rounding: RoundingName) -> list[Module]:
    """The modules as they are written; GPTQ comes to the logits' embedding last."""
    modules = list(files.modules.values())
    if rounding in CALIBRATED:
        modules.sort(key=lambda module: module.kind == "embedding")
    return modules


def _outputs(
    module: Module, precision: Precision | None, dtype: str, layout: LayoutName
) -> list[OutputTensor]:
    if precision is None:
        tensors = [OutputTensor(module, "weight", dtype, module.shape, layout)]
    else:
        rows, columns = module.shape
        packed = rows, columns * precision.bits // 32
        groups = rows, columns // precision.group_size
        scales = dtype if precision.mode == "affine" else "U8"
        shapes = {
            "weight": ("U32", packed),
            "scales": (scales, groups),
            "biases": (dtype, groups),
        }
        tensors = [
            OutputTensor(module, suffix, *shapes[suffix], layout)
            for suffix in precision.suffixes
        ]
    if module.has_bias:
        tensors.append(OutputTensor(module, "bias", dtype, module.shape[:1], layout))
    return tensors


def _quantization(
    files: ModelFiles, chosen: dict[str, Precision], layout: LayoutName
) -> dict[str, Any] | None:
    """MLX's form: what most modules have, then every exception by path."""
    if not chosen:
        return None
    values: Sequence[Precision] = list(chosen.values())
    usual = max(dict.fromkeys(values), key=values.count)
    content: dict[str, Any] = asdict(usual)
    for path, module in files.modules.items():
        precision = chosen.get(path)
        if not module.can_be_quantized or precision == usual:
            continue
        stored = WRITTEN[layout].stored_path(path)
        content[stored] = asdict(precision) if precision is not None else False
    return content
