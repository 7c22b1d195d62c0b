"""A model directory or Hub id -> network and tokenizer, every tensor checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from voxmlx.config import ModelConfig
from voxmlx.errors import CheckpointError
from voxmlx.hub import locate
from voxmlx.layouts import StoredTensor, mistral_layout
from voxmlx.model import VoxtralRealtime
from voxmlx.tokenizer import Tokenizer

__all__ = ["Checkpoint", "DtypeName", "load"]

DtypeName = Literal["auto", "float16", "bfloat16", "float32"]

_FLOATS = {"F64", "F32", "F16", "BF16"}

# Products that share an input run as one: (parts in order, the packed name).
_PACKED = {
    "attention.qkv_proj": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model: what sessions are opened on. Never changed by them."""

    name: str
    config: ModelConfig
    model: VoxtralRealtime
    tokenizer: Tokenizer
    dtype: str


def load(model: str | Path, dtype: DtypeName = "auto") -> Checkpoint:
    """Load a model from a directory or a Hub id.

    `dtype` is that of weights and activations; "auto" is float16 on M1 and M2,
    bfloat16 on later chips, float32 on a CPU.
    Raises CheckpointError (ConfigError, TokenizerError) naming the file or tensor.
    """
    directory = locate(model)
    config = ModelConfig.from_params_file(directory / "params.json")
    tokenizer = Tokenizer.from_file(
        directory / "tekken.json", config.decoder.vocab_size
    )
    target = _resolve(dtype)
    network = VoxtralRealtime(config)
    weights = _read(
        directory / "consolidated.safetensors", mistral_layout(config), target
    )
    network.load_weights(list(_packed(weights)), strict=True)
    network.eval()
    return Checkpoint(
        name=str(model),
        config=config,
        model=network,
        tokenizer=tokenizer,
        dtype=str(target).removeprefix("mlx.core."),
    )


def _resolve(dtype: DtypeName) -> mx.Dtype:
    by_name = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}
    if dtype != "auto":
        if dtype not in by_name:
            raise CheckpointError(
                f"dtype {dtype!r} is unknown; use auto, {', '.join(by_name)}"
            )
        return by_name[dtype]
    if not mx.metal.is_available():
        return mx.float32
    # "applegpu_g13s": generations before 15 (M3) compute bfloat16 in software.
    architecture = str(mx.device_info().get("architecture", ""))
    generation = "".join(filter(str.isdigit, architecture.partition("_g")[2]))
    return mx.bfloat16 if int(generation or 0) >= 15 else mx.float16


def _read(
    path: Path, layout: list[StoredTensor], dtype: mx.Dtype
) -> dict[str, mx.array]:
    """Every tensor of `layout`, lazily, under our names and in our shapes."""
    header = _read_header(path)
    wanted = {tensor.stored_name: tensor for tensor in layout}
    _refuse(path, "lacks", wanted.keys() - header.keys())
    _refuse(path, "has unknown", header.keys() - wanted.keys())
    for name, (kind, shape) in header.items():
        expected = wanted[name].stored_shape
        if shape != expected:
            raise CheckpointError(
                f"{path.name}: {name} is {list(shape)}, config says {list(expected)}; "
                "do params.json and the weights come from the same model?"
            )
        if kind not in _FLOATS:
            raise CheckpointError(
                f"{path.name}: {name} is stored as {kind}, expected a float type"
            )
    stored: Any = mx.load(str(path))
    weights: dict[str, mx.array] = {}
    for tensor in layout:
        # Popped, so that nothing holds a tensor once it has been packed.
        array: mx.array = stored.pop(tensor.stored_name)
        if tensor.is_conv:
            array = array.swapaxes(1, 2)
        weights[tensor.name] = array.astype(dtype)
    return weights


def _read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor, without reading one."""
    # Local import: the package loads without it.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: (part.get_dtype(), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing; a model directory needs params.json, "
            "consolidated.safetensors and tekken.json"
        ) from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut short ({error}); fetch it again"
        ) from None


def _refuse(path: Path, verb: str, names: set[str]) -> None:
    if names:
        first = min(names)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise CheckpointError(
            f"{path.name} {verb} tensor {first}{more}; do params.json and the weights "
            "come from the same model?"
        )


def _packed(weights: dict[str, mx.array]) -> Iterator[tuple[str, mx.array]]:
    """Join products that share an input; evaluate and check tensor by tensor."""
    for name in list(weights):
        if name not in weights:  # already packed
            continue
        packed, parts = _packing_of(name, weights)
        array = weights.pop(name) if parts is None else mx.concatenate(parts)
        if not mx.isfinite(array).all().item():
            raise CheckpointError(
                f"{packed} holds NaN or infinite weights; the file is damaged, or "
                f"{array.dtype} is too narrow for it"
            )
        yield packed, array


def _packing_of(
    name: str, weights: dict[str, mx.array]
) -> tuple[str, list[mx.array] | None]:
    for packed, parts in _PACKED.items():
        if f".{parts[0]}." not in name:
            continue
        names = [name.replace(parts[0], part) for part in parts]
        arrays = [weights.pop(part, None) for part in names]
        rows = [
            # Keys have no bias: zeros stand in the packed one.
            mx.zeros_like(arrays[0]) if array is None else array
            for array in arrays
        ]
        return name.replace(parts[0], packed), rows
    return name, None
