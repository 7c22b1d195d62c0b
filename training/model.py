"""A tiny Voxtral Realtime in PyTorch, for training and for reference decoding."""

import math
from dataclasses import asdict, dataclass
from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["LayerCache", "TinyConfig", "TinyVoxtral"]


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """Sizes of the demo model; encoder sizes begin with `encoder_`."""

    n_mels: int = 128
    encoder_dim: int = 192
    encoder_n_layers: int = 5
    encoder_n_heads: int = 6
    encoder_head_dim: int = 32
    encoder_hidden_dim: int = 576
    encoder_sliding_window: int = 64  # encoder frames
    dim: int = 192
    n_layers: int = 4
    n_heads: int = 8
    n_kv_heads: int = 2
    head_dim: int = 32
    hidden_dim: int = 576
    sliding_window: int = 96  # audio tokens
    vocab_size: int = 1728
    t_cond_dim: int = 32
    rope_theta: float = 1e6
    norm_eps: float = 1e-5

    def to_dict(self) -> dict[str, int | float]:
        return asdict(self)


@dataclass(slots=True)
class LayerCache:
    """Keys and values [B, <= window - 1, kv heads, head_dim] of one layer."""

    keys: torch.Tensor | None = None
    values: torch.Tensor | None = None
    offset: int = 0


@cache
def _rotation(
    n_positions: int, offset: int, head_dim: int, theta: float, device: torch.device
) -> torch.Tensor:
    """The unit complex number of every angle, [n_positions, 1, head_dim / 2]."""
    steps = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32)
    positions = torch.arange(offset, offset + n_positions, device=device)
    angle = (positions[:, None] * theta ** (-steps / head_dim))[:, None]
    return torch.polar(torch.ones_like(angle), angle)


def _rope(x: torch.Tensor, offset: int, theta: float) -> torch.Tensor:
    """Rotate interleaved pairs of x [B, T, H, D] by their positions from `offset`."""
    rotation = _rotation(x.shape[1], offset, x.shape[3], theta, x.device)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


@cache
def _band(
    n_queries: int, n_keys: int, window: int, device: torch.device
) -> torch.Tensor:
    """0 where a key is seen and -inf where it is not, [n_queries, n_keys].

    The queries are the last of the keys' positions.
    """
    query = torch.arange(n_keys - n_queries, n_keys, device=device)[:, None]
    key = torch.arange(n_keys, device=device)[None]
    seen = (key <= query) & (query - key < window)
    return torch.zeros(n_queries, n_keys, device=device).masked_fill(
        ~seen, float("-inf")
    )


@cache
def _block_band(
    n_rows: int, n_blocks: int, window: int, device: torch.device
) -> torch.Tensor:
    """`_band` of each block, [rows * blocks, window, 2 * window]."""
    band = _band(window, 2 * window, window, device).repeat(n_blocks, 1, 1)
    band[0, :, :window] = float("-inf")
    return band.repeat(n_rows, 1, 1)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, band: torch.Tensor
) -> torch.Tensor:
    """Attention over [B, T, heads, D]; fewer key heads are shared alike.

    Written out: in bfloat16 on a CPU, the gradient of torch's own takes ten times as
    long as these products.
    """
    B, T, n_heads, D = q.shape
    n_kv_heads = k.shape[2]
    # [B, kv heads, queries of the group, D]
    q = q.transpose(1, 2).reshape(B, n_kv_heads, -1, D) * D**-0.5
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    scores = (q @ k.mT).unflatten(2, (-1, T)) + band[..., None, None, :, :]
    weights = scores.softmax(-1).to(v.dtype).flatten(2, 3)
    return (weights @ v).reshape(B, n_heads, T, D).transpose(1, 2)


def windowed_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int
) -> torch.Tensor:
    """Causal attention to `window` keys, itself included, over [B, T, heads, D].

    Long rows work on blocks of `window` queries, each seeing its own and the previous
    block of keys.
    """
    B, T, n_heads, D = q.shape
    if 2 * window >= T:
        return _attend(q, k, v, _band(T, T, window, q.device))
    missing = -T % window
    if missing:
        q, k, v = (F.pad(x, (0, 0, 0, 0, 0, missing)) for x in (q, k, v))
    n_blocks = (T + missing) // window
    k, v = (
        torch.cat(
            [
                F.pad(x, (0, 0, 0, 0, window, 0))[:, :-window].unflatten(
                    1, (n_blocks, window)
                ),
                x.unflatten(1, (n_blocks, window)),
            ],
            2,
        ).flatten(0, 1)
        for x in (k, v)
    )
    q = q.reshape(B * n_blocks, window, n_heads, D)
    out = _attend(q, k, v, _block_band(B, n_blocks, window, q.device))
    return out.reshape(B, n_blocks * window, n_heads, D)[:, :T]


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class FeedForward(nn.Module):
    """SwiGLU over [B, T, dim]."""

    def __init__(self, dim: int, hidden_dim: int, *, bias: bool) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=bias)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = F.linear(x, torch.cat([self.w1.weight, self.w3.weight]))
        gate, up = both.chunk(2, -1)
        return self.w2(F.silu(gate) * up)


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
        # One product for queries, keys and values.
        packed = F.linear(
            x,
            torch.cat([self.wq.weight, self.wk.weight, self.wv.weight]),
            None
            if self.wv.bias is None
            else torch.cat(
                [self.wq.bias, torch.zeros_like(self.wv.bias), self.wv.bias]
            ),
        ).view(B, T, -1, self.head_dim)
        n_rotated = self.n_heads + self.n_kv_heads
        offset = 0 if cache is None else cache.offset
        q, k = _rope(packed[:, :, :n_rotated], offset, self.rope_theta).split(
            [self.n_heads, self.n_kv_heads], 2
        )
        v = packed[:, :, n_rotated:]
        if cache is None:
            out = windowed_attention(q, k, v, self.window)
        else:
            out = self._attend_cached(q, k, v, cache)
        return self.wo(out.reshape(B, T, -1))

    def _attend_cached(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cache: LayerCache
    ) -> torch.Tensor:
        n_new = q.shape[1]
        if cache.keys is not None and cache.values is not None:
            k = torch.cat([cache.keys, k], 1)
            v = torch.cat([cache.values, v], 1)
        cache.keys = k[:, -(self.window - 1) :]
        cache.values = v[:, -(self.window - 1) :]
        cache.offset += n_new
        return _attend(q, k, v, _band(n_new, k.shape[1], self.window, q.device))


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
        x = x.float()  # sums stay in full precision under autocast
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
