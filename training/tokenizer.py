"""Make a reduced tekken.json: python -m training.tokenizer tekken.json."""

import argparse
import base64
import json
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from training import domain

N_SPECIAL = 1000
N_BYTES = 256
N_MERGES = 472
_LETTERS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_SMALL = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PATTERN = (  # Tekken's way of cutting text into pieces
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS}*{_SMALL}+|"
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS}+{_SMALL}*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
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
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    32: "[STREAMING_PAD]",
    33: "[STREAMING_WORD]",
    34: "[REPEAT_AUDIO_TEXT]",
    35: "[NEXT_AUDIO_TEXT]",
}
_AUDIO = {
    "sampling_rate": 16000,
    "frame_rate": 12.5,
    "audio_encoding_config": {
        "num_mel_bins": 128,
        "hop_length": 160,
        "window_size": 400,
    },
    "transcription_format": "streaming",
    "transcription_delay_ms": 480.0,
    "streaming_look_ahead_ms": 2.5,
    "streaming_look_back_ms": 52.5,
    "streaming_n_left_pad_tokens": 32,
}

__all__ = ["learn_merges", "main"]


def _merge(parts: list[bytes], left: bytes, right: bytes) -> list[bytes]:
    merged: list[bytes] = []
    for part in parts:
        # A part that was itself just merged is never `left` again here: it is longer.
        if part == right and merged and merged[-1] == left:
            merged[-1] = left + right
        else:
            merged.append(part)
    return merged


def learn_merges(counts: Mapping[bytes, float], n_merges: int) -> list[bytes]:
    """Byte-pair merges, the most frequent pair first."""
    words = {word: [bytes([byte]) for byte in word] for word in counts}
    merges: list[bytes] = []
    while len(merges) < n_merges:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            break
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(left + right)
        words = {word: _merge(parts, left, right) for word, parts in words.items()}
    return merges


def _readable(token: bytes) -> str | None:
    return token.decode() if token.isascii() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("path", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    counts: Counter[bytes] = Counter()
    for _ in range(40_000):
        counts.update((" " + word).encode() for word in domain.sentence(rng, salad=0.0))
    tokens = [bytes([byte]) for byte in range(N_BYTES)]
    tokens += learn_merges(counts, N_MERGES)
    vocab = [
        {
            "rank": rank,
            "token_bytes": base64.b64encode(token).decode(),
            "token_str": _readable(token),
        }
        for rank, token in enumerate(tokens)
    ]
    special = [
        {
            "rank": rank,
            "token_str": _SPECIAL.get(rank, f"<SPECIAL_{rank}>"),
            "is_control": True,
        }
        for rank in range(N_SPECIAL)
    ]
    config = {
        "pattern": _PATTERN,
        "num_vocab_tokens": len(vocab),
        "default_vocab_size": len(vocab) + N_SPECIAL,
        "default_num_special_tokens": N_SPECIAL,
        "version": "v13",
    }
    tekken = {
        "config": config,
        "vocab": vocab,
        "special_tokens": special,
        "audio": _AUDIO,
    }
    args.path.write_text(json.dumps(tekken, indent=0))


if __name__ == "__main__":
    main()
