"""Word error rate of a checkpoint: python -m training.evaluate --sets DIR..."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import jiwer
import numpy as np
import torch
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from training.dataset import Dataset
from training.export import load_checkpoint
from training.mel import LogMel
from training.model import LayerCache, TinyVoxtral
from training.targets import (
    BOS_ID,
    FLUSH_TOKENS,
    LEFT_PAD_TOKENS,
    PAD_ID,
    SAMPLES_PER_TOKEN,
)

__all__ = ["main", "transcribe"]


@torch.no_grad()
def transcribe(
    model: TinyVoxtral, sounds: Sequence[np.ndarray], delay_tokens: int
) -> list[list[int]]:
    """Greedy token ids of each sound, the decoder taking one token at a time."""
    n_prompt = LEFT_PAD_TOKENS + delay_tokens + 1
    lengths = [
        n_prompt + -(-len(sound) // SAMPLES_PER_TOKEN) + FLUSH_TOKENS
        for sound in sounds
    ]
    samples = np.zeros((len(sounds), max(lengths) * SAMPLES_PER_TOKEN), np.float32)
    start = LEFT_PAD_TOKENS * SAMPLES_PER_TOKEN
    for row, sound in zip(samples, sounds, strict=True):
        row[start : start + len(sound)] = sound
    audio = model.encode(LogMel()(torch.from_numpy(samples)))
    t_cond = model.t_cond(torch.full((len(sounds),), delay_tokens))
    prompt = torch.full((len(sounds), n_prompt), PAD_ID)
    prompt[:, 0] = BOS_ID
    caches = [LayerCache() for _ in model.layers]
    logits = model.decode(audio[:, :n_prompt], prompt, t_cond, caches)
    ids = [logits[:, -1].argmax(-1)]
    for position in range(n_prompt, max(lengths)):
        step = audio[:, position : position + 1]
        logits = model.decode(step, ids[-1][:, None], t_cond, caches)
        ids.append(logits[:, -1].argmax(-1))
    rows = torch.stack(ids, 1).tolist()
    return [
        row[: length - n_prompt + 1] for row, length in zip(rows, lengths, strict=True)
    ]


def _texts(
    model: TinyVoxtral,
    tokenizer: Tekkenizer,
    sounds: Sequence[np.ndarray],
    delay_tokens: int,
    n_rows: int,
) -> list[str]:
    """Text of each sound; sounds of like length share a pass."""
    order = sorted(range(len(sounds)), key=lambda i: len(sounds[i]))
    texts = [""] * len(sounds)
    for start in range(0, len(order), n_rows):
        chosen = order[start : start + n_rows]
        rows = transcribe(model, [sounds[i] for i in chosen], delay_tokens)
        for i, row in zip(chosen, rows, strict=True):
            texts[i] = " ".join(tokenizer.decode(row).lower().split())
    return texts


def _joined(dataset: Dataset, n_utterances: int) -> tuple[list[np.ndarray], list[str]]:
    """Utterances in one stream with pauses of 0.4 to 1.6 s, and its text."""
    rng = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    words: list[str] = []
    for i in range(min(n_utterances, len(dataset))):
        item = dataset[i]
        pause = np.zeros(int(rng.uniform(0.4, 1.6) * 16_000), np.float32)
        parts += [item.samples, pause]
        words += item.words
    return [np.concatenate(parts)], [" ".join(words)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="folder in Mistral's layout")
    add("--sets", type=Path, nargs="+", required=True, help="datasets")
    add("--delays", type=int, nargs="+", default=[6], help="audio tokens of 80 ms")
    add("--limit", type=int, default=300, help="sentences of each set")
    add("--joined", action="store_true", help="as one stream instead of sentences")
    add("--show", type=int, default=0, help="errors to print")
    add("--rows", type=int, default=50, help="sounds in one pass")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_checkpoint(args.checkpoint).eval()
    tokenizer = Tekkenizer.from_file(args.checkpoint / "tekken.json")
    for folder in args.sets:
        dataset = Dataset(folder)
        n_sentences = min(args.limit, len(dataset))
        if args.joined:
            sounds, references = _joined(dataset, n_sentences)
        else:
            items = [dataset[i] for i in range(n_sentences)]
            sounds = [item.samples for item in items]
            references = [" ".join(item.words) for item in items]
        for delay in args.delays:
            texts = _texts(model, tokenizer, sounds, delay, args.rows)
            row = {
                "set": folder.name,
                "delay_ms": 80 * delay,
                "sentences": n_sentences,
                "words": sum(len(text.split()) for text in references),
                "joined": args.joined,
                "wer": round(100 * jiwer.wer(references, texts), 2),
            }
            print(json.dumps(row), flush=True)
            wrong = [p for p in zip(references, texts, strict=True) if p[0] != p[1]]
            for reference, text in wrong[: args.show]:
                print(f"  said: {reference}\n  read: {text}")


if __name__ == "__main__":
    main()
