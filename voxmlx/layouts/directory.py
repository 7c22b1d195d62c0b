"""A directory -> its layout, architecture, and where each tensor of ours lies."""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from voxmlx.config import ModelConfig, read_object
from voxmlx.errors import CheckpointError
from voxmlx.layouts.configs import (
    Precision,
    Quantization,
    is_transformers,
    read_config,
)
from voxmlx.layouts.header import HeaderEntry, read_header
from voxmlx.layouts.names import LAYOUTS, MISTRAL, OURS, Layout
from voxmlx.layouts.tensors import Module, model_modules

__all__ = ["ModelFiles", "StoredTensor", "open_model", "weight_paths"]

_FLOATS = {"F64", "F32", "F16", "BF16"}
_MISTRAL_WEIGHTS = "consolidated.safetensors"
_OTHER_WEIGHTS = "model*.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Place of one of our tensors in a file, with the file's order and type."""

    module: Module
    suffix: str  # weight, bias; of a quantized module also scales, biases
    stored_name: str
    path: Path
    entry: HeaderEntry

    @property
    def name(self) -> str:
        return f"{self.module.path}.{self.suffix}"

    @property
    def dtype(self) -> str:
        """The type as safetensors calls it."""
        return self.entry.dtype

    @property
    def n_bytes(self) -> int:
        return self.entry.end - self.entry.start


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model directory, checked whole: every tensor is used, none is missing."""

    directory: Path
    layout: Layout
    config: ModelConfig
    modules: dict[str, Module]
    precisions: dict[str, Precision]  # of the modules that are quantized
    tensors: dict[str, StoredTensor]  # by our name, in the network's order
    paths: tuple[Path, ...]

    @property
    def tokenizer_path(self) -> Path:
        return self.directory / "tekken.json"


def open_model(directory: Path) -> ModelFiles:
    """Read the configuration and every header of a model in any layout.

    Raises CheckpointError (ConfigError) naming the file, key or tensor.
    """
    config_path = directory / "config.json"
    if _is_mistral(directory):
        config = ModelConfig.from_params_file(directory / "params.json")
        quantization = Quantization(None)
    else:
        config, quantization = read_config(read_object(config_path))
    paths = weight_paths(directory)
    headers: dict[str, tuple[Path, HeaderEntry]] = {}
    for path in paths:
        for name, entry in read_header(path).items():
            if name in headers:
                raise CheckpointError(
                    f"{path.name} holds {name}, which {headers[name][0].name} holds too;"
                    " remove the file that is not part of the model"
                )
            headers[name] = (path, entry)
    modules = {module.path: module for module in model_modules(config)}
    layout = _detect(modules, headers.keys(), directory)
    return _match(directory, layout, config, modules, quantization, headers, paths)


def _is_mistral(directory: Path) -> bool:
    config_path = directory / "config.json"
    if not config_path.exists():
        return True
    if not (directory / _MISTRAL_WEIGHTS).exists():
        return False
    # Mistral's own repository holds the same weights in transformers' layout as well.
    # mlx-audio's converter leaves its source beside what it has made of it.
    return is_transformers(read_object(config_path)) or not any(
        directory.glob(_OTHER_WEIGHTS)
    )


def weight_paths(directory: Path) -> tuple[Path, ...]:
    """The files of `directory` that hold its weights, in order.

    Raises CheckpointError naming one that should be there and is not.
    """
    if _is_mistral(directory):
        return (directory / _MISTRAL_WEIGHTS,)
    index = directory / _INDEX
    if index.exists():
        found: object = read_object(index).get("weight_map")
        if not isinstance(found, dict) or not found:
            raise CheckpointError(f"{index} has no weight_map; fetch it again")
        weight_map = cast("dict[str, object]", found)
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if "/" in name or "\\" in name:
                raise CheckpointError(
                    f"{index} names {name!r}, expected a file beside it"
                )
            if not (directory / name).is_file():
                raise CheckpointError(
                    f"{directory / name} is missing, and {_INDEX} lists it; fetch it "
                    "again, or convert again"
                )
        return tuple(directory / name for name in names)
    found = tuple(sorted(directory.glob(_OTHER_WEIGHTS)))
    if not found:
        raise CheckpointError(
            f"{directory / 'model.safetensors'} is missing; a model directory needs its "
            "weights beside config.json"
        )
    return found


def _detect(modules: Iterable[str], names: Set[str], directory: Path) -> Layout:
    """The layout that shares most names with the files."""
    if _is_mistral(directory):
        return MISTRAL

    def n_known(layout: Layout) -> int:
        return sum(f"{layout.stored_path(path)}.weight" in names for path in modules)

    return max(LAYOUTS, key=n_known)


def _match(
    directory: Path,
    layout: Layout,
    config: ModelConfig,
    modules: dict[str, Module],
    quantization: Quantization,
    headers: dict[str, tuple[Path, HeaderEntry]],
    paths: tuple[Path, ...],
) -> ModelFiles:
    precisions: dict[str, Precision] = {}
    expected: dict[str, tuple[Module, str, tuple[int, ...]]] = {}
    for module in modules.values():
        stored = layout.stored_path(module.path)
        shape = layout.stored_shape(module)
        precision = quantization.of(stored) if module.can_be_quantized else None
        # Only our own config.json names what is quantized; elsewhere the files do.
        is_quantized = f"{stored}.scales" in headers or (
            layout is OURS and precision is not None
        )
        if is_quantized and precision is None:
            raise CheckpointError(
                f"{headers[f'{stored}.scales'][0].name}: {stored} is quantized, and "
                "config.json does not say how; do both come from the same conversion?"
            )
        if is_quantized and precision is not None:
            precisions[module.path] = precision
            rows, columns = shape
            n_packed = columns * precision.bits // 32
            n_groups = columns // precision.group_size
            expected[f"{stored}.weight"] = (module, "weight", (rows, n_packed))
            for suffix in precision.suffixes[1:]:
                expected[f"{stored}.{suffix}"] = (module, suffix, (rows, n_groups))
        else:
            expected[f"{stored}.weight"] = (module, "weight", shape)
        if module.has_bias:
            expected[f"{stored}.bias"] = (module, "bias", shape[:1])
    described = paths[0].name if len(paths) == 1 else directory.name
    _refuse(described, "lacks", expected.keys() - headers.keys())
    _refuse(described, "has unknown", headers.keys() - expected.keys())
    if layout is OURS and (strangers := quantization.paths - modules.keys()):
        raise CheckpointError(
            f"config.json says how {min(strangers)} is quantized, and the model has no "
            "such module; fetch config.json again"
        )
    tensors: dict[str, StoredTensor] = {}
    for stored_name, (module, suffix, shape) in expected.items():
        path, entry = headers[stored_name]
        dtype, found = entry.dtype, entry.shape
        if found != shape:
            raise CheckpointError(
                f"{path.name}: {stored_name} is {list(found)}, config says "
                f"{list(shape)}; do config and weights come from the same model?"
            )
        allowed = _types(suffix, precisions.get(module.path))
        if dtype not in allowed:
            raise CheckpointError(
                f"{path.name}: {stored_name} is stored as {dtype}, expected "
                f"{'a float type' if allowed is _FLOATS else min(allowed)}"
            )
        tensor = StoredTensor(module, suffix, stored_name, path, entry)
        tensors[tensor.name] = tensor
    return ModelFiles(directory, layout, config, modules, precisions, tensors, paths)


def _types(suffix: str, precision: Precision | None) -> Set[str]:
    """The types that a tensor may be stored in."""
    if precision is not None and suffix == "weight":
        return {"U32"}
    if precision is not None and suffix == "scales" and precision.mode != "affine":
        return {"U8"}
    return _FLOATS


def _refuse(described: str, verb: str, names: set[str]) -> None:
    if names:
        first = min(names)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise CheckpointError(
            f"{described} {verb} tensor {first}{more}; do config and weights come from "
            "the same model?"
        )
