"""A value that no session can have is refused in one line, whatever its type."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxmlx import Checkpoint, DelayError, Session, SessionError


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("alternatives", 101, "alternatives is 101, expected 0 to 100"),
        ("alternatives", "5", "alternatives is '5', expected a whole number, 0 to 100"),
        ("alternatives", True, "alternatives is True, expected a whole number"),
        ("pause_ms", "800", "pause_ms is '800', expected a whole number"),
        ("pause_ms", float("nan"), "pause_ms is nan, expected a whole number"),
        ("kv_bits", "8", "kv_bits is '8', expected 8 or 16"),
        ("kv_bits", [], "kv_bits is .., expected 8 or 16"),
        (
            "silence_block",
            2.5,
            "silence_block is 2.5, expected a whole number, 1 to 16",
        ),
        ("guards", "pad-loops", "guards are the text 'pad-loops', expected a list"),
        ("hotword_boost", "2", "boosted by '2', expected more than 0"),
        ("hotword_boost", float("nan"), "boosted by nan, expected more than 0"),
        ("hotwords", "Aberdeen", "hot words are the text 'Aberdeen', expected a list"),
        ("guards", None, "guards are None, expected a list of texts"),
        ("guards", [["pad_run"]], r"guards have \['pad_run'\] in them, expected texts"),
        ("hotwords", True, "hot words are True, expected a list of texts"),
        ("hotwords", [b"Aberdeen"], "hot words have b'Aberdeen' in them"),
        ("hotwords", {"a": 1}, "hot words are {'a': 1}, expected a list"),
        ("hotwords", np.array([1, 2]), "hot words have .*1.* in them, expected texts"),
        ("replacements", ["x"], r"replacements are \['x'\], expected a dictionary"),
        ("replacements", {"a": None}, "replacements have None in them, expected texts"),
        (
            "confidence",
            np.array([1, 2]),
            "confidence is array.*, expected True or False",
        ),
        ("speculate", "yes", "speculate is 'yes', expected True or False"),
        ("pause_ms", ["x" * 100_000], r"pause_ms is \['x{78}\.\.\., expected a whole"),
        ("draft_window_ms", 7999, "draft_window_ms is 7999, expected at least 8000"),
    ],
)
def test_a_value_is_refused_by_name(
    tiny_checkpoint: Checkpoint, option: str, value: object, expected: str
) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(SessionError, match=expected):
        Session(tiny_checkpoint, delay_ms=480, draft_delay_ms=80, **options)


@pytest.mark.parametrize("delay_ms", ["480", 480.0, 480.5, [480], True, float("nan")])
def test_a_delay_is_a_whole_number(tiny_checkpoint: Checkpoint, delay_ms: Any) -> None:
    with pytest.raises(DelayError, match="is not one the model was trained for"):
        Session(tiny_checkpoint, delay_ms=delay_ms)


def test_the_name_of_a_model_is_none(tiny_checkpoint_dir: Path) -> None:
    for name in ("demo", tiny_checkpoint_dir):
        model: Any = name
        with pytest.raises(SessionError, match="expected what"):
            Session(model)


def test_a_boost_of_numpy_is_taken(tiny_checkpoint: Checkpoint) -> None:
    boost: Any = np.float32(1.0)
    hotwords = [tiny_checkpoint.tokenizer.decode([400, 401]).strip() or "a"]
    session = Session(tiny_checkpoint, hotwords=hotwords, hotword_boost=boost)
    session.push(np.zeros(16_000, np.float32))
    session.finish()


def test_whole_numbers_of_numpy_are_taken(tiny_checkpoint: Checkpoint) -> None:
    eight: Any = np.int64(8)
    options = {"pause_ms": eight * 100, "kv_bits": eight, "silence_block": eight}
    assert Session(tiny_checkpoint, delay_ms=eight * 10, **options).delay_ms == 80
