"""JSON of others is fields or none, and a file of it is read or refused in one line."""

from pathlib import Path

import pytest

from voxmlx.cli.json_fields import fields_in
from voxmlx.config import read_object
from voxmlx.errors import CheckpointError, ConfigError, TokenizerError
from voxmlx.text.confidence_map import MAP_NAME, read_confidence_map
from voxmlx.text.journal import read_journal
from voxmlx.text.tokenizer import Tokenizer

NESTED = ("[" * 100_000, '{"a":' * 100_000)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", b"\xff", *NESTED])
def test_what_is_no_object_has_no_fields(text: str | bytes) -> None:
    assert fields_in(text) == {}


def test_an_object_has_its_fields() -> None:
    assert fields_in('{"a": {"b": [1]}}') == {"a": {"b": [1]}}


@pytest.mark.parametrize("text", NESTED)
def test_a_file_that_nests_without_end_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / MAP_NAME
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not readable JSON"):
        read_object(path)
    with pytest.raises(TokenizerError, match="is not readable JSON"):
        Tokenizer.from_file(path, 100)
    with pytest.raises(CheckpointError, match=MAP_NAME):
        read_confidence_map(tmp_path)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_object(tmp_path)
    with pytest.raises(TokenizerError, match="cannot be read: Is a directory"):
        Tokenizer.from_file(tmp_path, 100)


@pytest.mark.parametrize("text", NESTED)
def test_a_journal_ends_at_a_line_that_nests_without_end(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text(f'{{"type": "stream"}}\n{text}\n')
    assert read_journal(path).head == {"type": "stream"}
