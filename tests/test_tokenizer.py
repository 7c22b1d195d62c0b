"""Ids become bytes, and bytes become text that never changes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxmlx.checkpoint import Checkpoint
from voxmlx.errors import TokenizerError
from voxmlx.tokenizer import TextStream, Tokenizer

# 256 single bytes from id 1000 on, as in every tekken vocabulary.
BYTES = Tokenizer(1000, [bytes([value]) for value in range(256)])


def byte_ids(content: bytes) -> list[int]:
    return [1000 + value for value in content]


def edited(directory: Path, target: Path, **changes: object) -> Path:
    content = json.loads((directory / "tekken.json").read_text())
    content.update(changes)
    target.write_text(json.dumps(content))
    return target


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_a_character_is_emitted_whole_and_once(text: str) -> None:
    stream = TextStream(BYTES)
    deltas = [stream.push(i) for i in byte_ids(text.encode())]
    assert "".join(deltas) == text.lstrip(" ")
    assert stream.flush() == ""
    assert all(len(delta) <= 1 for delta in deltas)


def test_blanks_between_the_bytes_of_a_character_do_not_break_it() -> None:
    stream = TextStream(BYTES)
    ids = byte_ids("é".encode())
    assert [stream.push(i) for i in (ids[0], 32, 33, 32, ids[1])] == [
        "",
        "",
        "",
        "",
        "é",
    ]


def test_a_stream_that_ends_inside_a_character_says_so_once() -> None:
    stream = TextStream(BYTES)
    for i in byte_ids("a😀".encode()[:-1]):
        stream.push(i)
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert BYTES.decode(byte_ids(b"a\xffb")) == "a\ufffdb"


def test_leading_spaces_are_dropped_and_later_ones_kept() -> None:
    assert BYTES.decode(byte_ids(b"  a  b ")) == "a  b "


def test_control_ids_have_no_text() -> None:
    assert BYTES.decode([1, 2, 32, 33, 999]) == ""


@pytest.mark.parametrize("token_id", [-1, 1256])
def test_an_id_outside_the_vocabulary_is_an_error(token_id: int) -> None:
    with pytest.raises(IndexError, match=r"outside 0\.\.1255"):
        BYTES.piece(token_id)


def test_every_id_has_the_bytes_mistral_common_gives_it(
    tiny_checkpoint: Checkpoint, tiny_checkpoint_dir: Path
) -> None:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    reference = Tekkenizer.from_file(tiny_checkpoint_dir / "tekken.json")
    ours = tiny_checkpoint.tokenizer
    assert ours.vocab_size == reference.n_words
    for token_id in range(1000, ours.vocab_size):
        assert ours.piece(token_id) == reference.id_to_byte_piece(token_id)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tekken\.json is missing"):
        Tokenizer.from_file(tmp_path / "tekken.json", 1500)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"config": 3}'])
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tekken.json"
    path.write_text(content)
    with pytest.raises(TokenizerError, match=r"tekken\.json"):
        Tokenizer.from_file(path, 1500)


def test_another_vocabulary_size_is_refused(tiny_checkpoint_dir: Path) -> None:
    with pytest.raises(TokenizerError, match="1500 ids, the model has 1600"):
        Tokenizer.from_file(tiny_checkpoint_dir / "tekken.json", 1600)


def test_special_ids_of_another_model_are_refused(
    tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    path = edited(tiny_checkpoint_dir, tmp_path / "tekken.json", special_tokens=[])
    with pytest.raises(TokenizerError, match="<s> has id None, expected 1"):
        Tokenizer.from_file(path, 1500)


def test_a_short_vocabulary_is_refused(
    tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    path = edited(tiny_checkpoint_dir, tmp_path / "tekken.json", vocab=[])
    with pytest.raises(TokenizerError, match="lists 0 text tokens, expected 500"):
        Tokenizer.from_file(path, 1500)
