"""params.json -> frozen dataclasses, and the arithmetic between frame rates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar, cast

from voxmlx.errors import ConfigError, DelayError

__all__ = [
    "BASE_MODEL",
    "BOS_ID",
    "DEFAULT_DELAY_MS",
    "EOS_ID",
    "LEGAL_DELAYS_MS",
    "SAMPLES_PER_AUDIO_TOKEN",
    "SAMPLE_RATE",
    "STREAMING_PAD_ID",
    "STREAMING_WORD_ID",
    "AudioConfig",
    "DecoderConfig",
    "EncoderConfig",
    "ModelConfig",
    "Section",
    "TransformerConfig",
    "audio_config",
    "delay_tokens",
    "read_object",
    "transformer_fields",
]

_T = TypeVar("_T")

# The model by its makers' name on the Hub, which servers of any kind know it by.
BASE_MODEL = "mistralai/Voxtral-Mini-4B-Realtime-2602"

# The control ids a stream is made of; below the first text id, the rest are unused.
BOS_ID = 1
EOS_ID = 2
STREAMING_PAD_ID = 32
STREAMING_WORD_ID = 33

SAMPLE_RATE = 16_000
AUDIO_TOKEN_MS = 80
SAMPLES_PER_AUDIO_TOKEN = SAMPLE_RATE * AUDIO_TOKEN_MS // 1000

# The delays the model was trained with: every 80 ms to 1.2 s, and 2.4 s.
LEGAL_DELAYS_MS = (*range(80, 1201, 80), 2400)
# The delay of a model whose tekken.json names none.
DEFAULT_DELAY_MS = 480

# Silence the model hears before a stream, unless its tekken.json says otherwise, and
# what the reference adds after the delay at its end so that the last word comes out
# (mistral-common's figures).
LEFT_PAD_TOKENS = 32
RIGHT_PAD_TOKENS = 10


def delay_tokens(delay_ms: int) -> int:
    """Audio tokens by which text lags at `delay_ms`.

    Raises DelayError unless `delay_ms` is one of LEGAL_DELAYS_MS.
    """
    is_whole = isinstance(delay_ms, Integral)  # of Python or NumPy
    if not is_whole or delay_ms not in LEGAL_DELAYS_MS:
        legal = ", ".join(str(ms) for ms in LEGAL_DELAYS_MS)
        raise DelayError(
            f"delay of {delay_ms!r} ms is not one the model was trained for; "
            f"use one of {legal}"
        )
    return int(delay_ms) // AUDIO_TOKEN_MS


@dataclass(frozen=True, slots=True)
class AudioConfig:
    """Sizes of the log-mel spectrogram."""

    sampling_rate: int
    frame_rate: float
    num_mel_bins: int
    hop_length: int
    window_size: int
    global_log_mel_max: float


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Sizes that both transformers have alike; a query sees `sliding_window` keys."""

    dim: int
    n_layers: int
    head_dim: int
    hidden_dim: int
    n_heads: int
    n_kv_heads: int
    rope_theta: float
    norm_eps: float
    sliding_window: int


@dataclass(frozen=True, slots=True)
class EncoderConfig(TransformerConfig):
    """The causal audio transformer; `sliding_window` counts encoder frames."""


@dataclass(frozen=True, slots=True)
class DecoderConfig(TransformerConfig):
    """The text transformer; `sliding_window` counts positions."""

    vocab_size: int
    ada_dim: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything about the architecture; nothing has a default."""

    audio: AudioConfig
    encoder: EncoderConfig
    decoder: DecoderConfig
    downsample_factor: int

    @property
    def mel_frames_per_audio_token(self) -> int:
        return SAMPLES_PER_AUDIO_TOKEN // self.audio.hop_length

    def check_heads(self) -> None:
        """Raises ConfigError unless query heads share key heads evenly."""
        for part, name in ((self.encoder, "encoder"), (self.decoder, "decoder")):
            if part.n_heads % part.n_kv_heads:
                raise ConfigError(
                    f"{name}: n_heads {part.n_heads} is not a multiple of "
                    f"n_kv_heads {part.n_kv_heads}"
                )

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "ModelConfig":
        """Read the content of Mistral's `params.json`.

        Raises ConfigError naming the first key that is unknown, missing, of the
        wrong type, or of a value this architecture does not have.
        """
        root = Section("params.json", params)
        multimodal = root.section("multimodal")
        args = multimodal.section("whisper_model_args")
        enc = args.section("encoder_args")
        aud = enc.section("audio_encoding_args")
        down = args.section("downsample_args")

        audio = audio_config(aud)
        aud.exactly("chunk_length_s", None)
        aud.exactly("transcription_format", "streaming")

        encoder = EncoderConfig(**transformer_fields(enc))
        enc.exactly("use_biases", True)
        enc.exactly("causal", True)
        enc.exactly("pos_embed", "rope")
        enc.exactly("ffn_type", "swiglu")
        enc.exactly("norm_type", "rms_norm")
        enc.unused("vocab_size", "use_cache", "max_source_positions")

        decoder = DecoderConfig(
            **transformer_fields(root),
            vocab_size=root.integer("vocab_size"),
            ada_dim=root.integer("ada_rms_norm_t_cond_dim"),
        )
        root.exactly("use_biases", False)
        root.exactly("causal", True)
        root.exactly("tied_embeddings", True)
        root.exactly("ada_rms_norm_t_cond", True)
        root.unused("model_parallel", "model_max_length")

        config = cls(audio, encoder, decoder, down.exactly("downsample_factor", 4))
        for section in (root, multimodal, args, enc, aud, down):
            section.refuse_the_rest()
        config.check_heads()
        return config

    @classmethod
    def from_params_file(cls, path: Path) -> "ModelConfig":
        """Read `params.json`. Raises ConfigError as `from_params` does."""
        return cls.from_params(read_object(path))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises ConfigError when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing; a model directory needs params.json, "
            "consolidated.safetensors and tekken.json"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; check its permissions"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object")
    return cast("dict[str, Any]", content)


class Section:
    """One JSON object whose every key must be asked for exactly once."""

    def __init__(self, name: str, content: Mapping[str, Any]) -> None:
        self._name = name
        self._left = dict(content)

    def _take(self, key: str) -> Any:
        if key not in self._left:
            raise ConfigError(f"{self._name}: key {key!r} is missing")
        return self._left.pop(key)

    def section(self, key: str) -> "Section":
        content = self._take(key)
        if not isinstance(content, dict):
            raise ConfigError(f"{self._name}: {key!r} must be an object")
        return Section(key, cast("dict[str, Any]", content))

    def integer(self, key: str) -> int:
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(
                f"{self._name}: {key!r} is {value!r}, expected a positive integer"
            )
        return value

    def even(self, key: str) -> int:
        value = self.integer(key)
        if value % 2:
            raise ConfigError(f"{self._name}: {key!r} is {value}, expected it even")
        return value

    def number(self, key: str) -> float:
        value = self._take(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise ConfigError(
                f"{self._name}: {key!r} is {value!r}, expected a positive number"
            )
        return float(value)

    def exactly(self, key: str, expected: _T) -> _T:
        value = self._take(key)
        if value != expected or isinstance(value, bool) != isinstance(expected, bool):
            raise ConfigError(
                f"{self._name}: {key!r} is {value!r}, this architecture has "
                f"{expected!r}"
            )
        return expected

    def one_of(self, key: str, expected: Sequence[str]) -> str:
        value = self._take(key)
        if value not in expected:
            raise ConfigError(
                f"{self._name}: {key!r} is {value!r}, expected one of "
                f"{', '.join(expected)}"
            )
        return value

    def unused(self, *keys: str) -> None:
        """Keys the file always has and inference does not depend on."""
        for key in keys:
            self._take(key)

    def optional(self, *keys: str) -> None:
        """Keys the file may have and inference does not depend on."""
        for key in keys:
            self._left.pop(key, None)

    def refuse_the_rest(self) -> None:
        if self._left:
            keys = ", ".join(repr(key) for key in sorted(self._left))
            raise ConfigError(f"{self._name}: unknown key {keys}")


def audio_config(section: Section) -> AudioConfig:
    """Read an AudioConfig. Raises ConfigError naming a key."""
    return AudioConfig(
        sampling_rate=section.exactly("sampling_rate", SAMPLE_RATE),
        frame_rate=section.exactly("frame_rate", 1000 / AUDIO_TOKEN_MS),
        num_mel_bins=section.integer("num_mel_bins"),
        hop_length=section.exactly("hop_length", 160),
        window_size=section.exactly("window_size", 400),
        global_log_mel_max=section.number("global_log_mel_max"),
    )


def transformer_fields(section: Section) -> dict[str, Any]:
    """Read the fields of a TransformerConfig. Raises ConfigError naming a key."""
    return {
        "dim": section.even("dim"),
        "n_layers": section.integer("n_layers"),
        "head_dim": section.even("head_dim"),
        "hidden_dim": section.integer("hidden_dim"),
        "n_heads": section.integer("n_heads"),
        "n_kv_heads": section.integer("n_kv_heads"),
        "rope_theta": section.number("rope_theta"),
        "norm_eps": section.number("norm_eps"),
        "sliding_window": section.integer("sliding_window"),
    }
