"""A model directory of any layout -> one GGUF file as transcribe.cpp reads it.

The package `gguf` writes the container. Fields and names of tensors are transcribe.cpp's
for its architecture `voxtral_realtime`. Convolutions, norms and biases stay in float32, as
all does unless matrices are asked for in 4 bits (Q4_0: 4.5 bits a weight, as our q4).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.config import (
    BOS_ID,
    EOS_ID,
    STREAMING_PAD_ID,
    ModelConfig,
    delay_tokens,
)
from voxmlx.errors import CheckpointError
from voxmlx.layouts import ModelFiles, Module, open_model
from voxmlx.layouts.names import Layout
from voxmlx.model.decoder import TIME_THETA
from voxmlx.model.mel import mel_filter_bank
from voxmlx.text.tokenizer import Tokenizer

__all__ = ["ARCHITECTURE", "TRANSCRIBE_CPP", "byte_characters", "write_gguf"]

ARCHITECTURE = "voxtral_realtime"

# Kinds of a token in GGUF.
_NORMAL, _CONTROL = 1, 3
_UNKNOWN_ID, _PADDING_ID = 0, 11
# Fields that it asks for; on a stream it acts on neither of them.
_ENCODER_POSITIONS, _DECODER_POSITIONS = 1500, 131_072


def _layer(ours: str, theirs: str, output: str) -> dict[str, str]:
    names = {
        "attention_norm": "norm_attn",
        "attention.q_proj": "attn.q",
        "attention.k_proj": "attn.k",
        "attention.v_proj": "attn.v",
        "attention.o_proj": f"attn.{output}",
        "mlp_norm": "norm_ffn",
        "mlp.gate_proj": "ffn.gate",
        "mlp.up_proj": "ffn.up",
        "mlp.down_proj": "ffn.down",
        "ada.down": "ada.linear_1",
        "ada.up": "ada.linear_2",
    }
    return {
        f"{ours}.layers.{{}}.{name}": f"{theirs}.blocks.{{}}.{stored}"
        for name, stored in names.items()
    }


TRANSCRIBE_CPP = Layout(
    "transcribe.cpp's",
    {
        "encoder.stem.conv1": "enc.conv.0",
        "encoder.stem.conv2": "enc.conv.1",
        **_layer("encoder", "enc", "out"),
        "encoder.norm": "enc.final_norm",
        "adapter.linear1": "proj.linear_1",
        "adapter.linear2": "proj.linear_2",
        "decoder.embedding": "dec.token_embd",
        **_layer("decoder", "dec", "o"),
        "decoder.norm": "dec.output_norm",
    },
    is_conv_transposed=True,
    is_half_split=True,
)


def write_gguf(directory: Path, path: Path, *, in_4_bits: bool = False) -> Path:
    """Write the dense model in `directory` to `path`; returns `path`.

    Raises CheckpointError for a model that is not whole, or quantized already, and
    ImportError without the package `gguf`.
    """
    # A local import: of what the benchmarks need, only this file needs it.
    import gguf

    files = open_model(directory)
    if files.precisions:
        raise CheckpointError(
            f"{directory} is quantized, expected a dense model; name the directory it "
            "was converted from"
        )
    config = files.config
    tokenizer = Tokenizer.from_file(files.tokenizer_path, config.decoder.vocab_size)
    writer: Any = gguf.GGUFWriter(path, ARCHITECTURE)
    _add_fields(writer, config, tokenizer)
    kinds = gguf.GGMLQuantizationType
    for module, name, array in _tensors(files):
        kind = kinds.F32
        is_matrix = module is not None and module.can_be_quantized and array.ndim == 2
        if in_4_bits and is_matrix:
            kind = kinds.Q4_0
            array = gguf.quants.quantize(array, kind)
        writer.add_tensor(name, np.ascontiguousarray(array), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_fields(writer: Any, config: ModelConfig, tokenizer: Tokenizer) -> None:
    adders = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for name, value in _fields(config, tokenizer).items():
        adders[type(value)](name, value)


def _fields(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return everything that the file says beside its tensors."""
    enc, dec, audio = config.encoder, config.decoder, config.audio
    group = config.downsample_factor
    ours = {
        "encoder": {
            **_attention(enc, "d_model", "ffn_dim"),
            "num_mel_bins": audio.num_mel_bins,
            "max_position_embeddings": _ENCODER_POSITIONS,
        },
        "projector": {
            "downsample_factor": group,
            "input_dim": enc.dim * group,
            "hidden_act": "gelu",
            "audio_length_per_tok": config.mel_frames_per_audio_token,
        },
        "decoder": {
            **_attention(dec, "hidden_size", "intermediate_size"),
            "max_position_embeddings": _DECODER_POSITIONS,
            "tie_word_embeddings": True,
            "vocab_size": dec.vocab_size,
        },
        "time": {
            "default_num_delay_tokens": delay_tokens(tokenizer.delay_ms),
            "embed_theta": TIME_THETA,
            "embed_dim": dec.dim,
            "ada_hidden": dec.ada_dim,
        },
    }
    fields: dict[str, Any] = {
        f"stt.{ARCHITECTURE}.{part}.{name}": value
        for part, values in ours.items()
        for name, value in values.items()
    }
    frontend = {
        "type": "mel",
        "num_mels": audio.num_mel_bins,
        "sample_rate": audio.sampling_rate,
        "n_fft": audio.window_size,
        "win_length": audio.window_size,
        "hop_length": audio.hop_length,
        "window": "hann_periodic",
        "normalize": "global",
        "global_log_mel_max": float(audio.global_log_mel_max),
        "dither": 0.0,
        "pre_emphasis": 0.0,
        "f_min": 0.0,
        "f_max": audio.sampling_rate / 2,
        "pad_mode": "reflect",
        "center": True,
        "mel_norm": "slaney",
    }
    fields |= {f"stt.frontend.{name}": value for name, value in frontend.items()}
    control = [f"<control {i}>" for i in range(tokenizer.n_special)]
    pieces = [tokenizer.piece(i) for i in range(len(control), tokenizer.vocab_size)]
    characters = byte_characters()
    text = ["".join(characters[value] for value in piece) for piece in pieces]
    return fields | {
        "stt.variant": "voxtral-mini-4b-realtime-2602",
        "stt.capability.lang_detect": True,
        "stt.capability.translate": False,
        "stt.capability.streaming": True,
        f"stt.{ARCHITECTURE}.streaming_pad_token_id": STREAMING_PAD_ID,
        "general.languages": ["en"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "tekken",
        "tokenizer.ggml.tokens": control + text,
        "tokenizer.ggml.token_type": [_CONTROL] * len(control) + [_NORMAL] * len(text),
        "tokenizer.ggml.bos_token_id": BOS_ID,
        "tokenizer.ggml.eos_token_id": EOS_ID,
        "tokenizer.ggml.unknown_token_id": _UNKNOWN_ID,
        "tokenizer.ggml.padding_token_id": _PADDING_ID,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }


def _attention(config: Any, dim: str, hidden_dim: str) -> dict[str, Any]:
    return {
        dim: config.dim,
        hidden_dim: config.hidden_dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "sliding_window": config.sliding_window,
        "rope_theta": float(config.rope_theta),
        "rms_norm_eps": float(config.norm_eps),
        "hidden_act": "silu",
    }


def byte_characters() -> list[str]:
    """Return the character that stands for each of 256 bytes in a vocabulary of GPT-2's.

    Printable bytes stand for themselves; the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (i for i in range(256) if i not in printable)
    characters = {value: chr(value) for value in printable}
    characters |= {value: chr(0x100 + i) for i, value in enumerate(others)}
    return [characters[value] for value in range(256)]


def _tensors(
    files: ModelFiles,
) -> Iterator[tuple[Module | None, str, NDArray[np.float32]]]:
    """Yield (module, name, numbers) of all tensors; no module for constants."""
    config = files.config
    window, rate = config.audio.window_size, config.audio.sampling_rate
    filters = mel_filter_bank(config.audio.num_mel_bins, window // 2 + 1, rate)
    angles = 2 * np.pi * np.arange(window) / window
    half = config.decoder.dim // 2
    constants = {
        "frontend.mel_filterbank": filters.T,
        "frontend.window": 0.5 - 0.5 * np.cos(angles),
        "dec.time_embed.inv_freq": TIME_THETA ** -(np.arange(half) / half),
    }
    for name, numbers in constants.items():
        yield None, name, numbers.astype(np.float32)
    for path in files.paths:
        stored: Any = mx.load(str(path))
        for tensor in files.tensors.values():
            if tensor.path != path:
                continue
            module = tensor.module
            ours = files.layout.to_ours(module, stored.pop(tensor.stored_name))
            name = f"{TRANSCRIBE_CPP.stored_path(module.path)}.{tensor.suffix}"
            array = np.array(ours.astype(mx.float32))
            yield module, name, _in_their_order(module, array)


def _in_their_order(module: Module, ours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo `TRANSCRIBE_CPP.to_ours`."""
    if module.kind == "conv" and ours.ndim == 3:
        return ours.swapaxes(1, 2)
    if module.n_rotary_heads:
        pairs = ours.reshape(module.n_rotary_heads, -1, 2, *ours.shape[1:])
        return pairs.swapaxes(1, 2).reshape(ours.shape)
    return ours
