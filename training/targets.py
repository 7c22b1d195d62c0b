"""The token stream a Voxtral learns: PAD, WORD, then sub-words, one per 80 ms."""

from collections import deque
from collections.abc import Callable, Sequence

from mistral_common.tokens.tokenizers.tekken import Tekkenizer

SAMPLES_PER_TOKEN = 1280
LEFT_PAD_TOKENS = 32
FLUSH_TOKENS = 10
LEGAL_DELAYS = (*range(1, 16), 30)  # audio tokens of 80 ms

BOS_ID = 1
PAD_ID = 32
WORD_ID = 33

__all__ = [
    "BOS_ID",
    "FLUSH_TOKENS",
    "LEFT_PAD_TOKENS",
    "LEGAL_DELAYS",
    "PAD_ID",
    "SAMPLES_PER_TOKEN",
    "WORD_ID",
    "schedule",
    "word_encoder",
]


def word_encoder(tokenizer: Tekkenizer) -> Callable[[str], tuple[int, ...]]:
    """A cached map from a word to its sub-word ids, a leading space included."""
    cache: dict[str, tuple[int, ...]] = {}

    def encode(word: str) -> tuple[int, ...]:
        if word not in cache:
            cache[word] = tuple(tokenizer.encode(" " + word, bos=False, eos=False))
        return cache[word]

    return encode


def schedule(
    words: Sequence[tuple[int, tuple[int, ...]]], delay_tokens: int, n_tokens: int
) -> list[int]:
    """Target of every position, from (end sample, sub-word ids) ordered by end.

    A word is due at the position whose audio token holds its end, plus the delay.
    Words due while nothing is being written share one WORD marker; those that fall
    due while sub-words are being written wait for the next free position.
    """
    targets = [PAD_ID] * n_tokens
    pending: deque[int] = deque()
    n_started = 0
    for position in range(n_tokens):
        if not pending:
            due: list[int] = []
            while (
                n_started < len(words)
                and words[n_started][0] // SAMPLES_PER_TOKEN + delay_tokens <= position
            ):
                due.extend(words[n_started][1])
                n_started += 1
            if due:
                pending.extend([WORD_ID, *due])
        if pending:
            targets[position] = pending.popleft()
    return targets
