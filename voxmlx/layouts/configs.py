"""The config.json of each layout -> ModelConfig and what is quantized how."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from voxmlx.config import (
    AUDIO_TOKEN_MS,
    SAMPLE_RATE,
    AudioConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    Section,
    audio_config,
    transformer_fields,
)
from voxmlx.errors import ConfigError

__all__ = [
    "FORMAT_VERSION",
    "MODEL_TYPE",
    "Precision",
    "Quantization",
    "is_transformers",
    "our_architecture",
    "read_config",
]

MODEL_TYPE = "voxmlx"
FORMAT_VERSION = 1

# MLX's modes, each with the bits and the group sizes that it has.
_MODES = {
    "affine": ((2, 3, 4, 5, 6, 8), (32, 64, 128)),
    "mxfp4": ((4,), (32,)),
    "nvfp4": ((4,), (16,)),
    "mxfp8": ((8,), (32,)),
}

# transformers leaves a key out of config.json where its own default holds.
_HF_AUDIO_DEFAULTS: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_mel_bins": 128,
    "rms_norm_eps": 1e-5,
    "sliding_window": 750,
    "head_dim": 64,
    "hidden_act": "silu",
    "activation_function": "gelu",
}
_HF_TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 131072,
    "hidden_size": 3072,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "head_dim": 128,
    "sliding_window": 8192,
    "hidden_act": "silu",
}
_HF_ROPE_THETA = 1_000_000.0
_HF_ADA_DIM = 32  # no key: transformers builds no other
# What mlx-audio's own classes assume where config.json is silent; older ones are.
_MLX_AUDIO_ENCODER: dict[str, Any] = {
    "causal": True,
    "use_biases": True,
    "downsample_factor": 4,
}
_MLX_AUDIO_DECODER: dict[str, Any] = {
    "tied_embeddings": True,
    "ada_rms_norm_t_cond": True,
    "ada_rms_norm_t_cond_dim": 32,
}
_LOG_MEL_MAX = 1.5  # in transformers' preprocessor_config.json, or nowhere


@dataclass(frozen=True, slots=True)
class Precision:
    """Parameters of a quantized matrix: bits of a weight, weights of a group, mode.

    Affine groups have a scale and a bias in the model's type. The other modes have
    a scale of 8 bits and no bias.
    """

    bits: int
    group_size: int
    mode: str = "affine"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Return the names of the tensors that make up such a matrix."""
        biases = ("biases",) if self.mode == "affine" else ()
        return ("weight", "scales", *biases)

    @property
    def stored_bits(self) -> float:
        """Return the bits of a weight, its share of its group's numbers included."""
        # Scale and bias in half precision, or one scale of 8 bits.
        of_group = 32 if self.mode == "affine" else 8
        return self.bits + of_group / self.group_size


class Quantization:
    """MLX's `quantization` object: one precision for all, exceptions by path."""

    def __init__(self, content: Mapping[str, Any] | None) -> None:
        self._by_path: dict[str, Precision | None] = {}
        self._default: Precision | None = None
        if content is None:
            return
        rest = dict(content)
        shared = {k: rest.pop(k) for k in ("group_size", "bits", "mode") if k in rest}
        self._default = _precision("quantization", shared)
        for path, entry in rest.items():
            name = f"quantization of {path}"
            if entry is True:
                self._by_path[path] = self._default
            elif entry is False:
                self._by_path[path] = None
            elif isinstance(entry, dict):
                self._by_path[path] = _precision(name, cast("dict[str, Any]", entry))
            else:
                raise ConfigError(
                    f"config.json: {name} is {entry!r}, expected an object or a boolean"
                )

    @property
    def paths(self) -> set[str]:
        """The modules it names."""
        return set(self._by_path)

    def of(self, path: str) -> Precision | None:
        """Return the precision of the module `path` of a file; None: not quantized."""
        return self._by_path.get(path, self._default)


def _precision(name: str, content: Mapping[str, Any]) -> Precision:
    section = Section(name, {"mode": "affine", **content})
    mode = section.one_of("mode", tuple(_MODES))
    precision = Precision(section.integer("bits"), section.integer("group_size"), mode)
    section.refuse_the_rest()
    bits, group_sizes = _MODES[mode]
    if precision.bits not in bits or precision.group_size not in group_sizes:
        raise ConfigError(
            f"{name}: {precision.bits} bits in groups of {precision.group_size} for mode "
            f"{mode!r}, expected bits in {bits} and groups in {group_sizes}"
        )
    return precision


def is_transformers(content: Mapping[str, Any]) -> bool:
    """Return whether a config.json is in transformers' layout."""
    return "audio_config" in content


def read_config(content: Mapping[str, Any]) -> tuple[ModelConfig, Quantization]:
    """Read the config.json of any layout; its keys tell which layout it is.

    Raises ConfigError naming a key that is missing or wrong; unknown keys are
    refused in our own layout and in every section that describes the network.
    Others' top level holds their programs' settings, which are not ours to judge.
    """
    if content.get("model_type") == MODEL_TYPE:
        return _read_ours(content), Quantization(content["quantization"])
    quantization = Quantization(
        content.get("quantization", content.get("quantization_config"))
    )
    if "multimodal" in content:
        params = {k: v for k, v in content.items() if not k.startswith("quantization")}
        return ModelConfig.from_params(params), quantization
    if "encoder_args" in content:
        return _read_mlx_audio(content), quantization
    if is_transformers(content):
        return _read_transformers(content), quantization
    raise ConfigError(
        f"config.json describes a {content.get('model_type')!r} model, expected Voxtral "
        "Realtime as Mistral, transformers, mlx-audio, awni/voxmlx or convert write it"
    )


def our_architecture(config: ModelConfig) -> dict[str, Any]:
    """The part of our config.json that `read_config` makes a ModelConfig of."""
    return {
        "model_type": MODEL_TYPE,
        "format_version": FORMAT_VERSION,
        **asdict(config),
    }


def _read_ours(content: Mapping[str, Any]) -> ModelConfig:
    root = Section("config.json", content)
    root.exactly("model_type", MODEL_TYPE)
    root.exactly("format_version", FORMAT_VERSION)
    root.unused("quantization", "dtype", "recipe", "source", "voxmlx_version")
    root.optional("rounding")
    aud, enc, dec = (root.section(key) for key in ("audio", "encoder", "decoder"))
    config = ModelConfig(
        audio=audio_config(aud),
        encoder=EncoderConfig(**transformer_fields(enc)),
        decoder=DecoderConfig(
            **transformer_fields(dec),
            vocab_size=dec.integer("vocab_size"),
            ada_dim=dec.integer("ada_dim"),
        ),
        downsample_factor=root.exactly("downsample_factor", 4),
    )
    for section in (root, aud, enc, dec):
        section.refuse_the_rest()
    config.check_heads()
    return config


def _read_mlx_audio(content: Mapping[str, Any]) -> ModelConfig:
    root = Section("config.json", content)
    for key in ("encoder_args", "decoder"):
        root.section(key)  # refuses what is no object
    enc = Section("encoder_args", _MLX_AUDIO_ENCODER | content["encoder_args"])
    dec = Section("decoder", _MLX_AUDIO_DECODER | content["decoder"])
    nested = "audio_encoding_args" in content["encoder_args"]
    aud = (enc if nested else root).section("audio_encoding_args")
    config = ModelConfig(
        audio=audio_config(aud),
        encoder=EncoderConfig(**transformer_fields(enc)),
        decoder=DecoderConfig(
            **transformer_fields(dec),
            vocab_size=dec.integer("vocab_size"),
            ada_dim=dec.integer("ada_rms_norm_t_cond_dim"),
        ),
        downsample_factor=enc.exactly("downsample_factor", 4),
    )
    aud.optional("chunk_length_s", "transcription_format")
    enc.exactly("causal", True)
    enc.exactly("use_biases", True)
    enc.optional("pos_embed", "ffn_type", "norm_type")
    enc.optional("vocab_size", "use_cache", "max_source_positions")
    dec.exactly("tied_embeddings", True)
    dec.exactly("ada_rms_norm_t_cond", True)
    dec.optional("use_biases", "causal")
    for section in (aud, enc, dec):
        section.refuse_the_rest()
    config.check_heads()
    return config


def _read_transformers(content: Mapping[str, Any]) -> ModelConfig:
    text = {**_HF_TEXT_DEFAULTS, **content.get("text_config", {})}
    audio = {**_HF_AUDIO_DEFAULTS, **content["audio_config"]}
    audio["num_key_value_heads"] = audio["num_attention_heads"]
    enc, dec = Section("audio_config", audio), Section("text_config", text)
    enc.exactly("activation_function", "gelu")
    config = ModelConfig(
        audio=AudioConfig(
            sampling_rate=SAMPLE_RATE,
            frame_rate=1000 / AUDIO_TOKEN_MS,
            num_mel_bins=enc.integer("num_mel_bins"),
            hop_length=160,
            window_size=400,
            global_log_mel_max=_LOG_MEL_MAX,
        ),
        encoder=EncoderConfig(**_hf_transformer(enc, audio)),
        decoder=DecoderConfig(
            **_hf_transformer(dec, text),
            vocab_size=dec.integer("vocab_size"),
            ada_dim=_HF_ADA_DIM,
        ),
        downsample_factor=Section(
            "config.json", {"downsample_factor": 4, **content}
        ).exactly("downsample_factor", 4),
    )
    config.check_heads()
    return config


def _hf_transformer(section: Section, content: Mapping[str, Any]) -> dict[str, Any]:
    section.exactly("hidden_act", "silu")
    rope: dict[str, Any] = (
        content.get("rope_parameters") or content.get("rope_scaling") or {}
    )
    theta = rope.get("rope_theta", content.get("rope_theta", _HF_ROPE_THETA))
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise ConfigError(
            f"config.json: rope_type is {kind!r}, this architecture has 'default'"
        )
    return {
        "dim": section.even("hidden_size"),
        "n_layers": section.integer("num_hidden_layers"),
        "head_dim": section.even("head_dim"),
        "hidden_dim": section.integer("intermediate_size"),
        "n_heads": section.integer("num_attention_heads"),
        "n_kv_heads": section.integer("num_key_value_heads"),
        "rope_theta": Section("rope_parameters", {"theta": theta}).number("theta"),
        "norm_eps": section.number("rms_norm_eps"),
        "sliding_window": section.integer("sliding_window"),
    }
