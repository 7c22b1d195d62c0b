"""Which tensor of a checkpoint is which of ours: one table per layout."""

from collections.abc import Iterator
from dataclasses import dataclass

from voxmlx.config import DecoderConfig, EncoderConfig, ModelConfig

__all__ = ["StoredTensor", "mistral_layout"]

KERNEL_SIZE = 3


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of ours, and the name and shape it has in a file."""

    name: str
    stored_name: str
    stored_shape: tuple[int, ...]
    is_conv: bool = False  # stored [C_out, C_in, k], ours [C_out, k, C_in]


_MM = "mm_streams_embeddings.embedding_module"
_ATTENTION = {"q_proj": "wq", "k_proj": "wk", "v_proj": "wv", "o_proj": "wo"}
_MLP = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def mistral_layout(config: ModelConfig) -> list[StoredTensor]:
    """The names of `consolidated.safetensors`."""
    enc, dec = config.encoder, config.decoder
    encoder, adapter = f"{_MM}.whisper_encoder", f"{_MM}.audio_language_projection"
    tensors: list[StoredTensor] = []
    for i, n_in in ((0, config.audio.num_mel_bins), (1, enc.dim)):
        ours, stored = f"encoder.stem.conv{i + 1}", f"{encoder}.conv_layers.{i}.conv"
        shape = (enc.dim, n_in, KERNEL_SIZE)
        tensors += [
            StoredTensor(f"{ours}.weight", f"{stored}.weight", shape, is_conv=True),
            StoredTensor(f"{ours}.bias", f"{stored}.bias", (enc.dim,)),
        ]
    for i in range(enc.n_layers):
        stored = f"{encoder}.transformer.layers.{i}"
        tensors += _layer(f"encoder.layers.{i}", stored, enc, bias=True)
    joined = enc.dim * config.downsample_factor
    embedding = (dec.vocab_size, dec.dim)
    tensors += [
        StoredTensor(
            "encoder.norm.weight", f"{encoder}.transformer.norm.weight", (enc.dim,)
        ),
        StoredTensor(
            "adapter.linear1.weight", f"{adapter}.0.weight", (dec.dim, joined)
        ),
        StoredTensor(
            "adapter.linear2.weight", f"{adapter}.2.weight", (dec.dim, dec.dim)
        ),
        StoredTensor(
            "decoder.embedding.weight", f"{_MM}.tok_embeddings.weight", embedding
        ),
    ]
    for i in range(dec.n_layers):
        ours, stored = f"decoder.layers.{i}", f"layers.{i}"
        ada = f"{stored}.ada_rms_norm_t_cond"
        down, up = (dec.ada_dim, dec.dim), (dec.dim, dec.ada_dim)
        tensors += _layer(ours, stored, dec, bias=False)
        tensors += [
            StoredTensor(f"{ours}.ada.down.weight", f"{ada}.0.weight", down),
            StoredTensor(f"{ours}.ada.up.weight", f"{ada}.2.weight", up),
        ]
    tensors.append(StoredTensor("decoder.norm.weight", "norm.weight", (dec.dim,)))
    return tensors


def _layer(
    ours: str, stored: str, config: EncoderConfig | DecoderConfig, *, bias: bool
) -> Iterator[StoredTensor]:
    dim, hidden = config.dim, config.hidden_dim
    n_q, n_kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    rows = {"q_proj": n_q, "k_proj": n_kv, "v_proj": n_kv, "o_proj": dim}
    for name, theirs in _ATTENTION.items():
        pair = f"{ours}.attention.{name}", f"{stored}.attention.{theirs}"
        columns = n_q if name == "o_proj" else dim
        yield from _linear(pair, (rows[name], columns), bias=bias and name != "k_proj")
    for name, theirs in _MLP.items():
        pair = f"{ours}.mlp.{name}", f"{stored}.feed_forward.{theirs}"
        shape = (dim, hidden) if name == "down_proj" else (hidden, dim)
        yield from _linear(pair, shape, bias=bias and name == "down_proj")
    for name, theirs in (
        ("attention_norm", "attention_norm"),
        ("mlp_norm", "ffn_norm"),
    ):
        yield StoredTensor(f"{ours}.{name}.weight", f"{stored}.{theirs}.weight", (dim,))


def _linear(
    names: tuple[str, str], shape: tuple[int, int], *, bias: bool
) -> Iterator[StoredTensor]:
    ours, stored = names
    yield StoredTensor(f"{ours}.weight", f"{stored}.weight", shape)
    if bias:
        yield StoredTensor(f"{ours}.bias", f"{stored}.bias", shape[:1])
