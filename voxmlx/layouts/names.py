"""One table of names per layout: our module -> the module a file calls so."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from voxmlx.layouts.tensors import Module

__all__ = ["AWNI", "LAYOUTS", "MISTRAL", "MLX_AUDIO", "OURS", "TRANSFORMERS", "Layout"]

_LAYER = re.compile(r"\.layers\.(\d+)\.")


class _Array(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    def reshape(self, *shape: int) -> Self: ...
    def swapaxes(self, a: int, b: int, /) -> Self: ...


_A = TypeVar("_A", bound=_Array)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A naming and an order of this network's tensors, as other programs have it."""

    name: str
    modules: Mapping[str, str] | None  # {} is a layer's number; None: our own names
    is_conv_transposed: bool = False  # [C_out, C_in, k], ours is [C_out, k, C_in]
    is_half_split: bool = False  # rotary pairs (i, i + D/2), ours are (2 i, 2 i + 1)

    def stored_path(self, path: str) -> str:
        """Return this layout's name of our module `path`."""
        if self.modules is None:
            return path
        layer = _LAYER.search(path)
        if layer is None:
            return self.modules[path]
        return self.modules[_LAYER.sub(".layers.{}.", path)].format(layer[1])

    def stored_shape(self, module: Module) -> tuple[int, ...]:
        """The shape of its weight in a file that is not quantized."""
        if module.kind == "conv" and self.is_conv_transposed:
            c_out, k, c_in = module.shape
            return c_out, c_in, k
        return module.shape

    def to_ours(self, module: Module, array: _A) -> _A:
        """A stored tensor of `module` in our order; rows of anything row by row."""
        if module.kind == "conv" and self.is_conv_transposed and len(array.shape) == 3:
            return array.swapaxes(1, 2)
        if module.n_rotary_heads and self.is_half_split:
            rest = array.shape[1:]
            halves = array.reshape(module.n_rotary_heads, 2, -1, *rest)
            return halves.swapaxes(1, 2).reshape(array.shape[0], *rest)
        return array


_MM = "mm_streams_embeddings.embedding_module"
_WHISPER = f"{_MM}.whisper_encoder"


def _layer(
    ours: str, theirs: str, attention: str, parts: tuple[str, ...]
) -> dict[str, str]:
    names = (
        "attention.q_proj",
        "attention.k_proj",
        "attention.v_proj",
        "attention.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
        "attention_norm",
        "mlp_norm",
    )
    stored = [f"{attention}.{part}" for part in parts[:4]] + list(parts[4:])
    return {
        f"{ours}.layers.{{}}.{name}": f"{theirs}.{part}"
        for name, part in zip(names, stored, strict=True)
    }


_W = ("wq", "wk", "wv", "wo")
_PROJ = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_W123 = (
    "feed_forward.w1",
    "feed_forward.w3",
    "feed_forward.w2",
    "attention_norm",
    "ffn_norm",
)
_W_123 = (
    "feed_forward_w1",
    "feed_forward_w3",
    "feed_forward_w2",
    "attention_norm",
    "ffn_norm",
)

OURS = Layout("ours", None)

# Mistral's consolidated.safetensors.
MISTRAL = Layout(
    "Mistral's",
    {
        "encoder.stem.conv1": f"{_WHISPER}.conv_layers.0.conv",
        "encoder.stem.conv2": f"{_WHISPER}.conv_layers.1.conv",
        **_layer(
            "encoder", f"{_WHISPER}.transformer.layers.{{}}", "attention", _W + _W123
        ),
        "encoder.norm": f"{_WHISPER}.transformer.norm",
        "adapter.linear1": f"{_MM}.audio_language_projection.0",
        "adapter.linear2": f"{_MM}.audio_language_projection.2",
        "decoder.embedding": f"{_MM}.tok_embeddings",
        **_layer("decoder", "layers.{}", "attention", _W + _W123),
        "decoder.layers.{}.ada.down": "layers.{}.ada_rms_norm_t_cond.0",
        "decoder.layers.{}.ada.up": "layers.{}.ada_rms_norm_t_cond.2",
        "decoder.norm": "norm",
    },
    is_conv_transposed=True,
)

# transformers' VoxtralRealtimeForConditionalGeneration as it names its modules.
_HF = {
    "encoder.stem.conv1": "audio_tower.embedder.conv1",
    "encoder.stem.conv2": "audio_tower.embedder.conv2",
    **_layer(
        "encoder",
        "audio_tower.layers.{}",
        "self_attn",
        (*_PROJ, *_MLP, "self_attn_layer_norm", "final_layer_norm"),
    ),
    "encoder.norm": "audio_tower.norm",
    "adapter.linear1": "multi_modal_projector.linear_1",
    "adapter.linear2": "multi_modal_projector.linear_2",
    "decoder.embedding": "language_model.embed_tokens",
    **_layer(
        "decoder",
        "language_model.layers.{}",
        "self_attn",
        (*_PROJ, *_MLP, "input_layernorm", "post_attention_layernorm"),
    ),
    "decoder.layers.{}.ada.down": "language_model.layers.{}.ada_rms_norm.linear1",
    "decoder.layers.{}.ada.up": "language_model.layers.{}.ada_rms_norm.linear2",
    "decoder.norm": "language_model.norm",
}
TRANSFORMERS = Layout(
    "transformers'",
    {ours: f"model.{theirs}" for ours, theirs in _HF.items()},
    is_conv_transposed=True,
    is_half_split=True,
)
# The same as save_pretrained writes it, whose names are those of an older version.
TRANSFORMERS_SAVED = Layout(
    "transformers' (saved)",
    {
        ours: re.sub("^language_model", "language_model.model", theirs)
        for ours, theirs in _HF.items()
    },
    is_conv_transposed=True,
    is_half_split=True,
)

MLX_AUDIO = Layout(
    "mlx-audio's",
    {
        "encoder.stem.conv1": "encoder.conv_layers_0_conv.conv",
        "encoder.stem.conv2": "encoder.conv_layers_1_conv.conv",
        **_layer("encoder", "encoder.transformer_layers.{}", "attention", _W + _W_123),
        "encoder.norm": "encoder.transformer_norm",
        "adapter.linear1": "encoder.audio_language_projection_0",
        "adapter.linear2": "encoder.audio_language_projection_2",
        "decoder.embedding": "decoder.tok_embeddings",
        **_layer("decoder", "decoder.layers.{}", "attention", _W + _W_123),
        "decoder.layers.{}.ada.down": "decoder.layers.{}.ada_rms_norm_t_cond.ada_down",
        "decoder.layers.{}.ada.up": "decoder.layers.{}.ada_rms_norm_t_cond.ada_up",
        "decoder.norm": "decoder.norm",
    },
)

# Awni Hannun's package, also called voxmlx.
AWNI = Layout(
    "awni/voxmlx's",
    {
        "encoder.stem.conv1": "encoder.conv1",
        "encoder.stem.conv2": "encoder.conv2",
        **_layer(
            "encoder",
            "encoder.layers.{}",
            "attention",
            (*_PROJ, *_MLP, "attn_norm", "ffn_norm"),
        ),
        "encoder.norm": "encoder.norm",
        "adapter.linear1": "adapter.w_in",
        "adapter.linear2": "adapter.w_out",
        "decoder.embedding": "language_model.embed_tokens",
        **_layer(
            "decoder",
            "language_model.layers.{}",
            "attention",
            (*_PROJ, *_MLP, "attn_norm", "ffn_norm"),
        ),
        "decoder.layers.{}.ada.down": "language_model.layers.{}.ada_norm.linear_in",
        "decoder.layers.{}.ada.up": "language_model.layers.{}.ada_norm.linear_out",
        "decoder.norm": "language_model.norm",
    },
)

LAYOUTS = (OURS, MISTRAL, TRANSFORMERS, TRANSFORMERS_SAVED, MLX_AUDIO, AWNI)
