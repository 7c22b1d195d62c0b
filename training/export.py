"""Trained weights -> Mistral's layout: python -m training.export STATE FOLDER."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from training.mel import GLOBAL_LOG_MEL_MAX, HOP, N_FFT, SAMPLE_RATE
from training.model import TinyConfig, TinyVoxtral

_AUDIO = "mm_streams_embeddings.embedding_module."
_ENCODER = _AUDIO + "whisper_encoder."
# Our prefix -> Mistral's; names that begin with none of these are the same in both.
_PREFIXES = {
    "conv0.": _ENCODER + "conv_layers.0.conv.",
    "conv1.": _ENCODER + "conv_layers.1.conv.",
    "enc.": _ENCODER + "transformer.layers.",
    "enc_norm.": _ENCODER + "transformer.norm.",
    "proj.": _AUDIO + "audio_language_projection.",
    "emb.": _AUDIO + "tok_embeddings.",
}

__all__ = ["export", "load_checkpoint", "main"]


def _to_mistral_name(name: str) -> str:
    for ours, theirs in _PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def params(config: TinyConfig) -> dict:
    """The content of params.json."""
    c = config
    return {
        "dim": c.dim,
        "n_layers": c.n_layers,
        "head_dim": c.head_dim,
        "hidden_dim": c.hidden_dim,
        "n_heads": c.n_heads,
        "n_kv_heads": c.n_kv_heads,
        "use_biases": False,
        "causal": True,
        "rope_theta": c.rope_theta,
        "norm_eps": c.norm_eps,
        "vocab_size": c.vocab_size,
        "model_parallel": 1,
        "tied_embeddings": True,
        "sliding_window": c.sliding_window,
        "model_max_length": 131072,
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": _encoder_params(c),
                "downsample_args": {"downsample_factor": 4},
            }
        },
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": c.t_cond_dim,
    }


def _encoder_params(c: TinyConfig) -> dict:
    return {
        "audio_encoding_args": {
            "sampling_rate": SAMPLE_RATE,
            "frame_rate": 12.5,
            "num_mel_bins": c.n_mels,
            "hop_length": HOP,
            "window_size": N_FFT,
            "chunk_length_s": None,
            "global_log_mel_max": GLOBAL_LOG_MEL_MAX,
            "transcription_format": "streaming",
        },
        "dim": c.encoder_dim,
        "n_layers": c.encoder_n_layers,
        "head_dim": c.encoder_head_dim,
        "hidden_dim": c.encoder_hidden_dim,
        "n_heads": c.encoder_n_heads,
        "vocab_size": c.vocab_size,
        "n_kv_heads": c.encoder_n_heads,
        "use_biases": True,
        "use_cache": False,
        "rope_theta": c.rope_theta,
        "causal": True,
        "norm_eps": c.norm_eps,
        "pos_embed": "rope",
        "max_source_positions": None,
        "ffn_type": "swiglu",
        "norm_type": "rms_norm",
        "sliding_window": c.encoder_sliding_window,
    }


def export(
    config: TinyConfig,
    weights: dict[str, torch.Tensor],
    tokenizer: Path,
    folder: Path,
) -> None:
    """Write consolidated.safetensors (bfloat16), params.json and tekken.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        _to_mistral_name(name): weight.to(torch.bfloat16).contiguous()
        for name, weight in weights.items()
    }
    save_file(tensors, folder / "consolidated.safetensors")
    text = json.dumps(params(config), indent=1) + "\n"
    (folder / "params.json").write_text(text)
    if not (folder / "tekken.json").exists() or not tokenizer.samefile(
        folder / "tekken.json"
    ):
        shutil.copyfile(tokenizer, folder / "tekken.json")


def load_checkpoint(folder: Path) -> TinyVoxtral:
    """The model of an exported folder, in float32."""
    with (folder / "params.json").open() as file:
        p = json.load(file)
    encoder = p["multimodal"]["whisper_model_args"]["encoder_args"]
    config = TinyConfig(
        n_mels=encoder["audio_encoding_args"]["num_mel_bins"],
        encoder_dim=encoder["dim"],
        encoder_n_layers=encoder["n_layers"],
        encoder_n_heads=encoder["n_heads"],
        encoder_head_dim=encoder["head_dim"],
        encoder_hidden_dim=encoder["hidden_dim"],
        encoder_sliding_window=encoder["sliding_window"],
        dim=p["dim"],
        n_layers=p["n_layers"],
        n_heads=p["n_heads"],
        n_kv_heads=p["n_kv_heads"],
        head_dim=p["head_dim"],
        hidden_dim=p["hidden_dim"],
        sliding_window=p["sliding_window"],
        vocab_size=p["vocab_size"],
        t_cond_dim=p["ada_rms_norm_t_cond_dim"],
        rope_theta=p["rope_theta"],
        norm_eps=p["norm_eps"],
    )
    model = TinyVoxtral(config)
    tensors = load_file(folder / "consolidated.safetensors")
    names = {_to_mistral_name(name): name for name in model.state_dict()}
    model.load_state_dict({names[k]: v.float() for k, v in tensors.items()})
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("state", type=Path, help="state.pt of the trainer")
    parser.add_argument("folder", type=Path, help="where the checkpoint goes")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tekken.json")
    parser.add_argument(
        "--weights",
        choices=["averaged", "model"],
        default="averaged",
        help="averaged over steps, or as they are",
    )
    args = parser.parse_args()
    state = torch.load(args.state, map_location="cpu", weights_only=True)
    config = TinyConfig(**state["config"])
    export(config, state[args.weights], args.tokenizer, args.folder)


if __name__ == "__main__":
    main()
