"""Options of words follow from the arguments, and are made once for all sessions."""

import argparse
from pathlib import Path

import pytest

from voxmlx.checkpoint import Checkpoint
from voxmlx.cli.word_arguments import add_word_arguments, word_options
from voxmlx.decoding.hotwords import HotwordTrie
from voxmlx.session import Session


def parsed(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_word_arguments(parser)
    return parser.parse_args(given)


def test_hot_words_become_ids_once_for_all_sessions_of_a_command(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "names.txt"
    path.write_text("the ring\nyou\n")
    tokenizer = tiny_checkpoint.tokenizer
    arguments = parsed("--hotwords", str(path), "--hotword-boost", "3")
    encoded: list[str] = []
    encode = tokenizer.encode

    def counted(text: str) -> list[int]:
        encoded.append(text)
        return encode(text)

    monkeypatch.setattr(tokenizer, "encode", counted)
    options = word_options(arguments, tokenizer)
    assert len(encoded) == len(set(encoded)) > 0
    encoded.clear()
    for delay_ms in (480, 960):
        Session(tiny_checkpoint, delay_ms=delay_ms, **options)
    assert encoded == []
    assert isinstance(options["hotwords"], HotwordTrie)
    assert options["hotwords"].boost == 3.0


def test_without_a_tokenizer_hot_words_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("the ring\nyou\n")
    assert word_options(parsed("--hotwords", str(path)))["hotwords"] == [
        "the ring",
        "you",
    ]
    assert word_options(parsed())["hotwords"] == ()
