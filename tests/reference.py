"""Transformers' Voxtral Realtime built from a Mistral-layout directory, as reference."""

import inspect
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    VoxtralRealtimeConfig,
    VoxtralRealtimeFeatureExtractor,
    VoxtralRealtimeForConditionalGeneration,
)
from transformers.cache_utils import DynamicCache
from transformers.models.voxtral_realtime.modeling_voxtral_realtime import (
    VoxtralRealtimeRMSNorm,
    VoxtralRealtimeRotaryEmbedding,
)

from tests.padding import n_new_tokens, pad_sound, prompt

__all__ = ["Reference"]

# Matrices as small as the tests' gain nothing from a second thread, and on a busy
# machine every one of their operations would wait for it.
torch.set_num_threads(1)

_EOS = 2

_EMBEDDING = "mm_streams_embeddings.embedding_module."
_WHISPER = _EMBEDDING + "whisper_encoder."
_TOWER = "model.audio_tower."
_TEXT = "model.language_model."

# Longer names first: the first that fits is taken.
_PREFIXES = {
    _WHISPER + "conv_layers.0.conv.": _TOWER + "embedder.conv1.",
    _WHISPER + "conv_layers.1.conv.": _TOWER + "embedder.conv2.",
    _WHISPER + "transformer.": _TOWER,
    _EMBEDDING
    + "audio_language_projection.0.": "model.multi_modal_projector.linear_1.",
    _EMBEDDING
    + "audio_language_projection.2.": "model.multi_modal_projector.linear_2.",
    _EMBEDDING + "tok_embeddings.": _TEXT + "embed_tokens.",
    "": _TEXT,
}
_ATTENTION = {
    "attention.wq.": "self_attn.q_proj.",
    "attention.wk.": "self_attn.k_proj.",
    "attention.wv.": "self_attn.v_proj.",
    "attention.wo.": "self_attn.o_proj.",
    "feed_forward.w1.": "mlp.gate_proj.",
    "feed_forward.w2.": "mlp.down_proj.",
    "feed_forward.w3.": "mlp.up_proj.",
}
_PARTS = {
    _TOWER: _ATTENTION
    | {
        "attention_norm.": "self_attn_layer_norm.",
        "ffn_norm.": "final_layer_norm.",
    },
    _TEXT: _ATTENTION
    | {
        "attention_norm.": "input_layernorm.",
        "ffn_norm.": "post_attention_layernorm.",
        "ada_rms_norm_t_cond.0.": "ada_rms_norm.linear1.",
        "ada_rms_norm_t_cond.2.": "ada_rms_norm.linear2.",
    },
}


class Reference:
    """The whole network by transformers; arrays in and out are numpy's.

    `dtype` float64 and `exact_angles` replace the module's own float32 steps:

    - The rotary angle of position p is computed in float32, which for p in the
      thousands is off by up to p * 6e-8 rad.
    - Norms are computed in float32 whatever the model's dtype.

    With neither, every module is transformers' own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        dtype: torch.dtype = torch.float32,
        attention: str = "sdpa",
        exact_angles: bool = False,
    ) -> None:
        if dtype == torch.float64 and attention != "sdpa":
            raise ValueError("eager attention computes its softmax in float32")
        params = json.loads((directory / "params.json").read_text(encoding="utf-8"))
        config = _config(params)
        # from_config is the public way, through an Auto class that lacks this model.
        model = VoxtralRealtimeForConditionalGeneration._from_config(
            config, dtype=dtype, attn_implementation=attention
        )
        weights = load_file(directory / "consolidated.safetensors")
        state = _renamed(weights, params)
        state["lm_head.weight"] = state[_TEXT + "embed_tokens.weight"]
        model.load_state_dict({name: t.to(dtype) for name, t in state.items()})
        model.eval()
        if dtype == torch.float64:
            _replace(model, VoxtralRealtimeRMSNorm, _Float64Norm)
        if dtype == torch.float64 or exact_angles:
            _replace(model, VoxtralRealtimeRotaryEmbedding, _Float64Rotary)
        self.model = model
        self._dtype = dtype
        audio = params["multimodal"]["whisper_model_args"]["encoder_args"][
            "audio_encoding_args"
        ]
        self._extractor = VoxtralRealtimeFeatureExtractor(
            feature_size=audio["num_mel_bins"],
            sampling_rate=audio["sampling_rate"],
            hop_length=audio["hop_length"],
            n_fft=audio["window_size"],
            win_length=audio["window_size"],
            global_log_mel_max=audio["global_log_mel_max"],
        )

    def log_mel(self, samples: np.ndarray) -> np.ndarray:
        """Already padded samples [n] -> [n // 160, 128]."""
        features = self._extractor(samples, sampling_rate=16_000, return_tensors="pt")
        return features["input_features"][0].T.numpy()

    @torch.inference_mode()
    def encoder_output(self, mel: np.ndarray) -> np.ndarray:
        """Mel frames [F, 128] -> encoder frames [F / 2, dim] in one masked pass."""
        out = self.model.model.audio_tower(
            input_features=self._features(mel), use_cache=False
        )
        return out.last_hidden_state[0].numpy()

    @torch.inference_mode()
    def adapter_output(self, mel: np.ndarray) -> np.ndarray:
        """Mel frames [F, 128] -> audio embeddings [F / 8, dim]."""
        out: Any = self.model.get_audio_features(
            input_features=self._features(mel), use_cache=False
        )
        return out.pooler_output[0].numpy()

    @torch.inference_mode()
    def logits(
        self, samples: np.ndarray, delay_ms: int, token_ids: Sequence[int]
    ) -> np.ndarray:
        """Logits [len(token_ids), vocab] when position p is given token_ids[p].

        One masked pass over the sound, padded here; no cache.
        """
        mel = self.log_mel(pad_sound(samples, delay_ms))[: 8 * len(token_ids)]
        out = self.model(
            input_ids=torch.tensor([list(token_ids)]),
            input_features=self._features(mel),
            num_delay_tokens=delay_ms // 80,
            use_cache=False,
        )
        return out.logits[0].numpy()

    def greedy_choices(
        self, samples: np.ndarray, delay_ms: int, token_ids: Sequence[int]
    ) -> tuple[list[int], np.ndarray]:
        """Best id after each prefix of `token_ids`, and its lead over the runner-up.

        Where the ids equal `token_ids`, by induction greedy decoding makes them:
        one pass instead of one per id. EOS is never chosen.
        """
        given = prompt(delay_ms)
        n_forced = len(given) - 1
        given += list(token_ids)[:-1]
        logits = self.logits(samples, delay_ms, given)[n_forced:]
        logits[:, _EOS] = -np.inf
        second, best = np.partition(logits, -2)[:, -2:].T
        return logits.argmax(axis=1).tolist(), best - second

    @torch.inference_mode()
    def greedy_tokens(self, samples: np.ndarray, delay_ms: int) -> list[int]:
        """What generate() makes of the sound with its default length, EOS suppressed.

        A session never chooses EOS, because it would go on after it where no
        training sequence ever went.
        """
        mel = self.log_mel(pad_sound(samples, delay_ms))
        input_ids = torch.tensor([prompt(delay_ms)])
        with warnings.catch_warnings():
            # The default length is what is wanted here.
            warnings.filterwarnings("ignore", "Using the model-agnostic default")
            out = self.model.generate(  # pyright: ignore[reportAttributeAccessIssue] -- a mixin's
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                input_features=self._features(mel),
                num_delay_tokens=delay_ms // 80,
                do_sample=False,
                suppress_tokens=[_EOS],
            )
        return out[0, input_ids.shape[1] :].tolist()

    @torch.inference_mode()
    def greedy_tokens_by_loop(
        self, samples: np.ndarray, delay_ms: int
    ) -> tuple[list[int], np.ndarray]:
        """Ids and each one's lead over the runner-up, one cached forward per id.

        The sound goes through the encoder in one pass beforehand.
        """
        mel = self.log_mel(pad_sound(samples, delay_ms))
        audio = torch.from_numpy(self.adapter_output(mel))[None]
        embed = self.model.model.get_input_embeddings()
        text, head = self.model.model.language_model, self.model.lm_head
        delay = torch.full((1,), delay_ms // 80, dtype=self._dtype)
        t_cond = self.model.model.time_embedding(delay)[None]
        text_config: Any = self.model.config.text_config
        # Named anew between 5.2 and 5.24, which warns of the old name.
        accepted = inspect.signature(text.forward).parameters
        cache_name = "cache" if "cache" in accepted else "past_key_values"
        cached = {cache_name: DynamicCache(config=text_config)}
        ids: list[int] = []
        leads: list[float] = []
        tokens, position = prompt(delay_ms), 0
        for _ in range(n_new_tokens(len(samples))):
            n = len(tokens)
            x = audio[:, position : position + n] + embed(torch.tensor([tokens]))
            out = text(inputs_embeds=x, use_cache=True, t_cond=t_cond, **cached)
            logits = head(out.last_hidden_state[0, -1])
            logits[_EOS] = -torch.inf
            best, second = logits.topk(2).values.tolist()
            ids.append(int(logits.argmax()))
            leads.append(best - second)
            tokens, position = ids[-1:], position + n
        return ids, np.array(leads)

    def _features(self, mel: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(mel.T))[None].to(self._dtype)


class _Float64Rotary(nn.Module):
    """cos and sin of exact angles, in place of float32 ones."""

    def __init__(self, original: VoxtralRealtimeRotaryEmbedding) -> None:
        super().__init__()
        config = original.config
        exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float64)
        theta = config.rope_parameters["rope_theta"]
        self.rates = theta ** (-exponent / config.head_dim)

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angle = position_ids[..., None].double() * self.rates
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


class _Float64Norm(nn.Module):
    """RMSNorm without the module's passage through float32."""

    def __init__(self, original: VoxtralRealtimeRMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = original.weight, original.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def _replace(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, old):
                setattr(parent, name, new(child))


def _config(params: dict[str, Any]) -> VoxtralRealtimeConfig:
    args = params["multimodal"]["whisper_model_args"]
    encoder = args["encoder_args"]
    if params["ada_rms_norm_t_cond_dim"] != 32:
        raise ValueError("transformers has no other ada_rms_norm_t_cond_dim than 32")

    def transformer(part: dict[str, Any]) -> dict[str, Any]:
        rope = {"rope_type": "default", "rope_theta": part["rope_theta"]}
        return {
            "vocab_size": part["vocab_size"],
            "hidden_size": part["dim"],
            "intermediate_size": part["hidden_dim"],
            "num_hidden_layers": part["n_layers"],
            "num_attention_heads": part["n_heads"],
            "num_key_value_heads": part["n_kv_heads"],
            "head_dim": part["head_dim"],
            "rms_norm_eps": part["norm_eps"],
            "sliding_window": part["sliding_window"],
            "rope_parameters": rope,
        }

    audio = transformer(encoder)
    audio["num_mel_bins"] = encoder["audio_encoding_args"]["num_mel_bins"]
    return VoxtralRealtimeConfig(
        audio_config={"model_type": "voxtral_realtime_encoder", **audio},
        text_config={"model_type": "voxtral_realtime_text", **transformer(params)},
        audio_length_per_tok=8,
        downsample_factor=args["downsample_args"]["downsample_factor"],
        tie_word_embeddings=params["tied_embeddings"],
    )


def _renamed(
    weights: dict[str, torch.Tensor], params: dict[str, Any]
) -> dict[str, torch.Tensor]:
    encoder = params["multimodal"]["whisper_model_args"]["encoder_args"]
    state: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        theirs = _their_name(name)
        part = encoder if theirs.startswith(_TOWER) else params
        n_heads = {"wq": part["n_heads"], "wk": part["n_kv_heads"]}
        projection = name.split(".")[-2]
        if projection in n_heads:
            state[theirs] = _half_split(tensor, n_heads[projection])
        else:
            state[theirs] = tensor
    return state


def _their_name(name: str) -> str:
    old, new = next((o, n) for o, n in _PREFIXES.items() if name.startswith(o))
    rest = name.removeprefix(old)
    if rest.startswith("layers."):
        _, index, part = rest.split(".", 2)
        ours, theirs = next(
            (o, t) for o, t in _PARTS[new].items() if part.startswith(o)
        )
        rest = f"layers.{index}.{theirs}{part.removeprefix(ours)}"
    return new + rest


def _half_split(tensor: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Rows of each head: rotary pairs (2 i, 2 i + 1) -> (i, i + D / 2)."""
    rows = tensor.reshape(n_heads, -1, 2, *tensor.shape[1:])
    return rows.transpose(1, 2).reshape(tensor.shape)
