"""Layouts that convert writes: our own, and those that other programs read."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, Literal, get_args

from voxmlx.config import DEFAULT_DELAY_MS, ModelConfig
from voxmlx.errors import OutputError
from voxmlx.layouts import Layout, Module
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.names import AWNI, MLX_AUDIO, OURS

__all__ = [
    "LAYOUT_NAMES",
    "WRITTEN",
    "LayoutName",
    "fitted",
    "peer_config",
    "why_not_awni",
]

LayoutName = Literal["voxmlx", "mlx-audio", "awni"]
LAYOUT_NAMES: tuple[LayoutName, ...] = get_args(LayoutName)

# All three order a tensor's numbers as we do: only names and config.json differ.
WRITTEN: dict[LayoutName, Layout] = {
    "voxmlx": OURS,
    "mlx-audio": MLX_AUDIO,
    "awni": AWNI,
}


def why_not_awni(precisions: Collection[Precision]) -> str | None:
    """Return why awni/voxmlx cannot read such matrices; None: it can."""
    kinds = set(precisions)
    if len(kinds) < 2 and all(p.mode == "affine" for p in kinds):
        return None
    found = ", ".join(
        f"{p.bits} bits in groups of {p.group_size} ({p.mode})"
        for p in sorted(kinds, key=lambda p: (p.bits, p.group_size, p.mode))
    )
    return (
        f"awni/voxmlx reads one number of bits for all matrices, this has {found}; use "
        "--recipe q3, q4, q6 or q8, or --layout mlx-audio"
    )


def fitted(
    chosen: Mapping[str, Precision], modules: Mapping[str, Module], layout: LayoutName
) -> dict[str, Precision]:
    """Return the precisions `chosen` as the layout's program expects them.

    awni/voxmlx takes every matrix whose rows are whole groups for quantized, those of
    the delay too. Raises OutputError where it cannot have what was chosen.
    """
    if layout != "awni" or not chosen:
        return dict(chosen)
    if (reason := why_not_awni(chosen.values())) is not None:
        raise OutputError(reason)
    (precision,) = set(chosen.values())
    return {
        path: precision
        for path, module in modules.items()
        if module.can_be_quantized and module.shape[1] % precision.group_size == 0
    }


def peer_config(config: ModelConfig, layout: LayoutName) -> dict[str, Any]:
    """Return the config.json that another program reads, but for `quantization`."""
    return {"mlx-audio": _mlx_audio, "awni": _awni}[layout](config)


def _mlx_audio(config: ModelConfig) -> dict[str, Any]:
    decoder = asdict(config.decoder)
    ada_dim = decoder.pop("ada_dim")
    return {
        "model_type": "voxtral_realtime",
        "encoder_args": {
            **asdict(config.encoder),
            "causal": True,
            "use_biases": True,
            "downsample_factor": config.downsample_factor,
        },
        "decoder": {
            **decoder,
            "tied_embeddings": True,
            "ada_rms_norm_t_cond": True,
            "ada_rms_norm_t_cond_dim": ada_dim,
        },
        "audio_encoding_args": asdict(config.audio),
        "transcription_delay_ms": DEFAULT_DELAY_MS,
    }


def _awni(config: ModelConfig) -> dict[str, Any]:
    """Mistral's params.json, which awni/voxmlx keeps as it is."""
    decoder = asdict(config.decoder)
    ada_dim = decoder.pop("ada_dim")
    return {
        **decoder,
        "use_biases": False,
        "causal": True,
        "model_parallel": 1,
        "tied_embeddings": True,
        "model_max_length": 131072,
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": ada_dim,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": {
                    "audio_encoding_args": {
                        **asdict(config.audio),
                        "chunk_length_s": None,
                        "transcription_format": "streaming",
                    },
                    **asdict(config.encoder),
                    "vocab_size": config.decoder.vocab_size,
                    "use_biases": True,
                    "use_cache": False,
                    "causal": True,
                    "max_source_positions": None,
                    "pos_embed": "rope",
                    "ffn_type": "swiglu",
                    "norm_type": "rms_norm",
                },
                "downsample_args": {"downsample_factor": config.downsample_factor},
            }
        },
    }
