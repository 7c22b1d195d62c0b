"""Tiny random checkpoints in Mistral's layout, made from a seed with numpy alone."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["BOS", "EOS", "PAD", "WORD", "TinyModel"]

BOS, EOS, PAD, WORD = 1, 2, 32, 33
N_SPECIAL_IDS = 1000

_EMBEDDING = "mm_streams_embeddings.embedding_module."
_WHISPER = _EMBEDDING + "whisper_encoder."
_MEL_BINS = 128
_ADA_DIM = 32  # transformers has no other

# tekken.json holds more entries than the model has ids, as the real one does.
_UNUSED_ENTRIES = 16

# mistral-common asks for most of these by name, whether or not it uses them.
_SPECIAL_NAMES = {
    0: "<unk>",
    BOS: "<s>",
    EOS: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    10: "[IMG]",
    11: "<pad>",
    12: "[IMG_BREAK]",
    13: "[IMG_END]",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    20: "[ARGS]",
    21: "[CALL_ID]",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    PAD: "[STREAMING_PAD]",
    WORD: "[STREAMING_WORD]",
}
_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Merges are byte runs of this text, so many begin or end inside a character.
_MERGE_TEXT = (
    " the ring of a bell, and café, naïve, œuvre, größer; Привет, мир; γειά σου; "
    "日本語の音声、안녕하세요, 你好世界; नमस्ते; שלום; 🙂🎧👩‍🚀 €5 — “quoted” it's…"
)

# How likely an id is to be the best one, as the length of its embedding row. Most
# control ids never occur; blanks are frequent; EOS occurs, since a stream must
# survive it.
_ROW_LENGTH = {PAD: 2.2, WORD: 2.8, EOS: 1.8}
_CONTROL_ROW_LENGTH = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """A random model of the true structure: same seed and sizes, same bytes.

    Heads times head_dim differs from dim and the decoder groups its queries, as in
    the real model. Windows are small so that every ring wraps within seconds.
    """

    # With seed 9 blanks, words, text and a masked EOS all occur within seconds.
    seed: int = 9
    encoder_dim: int = 64
    encoder_layers: int = 2
    encoder_heads: int = 6
    encoder_head_dim: int = 16
    encoder_hidden_dim: int = 128
    encoder_window: int = 16
    decoder_dim: int = 64
    decoder_layers: int = 2
    decoder_heads: int = 8
    decoder_kv_heads: int = 2
    decoder_head_dim: int = 16
    decoder_hidden_dim: int = 128
    decoder_window: int = 32
    vocab_size: int = 1500

    def params(self) -> dict[str, Any]:
        """The content of `params.json`."""
        encoder = {
            "audio_encoding_args": {
                "sampling_rate": 16000,
                "frame_rate": 12.5,
                "num_mel_bins": _MEL_BINS,
                "hop_length": 160,
                "window_size": 400,
                "chunk_length_s": None,
                "global_log_mel_max": 1.5,
                "transcription_format": "streaming",
            },
            "dim": self.encoder_dim,
            "n_layers": self.encoder_layers,
            "head_dim": self.encoder_head_dim,
            "hidden_dim": self.encoder_hidden_dim,
            "n_heads": self.encoder_heads,
            "vocab_size": self.vocab_size,
            "n_kv_heads": self.encoder_heads,
            "use_biases": True,
            "use_cache": False,
            "rope_theta": 1000000.0,
            "causal": True,
            "norm_eps": 1e-05,
            "pos_embed": "rope",
            "max_source_positions": None,
            "ffn_type": "swiglu",
            "norm_type": "rms_norm",
            "sliding_window": self.encoder_window,
        }
        return {
            "dim": self.decoder_dim,
            "n_layers": self.decoder_layers,
            "head_dim": self.decoder_head_dim,
            "hidden_dim": self.decoder_hidden_dim,
            "n_heads": self.decoder_heads,
            "n_kv_heads": self.decoder_kv_heads,
            "use_biases": False,
            "causal": True,
            "rope_theta": 1000000.0,
            "norm_eps": 1e-05,
            "vocab_size": self.vocab_size,
            "model_parallel": 1,
            "tied_embeddings": True,
            "sliding_window": self.decoder_window,
            "model_max_length": 131072,
            "multimodal": {
                "whisper_model_args": {
                    "encoder_args": encoder,
                    "downsample_args": {"downsample_factor": 4},
                }
            },
            "ada_rms_norm_t_cond": True,
            "ada_rms_norm_t_cond_dim": _ADA_DIM,
        }

    def tensors(self) -> dict[str, np.ndarray]:
        """Every tensor of `consolidated.safetensors`, float32."""
        weights = _Weights(np.random.default_rng(self.seed))
        self._add_encoder(weights)
        self._add_decoder(weights)
        return weights.tensors

    def _add_encoder(self, weights: "_Weights") -> None:
        dim, hidden = self.encoder_dim, self.encoder_hidden_dim
        attention_dim = self.encoder_heads * self.encoder_head_dim

        conv = f"{_WHISPER}conv_layers.{{}}.conv"
        weights.matrix(conv.format(0), dim, _MEL_BINS, 3, gain=4.0)
        weights.bias(conv.format(0), dim)
        weights.matrix(conv.format(1), dim, dim, 3, gain=2.0, centred=True)
        weights.bias(conv.format(1), dim)

        for index in range(self.encoder_layers):
            layer = f"{_WHISPER}transformer.layers.{index}."
            weights.norm(layer + "attention_norm", dim)
            weights.attention(layer + "attention.", dim, attention_dim, attention_dim)
            for name, size in (("wq", attention_dim), ("wv", attention_dim)):
                weights.bias(f"{layer}attention.{name}", size)
            weights.bias(layer + "attention.wo", dim)
            weights.norm(layer + "ffn_norm", dim)
            weights.feed_forward(layer + "feed_forward.", dim, hidden)
            weights.bias(layer + "feed_forward.w2", dim)
        weights.norm(_WHISPER + "transformer.norm", dim)

    def _add_decoder(self, weights: "_Weights") -> None:
        dim, hidden = self.decoder_dim, self.decoder_hidden_dim
        q_dim = self.decoder_heads * self.decoder_head_dim
        kv_dim = self.decoder_kv_heads * self.decoder_head_dim

        adapter = _EMBEDDING + "audio_language_projection."
        weights.matrix(adapter + "0", dim, 4 * self.encoder_dim, gain=2.0)
        weights.matrix(adapter + "2", dim, dim, gain=1.0, centred=True)

        embedding = _EMBEDDING + "tok_embeddings"
        weights.matrix(embedding, self.vocab_size, dim, gain=1.5)
        row_length = np.ones((self.vocab_size, 1), np.float32)
        row_length[:N_SPECIAL_IDS] = _CONTROL_ROW_LENGTH
        for token_id, length in _ROW_LENGTH.items():
            row_length[token_id] = length
        weights.tensors[embedding + ".weight"] *= row_length

        for index in range(self.decoder_layers):
            layer = f"layers.{index}."
            weights.norm(layer + "attention_norm", dim)
            weights.attention(layer + "attention.", dim, q_dim, kv_dim)
            weights.norm(layer + "ffn_norm", dim)
            weights.feed_forward(layer + "feed_forward.", dim, hidden)
            weights.matrix(f"{layer}ada_rms_norm_t_cond.0", _ADA_DIM, dim, gain=2.0)
            weights.matrix(f"{layer}ada_rms_norm_t_cond.2", dim, _ADA_DIM, gain=0.6)
        # The embedding is tied: with weights of one sign here, each token would vote
        # for its own repetition louder than the sound speaks.
        weights.norm("norm", dim, signed=True)

    def tekken(self) -> dict[str, Any]:
        """The content of `tekken.json`: control ids, bytes, and merges of `seed`."""
        n_text = self.vocab_size - N_SPECIAL_IDS
        pieces = [bytes([value]) for value in range(256)]
        pieces += self._merges(n_text + _UNUSED_ENTRIES - len(pieces))
        vocab = [
            {
                "rank": rank,
                "token_bytes": base64.b64encode(piece).decode(),
                "token_str": _text_or_none(piece),
            }
            for rank, piece in enumerate(pieces)
        ]
        special = [
            {
                "rank": rank,
                "token_str": _SPECIAL_NAMES.get(rank, f"<SPECIAL_{rank}>"),
                "is_control": True,
            }
            for rank in range(N_SPECIAL_IDS)
        ]
        return {
            "config": {
                "pattern": _PATTERN,
                "num_vocab_tokens": len(vocab),
                "default_vocab_size": self.vocab_size,
                "default_num_special_tokens": N_SPECIAL_IDS,
                "version": "v13",
            },
            "vocab": vocab,
            "special_tokens": special,
            "audio": {
                "sampling_rate": 16000,
                "frame_rate": 12.5,
                "audio_encoding_config": {
                    "num_mel_bins": _MEL_BINS,
                    "hop_length": 160,
                    "window_size": 400,
                },
                "transcription_format": "streaming",
                "transcription_delay_ms": 480.0,
                "streaming_look_ahead_ms": 2.5,
                "streaming_look_back_ms": 52.5,
                "streaming_n_left_pad_tokens": 32,
            },
        }

    def _merges(self, n_merges: int) -> list[bytes]:
        text = _MERGE_TEXT.encode()
        runs = {
            text[start : start + length]
            for length in range(2, 7)
            for start in range(len(text) - length + 1)
        }
        if not 0 <= n_merges <= len(runs):
            n_bytes = N_SPECIAL_IDS + 256 - _UNUSED_ENTRIES
            raise ValueError(
                f"vocab_size is {self.vocab_size}, expected {n_bytes} to "
                f"{n_bytes + len(runs)}"
            )
        # Short runs first: a merge is usable only once its parts have ranks.
        ordered = sorted(runs, key=lambda run: (len(run), run))
        chosen = np.random.default_rng(self.seed).choice(
            len(ordered), n_merges, replace=False
        )
        return [ordered[index] for index in sorted(chosen)]

    def write(
        self,
        directory: Path,
        dtype: str = "float32",
        tensors: dict[str, np.ndarray] | None = None,
    ) -> Path:
        """Write params.json, consolidated.safetensors and tekken.json.

        `dtype` is float32, float16 or bfloat16; weights are rounded to nearest even.
        `tensors` stand in for the random ones.
        """
        directory.mkdir(parents=True, exist_ok=True)
        weights = self.tensors() if tensors is None else tensors
        _write_safetensors(directory / "consolidated.safetensors", weights, dtype)
        for name, content in (
            ("params.json", self.params()),
            ("tekken.json", self.tekken()),
        ):
            (directory / name).write_text(json.dumps(content), encoding="utf-8")
        return directory


class _Weights:
    """Named float32 tensors, drawn one after another from one generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.tensors: dict[str, np.ndarray] = {}

    def matrix(
        self, name: str, *shape: int, gain: float, centred: bool = False
    ) -> None:
        """Fan-in scaled; `centred` rows ignore the mean of their (GELU's) input.

        Otherwise most of what leaves the encoder is the same for any sound.
        """
        fan_in = int(np.prod(shape[1:]))
        weight = self._rng.standard_normal(shape) * (gain * fan_in**-0.5)
        if centred:
            weight -= weight.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        self.tensors[f"{name}.weight"] = weight.astype(np.float32)

    def bias(self, name: str, size: int) -> None:
        bias = self._rng.standard_normal(size) * 0.12
        self.tensors[f"{name}.bias"] = bias.astype(np.float32)

    def norm(self, name: str, dim: int, *, signed: bool = False) -> None:
        weight = self._rng.uniform(0.6, 1.4, dim)
        if signed:
            weight *= self._rng.choice([-1, 1], dim)
        self.tensors[f"{name}.weight"] = weight.astype(np.float32)

    def attention(self, prefix: str, dim: int, q_dim: int, kv_dim: int) -> None:
        # Scores of standard deviation 1.7: some keys matter more than others, and
        # a score's error is not amplified into the output.
        self.matrix(prefix + "wq", q_dim, dim, gain=1.3)
        self.matrix(prefix + "wk", kv_dim, dim, gain=1.3)
        self.matrix(prefix + "wv", kv_dim, dim, gain=1.5)
        self.matrix(prefix + "wo", dim, q_dim, gain=1.0)

    def feed_forward(self, prefix: str, dim: int, hidden: int) -> None:
        self.matrix(prefix + "w1", hidden, dim, gain=1.5)
        self.matrix(prefix + "w3", hidden, dim, gain=1.5)
        self.matrix(prefix + "w2", dim, hidden, gain=0.5)


def _text_or_none(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


def _write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str) -> None:
    """The file format by hand: safetensors' numpy side cannot write bfloat16."""
    code = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
    header: dict[str, Any] = {}
    content = bytearray()
    for name, values in tensors.items():
        start = len(content)
        content += _cast(values, dtype).tobytes()
        header[name] = {
            "dtype": code,
            "shape": list(values.shape),
            "data_offsets": [start, len(content)],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin on a multiple of 8
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """Little-endian storage of `values`; bfloat16 as its upper 16 bits."""
    if dtype != "bfloat16":
        return values.astype(np.dtype(dtype).newbyteorder("<"))
    bits = values.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
