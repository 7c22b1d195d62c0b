"""A model directory or Hub id -> network and tokenizer, every tensor checked."""

# pyright: standard
# mlx.nn has no types.

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from voxmlx.config import LEFT_PAD_TOKENS, ModelConfig
from voxmlx.errors import CheckpointError
from voxmlx.forks import refuse_fork
from voxmlx.hub import locate
from voxmlx.kernels import self_check
from voxmlx.layouts import ModelFiles, open_model
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.embedding import (
    DEFAULT_EMBEDDING_BITS,
    EMBEDDING,
    quantized_embedding,
    with_quantized_embedding,
)
from voxmlx.layouts.finite import refuse_infinite
from voxmlx.layouts.tensors import PACKED, packed_path
from voxmlx.memory import little_cache
from voxmlx.model import VoxtralRealtime
from voxmlx.model.cache import KV_BITS
from voxmlx.model.layer_check import check_compiled_layers
from voxmlx.model.linear import transpose_weights_for_cpu
from voxmlx.text.confidence_map import (
    IDENTITY,
    ConfidenceMap,
    read_confidence_map,
)
from voxmlx.text.tokenizer import Tokenizer

__all__ = [
    "Checkpoint",
    "DtypeName",
    "best_dtype",
    "empty_network",
    "load",
    "read_parameters",
]

DtypeName = Literal["auto", "float16", "bfloat16", "float32"]

_PARAMETERS = ("weight", "scales", "biases", "bias")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model: what sessions are opened on. Never changed by them."""

    name: str
    config: ModelConfig
    model: VoxtralRealtime
    tokenizer: Tokenizer
    dtype: str
    kv_bits: int = 16
    """Of a session that is not told its own; deprecated."""
    embedding_bits: int | None = None
    """Bits that the tied embedding was given at load; None: it is as it is stored."""
    confidence_map: ConfidenceMap = IDENTITY
    """From the probabilities of a word's tokens to how often such words are right."""

    @property
    def delay_ms(self) -> int:
        """The delay of a session that asks for none: `transcription_delay_ms`."""
        return self.tokenizer.delay_ms

    def transcribe(self, path: Any, **options: Any) -> Any:
        """Return the Transcript of a sound file; `transcribe_file` tells the rest."""
        # By name: it stands above, on what sessions are.
        module = import_module("voxmlx.file_transcript")
        return module.transcribe_file(path, model=self, **options)


def load(
    model: str | Path,
    dtype: DtypeName = "auto",
    *,
    kv_bits: int | None = None,
    embedding_bits: int = DEFAULT_EMBEDDING_BITS,
) -> Checkpoint:
    """Load a model, in any layout we know, from a directory or a Hub id.

    `dtype` is that of weights and activations; "auto" is float16 on M1 and M2,
    bfloat16 on later chips, float32 on a CPU. `kv_bits` is deprecated: give it to
    `Session`. It is what sessions have that are not told otherwise. `embedding_bits`
    (8 or 6) is for a file that keeps the tied embedding in 16 bits beside quantized
    layers: the embedding is quantized while it is read. 16 leaves it as it is.
    Raises CheckpointError (ConfigError, TokenizerError) naming the file or tensor;
    SessionError in a forked child, where MLX cannot compute (see `Session`).
    """
    refuse_fork()
    if kv_bits is None:
        kv_bits = 16
    elif kv_bits in KV_BITS:
        warnings.warn(
            "load(kv_bits=...) is deprecated; use Session(..., kv_bits=...)",
            DeprecationWarning,
            stacklevel=2,
        )
    else:
        raise CheckpointError(
            f"kv_bits is {kv_bits}, expected {' or '.join(map(str, KV_BITS))}"
        )
    # Where float32 is meant, MLX shall not multiply with 10 bits: it looks once.
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    stored = open_model(locate(model))
    files = with_quantized_embedding(stored, embedding_bits)
    tokenizer = Tokenizer.from_file(
        files.tokenizer_path, files.config.decoder.vocab_size
    )
    confidence_map = read_confidence_map(stored.directory)
    target = _resolve(dtype)
    self_check(files.config, target, kv_bits)
    network = empty_network(files, tokenizer.left_pad_tokens)
    with little_cache():
        network.load_weights(list(read_parameters(files, target)), strict=True)
        network.eval()
        if not mx.metal.is_available():
            transpose_weights_for_cpu(network)
        # Nothing is left lazy, so that sessions may be opened on any thread.
        mx.eval(network.parameters())
    check_compiled_layers(network)
    return Checkpoint(
        name=str(model),
        config=files.config,
        model=network,
        tokenizer=tokenizer,
        dtype=str(target).removeprefix("mlx.core."),
        kv_bits=kv_bits,
        embedding_bits=None if files is stored else embedding_bits,
        confidence_map=confidence_map,
    )


def empty_network(
    files: ModelFiles, left_pad_tokens: int = LEFT_PAD_TOKENS
) -> VoxtralRealtime:
    """Return the network of a model with parameters that are never computed.

    Raises CheckpointError where MLX cannot run it.
    """
    _check_modes(files)
    network = VoxtralRealtime(files.config, left_pad_tokens=left_pad_tokens)
    _quantize_modules(network, _packed_precisions(files))
    return network


def read_parameters(
    files: ModelFiles, dtype: mx.Dtype, under: str = ""
) -> Iterator[tuple[str, mx.array]]:
    """Read the network's parameters one by one: joined, checked and in `dtype`.

    `under` names one module of the network, such as "encoder.layers.3"; then only
    what belongs to it is read. Raises CheckpointError for NaN and infinity.
    """
    return _packed(files, _stored(files), dtype, under)


def _check_modes(files: ModelFiles) -> None:
    """Try every mode of quantization that the model has, on a matrix of one group."""
    for precision in set(files.precisions.values()):
        if precision.mode == "affine":
            continue
        try:
            linear = nn.QuantizedLinear(64, 32, bias=False, **asdict(precision))
            mx.eval(linear(mx.zeros((1, 64))))
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{files.directory} is quantized in mode {precision.mode}, which MLX "
                f"cannot run here ({error}); convert it: voxmlx-convert SOURCE DEST "
                "--recipe q4"
            ) from None


def _resolve(dtype: DtypeName) -> mx.Dtype:
    by_name = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}
    if dtype != "auto":
        if dtype not in by_name:
            raise CheckpointError(
                f"dtype {dtype!r} is unknown; use auto, {', '.join(by_name)}"
            )
        return by_name[dtype]
    return best_dtype()


def best_dtype() -> mx.Dtype:
    """The fastest dtype of this machine."""
    if not mx.metal.is_available():
        return mx.float32
    # "applegpu_g13s": generations before 15 (M3) compute bfloat16 in software.
    architecture = str(mx.device_info().get("architecture", ""))
    generation = "".join(filter(str.isdigit, architecture.partition("_g")[2]))
    return mx.bfloat16 if int(generation or 0) >= 15 else mx.float16


def _packed_precisions(files: ModelFiles) -> dict[str, Precision]:
    """How each module of the network is quantized; its parts must agree."""
    found: dict[str, dict[str, Precision | None]] = {}
    for path, module in files.modules.items():
        if module.can_be_quantized:
            parts = found.setdefault(packed_path(path), {})
            parts[path] = files.precisions.get(path)
    for packed, parts in found.items():
        if len(set(parts.values())) > 1:
            kinds = ", ".join(
                f"{path.rpartition('.')[2]} {p.bits if p else 'no'} bits"
                for path, p in parts.items()
            )
            raise CheckpointError(
                f"{packed} runs as one product, and its parts differ ({kinds}); make "
                "them alike: voxmlx convert SOURCE DEST --recipe q4"
            )
    return {
        packed: precision
        for packed, parts in found.items()
        if (precision := next(iter(parts.values()))) is not None
    }


def _quantize_modules(
    network: VoxtralRealtime, precisions: Mapping[str, Precision]
) -> None:
    """Put quantized modules in place; their contents, never computed, are dropped."""

    def predicate(path: str, _: nn.Module) -> bool | dict[str, Any]:
        precision = precisions.get(path)
        if precision is None:
            return False
        return asdict(precision)

    if precisions:
        nn.quantize(network, class_predicate=predicate)


def _stored(files: ModelFiles) -> dict[str, mx.array]:
    """Every tensor under the name its file has for it, not read yet.

    Raises CheckpointError for float64, which MLX reads from no file.
    """
    wide = [name for name, tensor in files.tensors.items() if tensor.dtype == "F64"]
    if wide:
        raise CheckpointError(
            f"{wide[0]} is float64, which MLX cannot read; convert the model first: "
            f"voxmlx convert {files.directory} DEST --recipe bf16"
        )
    stored: dict[str, mx.array] = {}
    for path in files.paths:
        loaded: Any = mx.load(str(path))
        stored.update(loaded)
    return stored


def _packed(
    files: ModelFiles, stored: dict[str, mx.array], dtype: mx.Dtype, under: str
) -> Iterator[tuple[str, mx.array]]:
    """The network's parameters, read, joined and checked one by one.

    Popped from `stored`, so that nothing holds a tensor once it has been packed.
    """
    for packed, parts in _packings(files):
        if not f"{packed}.".startswith(f"{under}." if under else ""):
            continue
        if _is_quantized_at_load(files, packed):
            stored.pop(files.tensors[f"{packed}.weight"].stored_name)
            made = quantized_embedding(files, files.precisions[packed], dtype)
            yield from ((f"{packed}.{suffix}", part) for suffix, part in made.items())
            continue
        for suffix in _PARAMETERS:
            rows = [_take(files, stored, f"{part}.{suffix}") for part in parts]
            if any(row is not None for row in rows):
                array = _joined(rows, files, parts)
                del rows
                yield f"{packed}.{suffix}", _checked(f"{packed}.{suffix}", array, dtype)


def _is_quantized_at_load(files: ModelFiles, path: str) -> bool:
    """Return whether the embedding at `path` gets bits that its file has not."""
    is_stored = f"{path}.scales" in files.tensors
    return path == EMBEDDING and path in files.precisions and not is_stored


def _packings(files: ModelFiles) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Modules of the network, each with the stored modules it is made of."""
    groups: dict[str, tuple[str, ...]] = {}
    for path in files.modules:
        packed = packed_path(path)
        groups[packed] = (*groups.get(packed, ()), path)
    for packed, parts in groups.items():
        for name, order in PACKED.items():
            if packed.endswith(name):
                stem = packed.removesuffix(name)
                assert parts == tuple(stem + part for part in order)
        yield packed, parts


def _take(files: ModelFiles, stored: dict[str, mx.array], name: str) -> mx.array | None:
    tensor = files.tensors.get(name)
    if tensor is None:
        return None
    return files.layout.to_ours(tensor.module, stored.pop(tensor.stored_name))


def _joined(
    rows: list[mx.array | None], files: ModelFiles, parts: tuple[str, ...]
) -> mx.array:
    present = [row for row in rows if row is not None]
    if len(rows) == 1:
        return present[0]
    # Keys have no bias: zeros stand in the packed one.
    return mx.concatenate(
        [
            mx.zeros(files.modules[part].shape[:1], present[0].dtype)
            if row is None
            else row
            for row, part in zip(rows, parts, strict=True)
        ]
    )


def _checked(name: str, array: mx.array, dtype: mx.Dtype) -> mx.array:
    """`array` in memory, in `dtype` unless it is packed integers."""
    if array.dtype in (mx.uint32, mx.uint8):
        mx.eval(array)
        return array
    array = array.astype(dtype)
    refuse_infinite(name, array)
    return array
