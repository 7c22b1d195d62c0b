"""A tiny Voxtral Realtime in PyTorch, for training and for reference decoding."""

import math
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["LayerCache", "TinyConfig", "TinyVoxtral"]


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """Sizes of the demo model; encoder sizes begin with `encoder_`."""

    n_mels: int = 128
    encoder_dim: int = 128
    encoder_n_layers: int = 4
    encoder_n_heads: int = 6
    encoder_head_dim: int = 32
    encoder_hidden_dim: int = 384
    encoder_sliding_window: int = 64  # encoder frames
    dim: int = 192
    n_layers: int = 4
    n_heads: int = 8
    n_kv_heads: int = 2
    head_dim: int = 32
    hidden_dim: int = 512
    sliding_window: int = 96  # audio tokens
    vocab_size: int = 1728
    t_cond_dim: int = 32
    rope_theta: float = 1e6
    norm_eps: float = 1e-5

    def to_dict(self) -> dict[str, int | float]:
        return asdict(self)


@dataclass(slots=True)
class LayerCache:
    """Keys and values [B, kv heads, <= window - 1, head_dim] of one layer."""

    keys: torch.Tensor | None = None
    values: torch.Tensor | None = None
    offset: int = 0


def _rope(x: torch.Tensor, offset: int, theta: float) -> torch.Tensor:
    """Rotate interleaved pairs of x [B, H, T, D] by their positions from `offset`."""
    n_positions, head_dim = x.shape[-2:]
    steps = torch.arange(0, head_dim, 2, device=x.device, dtype=torch.float32)
    positions = torch.arange(offset, offset + n_positions, device=x.device)
    angle = positions[:, None] * theta ** (-steps / head_dim)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    even, odd = x[..., ::2], x[..., 1::2]
    pairs = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    return pairs.flatten(-2)


def _softmax_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Attention over the last two axes; `hidden` is True where a key is not seen."""
    # Written out because the fused CPU op is several times slower with a mask.
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return weights.to(v.dtype) @ v


def windowed_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int
) -> torch.Tensor:
    """Causal attention to `window` keys, itself included, over [B, H, T, D].

    Works on blocks of `window` queries, each seeing its own and the previous block.
    """
    B, H, T, D = q.shape
    missing = -T % window
    n_blocks = (T + missing) // window
    shape = (B, H, n_blocks, window, D)
    q, k, v = (F.pad(x, (0, 0, 0, missing)).reshape(shape) for x in (q, k, v))
    k = torch.cat([F.pad(k, (0, 0, 0, 0, 1, 0))[:, :, :-1], k], 3)
    v = torch.cat([F.pad(v, (0, 0, 0, 0, 1, 0))[:, :, :-1], v], 3)
    query = torch.arange(window, device=q.device)[:, None] + window
    key = torch.arange(2 * window, device=q.device)[None]
    hidden = (key > query) | (query - key >= window)  # [window, 2 * window]
    is_first = torch.arange(n_blocks, device=q.device)[:, None, None] == 0
    hidden = hidden[None] | (is_first & (key < window)[None])
    out = _softmax_attention(q, k, v, hidden)
    return out.reshape(B, H, n_blocks * window, D)[:, :, :T]


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight).to(x.dtype)


class FeedForward(nn.Module):
    """SwiGLU over [B, T, dim]."""

    def __init__(self, dim: int, hidden_dim: int, *, bias: bool) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=bias)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Attention(nn.Module):
    """Causal sliding-window attention with rotary positions."""

    def __init__(
        self,
        dim: int,
        n_heads: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        bias: bool,
        window: int,
        rope_theta: float,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads
        self.head_dim, self.window, self.rope_theta = head_dim, window, rope_theta
        self.wq = nn.Linear(dim, n_heads * head_dim, bias=bias)
        self.wk = nn.Linear(dim, n_kv_heads * head_dim, bias=False)
        self.wv = nn.Linear(dim, n_kv_heads * head_dim, bias=bias)
        self.wo = nn.Linear(n_heads * head_dim, dim, bias=bias)

    def forward(self, x: torch.Tensor, cache: LayerCache | None = None) -> torch.Tensor:
        B, T, _ = x.shape
        q = self.wq(x).view(B, T, self.n_heads, -1).transpose(1, 2)
        k = self.wk(x).view(B, T, self.n_kv_heads, -1).transpose(1, 2)
        v = self.wv(x).view(B, T, self.n_kv_heads, -1).transpose(1, 2)
        offset = 0 if cache is None else cache.offset
        q = _rope(q, offset, self.rope_theta)
        k = _rope(k, offset, self.rope_theta)
        if cache is None:
            out = windowed_attention(q, self._share(k), self._share(v), self.window)
        else:
            out = self._attend_cached(q, k, v, cache)
        return self.wo(out.transpose(1, 2).reshape(B, T, -1))

    def _share(self, x: torch.Tensor) -> torch.Tensor:
        """Repeat key-value heads for grouped queries."""
        if self.n_kv_heads == self.n_heads:
            return x
        return x.repeat_interleave(self.n_heads // self.n_kv_heads, 1)

    def _attend_cached(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cache: LayerCache
    ) -> torch.Tensor:
        n_new = q.shape[2]
        if cache.keys is not None and cache.values is not None:
            k = torch.cat([cache.keys, k], 2)
            v = torch.cat([cache.values, v], 2)
        n_keys = k.shape[2]
        query = torch.arange(n_keys - n_new, n_keys, device=q.device)[:, None]
        key = torch.arange(n_keys, device=q.device)[None]
        hidden = (key > query) | (query - key >= self.window)
        cache.keys = k[:, :, -(self.window - 1) :]
        cache.values = v[:, :, -(self.window - 1) :]
        cache.offset += n_new
        return _softmax_attention(q, self._share(k), self._share(v), hidden)


class EncoderLayer(nn.Module):
    def __init__(self, c: TinyConfig) -> None:
        super().__init__()
        self.attention = Attention(
            c.encoder_dim,
            c.encoder_n_heads,
            c.encoder_n_heads,
            c.encoder_head_dim,
            bias=True,
            window=c.encoder_sliding_window,
            rope_theta=c.rope_theta,
        )
        self.feed_forward = FeedForward(c.encoder_dim, c.encoder_hidden_dim, bias=True)
        self.attention_norm = RMSNorm(c.encoder_dim, c.norm_eps)
        self.ffn_norm = RMSNorm(c.encoder_dim, c.norm_eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class DecoderLayer(nn.Module):
    def __init__(self, c: TinyConfig) -> None:
        super().__init__()
        self.attention = Attention(
            c.dim,
            c.n_heads,
            c.n_kv_heads,
            c.head_dim,
            bias=False,
            window=c.sliding_window,
            rope_theta=c.rope_theta,
        )
        self.feed_forward = FeedForward(c.dim, c.hidden_dim, bias=False)
        self.attention_norm = RMSNorm(c.dim, c.norm_eps)
        self.ffn_norm = RMSNorm(c.dim, c.norm_eps)
        self.ada_rms_norm_t_cond = nn.Sequential(
            nn.Linear(c.dim, c.t_cond_dim, bias=False),
            nn.GELU(),
            nn.Linear(c.t_cond_dim, c.dim, bias=False),
        )

    def forward(
        self, x: torch.Tensor, t_cond: torch.Tensor, cache: LayerCache | None = None
    ) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), cache)
        scale = 1 + self.ada_rms_norm_t_cond(t_cond)[:, None]  # [B, 1, dim]
        return x + self.feed_forward(self.ffn_norm(x) * scale)


class TinyVoxtral(nn.Module):
    """Log-mel and previous tokens -> logits of the next token, 80 ms apart."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        c = self.config = config
        self.conv0 = nn.Conv1d(c.n_mels, c.encoder_dim, 3)
        self.conv1 = nn.Conv1d(c.encoder_dim, c.encoder_dim, 3, stride=2)
        self.enc = nn.ModuleList(EncoderLayer(c) for _ in range(c.encoder_n_layers))
        self.enc_norm = RMSNorm(c.encoder_dim, c.norm_eps)
        self.proj = nn.Sequential(
            nn.Linear(4 * c.encoder_dim, c.dim, bias=False),
            nn.GELU(),
            nn.Linear(c.dim, c.dim, bias=False),
        )
        self.emb = nn.Embedding(c.vocab_size, c.dim)
        self.layers = nn.ModuleList(DecoderLayer(c) for _ in range(c.n_layers))
        self.norm = RMSNorm(c.dim, c.norm_eps)
        self._initialise()

    def _initialise(self) -> None:
        for name, weight in self.named_parameters():
            if weight.ndim != 2 or name.startswith("emb"):
                continue
            is_residual = name.endswith(("wo.weight", "w2.weight"))
            std = weight.shape[1] ** -0.5 * (0.3 if is_residual else 1)
            nn.init.normal_(weight, std=std)
        nn.init.normal_(self.emb.weight, std=self.config.dim**-0.5)
        for layer in self.layers:  # every delay starts out alike
            nn.init.zeros_(layer.ada_rms_norm_t_cond[2].weight)

    def t_cond(self, delay_tokens: torch.Tensor) -> torch.Tensor:
        """Sinusoidal embedding of the delay, [B] -> [B, dim]."""
        half = self.config.dim // 2
        steps = torch.arange(half, device=delay_tokens.device).float()
        angle = delay_tokens.float()[:, None] * torch.exp(
            -math.log(10_000.0) * steps / half
        )
        return torch.cat([angle.cos(), angle.sin()], -1)

    def encode(self, log_mel: torch.Tensor) -> torch.Tensor:
        """[B, 128, 8 N] mel frames -> [B, N, dim] audio tokens."""
        x = F.gelu(self.conv0(F.pad(log_mel, (2, 0))))
        x = F.gelu(self.conv1(F.pad(x, (1, 0)))).transpose(1, 2)
        for layer in self.enc:
            x = layer(x)
        x = self.enc_norm(x)
        B, T, D = x.shape
        return self.proj(x.reshape(B, T // 4, 4 * D))

    def decode(
        self,
        audio: torch.Tensor,
        token_ids: torch.Tensor,
        t_cond: torch.Tensor,
        caches: list[LayerCache] | None = None,
    ) -> torch.Tensor:
        """[B, N, dim] audio and [B, N] previous ids -> logits [B, N, vocab]."""
        x = audio + self.emb(token_ids)
        for i, layer in enumerate(self.layers):
            x = layer(x, t_cond, None if caches is None else caches[i])
        return F.linear(self.norm(x), self.emb.weight)
