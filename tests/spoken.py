"""Words that nobody said, with the times and texts that break subtitles."""

from hypothesis import strategies as st

from voxmlx.events import Word

__all__ = ["spoken", "word_lists"]

_BODIES = (
    *("a", "the", "word,", "naïve.", "42", "extraordinarily-long-compound"),
    *("你", "好,", "界。", "مرحبا", "🙂", "👩‍🚀!", "x" * 60, "-->", "<i>", "&amp;"),
    *("00:00:01,000", "NOTE", "\ufffd", "{\\an8}", "#1", "e\u0301", "ไทย"),
)


@st.composite
def word_lists(draw: st.DrawFn) -> list[Word]:
    """Words whose times never decrease, some of them of no length at all."""
    words: list[Word] = []
    time = 0
    for body in draw(st.lists(st.sampled_from(_BODIES), max_size=30)):
        start = time + draw(st.sampled_from([0, 0, 0, 1, 79, 300, 900, 60_000]))
        time = start + draw(st.sampled_from([0, 1, 80, 240, 480, 8000]))
        lead = draw(st.sampled_from([" ", " ", "", "\n", "  "]))
        words.append(Word(body, start, time, None, lead))
    return words


def spoken(text: str, word_ms: int = 300, start_ms: int = 0) -> list[Word]:
    """The text's words, one straight after the other."""
    return [
        Word(body, start_ms + i * word_ms, start_ms + (i + 1) * word_ms)
        for i, body in enumerate(text.split())
    ]
