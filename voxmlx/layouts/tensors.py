"""Every module of the network that has weights, under our names, unpacked."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from voxmlx.config import DecoderConfig, EncoderConfig, ModelConfig

__all__ = ["PACKED", "Module", "model_modules", "packed_path"]

KERNEL_SIZE = 3

# Products that share an input run as one: the packed name and its parts in order.
PACKED = {
    "attention.qkv_proj": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
_PACKED_OF = {part: packed for packed, parts in PACKED.items() for part in parts}
_PART = re.compile("|".join(re.escape(part) + "$" for part in _PACKED_OF))

Kind = Literal["conv", "linear", "embedding", "norm"]


@dataclass(frozen=True, slots=True)
class Module:
    """One module of ours, as files hold it: q, k, v and gate, up each apart."""

    path: str
    kind: Kind
    shape: tuple[int, ...]  # of its weight
    has_bias: bool = False
    n_rotary_heads: int = 0  # of a query or key product, else 0

    @property
    def can_be_quantized(self) -> bool:
        return self.kind in ("linear", "embedding")


def packed_path(path: str) -> str:
    """The module of the network that `path` is a part of, or `path` itself."""
    return _PART.sub(lambda match: _PACKED_OF[match[0]], path)


def model_modules(config: ModelConfig) -> Iterator[Module]:
    """Return all modules with weights, in the order in which sound passes them."""
    enc, dec = config.encoder, config.decoder
    for name, n_in in (("conv1", config.audio.num_mel_bins), ("conv2", enc.dim)):
        shape = (enc.dim, KERNEL_SIZE, n_in)
        yield Module(f"encoder.stem.{name}", "conv", shape, has_bias=True)
    for i in range(enc.n_layers):
        yield from _layer(f"encoder.layers.{i}", enc, bias=True)
    yield Module("encoder.norm", "norm", (enc.dim,))
    joined = enc.dim * config.downsample_factor
    yield Module("adapter.linear1", "linear", (dec.dim, joined))
    yield Module("adapter.linear2", "linear", (dec.dim, dec.dim))
    yield Module("decoder.embedding", "embedding", (dec.vocab_size, dec.dim))
    for i in range(dec.n_layers):
        path = f"decoder.layers.{i}"
        yield from _layer(path, dec, bias=False)
        yield Module(f"{path}.ada.down", "linear", (dec.ada_dim, dec.dim))
        yield Module(f"{path}.ada.up", "linear", (dec.dim, dec.ada_dim))
    yield Module("decoder.norm", "norm", (dec.dim,))


def _layer(
    path: str, config: EncoderConfig | DecoderConfig, *, bias: bool
) -> Iterator[Module]:
    dim, hidden = config.dim, config.hidden_dim
    n_q, n_kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    attention, mlp = f"{path}.attention", f"{path}.mlp"
    yield Module(f"{path}.attention_norm", "norm", (dim,))
    yield Module(f"{attention}.q_proj", "linear", (n_q, dim), bias, config.n_heads)
    yield Module(f"{attention}.k_proj", "linear", (n_kv, dim), False, config.n_kv_heads)
    yield Module(f"{attention}.v_proj", "linear", (n_kv, dim), bias)
    yield Module(f"{attention}.o_proj", "linear", (dim, n_q), bias)
    yield Module(f"{path}.mlp_norm", "norm", (dim,))
    yield Module(f"{mlp}.gate_proj", "linear", (hidden, dim))
    yield Module(f"{mlp}.up_proj", "linear", (hidden, dim))
    yield Module(f"{mlp}.down_proj", "linear", (dim, hidden), bias)
